"""Likelihoods p(x|z): each knows its support and checks the data against it before training."""

from aevb.models.likelihoods.base import Grid, Head, Heads, Likelihood
from aevb.models.likelihoods.bounded import Bernoulli, Binomial, ContinuousBernoulli
from aevb.models.likelihoods.compositions import DirichletMultinomial, Multinomial
from aevb.models.likelihoods.continuous import Laplace, Normal, StudentT
from aevb.models.likelihoods.counts import Categorical, NegativeBinomial, Poisson
from aevb.models.likelihoods.discretized import DiscretizedLogistic, DiscretizedLogisticMixture

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DirichletMultinomial",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Grid",
    "Head",
    "Heads",
    "Laplace",
    "Likelihood",
    "Multinomial",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "StudentT",
]

"""Priors p(z): what is assumed about the latent variables before any data."""

from aevb.models.priors.base import Prior
from aevb.models.priors.constrained import Beta, Dirichlet, Gamma, LogNormal
from aevb.models.priors.flows import NormalizingFlow
from aevb.models.priors.mixtures import MixtureOfGaussians, VampPrior
from aevb.models.priors.normal import Laplace, LearnedNormal, StandardNormal, StudentT

__all__ = [
    "Beta",
    "Dirichlet",
    "Gamma",
    "Laplace",
    "LearnedNormal",
    "LogNormal",
    "MixtureOfGaussians",
    "NormalizingFlow",
    "Prior",
    "StandardNormal",
    "StudentT",
    "VampPrior",
]

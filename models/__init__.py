"""What is assumed: priors, likelihoods, posterior families, and the models they compose."""

from aevb.models.factor_analysis import FactorAnalysis, LinearGaussian, ProbabilisticPCA
from aevb.models.likelihoods import Bernoulli, Likelihood, Normal
from aevb.models.model import LatentVariableModel
from aevb.models.networks import MLP
from aevb.models.posteriors import DiagonalNormal, Posterior
from aevb.models.priors import Prior, StandardNormal
from aevb.models.scales import FixedScale, LearnedScale, PerPixelScale, PredictedScale, Scale
from aevb.models.vae import VAE

__all__ = [
    "MLP",
    "VAE",
    "Bernoulli",
    "DiagonalNormal",
    "FactorAnalysis",
    "FixedScale",
    "LatentVariableModel",
    "LearnedScale",
    "Likelihood",
    "LinearGaussian",
    "Normal",
    "PerPixelScale",
    "Posterior",
    "PredictedScale",
    "Prior",
    "ProbabilisticPCA",
    "Scale",
    "StandardNormal",
]

"""What is assumed: priors, likelihoods, posterior families, and the models they compose.

Names that several families share, such as ``Laplace``, are found in :mod:`aevb.models.priors`,
:mod:`aevb.models.likelihoods` and :mod:`aevb.models.posteriors`; the others are here as well.
"""

from aevb.models import likelihoods, posteriors, priors
from aevb.models.dlgm import DLGM
from aevb.models.factor_analysis import FactorAnalysis, LinearGaussian, ProbabilisticPCA
from aevb.models.hierarchical_vae import HierarchicalVAE
from aevb.models.initializers import Glorot, He, Initializer, SmallNormal
from aevb.models.likelihoods import (
    Bernoulli,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DirichletMultinomial,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Likelihood,
    Multinomial,
    NegativeBinomial,
    Normal,
    Poisson,
)
from aevb.models.model import LatentVariableModel
from aevb.models.networks import MLP, Conv, Network, UserNetwork
from aevb.models.noise import BitFlip, Dropout, GaussianNoise, InputNoise
from aevb.models.normals import RankOnePrecisionNormal
from aevb.models.posteriors import (
    Delta,
    DiagonalNormal,
    FullNormal,
    InverseAutoregressiveFlow,
    Logistic,
    LowRankNormal,
    PlanarFlow,
    Posterior,
    RankOneNormal,
)
from aevb.models.priors import (
    Dirichlet,
    LearnedNormal,
    LogNormal,
    MixtureOfGaussians,
    NormalizingFlow,
    Prior,
    StandardNormal,
    VampPrior,
)
from aevb.models.scales import FixedScale, LearnedScale, PerPixelScale, PredictedScale, Scale
from aevb.models.vae import VAE
from aevb.models.weights import LatentWeights, Weights

__all__ = [
    "DLGM",
    "MLP",
    "VAE",
    "Bernoulli",
    "Binomial",
    "BitFlip",
    "Categorical",
    "ContinuousBernoulli",
    "Conv",
    "Delta",
    "DiagonalNormal",
    "Dirichlet",
    "DirichletMultinomial",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Dropout",
    "FactorAnalysis",
    "FixedScale",
    "FullNormal",
    "GaussianNoise",
    "Glorot",
    "He",
    "HierarchicalVAE",
    "Initializer",
    "InputNoise",
    "InverseAutoregressiveFlow",
    "LatentVariableModel",
    "LearnedNormal",
    "LearnedScale",
    "LatentWeights",
    "Likelihood",
    "LinearGaussian",
    "LogNormal",
    "Logistic",
    "LowRankNormal",
    "MixtureOfGaussians",
    "Multinomial",
    "NegativeBinomial",
    "Network",
    "Normal",
    "NormalizingFlow",
    "PerPixelScale",
    "PlanarFlow",
    "Poisson",
    "Posterior",
    "PredictedScale",
    "Prior",
    "ProbabilisticPCA",
    "RankOneNormal",
    "RankOnePrecisionNormal",
    "Scale",
    "SmallNormal",
    "StandardNormal",
    "UserNetwork",
    "VampPrior",
    "Weights",
    "likelihoods",
    "posteriors",
    "priors",
]

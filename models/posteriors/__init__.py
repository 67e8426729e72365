"""Amortized posterior families q(z|x): a network's features become a distribution over z."""

from aevb.models.posteriors.base import Posterior
from aevb.models.posteriors.delta import Delta
from aevb.models.posteriors.flows import InverseAutoregressiveFlow, PlanarFlow
from aevb.models.posteriors.implicit import Beta, Gamma
from aevb.models.posteriors.location_scale import Laplace, Logistic, StudentT
from aevb.models.posteriors.normal import DiagonalNormal, FullNormal, LowRankNormal, RankOneNormal

__all__ = [
    "Beta",
    "Delta",
    "DiagonalNormal",
    "FullNormal",
    "Gamma",
    "InverseAutoregressiveFlow",
    "Laplace",
    "Logistic",
    "LowRankNormal",
    "PlanarFlow",
    "Posterior",
    "RankOneNormal",
    "StudentT",
]

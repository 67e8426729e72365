"""What a posterior family is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn
from torch.distributions import constraints

from aevb.models.settings import Checked
from aevb.models.supports import REAL

__all__ = ["Posterior"]


class Posterior(Checked, ABC):
    """A family of posteriors, without shapes; ``build`` gives it those and its parameters.

    Attributes:
        support: Where its draws lie, one of :mod:`aevb.models.supports`; a prior on another
            support is met by a bijection.
        scores_any_value: Whether the density can be had at values that are not its own draws.

    Example:
        >>> import torch
        >>> from aevb.models import DiagonalNormal
        >>> q = DiagonalNormal().build(in_features=9, latent_dim=2)
        >>> q(torch.zeros(3, 9)).event_shape, DiagonalNormal().support
        (torch.Size([2]), IndependentConstraint(Real(), 1))
    """

    support: ClassVar[constraints.Constraint] = REAL
    scores_any_value: ClassVar[bool] = True

    @abstractmethod
    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """A module whose ``forward(features)`` is the posterior of each datapoint.

        Args:
            in_features: Width of the encoder's features.
            latent_dim: Dimensions of ``z``.
        """

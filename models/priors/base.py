"""What a prior is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn
from torch.distributions import constraints

from aevb.models.settings import Checked
from aevb.models.supports import REAL

__all__ = ["Prior"]


class Prior(Checked, ABC):
    """A family of priors, without shapes; ``build`` gives it those and its parameters.

    Attributes:
        support: Where ``z`` lies, one of :mod:`aevb.models.supports`; a posterior family on
            another support is carried over to it.

    Example:
        >>> from aevb.models import StandardNormal
        >>> StandardNormal().build(latent_dim=2)().event_shape, StandardNormal().support
        (torch.Size([2]), IndependentConstraint(Real(), 1))
    """

    support: ClassVar[constraints.Constraint] = REAL

    @abstractmethod
    def build(self, latent_dim: int) -> nn.Module:
        """A module whose ``forward()`` is the distribution of one latent.

        Args:
            latent_dim: Dimensions of ``z``, in event shape ``(latent_dim,)``.
        """

    def build_beside(
        self, encoder: nn.Module, shape: tuple[int, ...], latent_dim: int
    ) -> nn.Module:
        """As :meth:`build`, for a prior that is made of the model's encoder.

        Args:
            encoder: ``forward(x)`` is q(z|x) for ``x`` of shape ``(B, *shape)``; owned by the
                model.
            shape: Shape of one datapoint.
            latent_dim: Dimensions of ``z``.
        """
        del encoder, shape
        return self.build(latent_dim)

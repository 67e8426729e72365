"""Priors p(z): what is assumed about the latent variables before any data."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pyro.distributions import Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

__all__ = ["Prior", "StandardNormal"]


class Prior(ABC):
    """A family of priors, without shapes; ``build`` gives it those and its parameters."""

    @abstractmethod
    def build(self, latent_dim: int) -> nn.Module:
        """A module whose ``forward()`` is the distribution of one latent.

        Args:
            latent_dim: Dimensions of ``z``, in event shape ``(latent_dim,)``.
        """


@dataclass(frozen=True)
class StandardNormal(Prior):
    r"""Independent standard normals, :math:`p(z) = \mathcal{N}(z; 0, I)`.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 3,
        https://arxiv.org/abs/1312.6114

    Example:
        >>> StandardNormal().build(latent_dim=20)().event_shape
        torch.Size([20])
    """

    def build(self, latent_dim: int) -> nn.Module:
        """A module without parameters; ``forward()`` has event shape ``(latent_dim,)``."""
        return _StandardNormal(latent_dim)


class _StandardNormal(nn.Module):
    zeros: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        # A buffer, so that the distribution follows the model's device and precision.
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> TorchDistributionMixin:
        return Normal(self.zeros, torch.ones_like(self.zeros)).to_event(1)

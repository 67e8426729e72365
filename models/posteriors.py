"""Amortized posterior families q(z|x): a network's features become a distribution over z."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pyro.distributions import Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

__all__ = ["DiagonalNormal", "Posterior"]


class Posterior(ABC):
    """A family of posteriors, without shapes; ``build`` gives it those and its parameters."""

    @abstractmethod
    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """A module whose ``forward(features)`` is the posterior of each datapoint.

        Args:
            in_features: Width of the encoder's features.
            latent_dim: Dimensions of ``z``.
        """


@dataclass(frozen=True)
class DiagonalNormal(Posterior):
    r"""Independent normals whose mean and log-variance are linear in the features.

    .. math:: q(z|x) = \mathcal{N}(z; \mu(x), \mathrm{diag}\, \sigma^2(x))

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), equation 9,
        https://arxiv.org/abs/1312.6114

    Example:
        >>> import torch
        >>> posterior = DiagonalNormal().build(in_features=500, latent_dim=20)
        >>> posterior(torch.zeros(3, 500)).batch_shape, posterior(torch.zeros(3, 500)).event_shape
        (torch.Size([3]), torch.Size([20]))
    """

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``z``."""
        return _DiagonalNormal(in_features, latent_dim)


class _DiagonalNormal(nn.Module):
    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.loc = nn.Linear(in_features, latent_dim)
        self.log_variance = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        scale = torch.exp(0.5 * self.log_variance(features))
        return Normal(self.loc(features), scale).to_event(1)

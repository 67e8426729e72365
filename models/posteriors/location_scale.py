"""Posteriors that are a standard distribution, shifted and scaled."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.posteriors.base import Posterior

__all__ = ["Laplace", "Logistic", "StudentT"]


@dataclass(frozen=True)
class Laplace(Posterior):
    r"""Independent Laplace distributions, reparameterized by location and scale.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4, item 2,
        https://arxiv.org/abs/1312.6114

    Example:
        >>> Laplace().build(10, 2)(torch.zeros(3, 10)).rsample().shape
        torch.Size([3, 2])
    """

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads: location and log-scale."""
        return _LocationScale(dist.Laplace, in_features, latent_dim)


@dataclass(frozen=True)
class Logistic(Posterior):
    r"""Independent logistic distributions, reparameterized by location and scale.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4, items 1 and 2,
        https://arxiv.org/abs/1312.6114

    Example:
        >>> Logistic().build(10, 2)(torch.zeros(3, 10)).rsample().shape
        torch.Size([3, 2])
    """

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads: location and log-scale."""
        return _LocationScale(_Logistic, in_features, latent_dim)


@dataclass(frozen=True)
class StudentT(Posterior):
    r"""Independent Student's t distributions, reparameterized by location and scale.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4, item 2,
        https://arxiv.org/abs/1312.6114

    Args:
        degrees: Degrees of freedom; the fewer, the heavier the tails.

    Raises:
        ValueError: If ``degrees`` is not positive.

    Example:
        >>> StudentT().build(10, 2)(torch.zeros(3, 10)).rsample().shape
        torch.Size([3, 2])
    """

    degrees: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what has no density."""
        if not self.degrees > 0:
            raise ValueError(f"StudentT: degrees must be positive; got {self.degrees}")

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads: location and log-scale."""
        return _StudentT(self.degrees, in_features, latent_dim)


class _Logistic(dist.Logistic):
    """Pyro's, whose uniform draws may be 0 and then give an infinite one."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        info = torch.finfo(self.loc.dtype)
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        draw: Tensor = self.icdf(uniform.clamp(info.tiny, 1 - info.eps))
        return draw


class _LocationScale(nn.Module):
    def __init__(self, family: Any, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.family = family
        self.loc = nn.Linear(in_features, latent_dim)
        self.log_scale = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        return self.family(self.loc(features), self.log_scale(features).exp()).to_event(1)


class _StudentT(_LocationScale):
    def __init__(self, degrees: float, in_features: int, latent_dim: int) -> None:
        super().__init__(dist.StudentT, in_features, latent_dim)
        self.degrees = degrees

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        loc = self.loc(features)
        degrees = torch.full_like(loc, self.degrees)
        return self.family(degrees, loc, self.log_scale(features).exp()).to_event(1)

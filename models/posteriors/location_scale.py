"""Posteriors that are a standard distribution, shifted and scaled."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.posteriors.base import Posterior
from aevb.models.posteriors.heads import LinearHeads, located
from aevb.models.settings import positive

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
        return _module(dist.Laplace, in_features, latent_dim)


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
        return _module(_Logistic, in_features, latent_dim)


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

    degrees: float = positive(5.0)

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads: location and log-scale."""
        return _module(partial(_student, self.degrees), in_features, latent_dim)


class _Logistic(dist.Logistic):
    """Pyro's, whose uniform draws may be 0 and then give an infinite one."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        info = torch.finfo(self.loc.dtype)
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        draw: Tensor = self.icdf(uniform.clamp(info.tiny, 1 - info.eps))
        return draw


def _student(degrees: float, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
    return dist.StudentT(torch.full_like(loc, degrees), loc, scale)


def _module(family: Any, in_features: int, latent_dim: int) -> nn.Module:
    return LinearHeads(partial(located, family), in_features, loc=latent_dim, log_scale=latent_dim)

"""Priors that are one distribution for each latent dimension on the real line."""

from dataclasses import dataclass

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from aevb.models.priors.base import Prior
from aevb.models.priors.fixed import Fixed
from aevb.models.settings import positive

__all__ = ["Laplace", "LearnedNormal", "StandardNormal", "StudentT"]


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
        return Fixed(dist.Normal, 0.0, 1.0, latent_dim=latent_dim)


@dataclass(frozen=True)
class LearnedNormal(Prior):
    r"""Independent normals whose means and scales are parameters.

    .. math:: p(z) = \mathcal{N}(z; m, \mathrm{diag}\, s^2)

    References:
        Pattern Recognition and Machine Learning (Bishop, 2006), section 2.3

    Example:
        >>> sum(p.numel() for p in LearnedNormal().build(latent_dim=20).parameters())
        40
    """

    def build(self, latent_dim: int) -> nn.Module:
        """Two vectors, at first those of the standard normal."""
        return _LearnedNormal(latent_dim)


@dataclass(frozen=True)
class Laplace(Prior):
    r"""Independent Laplace distributions around zero, with heavier tails and a sharper peak.

    .. math:: p(z) = \prod_j \tfrac{1}{2b} \exp(-|z_j| / b)

    References:
        Sparse coding with an overcomplete basis set (Olshausen & Field, 1997),
        https://doi.org/10.1016/S0042-6989(97)00169-7

    Args:
        scale: b; the standard deviation is √2 b.

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> Laplace(scale=2.0).build(latent_dim=1)().log_prob(torch.zeros(1)).exp()
        tensor(0.2500)
    """

    scale: float = positive(1.0)

    def build(self, latent_dim: int) -> nn.Module:
        """A module without parameters."""
        return Fixed(dist.Laplace, 0.0, self.scale, latent_dim=latent_dim)


@dataclass(frozen=True)
class StudentT(Prior):
    r"""Independent Student's t distributions around zero.

    .. math:: p(z) \propto \prod_j (1 + z_j^2 / \nu)^{-(\nu + 1) / 2}

    References:
        Student-t Variational Autoencoder for Robust Density Estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        degrees: ν; the fewer, the heavier the tails.

    Raises:
        ValueError: If ``degrees`` is not positive.

    Example:
        >>> StudentT(degrees=1.0).build(latent_dim=1)().log_prob(torch.zeros(1)).exp()
        tensor(0.3183)
    """

    degrees: float = positive(5.0)

    def build(self, latent_dim: int) -> nn.Module:
        """A module without parameters."""
        return Fixed(dist.StudentT, self.degrees, 0.0, 1.0, latent_dim=latent_dim)


class _LearnedNormal(nn.Module):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> TorchDistributionMixin:
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)

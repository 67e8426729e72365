"""Likelihoods of real values around a mean that the decoder gives."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from aevb.models.likelihoods.base import FromHeads, Head, Likelihood
from aevb.models.scales import PredictedScale, Scale
from aevb.models.settings import positive
from aevb.models.shown import Shown

__all__ = ["Laplace", "Normal", "StudentT"]


class _Real(Shown, Likelihood):
    """What likelihoods on the real line have in common."""

    @property
    def support(self) -> constraints.Constraint:
        """The real line."""
        return constraints.real

    @property
    def remedy(self) -> str:
        """How missing values become admissible."""
        return "remove or fill in the values that are not finite"


@dataclass(frozen=True, repr=False)
class Normal(_Real):
    r"""Independent normals around a mean that the decoder gives.

    .. math:: p(x|z) = \mathcal{N}(x; m(z), \mathrm{diag}\, s^2)

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix C.2 (sigmoid mean and
        predicted scale, for the Frey faces), https://arxiv.org/abs/1312.6114

    Args:
        scale: Where the standard deviation comes from: ``FixedScale(s)``, ``LearnedScale()``,
            ``PerPixelScale()`` or ``PredictedScale()``.
        mean: Last nonlinearity of the mean: ``nn.Identity``, or ``nn.Sigmoid`` for data in [0, 1].

    Example:
        >>> import torch
        >>> from aevb.models import FixedScale
        >>> x = Normal(scale=FixedScale(0.1)).build(200, (28, 20))(torch.zeros(3, 200))
        >>> x.event_shape, x.stddev.unique()
        (torch.Size([28, 20]), tensor([0.1000]))
    """

    scale: Scale = PredictedScale()
    mean: type[nn.Module] = nn.Identity

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """Heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return _Around(dist.Normal, self, in_features, shape, head)


@dataclass(frozen=True, repr=False)
class Laplace(_Real):
    r"""Independent Laplace distributions: absolute errors in place of squared ones.

    .. math:: p(x|z) = \prod_i \tfrac{1}{2 b_i} \exp(-|x_i - m_i(z)| / b_i)

    References:
        Robust Statistics (Huber & Ronchetti, 2009), chapter 1

    Args:
        scale: Where b comes from: ``FixedScale(b)``, ``LearnedScale()``, ``PerPixelScale()`` or
            ``PredictedScale()``.
        mean: Last nonlinearity of the location.

    Example:
        >>> Laplace().build(9, (4,))(torch.zeros(2, 9)).sample().shape
        torch.Size([2, 4])
    """

    scale: Scale = PredictedScale()
    mean: type[nn.Module] = nn.Identity

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """Heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return _Around(dist.Laplace, self, in_features, shape, head)


@dataclass(frozen=True, repr=False)
class StudentT(_Real):
    r"""Independent Student's t distributions: outliers cost little.

    .. math:: p(x|z) \propto \prod_i s_i^{-1}
        (1 + (x_i - m_i(z))^2 / (\nu s_i^2))^{-(\nu + 1) / 2}

    References:
        Student-t Variational Autoencoder for Robust Density Estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        degrees: ν, degrees of freedom.
        scale: Where s comes from, as for :class:`Normal`.
        mean: Last nonlinearity of the location.

    Raises:
        ValueError: If ``degrees`` is not positive.

    Example:
        >>> StudentT(degrees=3.0).build(9, (4,))(torch.zeros(2, 9)).sample().shape
        torch.Size([2, 4])
    """

    degrees: float = positive(5.0)
    scale: Scale = PredictedScale()
    mean: type[nn.Module] = nn.Identity

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """Heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return _Around(partial(_student, self.degrees), self, in_features, shape, head)


def _student(degrees: float, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
    return _StudentT(torch.full_like(loc, degrees), loc, scale)


class _StudentT(dist.StudentT):  # type: ignore[misc]
    """A t distribution whose pictures show its location, which exists for any ν."""

    @property
    def mean(self) -> Tensor:
        return self.loc


class _Around(FromHeads):
    def __init__(
        self,
        family: Callable[..., Any],
        likelihood: Normal | Laplace | StudentT,
        in_features: int,
        shape: tuple[int, ...],
        head: Head,
    ) -> None:
        super().__init__(family, in_features, shape, head, loc=0)
        self.squash = likelihood.mean()
        self.scale = likelihood.scale.build(in_features, prod(shape), head)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        shape = self.heads.shape
        loc = self.squash(self.heads(features)["loc"])
        scale = self.scale(features).unflatten(-1, shape)
        return self.family(loc, scale).to_event(len(shape))

"""Likelihoods p(x|z): each knows its support and checks the data against it before training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from aevb.models.scales import PredictedScale, Scale

__all__ = ["Bernoulli", "Likelihood", "Normal"]


class Likelihood(ABC):
    """A family of observation models; ``build`` gives it shapes and parameters."""

    @abstractmethod
    def build(self, in_features: int, shape: tuple[int, ...]) -> nn.Module:
        """A module whose ``forward(features)`` is the distribution of ``x`` given ``z``.

        Args:
            in_features: Width of the decoder's features.
            shape: Shape of one datapoint.
        """

    @property
    @abstractmethod
    def support(self) -> constraints.Constraint:
        """Where each feature of ``x`` may lie."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do with data that lie elsewhere, as the end of an error message."""

    def check(self, x: Tensor) -> None:
        """Refuse data outside the support.

        Args:
            x: Data, ``(N, *shape)``.

        Raises:
            ValueError: Says what the likelihood needs, what it got, and the remedy.
        """
        inside = self.support.check(x) & torch.isfinite(x)  # real.check lets infinity pass
        if not bool(inside.all()):
            name = type(self).__name__
            raise ValueError(f"{name} needs {_words(self.support)}; got {_seen(x)}: {self.remedy}")


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    r"""Independent coin flips, whose logits are linear in the features.

    .. math:: \log p(x|z) = \sum_i x_i \log y_i(z) + (1 - x_i) \log (1 - y_i(z))

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix C.1,
        https://arxiv.org/abs/1312.6114

    Args:
        relaxed: Also accept grey levels in [0, 1]. The sum above is then a cross-entropy, as the
            AEVB paper used it, and no normalized density of ``x``: compare it with nothing but
            other cross-entropies.

    Example:
        >>> import torch
        >>> Bernoulli().build(500, (28, 28))(torch.zeros(3, 500)).event_shape
        torch.Size([28, 28])
        >>> Bernoulli().check(torch.full((1, 4), 0.5))
        Traceback (most recent call last):
            ...
        ValueError: Bernoulli needs values in {0, 1}; got 1 distinct value from 0.5 to 0.5: use...
    """

    relaxed: bool = False

    def build(self, in_features: int, shape: tuple[int, ...]) -> nn.Module:
        """One linear head; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return _Bernoulli(in_features, shape, self.relaxed)

    @property
    def support(self) -> constraints.Constraint:
        """{0, 1}, or [0, 1] if relaxed."""
        return constraints.unit_interval if self.relaxed else constraints.boolean

    @property
    def remedy(self) -> str:
        """How grey or unscaled data become admissible."""
        if self.relaxed:
            return "scale the data to [0, 1], or use Normal()"
        return "use binarize='dynamic' or 'fixed', or Bernoulli(relaxed=True) as in the AEVB paper"


@dataclass(frozen=True)
class Normal(Likelihood):
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

    def build(self, in_features: int, shape: tuple[int, ...]) -> nn.Module:
        """Linear heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return _Normal(in_features, shape, self.scale, self.mean)

    @property
    def support(self) -> constraints.Constraint:
        """The real line."""
        return constraints.real

    @property
    def remedy(self) -> str:
        """How missing values become admissible."""
        return "remove or fill in the values that are not finite"


class _RelaxedBernoulli(dist.Bernoulli):  # type: ignore[misc]
    """A Bernoulli whose cross-entropy is evaluated between 0 and 1 as well."""

    support = constraints.unit_interval


class _Bernoulli(nn.Module):
    def __init__(self, in_features: int, shape: tuple[int, ...], relaxed: bool) -> None:
        super().__init__()
        self.shape = shape
        self.family = _RelaxedBernoulli if relaxed else dist.Bernoulli
        self.logits = nn.Linear(in_features, prod(shape))

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        logits = self.logits(features).unflatten(-1, self.shape)
        return self.family(logits=logits).to_event(len(self.shape))


class _Normal(nn.Module):
    def __init__(
        self, in_features: int, shape: tuple[int, ...], scale: Scale, mean: type[nn.Module]
    ) -> None:
        super().__init__()
        self.shape = shape
        self.loc = nn.Linear(in_features, prod(shape))
        self.squash = mean()
        self.scale = scale.build(in_features, prod(shape))

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        loc = self.squash(self.loc(features)).unflatten(-1, self.shape)
        scale = self.scale(features).unflatten(-1, self.shape)
        return dist.Normal(loc, scale).to_event(len(self.shape))


def _words(support: constraints.Constraint) -> str:
    known = {
        constraints.boolean: "values in {0, 1}",
        constraints.unit_interval: "values in [0, 1]",
        constraints.real: "finite numbers",
    }
    return known.get(support, f"values in {support}")


def _seen(x: Tensor) -> str:
    finite = x[torch.isfinite(x)]
    if finite.numel() < x.numel():
        return f"{x.numel() - finite.numel()} values that are NaN or infinite"
    levels = finite.unique().numel()
    plural = "" if levels == 1 else "s"
    return (
        f"{levels} distinct value{plural} from {float(finite.min()):g} to {float(finite.max()):g}"
    )

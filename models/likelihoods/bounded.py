"""Likelihoods of values between 0 and 1: bits, proportions, grey levels."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from aevb.models.likelihoods.base import FromHeads, Grid, Head, Likelihood
from aevb.models.settings import at_least

__all__ = ["Bernoulli", "Binomial", "ContinuousBernoulli"]

# A pixel that is never on would start with a logit of minus infinity.
_STARTING_MEANS = (1e-3, 1 - 1e-3)


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

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        family = _RelaxedBernoulli if self.relaxed else dist.Bernoulli
        return _FromLogits(family, in_features, shape, head)

    @property
    def support(self) -> constraints.Constraint:
        """{0, 1}, or [0, 1] if relaxed."""
        return constraints.unit_interval if self.relaxed else constraints.boolean

    @property
    def remedy(self) -> str:
        """How grey or unscaled data become admissible."""
        if self.relaxed:
            return "scale the data to [0, 1], or use Normal()"
        return (
            "use binarize='dynamic' or 'fixed', ContinuousBernoulli(), or Bernoulli(relaxed=True) "
            "as in the AEVB paper"
        )


@dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    r"""The Bernoulli's formula, normalized into a density of values in [0, 1].

    .. math:: p(x|z) = \prod_i C(y_i) y_i^{x_i} (1 - y_i)^{1 - x_i}, \qquad
        C(y) = \frac{2 \tanh^{-1}(1 - 2y)}{1 - 2y}

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem & Cunningham, 2019), https://arxiv.org/abs/1907.06845

    Example:
        >>> import torch
        >>> ContinuousBernoulli().build(500, (4,))(torch.zeros(3, 500)).sample().shape
        torch.Size([3, 4])
    """

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return _FromLogits(_ContinuousBernoulli, in_features, shape, head)

    @property
    def support(self) -> constraints.Constraint:
        """[0, 1]."""
        return constraints.unit_interval

    @property
    def remedy(self) -> str:
        """How unscaled data become admissible."""
        return "scale the data to [0, 1], or use Normal()"


@dataclass(frozen=True)
class Binomial(Likelihood):
    r"""Grey levels as counts: each value is a number of successes out of n, divided by n.

    .. math:: p(x|z) = \prod_i \binom{n}{n x_i} y_i^{n x_i} (1 - y_i)^{n (1 - x_i)}

    References:
        Generalized Linear Models (McCullagh & Nelder, 1989), chapter 4

    Args:
        total_count: n, such as 16 for scikit-learn's digits and 255 for images of 8 bits.

    Raises:
        ValueError: If ``total_count`` is not positive.

    Example:
        >>> import torch
        >>> x = Binomial(total_count=16).build(500, (4,))(torch.zeros(1, 500)).sample()
        >>> bool((16 * x == (16 * x).round()).all())
        True
    """

    total_count: int = at_least(1, 255)

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        proportion = partial(_Proportion, self.total_count)
        return FromHeads(proportion, in_features, shape, head, logits=0)

    @property
    def support(self) -> constraints.Constraint:
        """Multiples of 1 / total_count in [0, 1]."""
        return Grid(self.total_count)

    @property
    def remedy(self) -> str:
        """How other data become admissible."""
        return (
            "set total_count to the number of grey levels less one, divide counts by "
            "total_count, or use ContinuousBernoulli()"
        )


class _RelaxedBernoulli(dist.Bernoulli):  # type: ignore[misc]
    """A Bernoulli whose cross-entropy is evaluated between 0 and 1 as well."""

    support = constraints.unit_interval


class _ContinuousBernoulli(dist.ContinuousBernoulli):  # type: ignore[misc]
    """Torch's, whose constant saturates beyond logits of 15; here it is log(l / tanh(l / 2))."""

    def _cont_bern_log_norm(self) -> Tensor:
        size = self.logits.abs()
        small = size < 0.1
        far = torch.where(small, torch.ones_like(size), size)
        square = self.logits.square()
        near = math.log(2) + torch.log1p(square / 12 - square.square() / 720)
        return torch.where(small, near, far.log() - torch.tanh(far / 2).log())

    @property
    def mean(self) -> Tensor:
        """``1 / (1 - exp(-l)) - 1 / l``."""
        small = self.logits.abs() < 0.1
        far = torch.where(small, torch.ones_like(self.logits), self.logits)
        near = 0.5 + self.logits / 12 - self.logits**3 / 720
        return torch.where(small, near, -1 / torch.expm1(-far) - 1 / far)

    @property
    def variance(self) -> Tensor:
        """``1 / l² - 1 / (4 sinh²(l / 2))``."""
        small = self.logits.abs() < 0.5
        far = torch.where(small, torch.ones_like(self.logits), self.logits)
        near = 1 / 12 - self.logits**2 / 240 + self.logits**4 / 6048
        return torch.where(small, near, 1 / far**2 - 0.25 / torch.sinh(far / 2) ** 2)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile; of positive logits by the mirror image of that of negative ones."""
        below = -self.logits.abs()
        small = below > -1e-3
        far = torch.where(small, -torch.ones_like(below), below)
        mirrored = torch.where(self.logits > 0, 1 - value, value)
        quantile = torch.log1p(mirrored * torch.expm1(far)) / far
        quantile = torch.where(small, mirrored, quantile).clamp(0.0, 1.0)
        return torch.where(self.logits > 0, 1 - quantile, quantile)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """By the quantiles of uniform numbers."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        return self.icdf(uniform)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """See :meth:`rsample`."""
        with torch.no_grad():
            return self.rsample(sample_shape)


class _FromLogits(FromHeads):
    def __init__(self, family: Any, in_features: int, shape: tuple[int, ...], head: Head) -> None:
        super().__init__(family, in_features, shape, head, logits=0)

    def start_at(self, mean: Tensor) -> None:
        """Let the logits' biases give this mean, away from 0 and 1; for initializers."""
        bias = getattr(self.heads["logits"], "bias", None)
        if bias is not None and bias.numel() == mean.numel():
            bias.copy_(mean.flatten().clamp(*_STARTING_MEANS).logit())


class _Proportion(dist.Binomial):
    """A binomial count divided by its total."""

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return Grid(int(self.total_count.max()))

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs) / self.total_count

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return super().sample(sample_shape) / self.total_count

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        counts = (value * self.total_count).round()
        n = self.total_count
        choose = torch.lgamma(n + 1) - torch.lgamma(counts + 1) - torch.lgamma(n - counts + 1)
        return choose + counts * self.logits - n * softplus(self.logits)

"""Likelihoods of whole numbers: categories and counts."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from aevb.models.likelihoods.base import FromHeads, Head, Likelihood
from aevb.models.settings import at_least, positive

__all__ = ["Categorical", "Counts", "LogNegativeBinomial", "NegativeBinomial", "Poisson"]


@dataclass(frozen=True)
class Categorical(Likelihood):
    r"""Each value is one of K classes, written 0 to K - 1.

    .. math:: p(x|z) = \prod_i y_{i, x_i}(z), \qquad \textstyle\sum_k y_{ik} = 1

    References:
        Pattern Recognition and Machine Learning (Bishop, 2006), section 4.3.4

    Args:
        num_classes: K.

    Raises:
        ValueError: If there are fewer than two.

    Example:
        >>> Categorical(num_classes=3).build(9, (4,))(torch.zeros(2, 9)).sample().shape
        torch.Size([2, 4])
    """

    num_classes: int = at_least(2, 256)

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return FromHeads(_Classes, in_features, shape, head, logits=self.num_classes)

    def encoder_view(self, x: Tensor) -> Tensor:
        """Divided by K - 1."""
        return x / (self.num_classes - 1)

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers from 0 to K - 1."""
        return constraints.integer_interval(0, self.num_classes - 1)

    @property
    def remedy(self) -> str:
        """How other data become admissible."""
        return "number the classes from 0, and set num_classes to how many there are"


class Counts(Likelihood):
    """What likelihoods of counts have in common."""

    def encoder_view(self, x: Tensor) -> Tensor:
        """Log of one more, so that large counts do not drown the others.

        Below zero, where only pseudo-inputs can be, it goes on as its mirror image.
        """
        return x.sign() * torch.log1p(x.abs())

    @property
    def support(self) -> constraints.Constraint:
        """Counts."""
        return constraints.nonnegative_integer

    @property
    def remedy(self) -> str:
        """How other data become admissible."""
        return (
            "give the counts themselves, not rates or logarithms (8-bit ones are taken for pixels "
            "without aevb.data.load(..., kind='counts')), or use Normal()"
        )


@dataclass(frozen=True)
class Poisson(Counts):
    r"""Independent counts whose variance is their mean; the decoder gives its logarithm.

    .. math:: p(x|z) = \prod_i e^{-\lambda_i(z)} \lambda_i(z)^{x_i} / x_i!

    References:
        Generalized Linear Models (McCullagh & Nelder, 1989), chapter 6

    Example:
        >>> Poisson().build(9, (4,))(torch.zeros(2, 9)).sample().shape
        torch.Size([2, 4])
    """

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        return FromHeads(_LogPoisson, in_features, shape, head, log_rate=0)


@dataclass(frozen=True)
class NegativeBinomial(Counts):
    r"""Independent counts with more variance than a Poisson's.

    .. math:: E\,x_i = \mu_i(z), \qquad \mathrm{var}\,x_i = \mu_i + \mu_i^2 / r_i

    The decoder gives log μ; the dispersion r is a parameter for each feature.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        dispersion: r before training.

    Raises:
        ValueError: If ``dispersion`` is not positive.

    Example:
        >>> NegativeBinomial().build(9, (4,))(torch.zeros(2, 9)).sample().shape
        torch.Size([2, 4])
    """

    dispersion: float = positive(1.0)

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head and a vector; ``forward``: ``(*batch, in_features)`` → a distribution of x."""
        return _NegativeBinomial(self.dispersion, in_features, shape, head)


class _Classes(dist.Categorical):
    """A categorical of numbered classes, as floating-point numbers like all other data."""

    @property
    def mean(self) -> Tensor:
        """Mean class number: for ordered classes, as grey levels are."""
        numbers = torch.arange(self.logits.shape[-1], device=self.logits.device)
        return (self.probs * numbers).sum(-1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        numbers: Tensor = super().sample(sample_shape)
        return numbers.to(self.logits.dtype)


class _LogPoisson(dist.Poisson):
    """A Poisson given by the logarithm of its rate, which may be too small for a float."""

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(_LogPoisson, _instance)
        new.log_rate = self.log_rate.expand(batch_shape)
        return super().expand(batch_shape, new)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return value * self.log_rate - self.rate - torch.lgamma(value + 1)


# From here on, the next term of Stirling's series is below 3e-9.
_LARGE_DISPERSION = 100.0


class LogNegativeBinomial(dist.NegativeBinomial):  # type: ignore[misc]
    """A negative binomial of any dispersion, up to the Poisson's."""

    def __init__(
        self, log_mean: Tensor, log_dispersion: Tensor, validate_args: bool | None = None
    ) -> None:
        self.log_mean, self.log_dispersion = log_mean, log_dispersion
        logits = log_mean - log_dispersion
        super().__init__(log_dispersion.exp(), logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same over a larger batch."""
        new = self._get_checked_instance(LogNegativeBinomial, _instance)
        new.log_mean = self.log_mean.expand(batch_shape)
        new.log_dispersion = self.log_dispersion.expand(batch_shape)
        return super().expand(batch_shape, new)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of counts, accurate at any dispersion."""
        if self._validate_args:
            self._validate_sample(value)
        r = self.total_count
        # log of r(r+1)...(r+x-1) / r^x; a difference of log-gammas loses all digits at large r
        small = r.clamp(max=_LARGE_DISPERSION)
        exact = torch.lgamma(value + small) - torch.lgamma(small) - value * small.log()
        large = r.clamp(min=_LARGE_DISPERSION)
        series = (value + large - 0.5) * torch.log1p(value / large) - value
        series = series - value / (12 * large * (large + value))
        rising = torch.where(r > _LARGE_DISPERSION, series, exact)
        spread = (value + r) * torch.nn.functional.softplus(self.logits)
        return value * self.log_mean + rising - torch.lgamma(value + 1) - spread


class _NegativeBinomial(FromHeads):
    def __init__(
        self, dispersion: float, in_features: int, shape: tuple[int, ...], head: Head
    ) -> None:
        super().__init__(LogNegativeBinomial, in_features, shape, head, log_mean=0)
        self.log_dispersion = nn.Parameter(torch.full(shape, dispersion).log())

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        log_mean = self.heads(features)["log_mean"]
        counts = self.family(log_mean, self.log_dispersion.expand_as(log_mean))
        return counts.to_event(len(self.heads.shape))

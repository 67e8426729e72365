"""Likelihoods of 8-bit images: logistic mass on each grey level."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from aevb.models.likelihoods.base import FromHeads, Grid, Head, Likelihood
from aevb.models.settings import at_least

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticMixture"]


class _GreyLevels(Likelihood):
    """What likelihoods of a number of grey levels have in common."""

    levels: int

    @property
    def support(self) -> constraints.Constraint:
        """Multiples of 1 / (levels - 1) in [0, 1]."""
        return Grid(self.levels - 1)

    @property
    def remedy(self) -> str:
        """How other data become admissible."""
        steps = self.levels - 1
        return f"round the data, (x * {steps}).round() / {steps}, or set levels to their number"


@dataclass(frozen=True)
class DiscretizedLogistic(_GreyLevels):
    r"""The mass that a logistic distribution puts on each grey level.

    With grey levels :math:`\delta = 1 / (n - 1)` apart,

    .. math:: p(x_i|z) = \sigma\Big(\frac{x_i + \delta/2 - m_i}{s_i}\Big) -
        \sigma\Big(\frac{x_i - \delta/2 - m_i}{s_i}\Big),

    and the outermost levels have the tails as well.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        appendix, https://arxiv.org/abs/1606.04934

    Args:
        levels: n, number of grey levels.

    Raises:
        ValueError: If there are fewer than two.

    Example:
        >>> x = DiscretizedLogistic(levels=3).build(9, (1,))(torch.zeros(1, 9))
        >>> grey = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1)
        >>> round(float(x.log_prob(grey).detach().exp().sum()), 5)
        1.0
    """

    levels: int = at_least(2, 256)

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """Two heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        logistic = partial(_logistic, self.levels)
        return FromHeads(logistic, in_features, shape, head, loc=0, log_scale=0)


@dataclass(frozen=True)
class DiscretizedLogisticMixture(_GreyLevels):
    r"""For each pixel a mixture of :class:`DiscretizedLogistic` masses.

    .. math:: p(x_i|z) = \sum_k \pi_{ik}(z)\, p_k(x_i|z)

    References:
        PixelCNN++ (Salimans et al., 2017), section 2.1, https://arxiv.org/abs/1701.05517

    Args:
        components: Number of logistics.
        levels: Number of grey levels.

    Raises:
        ValueError: If there is no component, or fewer than two levels.

    Example:
        >>> x = DiscretizedLogisticMixture(levels=3).build(9, (4,))(torch.zeros(1, 9)).sample()
        >>> set(x.flatten().tolist()) <= {0.0, 0.5, 1.0}
        True
    """

    components: int = at_least(1, 5)
    levels: int = at_least(2, 256)

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """Three heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``x``."""
        counts = dict.fromkeys(("logits", "loc", "log_scale"), self.components)
        return FromHeads(partial(_mixture, self.levels), in_features, shape, head, **counts)


class _Logistic(TorchDistribution):
    """Mass on the multiples of 1 / (levels - 1) in [0, 1]."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return Grid(self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """Of the logistic, before it is cut into levels and at [0, 1]."""
        return self.loc.clamp(0, 1)

    @property
    def variance(self) -> Tensor:
        """Of the logistic."""
        return (self.scale * torch.pi).square() / 3

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Logistic":
        new = self._get_checked_instance(_Logistic, _instance)
        shape = torch.Size(batch_shape)
        new.loc, new.scale, new.levels = (
            self.loc.expand(shape),
            self.scale.expand(shape),
            self.levels,
        )
        super(_Logistic, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            tiny = torch.finfo(self.loc.dtype).tiny
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            uniform = uniform.clamp(tiny, 1 - torch.finfo(self.loc.dtype).eps)
            value = self.loc + self.scale * torch.logit(uniform)
            return (value.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        half = 0.5 / (self.levels - 1)
        above = (value + half - self.loc) / self.scale
        below = (value - half - self.loc) / self.scale
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − exp(b − a)), without cancellation
        width = torch.log(-torch.expm1(-2 * half / self.scale))
        inside = logsigmoid(above) + logsigmoid(-below) + width
        lowest, highest = value < half, value > 1 - half
        return torch.where(
            lowest, logsigmoid(above), torch.where(highest, logsigmoid(-below), inside)
        )


def _logistic(levels: int, loc: Tensor, log_scale: Tensor) -> _Logistic:
    """Around the middle, a tenth of the range wide at first."""
    # never so narrow that float32 loses the levels
    return _Logistic(0.5 + loc, 0.1 * log_scale.clamp(min=-7).exp(), levels)


def _mixture(levels: int, logits: Tensor, **logistics: Tensor) -> TorchDistributionMixin:
    weights = dist.Categorical(logits=logits)
    return dist.MixtureSameFamily(weights, _logistic(levels, **logistics))

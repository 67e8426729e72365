"""Likelihoods of counts that share out a total: library size is no business of the latents."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from aevb.models.likelihoods.base import Head, Heads
from aevb.models.likelihoods.counts import Counts, LogNegativeBinomial
from aevb.models.settings import positive

__all__ = ["DirichletMultinomial", "Multinomial"]

_DRAWN_AT_ONCE = 2**24  # single counts, 128 MB


@dataclass(frozen=True)
class Multinomial(Counts):
    r"""Counts that share out a total, as reads do the library size of a cell.

    .. math::
        n \sim \mathrm{NegativeBinomial}(\bar n, r), \qquad
        x \mid n, z \sim \mathrm{Multinomial}(n, \mathrm{softmax}(f(z)))

    Given their total, this is what independent Poissons of rate library size × softmax are. The
    latents have nothing to say about the total: its own distribution, which is learned, makes
    p(x|z) sum to one, so that evidences can be compared with those of other likelihoods of counts,
    and gives draws from the model their totals.

    References:
        Feature selection and dimension reduction for single-cell RNA-Seq based on a multinomial
        model (Townes et al., 2019), https://doi.org/10.1186/s13059-019-1861-6; Deep generative
        modeling for single-cell transcriptomics (Lopez et al., 2018), for library size × softmax,
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        total: Mean total before training: about that of the data, since steps of training change
            its logarithm by little more than the learning rate.
        dispersion: r of the totals before training.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> Multinomial().build(9, (4,))(torch.zeros(2, 9)).sample().shape
        torch.Size([2, 4])
    """

    total: float = positive(1000.0)
    dispersion: float = positive(1.0)

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head and two numbers; ``forward``: ``(*batch, in_features)`` → a distribution."""
        return _Shares(in_features, shape, head, self.total, self.dispersion, None)


@dataclass(frozen=True)
class DirichletMultinomial(Counts):
    r"""As :class:`Multinomial`, with more variance: shares vary from datapoint to datapoint.

    .. math::
        \pi \mid z \sim \mathrm{Dirichlet}(A\, \mathrm{softmax}(f(z))), \qquad
        x \mid n, \pi \sim \mathrm{Multinomial}(n, \pi)

    Given their total, this is what independent negative binomials of dispersions A softmax(f(z)),
    whose variances are one multiple of their means, are.

    References:
        On the compound multinomial distribution, the multivariate β-distribution, and correlations
        among proportions (Mosimann, 1962), https://doi.org/10.1093/biomet/49.1-2.65

    Args:
        total: As for :class:`Multinomial`.
        dispersion: As for :class:`Multinomial`.
        concentration: A before training; the larger, the nearer to a multinomial.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> DirichletMultinomial().build(9, (4,))(torch.zeros(2, 9)).sample().shape
        torch.Size([2, 4])
    """

    total: float = positive(1000.0)
    dispersion: float = positive(1.0)
    concentration: float = positive(100.0)

    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """One head and three numbers; ``forward``: ``(*batch, in_features)`` → a distribution."""
        return _Shares(in_features, shape, head, self.total, self.dispersion, self.concentration)


class _Shares(nn.Module):
    def __init__(
        self,
        in_features: int,
        shape: tuple[int, ...],
        head: Head,
        total: float,
        dispersion: float,
        concentration: float | None,
    ) -> None:
        super().__init__()
        self.heads = Heads(in_features, shape, head, logits=0)
        self.log_total = nn.Parameter(torch.tensor(total).log())
        self.log_dispersion = nn.Parameter(torch.tensor(dispersion).log())
        self.log_concentration = (
            None if concentration is None else nn.Parameter(torch.tensor(concentration).log())
        )

    def forward(self, features: Tensor) -> TorchDistribution:
        logits = self.heads(features)["logits"]
        return _SharedTotal(
            logits, len(self.heads.shape), self.log_total, self.log_dispersion,
            self.log_concentration,
        )  # fmt: skip


class _SharedTotal(TorchDistribution):
    """Counts ``(*batch, *shape)`` that share out a negative binomial total."""

    arg_constraints: dict[str, Any] = {}

    def __init__(
        self,
        logits: Tensor,
        event_dim: int,
        log_total: Tensor,
        log_dispersion: Tensor,
        log_concentration: Tensor | None,
        validate_args: bool | None = None,
    ) -> None:
        split = logits.ndim - event_dim
        self.log_shares = logits.flatten(split).log_softmax(-1)  # (*batch, features)
        self.log_total, self.log_dispersion = log_total, log_dispersion
        self.log_concentration = log_concentration
        super().__init__(logits.shape[:split], logits.shape[split:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        return constraints.independent(constraints.nonnegative_integer, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(_SharedTotal, _instance)
        batch_shape = torch.Size(batch_shape)
        new.log_shares = self.log_shares.expand(*batch_shape, -1)
        new.log_total, new.log_dispersion = self.log_total, self.log_dispersion
        new.log_concentration = self.log_concentration
        super(_SharedTotal, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def totals(self) -> LogNegativeBinomial:
        """Of the totals."""
        return LogNegativeBinomial(self.log_total, self.log_dispersion, validate_args=False)

    @property
    def mean(self) -> Tensor:
        shares: Tensor = self.log_shares.exp() * self.log_total.exp()
        return shares.unflatten(-1, self.event_shape)

    @property
    def variance(self) -> Tensor:
        # of n: m + m²/r; given n, n p (1 - p) (n + A)/(1 + A)
        p, mean = self.log_shares.exp(), self.log_total.exp()
        spread = mean + mean.square() / self.log_dispersion.exp()
        within = mean
        if self.log_concentration is not None:
            a = self.log_concentration.exp()
            within = (spread + mean.square() + a * mean) / (1 + a)
        return (p * (1 - p) * within + p.square() * spread).unflatten(-1, self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # log-gammas of large totals cancel each other: in float32 nothing would be left of them
        x = value.flatten(value.ndim - len(self.event_shape)).double()
        n = x.sum(-1)
        ways = torch.lgamma(n + 1) - torch.lgamma(x + 1).sum(-1)
        if self.log_concentration is None:
            shared = (x * self.log_shares).sum(-1)
        else:
            a = self.log_concentration.double().exp()
            each = a * self.log_shares.double().exp()
            # shares that underflow share out nothing, and forbid nothing
            each = each.clamp(min=torch.finfo(torch.float32).tiny)
            shared = torch.lgamma(a) - torch.lgamma(n + a)
            shared = shared + (torch.lgamma(x + each) - torch.lgamma(each)).sum(-1)
        totals = self.totals.log_prob(n.to(value.dtype))
        return (ways + shared).to(self.log_shares.dtype) + totals

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            shares = self.log_shares.exp().expand(*shape, -1).flatten(0, -2)
            if self.log_concentration is not None:
                each = (shares * self.log_concentration.exp()).clamp(min=1e-30)
                shares = torch.distributions.Dirichlet(each, validate_args=False).sample()
            rows = len(shares)
            totals = self.totals.expand((rows,)).sample().long()
            most = max(1, int(totals.max()) if rows else 1)
            step = max(1, _DRAWN_AT_ONCE // most)
            counts = [
                _dealt(shares[start : start + step], totals[start : start + step])
                for start in range(0, rows, step)
            ]
            return torch.cat(counts).reshape(*shape, *self.event_shape)


def _dealt(shares: Tensor, totals: Tensor) -> Tensor:
    """So many single draws as each row's total, counted, ``(rows, features)``."""
    most = max(1, int(totals.max()))
    drawn = torch.multinomial(shares, most, replacement=True)
    counted = (torch.arange(most, device=totals.device) < totals.unsqueeze(-1)).to(shares.dtype)
    return torch.zeros_like(shares).scatter_add_(-1, drawn, counted)

"""What a sampler drew, and what speaks against believing it."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aevb.data.tables import html_table
from aevb.inference.mcmc.adaptation import ChEES, DualAveraging
from aevb.inference.mcmc.arviz import to_arviz
from aevb.inference.mcmc.diagnostics import bulk_ess, rank_rhat, tail_ess, unmixed
from aevb.inference.mcmc.metrics import Metric
from aevb.inference.mcmc.summaries import summary_of

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Draws", "SamplerState", "warn_of"]

# Share of trajectories beyond which the bound on their steps is said to be what ends them.
_CUT_SHORT = 0.5


@dataclass
class SamplerState:
    """All that a sampler needs to go on to the last bit.

    Attributes:
        u: Positions, ``(chains, batch, dim)``.
        metric: Masses.
        steps: Step sizes and what adapts them.
        lengths: Trajectory lengths and what adapts them.
        iteration: Iterations so far, warm-up included.
        random: State of torch's generators.
    """

    u: Tensor
    metric: Metric
    steps: DualAveraging
    lengths: ChEES
    iteration: int
    random: dict[str, Any]

    def __repr__(self) -> str:
        """One line."""
        return f"SamplerState({tuple(self.u.shape)} after {self.iteration:,} iterations)"


@dataclass(frozen=True)
class Draws:
    """What Hamiltonian Monte Carlo drew.

    Attributes:
        samples: Draws of each latent site, ``(chains, draws, *plates, *event)``.
        unconstrained: The same as real vectors, ``(chains, draws, batch, dim)``.
        stats: ``acceptance_rate``, ``energy_error`` (nats), ``energy``, ``lp``, ``diverging``,
            ``step_size`` and ``n_steps``, each ``(chains, draws, batch)``, or
            ``(chains, draws)`` for a joint posterior.
        step_size: ``(batch,)``.
        trajectory_length: Longest, in units of time with unit masses, ``(batch,)``.
        metric: Masses; ``metric.inverse_mass`` is ``(batch, dim, dim)``.
        is_local: Whether there is one posterior for each datapoint.
        num_warmup: Iterations before the draws.
        seed: Of everything random.
        state: To go on from.

    Example:
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> draws = inference.hmc(fa.model, x, num_chains=4, num_samples=100, num_warmup=100)
        >>> draws.summary().index.to_list()[:3], draws.summary().shape
        (['z[0, 0]', 'z[0, 1]', 'z[1, 0]'], (6, 8))
        >>> dict(draws.to_arviz()["posterior"]["z"].sizes)
        {'chain': 4, 'draw': 100, 'datapoint': 3, 'latent': 2}
    """

    samples: dict[str, Tensor]
    unconstrained: Tensor
    stats: dict[str, Tensor]
    step_size: Tensor
    trajectory_length: Tensor
    metric: Metric
    is_local: bool
    num_warmup: int
    seed: int
    state: SamplerState

    @property
    def inverse_mass(self) -> Tensor:
        """Diagonal of the inverse masses, ``(batch, dim)``."""
        return self.metric.variance

    @property
    def divergences(self) -> Tensor:
        """Divergent transitions of each posterior, ``(batch,)``, or ``()``."""
        return self.stats["diverging"].sum((0, 1))

    @cached_property
    def rhat(self) -> Tensor:
        """R̂ of ranks, the largest over dimensions, ``(batch,)`` or ``()``; above 1.01 is bad.

        Computed when it is first asked for, in unconstrained coordinates; NaN with fewer than two
        chains or four draws, and where all draws are equal.
        """
        return self._over_dimensions(rank_rhat, Tensor.amax)

    @cached_property
    def ess_bulk(self) -> Tensor:
        """Effective draws for the middle of each posterior, the least over dimensions."""
        return self._over_dimensions(bulk_ess, Tensor.amin)

    @cached_property
    def ess_tail(self) -> Tensor:
        """Effective draws for the 5 and 95 % quantiles, the least over dimensions."""
        return self._over_dimensions(tail_ess, Tensor.amin)

    @property
    def suspicious(self) -> Tensor:
        """Posteriors with a chain that never moved, or one divergence in a hundred draws."""
        moved = (self.unconstrained != self.unconstrained[:, :1]).any(-1).any(1).all(0)
        diverging = self.divergences.reshape(-1) > 0.01 * self.unconstrained[:, :, 0, 0].numel()
        stuck = ~moved if self.unconstrained.shape[1] > 1 else torch.zeros_like(moved)
        return stuck | diverging

    def summary(self, index: Iterable[Any] | None = None) -> "DataFrame":
        """A row for each dimension of each latent, as ArviZ's summaries have them.

        Args:
            index: Names or numbers of the datapoints, for the names of the rows; by default
                0, 1, ...

        Returns:
            ``mean`` and ``sd`` of the draws, their 5 and 95 % quantiles, the Monte Carlo error of
            the mean (``mcse_mean``, sd/√ESS of the draws themselves), ``ess_bulk``, ``ess_tail``
            and ``r_hat``.
        """
        return summary_of(self, index)

    def to_arviz(
        self,
        *,
        observed_data: Mapping[str, Tensor] | None = None,
        posterior_predictive: Mapping[str, Tensor] | None = None,
        log_evidence: Any = None,
        dims: Mapping[str, Sequence[str]] | None = None,
    ) -> Any:
        """For ArviZ, 0.x or 1.x; see :func:`aevb.evaluation.to_arviz`."""
        return to_arviz(
            self, observed_data=observed_data, posterior_predictive=posterior_predictive,
            log_evidence=log_evidence, dims=dims,
        )  # fmt: skip

    def _over_dimensions(
        self, statistic: Callable[[Tensor], Tensor], worst: Callable[..., Tensor]
    ) -> Tensor:
        """NaN in one dimension is NaN in the worst."""
        found = worst(statistic(self.unconstrained), -1)
        return found if self.is_local else found[0]

    def __repr__(self) -> str:
        """One line."""
        chains, num, batch, dim = self.unconstrained.shape
        posteriors = f"{batch} posteriors" if self.is_local else "a joint posterior"
        return (
            f"Draws({chains} chains × {num} draws of {posteriors} of {dim} dimensions, acceptance "
            f"{float(self.stats['acceptance_rate'].mean()):.2f}, "
            f"{int(self.divergences.sum())} divergences, seed={self.seed})"
        )

    def _repr_html_(self) -> str:
        """What :meth:`__repr__` says, and R̂ and effective sizes, as a table."""
        chains, num, batch, dim = self.unconstrained.shape
        sites = [f"{n} {tuple(v.shape[2 + self.is_local :])}" for n, v in self.samples.items()]
        rows = {
            "posteriors": f"{batch:,}, one for each datapoint" if self.is_local else "one, joint",
            "chains × draws": f"{chains} × {num}",
            "latents": f"{', '.join(sites)}: {dim} dimensions",
            "acceptance rate": float(self.stats["acceptance_rate"].mean()),
            "divergences": int(self.divergences.sum()),
            "suspicious": int(self.suspicious.sum()),
            "worst R̂": float(self.rhat.max()),
            "least bulk ESS": float(self.ess_bulk.min()),
            "least tail ESS": float(self.ess_tail.min()),
            "warm-up": self.num_warmup,
            "seed": self.seed,
        }
        return html_table("Draws", rows)


def warn_of(
    draws: Draws, max_num_steps: int, funnel: Callable[[int], tuple[str, float] | None]
) -> None:
    """Say which posteriors not to believe; to be called by the sampler, for its caller.

    Args:
        draws: What was drawn.
        max_num_steps: Of one trajectory.
        funnel: The site to blame, if there is one, with the factor by which its scale varies, of
            a posterior by its number.
    """
    bad = torch.nonzero(draws.suspicious).flatten()
    if len(bad):
        _warn(
            f"chains of {_named(draws, bad)} are stuck or diverge; do not believe these draws "
            f"({int(draws.divergences.sum())} divergences)"
        )
    apart, rhat = unmixed(draws.unconstrained)
    if len(apart):
        _warn(
            f"chains of {_named(draws, apart)} have not mixed: R̂ is up to {float(rhat.max()):.3f};"
            " draw more, start nearer or reparameterize"
        )
    cut = (draws.stats["n_steps"] >= max_num_steps).double().mean((0, 1)).reshape(-1)
    places = torch.nonzero(cut > _CUT_SHORT).flatten()
    if len(places):
        _warn(
            f"trajectories of {_named(draws, places)} reach max_num_steps={max_num_steps}, up to "
            f"{float(cut.max()):.0%} of them; raise it or reparameterize"
        )
    hard = torch.cat([bad, apart, places])
    blamed = funnel(int(hard[0])) if len(hard) else None
    if blamed is not None:
        name, factor = blamed
        _warn(
            f"reparameterize site {name!r}: its values are as wide as its scale, a latent that "
            f"varies by a factor of {factor:.0f}; pyro.poutine.reparam(model, config={{{name!r}: "
            "pyro.infer.reparam.LocScaleReparam(0.0)}) draws them from a fixed scale"
        )


def _named(draws: Draws, places: Tensor) -> str:
    """Posteriors by number, the first ten of them."""
    shown = ", ".join(map(str, places[:10].tolist())) + (", ..." if len(places) > 10 else "")
    return f"datapoints {shown}" if draws.is_local else "the posterior"


def _warn(what: str) -> None:
    warnings.warn(f"HMC: {what}", stacklevel=4)

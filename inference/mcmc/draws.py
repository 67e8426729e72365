"""What a sampler drew, and what speaks against believing it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aevb.inference.mcmc.adaptation import ChEES, DualAveraging
from aevb.inference.mcmc.diagnostics import bulk_ess, rank_rhat, tail_ess, unmixed
from aevb.inference.mcmc.metrics import Metric

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

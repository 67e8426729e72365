"""Chains under way: what is adapted in warm-up, and what is recorded of each iteration."""

from collections.abc import Callable

import torch
from torch import Tensor

from aevb.inference.mcmc import kernel
from aevb.inference.mcmc.adaptation import (
    ChEES,
    DualAveraging,
    Guard,
    first_step_size,
    halton,
    warmup_windows,
)
from aevb.inference.mcmc.basins import stand_ins
from aevb.inference.mcmc.draws import SamplerState
from aevb.inference.mcmc.integrators import Point
from aevb.inference.mcmc.metrics import Metric
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.mcmc.preconditioning import fitted_metric, widest_direction
from aevb.inference.process import randomness

__all__ = ["Sampler", "begun"]

# Lengths vary, against those that come back, from this share of the longest one; from a smaller
# one where that is long: there are more periods to vary over where masses do not fit.
_SHORTEST_SHARE, _SHORTEST_SHARE_OF_LONG = 0.7, 0.4
# Where masses fit, a standard normal is gone through in half a period of π. At a bit more than
# half of that the mean's draws are antithetic, and squares still independent, nearly.
_LEAST_LENGTH = 2.0
# Of a trajectory before any masses are known, when steps may be a hundredth of what they will be.
_FIRST_NUM_STEPS = 8
# Of a trajectory at least while a chain that is lost goes by steps of its own, which are short.
_WAY_BACK = 20


class Sampler:
    """Every chain of every posterior, from a state on.

    Args:
        evaluate: The density.
        state: To go on from.
        target: Acceptance rate.
        max_num_steps: Of one trajectory.
        kind: Of the masses that warm-up fits.
    """

    def __init__(
        self,
        evaluate: PathGradient,
        state: SamplerState,
        target: float,
        max_num_steps: int,
        kind: str,
    ) -> None:
        self.evaluate, self.density = evaluate, evaluate.density
        batch, dim = self.density.batch, self.density.dim
        if state.u.shape[1:] != (batch, dim):
            raise ValueError(
                f"state: is of {state.u.shape[1]} posteriors of {state.u.shape[2]} dimensions; "
                f"the model has {batch} of {dim}"
            )
        self.point = kernel.init(state.u, evaluate)
        self.metric, self.iteration = state.metric, state.iteration
        self.steps = DualAveraging(state.steps.average.clone(), target)
        self.lengths = ChEES(state.lengths.average.clone())
        self.guard: Guard | None = None
        self.target = target
        self.max_num_steps, self.kind = max_num_steps, kind
        self.settled = False
        self.widest: Tensor | None = None
        randomness.restore_torch(state.random, self.density.device)

    def state(self) -> SamplerState:
        """To go on from."""
        return SamplerState(
            self.point.u, self.metric, self.steps, self.lengths, self.iteration,
            randomness.capture_torch(self.density.device),
        )  # fmt: skip

    @property
    def step_size(self) -> Tensor:
        """Of the next trajectory, ``(batch,)``."""
        return (self.steps.log_step if self.guard else self.steps.average).exp()

    @property
    def length(self) -> Tensor:
        """Longest trajectory, ``(batch,)``."""
        return (self.lengths.log_length if self.guard else self.lengths.average).exp()

    def warm_up(self, num_warmup: int, tell: Callable[[], object] = lambda: None) -> None:
        """Adapt step sizes and lengths at each iteration, masses at the ends of windows."""
        ends = warmup_windows(num_warmup)
        window: list[Point] = []
        self.guard = Guard(self.target, tuple(self.point.u.shape[:2]), self.density.device)
        # before, masses are of chains on their way, and lengths fit to them would be far too long
        settled = ends[-2] if len(ends) > 1 else 0
        most = _FIRST_NUM_STEPS if ends and self.iteration == 0 else self.max_num_steps
        for number in range(num_warmup):
            self.settled = number >= settled
            self.iterate(most)
            tell()
            window.append(_without(self.point, self.guard.share < 1))
            if number + 1 in ends:
                points = Point(*map(torch.stack, zip(*window, strict=True)))
                if number + 1 == settled:
                    places = stand_ins(points, self.metric)
                    self.point, points = (p.of_chains(places) for p in (self.point, points))
                draws, gradients = (v.flatten(0, 1) for v in (points.u, points.gradient))
                self.metric = fitted_metric(draws, gradients, self.kind)
                if number + 1 >= settled:
                    self.widest = widest_direction(draws, self.metric)
                window = []
                self.steps.log_step = self.steps.average
                self.steps.restart()
                self.lengths = ChEES(self.lengths.log_length, _LEAST_LENGTH)
                most = self.max_num_steps
        self.guard = None

    def iterate(self, max_num_steps: int | None = None) -> dict[str, Tensor]:
        """One trajectory of every chain; returns what is recorded of it."""
        most = min(self.max_num_steps, max_num_steps or self.max_num_steps)
        longest, step_size, metric = self.length, self.step_size, self.metric
        shortest = torch.maximum(
            _SHORTEST_SHARE * longest.clamp(max=_LEAST_LENGTH), _SHORTEST_SHARE_OF_LONG * longest
        )
        length = shortest + halton(self.iteration) * (longest - shortest)
        self.iteration += 1
        # not rounded up: a step more than was asked for comes back to where squares are the same
        num_steps = torch.round(length / step_size).clamp(1, most)
        if self.guard and not self.settled:
            is_lost = (self.guard.share < 1).any(0)
            num_steps = torch.where(is_lost, num_steps.clamp(min=min(most, _WAY_BACK)), num_steps)
        before = self.point
        share = self.guard.share if self.guard else torch.ones_like(step_size)
        self.point, info = kernel.step(before, self.evaluate, share * step_size, metric, num_steps)
        if self.guard:
            self.steps.update(self.guard.rate(info.acceptance_rate, settled=self.settled))
        if self.guard and self.settled:
            self.lengths.update(
                self._along(metric.whiten(before.u)),
                self._along(metric.whiten(info.proposal.end.u)),
                self._along(info.proposal.momentum),
                torch.where(torch.eq(share, 1), info.acceptance_rate, 0.0),
                length / longest,
            )
        shape = before.log_density.shape
        return {
            "acceptance_rate": info.acceptance_rate,
            "energy_error": info.energy_error,
            "energy": info.energy,
            "lp": self.point.log_density,
            "diverging": info.diverging,
            "step_size": step_size.expand(shape),
            "n_steps": num_steps.long().expand(shape),
        }

    def _along(self, rows: Tensor) -> Tensor:
        """Whitened rows as far as they lie along the widest direction, if that is known."""
        if self.widest is None:
            return rows
        return (rows.double() * self.widest).sum(-1, keepdim=True)


def _without(point: Point, lost: Tensor) -> Point:
    """Another chain's place for each that is lost, whose gradients would rule the masses."""
    first = (~lost).to(torch.uint8).argmax(0)
    places = torch.arange(len(first), device=first.device)
    return point.where(~lost, Point(*(value[first, places].expand_as(value) for value in point)))


def begun(evaluate: PathGradient, u: Tensor, metric: Metric, target: float) -> SamplerState:
    """First step sizes and lengths, where chains start."""
    density = evaluate.density
    point = kernel.init(u, evaluate)
    if not bool(torch.isfinite(point.log_density).any()):
        density.refuse_nan(u)
        raise ValueError("model: no chain starts where the density is finite")
    log_step = first_step_size(evaluate, point, metric).log()
    log_length = torch.full_like(log_step, _LEAST_LENGTH).log()
    return SamplerState(
        u, metric, DualAveraging(log_step, target), ChEES(log_length), 0,
        randomness.capture_torch(density.device),
    )  # fmt: skip

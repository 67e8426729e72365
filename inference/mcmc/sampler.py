"""Chains under way: what is adapted in warm-up, and what is recorded of each iteration."""

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
from aevb.inference.mcmc.draws import SamplerState
from aevb.inference.mcmc.integrators import Point
from aevb.inference.mcmc.metrics import Metric
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.mcmc.preconditioning import fitted_metric
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
        self.guard = Guard(target)
        self.max_num_steps, self.kind = max_num_steps, kind
        self.adapting = False
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
        return (self.steps.log_step if self.adapting else self.steps.average).exp()

    @property
    def length(self) -> Tensor:
        """Longest trajectory, ``(batch,)``."""
        return (self.lengths.log_length if self.adapting else self.lengths.average).exp()

    def warm_up(self, num_warmup: int) -> None:
        """Adapt step sizes and lengths at each iteration, masses at the ends of windows."""
        ends = warmup_windows(num_warmup)
        window: list[Point] = []
        self.adapting = True
        most = _FIRST_NUM_STEPS if ends and self.iteration == 0 else self.max_num_steps
        for number in range(num_warmup):
            self.iterate(most)
            window.append(self.point)
            if number + 1 in ends:
                draws, gradients = (
                    torch.cat([getattr(point, name) for point in window])
                    for name in ("u", "gradient")
                )
                self.metric = fitted_metric(draws, gradients, self.kind)
                window = []
                self.steps.log_step = self.steps.average
                self.steps.restart()
                self.lengths = ChEES(self.lengths.log_length, _LEAST_LENGTH)
                most = self.max_num_steps
        self.adapting = False

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
        before = self.point
        self.point, info = kernel.step(before, self.evaluate, step_size, metric, num_steps)
        if self.adapting:
            self.steps.update(self.guard.rate(info.acceptance_rate))
            self.lengths.update(
                metric.whiten(before.u),
                metric.whiten(info.proposal.end.u),
                info.proposal.momentum,
                info.acceptance_rate,
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

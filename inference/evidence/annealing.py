"""From where one can draw to the posterior and back, in small steps of temperature."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from aevb.inference.mcmc import kernel
from aevb.inference.mcmc.adaptation import first_step_size
from aevb.inference.mcmc.integrators import Point
from aevb.inference.mcmc.metrics import Diagonal
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.process.limits import refuse_below
from aevb.inference.process.progress import progress_bar
from aevb.inference.programs.log_density import LogDensity

__all__ = [
    "Annealing",
    "Pilot",
    "Schedule",
    "adaptive_schedule",
    "linear_schedule",
    "sigmoid_schedule",
]

# The pilot has so many chains, temperatures at most, and transitions at each.
_PILOT_CHAINS = 16
_PILOT_TEMPERATURES = 100
_PILOT_TRANSITIONS = 2
# Wu et al. (2017), section 5.
_SIGMOID_REACH = 4.0


class Pilot(NamedTuple):
    """What a short run tells a schedule.

    Attributes:
        temperatures: Its own, ``(P + 1, batch)``, float64.
        spreads: Standard deviations over chains of the log-ratio of the path's ends, at all of
            these but the first, ``(P, batch)``.

    Example:
        >>> betas = torch.linspace(0, 1, 5, dtype=torch.float64).unsqueeze(-1)
        >>> pilot = Pilot(betas, torch.ones(4, 1, dtype=torch.float64))
        >>> adaptive_schedule(8, pilot).shape
        torch.Size([9, 1])
    """

    temperatures: Tensor
    spreads: Tensor

    def __repr__(self) -> str:
        """One line."""
        return f"Pilot({len(self.spreads)} steps, {self.temperatures.shape[-1]} datapoints)"


# From the number of temperatures to where they lie, from 0 to 1, ``(T + 1,)`` or ``(T + 1,
# batch)``, float64. The pilot is None where it is its own temperatures that are asked for.
Schedule = Callable[[int, Pilot | None], Tensor]


def linear_schedule(num_temperatures: int, pilot: Pilot | None = None) -> Tensor:
    """Temperatures at equal distances.

    Example:
        >>> linear_schedule(4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    del pilot
    return torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64)


def sigmoid_schedule(num_temperatures: int, pilot: Pilot | None = None) -> Tensor:
    """Temperatures that are dense at both ends.

    References:
        On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov &
        Grosse, 2017), https://arxiv.org/abs/1611.04273

    Example:
        >>> [round(beta, 3) for beta in sigmoid_schedule(4).tolist()]
        [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    curve = torch.sigmoid(_SIGMOID_REACH * (2 * linear_schedule(num_temperatures, pilot) - 1))
    return (curve - curve[0]) / (curve[-1] - curve[0])


def adaptive_schedule(num_temperatures: int, pilot: Pilot | None = None) -> Tensor:
    """Temperatures of each datapoint that are dense where the pilot's weights vary.

    Equal steps of the integral of the tilt's standard deviation lose equal sample size.

    Example:
        >>> flat = Pilot(linear_schedule(3).unsqueeze(-1), torch.ones(3, 1).double())
        >>> [round(beta, 3) for beta in adaptive_schedule(4, flat).flatten().tolist()]
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if pilot is None:
        return sigmoid_schedule(num_temperatures)
    betas, spreads = pilot
    density = spreads + 0.01 * spreads.mean(0)
    density = torch.cat([density[:1], density])
    pieces = 0.5 * (density[1:] + density[:-1]) * betas.diff(dim=0) + 1e-12
    length = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    wanted = linear_schedule(num_temperatures).to(betas.device).unsqueeze(-1)
    new = _interpolate(length / length[-1], betas, wanted.expand(-1, betas.shape[1]))
    return torch.cat([torch.zeros_like(new[:1]), new[1:-1], torch.ones_like(new[:1])])


class Annealing:
    """Temperatures, step sizes that a pilot run has found for them, and the chains that use them.

    Random numbers come from torch's global generator.

    Args:
        density: Of the posterior, with the guide to start from if there is one; the others are as
            for :func:`~aevb.inference.ais_evidence`.
    """

    def __init__(
        self,
        density: LogDensity,
        num_chains: int,
        num_temperatures: int,
        schedule: Schedule,
        num_leapfrog_steps: int,
        target_acceptance: float,
        chain_batch_size: int | None,
    ) -> None:
        refuse_below(
            1, num_chains=num_chains, num_temperatures=num_temperatures,
            num_leapfrog_steps=num_leapfrog_steps, chain_batch_size=chain_batch_size,
        )  # fmt: skip
        if not 0 < target_acceptance < 1:
            raise ValueError(f"target_acceptance: must lie in (0, 1); got {target_acceptance}")
        if not callable(schedule):
            raise ValueError(f"schedule: expected a function as linear_schedule; got {schedule!r}")
        self.density, self.schedule = density, schedule
        self.num_chains, self.num_temperatures = num_chains, num_temperatures
        self._num_steps = torch.full((density.batch,), num_leapfrog_steps, device=density.device)
        evaluations = num_temperatures * (num_leapfrog_steps + 1)
        self._path = PathGradient(density, chain_batch_size, evaluations)
        spread = density.path_draws(100).double().var(0).clamp(min=1e-10)
        self._metric = Diagonal(spread.sqrt().to(density.dtype))
        pilot, log_steps = self._pilot(target_acceptance)
        self._betas = self._temperatures(num_temperatures, pilot)  # (T + 1, batch)
        self._log_steps = _interpolate(pilot.temperatures[1:], log_steps, self._betas[1:])

    def forward(self) -> tuple[Tensor, Tensor]:
        """Anneal from the start to the posterior.

        Returns:
            Log of the product of the ratios that chains pass, ``(chains, batch)``, float64, in
            nats, and their mean acceptance rate, ``(batch,)``.
        """
        u = self.density.path_draws(self.num_chains)
        return self._weigh(u, self._betas[1], range(1, self.num_temperatures))

    def reverse(self, exact: Tensor) -> tuple[Tensor, Tensor]:
        """The same from draws of the posterior, one for all chains or one each, to the start."""
        u = exact.expand(self.num_chains, -1, -1)
        return self._weigh(u, self._betas[-1], range(self.num_temperatures - 1, 0, -1))

    def _weigh(self, u: Tensor, first: Tensor, stops: range) -> tuple[Tensor, Tensor]:
        widths = self._betas.diff(dim=0)
        if stops.step < 0:
            widths = widths.flip(0)
        state = self._path(u, first)
        self._refuse_nan(state)
        total = widths[0] * state.tilt
        rates = torch.zeros_like(total[0])
        with progress_bar(len(stops), "temperature", description="annealing") as bar:
            for width, stop in zip(widths[1:], stops, strict=True):
                step = self._log_steps[stop - 1]
                state, info = self._transition(state.u, self._betas[stop], step)
                total = total + width * state.tilt
                rates = rates + info.acceptance_rate.mean(0)
                bar.update()
        return total, rates / max(1, len(stops))

    def _pilot(self, target: float) -> tuple[Pilot, Tensor]:
        """A short run, and the log step sizes at all its temperatures but the first."""
        betas = self._temperatures(min(_PILOT_TEMPERATURES, self.num_temperatures), None)
        state = self._path(self.density.path_draws(_PILOT_CHAINS), betas[1])
        self._refuse_nan(state)
        log_step = first_step_size(
            partial(self._path, temperature=betas[1]), state, self._metric
        ).log()
        log_steps, spreads = [], []
        for beta in betas[1:]:
            for _ in range(_PILOT_TRANSITIONS):
                state, info = self._transition(state.u, beta, log_step)
                error = info.acceptance_rate.mean(0) - target
                log_step = (log_step + 0.3 * error).clamp(-18.0, 3.0)
            log_steps.append(log_step)
            spreads.append(_robust_spread(state.tilt))
        return Pilot(betas, torch.stack(spreads)), torch.stack(log_steps)

    def _transition(self, u: Tensor, beta: Tensor, log_step: Tensor) -> tuple[Point, kernel.Info]:
        """One that leaves the density at ``beta`` as it is."""
        evaluate = partial(self._path, temperature=beta)
        jitter = 0.8 + 0.4 * torch.rand_like(log_step)  # against trajectories that come back
        return kernel.step(
            kernel.init(u, evaluate), evaluate, log_step.exp() * jitter, self._metric,
            self._num_steps,
        )  # fmt: skip

    def _temperatures(self, count: int, pilot: Pilot | None) -> Tensor:
        betas = self.schedule(count, pilot).to(self.density.device, torch.float64)
        if len(betas) != count + 1 or not bool(((betas[0] == 0) & (betas[-1] == 1)).all()):
            raise ValueError(
                f"schedule: expected {count + 1} temperatures from 0 to 1; got {len(betas)} from "
                f"{float(betas[0].min()):g} to {float(betas[-1].max()):g}"
            )
        return betas.reshape(count + 1, -1).expand(-1, self.density.batch)

    def _refuse_nan(self, state: Point) -> None:
        if bool(torch.isnan(state.tilt).any()):
            self.density.refuse_nan(state.u)
            raise ValueError("guide: its log-density is NaN where chains start")


def _interpolate(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Piecewise linear functions of each column, constant beyond their ends."""
    if len(x) == 1:
        return y.expand_as(at)
    columns = x.T.contiguous(), y.T.contiguous(), at.T.contiguous()
    place = torch.searchsorted(columns[0], columns[2]).clamp(1, columns[0].shape[1] - 1)
    left, right = (columns[0].gather(1, place + shift) for shift in (-1, 0))
    low, high = (columns[1].gather(1, place + shift) for shift in (-1, 0))
    share = ((columns[2] - left) / (right - left).clamp(min=1e-300)).clamp(0, 1)
    return (low + share * (high - low)).T


def _robust_spread(tilt: Tensor) -> Tensor:
    """Standard deviation over chains, ``(batch,)``, by quartiles, which one lost chain spares."""
    finite = torch.where(torch.isfinite(tilt), tilt, torch.full_like(tilt, -1e30))
    quartiles = torch.quantile(
        finite, torch.tensor([0.25, 0.75], dtype=tilt.dtype, device=tilt.device), dim=0
    )
    return (quartiles[1] - quartiles[0]) / 1.349

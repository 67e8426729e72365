"""What a sampler learns in warm-up, for each datapoint: step size, masses, trajectory length."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aevb.inference.mcmc.integrators import Point, energy, leapfrog
from aevb.inference.mcmc.metrics import Metric

__all__ = [
    "ChEES",
    "DualAveraging",
    "Guard",
    "first_step_size",
    "halton",
    "warmup_windows",
]

# Iterations whose mean tells whether a chain moves, as a share, and below which part of the target
# it does not.
_MEMORY = 0.1
_STUCK = 0.1
# By how much it then brings the rate below the target, and the least share of everyone's steps
# that a lost chain goes by.
_PULL = 0.1
_LEAST_SHARE = 1e-6

# By what power of its length a trajectory is counted as dearer.
_PRICE = 0.25


def first_step_size(evaluate: Callable[[Tensor], Point], point: Point, metric: Metric) -> Tensor:
    """Steps so long that one of them is accepted with about 0.8, ``(batch,)``, float64.

    References:
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), algorithm 4
    """
    batch = point.u.shape[1]
    step = torch.ones(batch, dtype=torch.float64, device=point.u.device)
    one = torch.ones(batch, device=point.u.device)
    momentum = torch.randn_like(point.u)
    start = energy(point, momentum)
    going = torch.ones_like(step, dtype=torch.bool)
    grows = None
    for _ in range(40):
        end = leapfrog(evaluate, point, momentum, step, metric, one)
        error = energy(end.end, end.momentum) - start
        rate = torch.exp(-torch.where(torch.isfinite(error), error, torch.inf).clamp(min=0))
        good = rate.mean(0) > 0.8
        grows = good if grows is None else grows
        going = going & (good == grows) & (step < 1e3) & (step > 1e-7)
        if not bool(going.any()):
            break
        step = torch.where(going, step * torch.where(grows, 2.0, 0.5), step)
    return step


@dataclass
class DualAveraging:
    """Step sizes that bring the acceptance rate to a target.

    References:
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), section 3.2,
        https://arxiv.org/abs/1111.4246

    Args:
        log_step: Log of the first step sizes, ``(batch,)``, float64.
        target: Acceptance rate.
    """

    log_step: Tensor
    target: float
    count: int = 0
    error: Tensor = field(init=False)
    average: Tensor = field(init=False)
    centre: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the given step sizes."""
        self.restart()

    def restart(self) -> None:
        """Forget the past but for the present step sizes, from which the next ones set out.

        Not from ten times as long ones, as in the paper: these were found to be right, while a
        whole batch that is rejected costs an iteration, and the short steps after it several.
        """
        self.count = 0
        self.error = torch.zeros_like(self.log_step)
        self.average = self.log_step.clone()
        self.centre = self.log_step.clone()

    def update(self, acceptance: Tensor) -> None:
        """Learn from the mean acceptance rate of each datapoint, ``(batch,)``."""
        self.count += 1
        weight = 1 / (self.count + 10)
        self.error = (1 - weight) * self.error + weight * (self.target - acceptance)
        # standard settings of the paper: gamma 0.05, t0 10, kappa 0.75
        self.log_step = self.centre - math.sqrt(self.count) / 0.1 * self.error
        self.log_step = self.log_step.clamp(-18.0, 5.0)
        share = self.count**-0.75
        self.average = share * self.log_step + (1 - share) * self.average


@dataclass
class Guard:
    """Shorter steps for chains that are lost, and the acceptance rate that all adapt to.

    A chain far out, where the density is steeper than anywhere else, goes on by steps of its own
    until it is back: halved at each failure after another, doubled at each success. If everyone
    went by its steps instead, trajectories would take a hundred of them to get nowhere. It may, as
    draws of warm-up are not kept.

    Where chains stay, each speaks for itself: the rate is the mean over chains, while all of them
    move by everyone's steps. One that has not for a while pulls these shorter, gently. The
    harmonic mean over chains, which guards against the same, is so far below the mean that steps
    come out too short for everyone.

    Args:
        target: What step sizes aim at.
        shape: ``(chains, batch)``.
        device: Of rates.
    """

    target: float
    shape: tuple[int, ...]
    device: torch.device | None = None
    share: Tensor = field(init=False)
    running: Tensor = field(init=False)
    failed: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Begin with everyone's steps for all."""
        self.share = torch.ones(self.shape, dtype=torch.float64, device=self.device)
        self.running = torch.full_like(self.share, self.target)
        self.failed = torch.zeros_like(self.share, dtype=torch.bool)

    def rate(self, acceptance: Tensor, *, settled: bool) -> Tensor:
        """Learn from rates ``(chains, batch)``; returns what step sizes learn from, ``(batch,)``.

        Args:
            acceptance: Rates of trajectories by ``share`` of everyone's steps.
            settled: Whether a chain that is lost now would be when draws are kept.
        """
        counts = torch.eq(self.share, 1)
        rate = torch.where(counts, acceptance, 0.0)
        self.running = (1 - _MEMORY) * self.running + _MEMORY * rate
        fails = acceptance < _STUCK * self.target
        factor = torch.where(fails, torch.where(self.failed | ~counts, 0.5, 1.0), 2.0)
        self.share = (self.share * factor).clamp(_LEAST_SHARE, 1.0)
        self.failed = fails
        mean = rate.sum(0) / counts.sum(0).clamp(min=1)  # nobody moves: 0
        if not settled:
            return mean
        stuck = (self.running < _STUCK * self.target).any(0)
        return torch.where(stuck, mean.clamp(max=self.target - _PULL), mean)


@dataclass
class ChEES:
    """Trajectory lengths that make the squared distance from the mean change most for their price.

    Not most of all, as in the paper, by which trajectories become several times as long where a
    posterior is nearly a funnel, for little more change.

    Positions are those along the widest direction, as in SNAPER, not all: of ten dimensions, nine
    are gone through in half a period, and lengths that suit these leave the tenth to diffuse.

    References:
        An Adaptive-MCMC Scheme for Setting Trajectory Lengths in Hamiltonian Monte Carlo
        (Hoffman, Radul & Sountsov, 2021), section 3,
        https://proceedings.mlr.press/v130/hoffman21a.html; Focusing on Difficult Directions for
        Learning HMC Trajectory Lengths (Sountsov & Hoffman, 2021),
        https://arxiv.org/abs/2110.11576

    Args:
        log_length: Log of the first lengths, ``(batch,)``, float64.
        shortest: That lengths may become.
        learning_rate: Of Adam.
    """

    log_length: Tensor
    shortest: float = 0.0
    learning_rate: float = 0.025
    count: int = 0
    squares: Tensor = field(init=False)
    change: Tensor = field(init=False)
    average: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the given lengths."""
        self.squares = torch.zeros_like(self.log_length)
        self.change = torch.zeros_like(self.log_length)
        if self.shortest:
            self.log_length = self.log_length.clamp(min=math.log(self.shortest))
        self.average = self.log_length.clone()

    def update(
        self, before: Tensor, after: Tensor, velocity: Tensor, rate: Tensor, jitter: Tensor
    ) -> None:
        """Learn from one iteration.

        Args:
            before: Whitened positions at the start, ``(chains, batch, dim)``.
            after: Whitened proposals.
            velocity: Whitened velocities at the proposals.
            rate: Acceptance rates, ``(chains, batch)``.
            jitter: Share of the longest length that was travelled, ``(batch,)``.
        """
        rate = torch.where(torch.isfinite(rate), rate, 0.0)
        # a trajectory that was lost counts for nothing, and must not be multiplied by nothing
        lost = (rate == 0).unsqueeze(-1)
        before, velocity = before.double(), torch.where(lost, 0.0, velocity.double())
        after = torch.where(lost, before, after.double())
        total = rate.sum(0).clamp(min=1e-12)
        centre = before.mean(0)
        new_centre = (rate.unsqueeze(-1) * after).sum(0) / total.unsqueeze(-1)
        gone = (after - new_centre).square().sum(-1) - (before - centre).square().sum(-1)
        slope = gone * ((after - new_centre) * velocity).sum(-1)
        self.count += 1
        # the criterion, whose mean over iterations is less noisy than that over chains
        change = 0.25 * (rate * gone.square()).sum(0) / total
        change = torch.where(torch.isfinite(change), change, 0.0)
        self.change = 0.9 * self.change + 0.1 * change
        change = (self.change / (1 - 0.9**self.count)).clamp(min=1e-300)
        gradient = jitter * (rate * slope).sum(0) / total * self.log_length.exp() / change - _PRICE
        gradient = torch.where(torch.isfinite(gradient), gradient, 0.0)
        # Adam without momentum, as in the paper
        self.squares = 0.95 * self.squares + 0.05 * gradient.square()
        scale = (self.squares / (1 - 0.95**self.count)).sqrt() + 1e-12
        self.log_length = self.log_length + self.learning_rate * gradient / scale
        least = math.log(max(self.shortest, 1e-5))
        self.log_length = self.log_length.clamp(least, 6.0)
        share = self.count**-0.5
        self.average = share * self.log_length + (1 - share) * self.average


def halton(number: int) -> float:
    """The base-2 Halton sequence, which fills (0, 1) evenly; ``number`` counts from 0.

    Example:
        >>> [halton(number) for number in range(4)]
        [0.5, 0.25, 0.75, 0.125]
    """
    bits = f"{number + 1:b}"
    return int(bits[::-1], 2) / 2 ** len(bits)


def warmup_windows(num_warmup: int) -> list[int]:
    """Iterations after which masses are set anew: windows that double, and a rest at the end.

    Example:
        >>> warmup_windows(500)
        [5, 15, 45, 105, 225, 450]
    """
    if num_warmup < 20:
        return []
    # all chains fill a window, and masses fit to few draws help to draw the next
    ends = [int(share * num_warmup) for share in (0.01, 0.03, 0.09, 0.21, 0.45, 0.9)]
    return [end for end in ends if end >= 5]

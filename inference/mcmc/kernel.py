"""One transition of Hamiltonian Monte Carlo, for every chain and every datapoint at once.

What it moves by, step sizes, metric and numbers of steps, is the sampler's to choose; so is a new
density before each transition, as in annealing.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aevb.inference.mcmc.integrators import Point, Trajectory, energy, leapfrog
from aevb.inference.mcmc.metrics import Metric

__all__ = ["DIVERGENCE", "Info", "init", "step"]

# An error of energy, in nats, that no useful step makes.
DIVERGENCE = 1000.0


class Info(NamedTuple):
    """What a diagnostic or an adaptation needs of a transition; ``(chains, batch)`` each.

    Attributes:
        acceptance_rate: Of the proposal.
        energy_error: At the proposal, in nats; +inf where it is not finite.
        energy: Where the chain is then, in nats.
        diverging: Whether the error is beyond what a useful step makes.
        proposal: End of the trajectory, accepted or not.
    """

    acceptance_rate: Tensor
    energy_error: Tensor
    energy: Tensor
    diverging: Tensor
    proposal: Trajectory


def init(u: Tensor, evaluate: Callable[[Tensor], Point]) -> Point:
    """The state of chains at positions ``(chains, batch, dim)``: what the next step needs."""
    return evaluate(u)


def step(
    state: Point,
    evaluate: Callable[[Tensor], Point],
    step_size: Tensor,
    metric: Metric,
    num_steps: Tensor,
) -> tuple[Point, Info]:
    """A trajectory with a new momentum, of which each chain accepts or rejects its end.

    It leaves the density as it is, whatever the step size. Random numbers are those of torch's
    global generator: momenta first, then what decides.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), section 3.2, https://arxiv.org/abs/1206.1901

    Args:
        state: Where the chains are, under the same density.
        evaluate: The density, with its gradient.
        step_size: ``(batch,)``.
        metric: Masses.
        num_steps: Of the trajectory, ``(batch,)``, whole numbers.

    Example:
        >>> from aevb.inference.mcmc.metrics import Diagonal
        >>> def normal(u):
        ...     density = -0.5 * u.square().sum(-1)
        ...     return Point(u, density, -u, torch.zeros_like(density))
        >>> one = torch.ones(5)
        >>> state = init(torch.zeros(7, 5, 2), normal)
        >>> state, info = step(state, normal, 0.1 * one, Diagonal(one.new_ones(5, 2)), 3 * one)
        >>> state.u.shape, bool((info.acceptance_rate > 0.9).all())
        (torch.Size([7, 5, 2]), True)
    """
    momentum = torch.randn_like(state.u)
    proposal = leapfrog(evaluate, state, momentum, step_size, metric, num_steps)
    before = energy(state, momentum)
    after = energy(proposal.end, proposal.momentum)
    error = after - before
    error = torch.where(torch.isfinite(error), error, torch.inf)
    rate = torch.exp(-error.clamp(min=0.0))
    accepted = torch.rand_like(rate) < rate
    info = Info(rate, error, torch.where(accepted, after, before), error > DIVERGENCE, proposal)
    return proposal.end.where(accepted, state), info

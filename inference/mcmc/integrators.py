"""Hamilton's equations in discrete time, for all chains and datapoints at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aevb.inference.mcmc.metrics import Metric

__all__ = ["Point", "Trajectory", "energy", "kinetic_energy", "leapfrog"]


class Point(NamedTuple):
    """Positions with what is known of the density there.

    Attributes:
        u: Positions, ``(chains, batch, dim)``.
        log_density: ``(chains, batch)``, float64, in nats.
        gradient: Of ``log_density``, like ``u``.
        tilt: Log-ratio of a path's two ends at ``u``, ``(chains, batch)``; zero off a path.
    """

    u: Tensor
    log_density: Tensor
    gradient: Tensor
    tilt: Tensor

    def where(self, choice: Tensor, other: "Point") -> "Point":
        """This point where ``choice``, ``(chains, batch)``, and the other elsewhere."""
        wide = choice.unsqueeze(-1)
        return Point(
            torch.where(wide, self.u, other.u),
            torch.where(choice, self.log_density, other.log_density),
            torch.where(wide, self.gradient, other.gradient),
            torch.where(choice, self.tilt, other.tilt),
        )

    def of_chains(self, numbers: Tensor) -> "Point":
        """At each place that of another chain, by ``(chains, batch)`` numbers."""
        places = numbers, torch.arange(numbers.shape[1], device=numbers.device)
        wide = (..., *places, slice(None))
        return Point(
            self.u[wide],
            self.log_density[..., *places],
            self.gradient[wide],
            self.tilt[..., *places],
        )


class Trajectory(NamedTuple):
    """Where Hamilton's equations lead.

    Attributes:
        end: Last point.
        momentum: There, where all masses are one, ``(chains, batch, dim)``.
    """

    end: Point
    momentum: Tensor


def energy(point: Point, momentum: Tensor) -> Tensor:
    """Kinetic energy less log-density, ``(chains, batch)``, float64, in nats."""
    return kinetic_energy(momentum) - point.log_density


def kinetic_energy(momentum: Tensor) -> Tensor:
    """Half of the square of momenta of unit masses, ``(chains, batch)``, float64, in nats."""
    return 0.5 * momentum.double().square().sum(-1)


def leapfrog(
    evaluate: Callable[[Tensor], Point],
    start: Point,
    momentum: Tensor,
    step_size: Tensor,
    metric: Metric,
    num_steps: Tensor,
) -> Trajectory:
    r"""Leapfrog steps: reversible, volume-preserving, with an error of second order.

    .. math:: r \leftarrow r + \tfrac\epsilon2 W^T \nabla \log p(u), \quad
        u \leftarrow u + \epsilon W r, \quad
        r \leftarrow r + \tfrac\epsilon2 W^T \nabla \log p(u)

    Each datapoint makes its own number of steps; those that are done wait unchanged.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), section 2.3, https://arxiv.org/abs/1206.1901

    Args:
        evaluate: The density at given positions.
        start: First point.
        momentum: There, r, of unit masses, ``(chains, batch, dim)``.
        step_size: ε, ``(batch,)``.
        metric: W.
        num_steps: ``(batch,)``, whole numbers.
    """
    step = step_size.unsqueeze(-1).to(momentum.dtype)
    point, kick = start, 0.5 * step
    momentum = momentum + kick * metric.pull(start.gradient)
    fewest, most = (int(value) for value in num_steps.aminmax())
    for number in range(most):
        u = point.u + step * metric.push(momentum)
        if number < fewest:
            point = evaluate(u)
            last = torch.eq(num_steps, number + 1).unsqueeze(-1) if number + 1 >= fewest else None
            size = step if last is None else torch.where(last, kick, step)
            momentum = momentum + size * metric.pull(point.gradient)
            continue
        going = torch.gt(num_steps, number).expand(start.log_density.shape)
        # a far point would bring infinities into products that others share a kernel with
        ahead = evaluate(torch.where(going.unsqueeze(-1), u, point.u))
        last = torch.eq(num_steps, number + 1).unsqueeze(-1)
        kicked = momentum + torch.where(last, kick, step) * metric.pull(ahead.gradient)
        momentum = torch.where(going.unsqueeze(-1), kicked, momentum)
        point = ahead.where(going, point)
    return Trajectory(point, momentum)

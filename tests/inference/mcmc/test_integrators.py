"""The leapfrog integrator: reversible, volume-preserving, of second order."""

import pytest
import torch
from torch import Tensor

from aevb.inference.mcmc.integrators import Point, kinetic_energy, leapfrog
from aevb.inference.mcmc.metrics import Diagonal

# Integrators


def quartic(u: Tensor) -> Point:
    """A density that is no normal, in two dimensions."""
    density = -(0.25 * u.pow(4).sum(-1) + 0.5 * u[..., 0] * u[..., 1])
    gradient = -(u.pow(3) + 0.5 * u.flip(-1))
    return Point(u, density.double(), gradient, torch.zeros_like(density))


def flow(u: Tensor, p: Tensor, step: float, steps: int) -> tuple[Tensor, Tensor]:
    size = torch.full((u.shape[1],), step, dtype=torch.float64)
    counts = torch.full((u.shape[1],), steps)
    metric = Diagonal(torch.tensor([[1.0, 2.0]], dtype=torch.float64).sqrt())
    end = leapfrog(quartic, quartic(u), p, size, metric, counts)
    return end.end.u, end.momentum


def test_leapfrog_is_reversible() -> None:
    u, p = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    there, momentum = flow(u, p, 0.1, 20)
    back, _ = flow(there, -momentum, 0.1, 20)
    torch.testing.assert_close(back, u, rtol=1e-10, atol=1e-10)
    wrong, _ = flow(there, momentum, 0.1, 20)  # the momentum's sign not turned
    assert float((wrong - u).abs().max()) > 0.1


def test_leapfrog_preserves_volume() -> None:
    start = torch.randn(4, dtype=torch.float64)

    def flat(state: Tensor) -> Tensor:
        u, p = flow(state[:2].view(1, 1, 2), state[2:].view(1, 1, 2), 0.2, 5)
        return torch.cat([u.flatten(), p.flatten()])

    jacobian = torch.autograd.functional.jacobian(flat, start)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-10)


def test_energy_error_falls_as_the_square_of_the_step() -> None:
    u, p = torch.randn(2, 50, 1, 2, dtype=torch.float64)
    errors = []
    for steps in (40, 80):
        there, momentum = flow(u, p, 2.0 / steps, steps)
        after = kinetic_energy(momentum) - quartic(there).log_density
        before = kinetic_energy(p) - quartic(u).log_density
        errors.append(float((after - before).abs().mean()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)


def test_datapoints_make_their_own_number_of_steps() -> None:
    u, p = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    metric = Diagonal(torch.ones(1, 2, dtype=torch.float64))
    step = torch.full((3,), 0.1, dtype=torch.float64)
    counts = torch.tensor([1, 7, 3])
    together = leapfrog(quartic, quartic(u), p, step, metric, counts)
    for column, count in enumerate(counts):
        part = slice(column, column + 1)
        alone = leapfrog(
            quartic, quartic(u[:, part]), p[:, part], step[part], metric, count.view(1)
        )
        assert torch.equal(together.end.u[:, part], alone.end.u)
        assert torch.equal(together.momentum[:, part], alone.momentum)

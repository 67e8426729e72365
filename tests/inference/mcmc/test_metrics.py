"""Masses: one map in three shapes, and what they are fitted to."""

import math

import pytest
import torch
from torch import Tensor

from aevb.inference.mcmc.metrics import Dense, Diagonal, LowRank, Metric
from aevb.inference.mcmc.preconditioning import choose_kind, fitted_metric

DIM, BATCH = 5, 3


def metrics() -> list[Metric]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    directions = torch.linalg.qr(noise(BATCH, DIM, 2)).Q
    matrix = noise(BATCH, DIM, DIM)
    return [
        Diagonal(noise(BATCH, DIM).exp()),
        Dense.of(matrix @ matrix.mT + torch.eye(DIM)),
        LowRank(noise(BATCH, DIM).exp(), directions, noise(BATCH, 2).exp()),
    ]


@pytest.mark.parametrize("metric", metrics(), ids=lambda metric: type(metric).__name__)
def test_a_metric_is_one_linear_map(metric: Metric) -> None:
    u = torch.randn(7, BATCH, DIM, dtype=torch.float64)
    other = torch.randn_like(u)
    torch.testing.assert_close(metric.whiten(metric.push(u)), u)
    # pull is the transpose of push
    inner = ((metric.push(u) * other).sum(-1), (u * metric.pull(other)).sum(-1))
    torch.testing.assert_close(*inner)
    wanted = torch.einsum("bij,cbj->cbi", metric.inverse_mass, other)
    torch.testing.assert_close(metric.push(metric.pull(other)), wanted)
    diagonal = metric.inverse_mass.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(metric.variance, diagonal)


def normals(num: int, dim: int = DIM) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of correlated normals, gradients there, and covariances."""
    factor = torch.randn(BATCH, dim, dim, dtype=torch.float64)
    covariance = factor @ factor.mT + 0.1 * torch.eye(dim)
    draws = torch.randn(num, BATCH, dim, dtype=torch.float64)
    draws = torch.einsum("bij,sbj->sbi", torch.linalg.cholesky(covariance), draws)
    gradients = -torch.linalg.solve(covariance, draws.movedim(0, -1)).movedim(-1, 0)
    return draws, gradients, covariance


def condition(metric: Metric, covariance: Tensor) -> float:
    """Of the worst datapoint's covariance where the masses are one."""
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype)
    inverse = metric.whiten(eye.unsqueeze(1).expand(-1, len(covariance), -1)).movedim(0, -1)
    return float(torch.linalg.cond(inverse @ covariance @ inverse.mT).max())


def test_few_draws_of_normals_tell_their_covariance() -> None:
    draws, gradients, covariance = normals(30)
    fitted = fitted_metric(draws, gradients, "dense")
    assert condition(fitted, covariance) < 1.05
    torch.testing.assert_close(fitted.inverse_mass, covariance, rtol=0.05, atol=0.05)
    # the twin: what the covariance of the draws alone is worth
    assert condition(Dense.of(torch.cov(draws[:, 0].T).expand(BATCH, -1, -1)), covariance) > 2.0


def test_diagonal_masses_are_those_of_independent_dimensions() -> None:
    scale = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    draws = scale * torch.randn(10, BATCH, 3, dtype=torch.float64)
    fitted = fitted_metric(draws, -draws / scale**2, "diagonal")
    torch.testing.assert_close(fitted.variance, scale.square().expand(BATCH, 3))


def test_a_low_rank_straightens_the_directions_that_stand_out() -> None:
    dim = 60
    direction = torch.nn.functional.normalize(torch.randn(BATCH, dim, 2).double(), dim=1)
    direction = torch.linalg.qr(direction).Q
    stretch = torch.tensor([1e4, 1e-4], dtype=torch.float64)
    covariance = torch.eye(dim) + direction @ torch.diag(stretch - 1) @ direction.mT
    draws = torch.randn(100, BATCH, dim, dtype=torch.float64)
    draws = torch.einsum("bij,sbj->sbi", torch.linalg.cholesky(covariance), draws)
    gradients = -torch.linalg.solve(covariance, draws.movedim(0, -1)).movedim(-1, 0)
    low = condition(fitted_metric(draws, gradients, "low-rank"), covariance)
    diagonal = condition(fitted_metric(draws, gradients, "diagonal"), covariance)
    assert low < 30 < 1e4 < diagonal


@pytest.mark.parametrize("kind", ["diagonal", "dense", "low-rank"])
def test_draws_that_tell_nothing_leave_unit_masses(kind: str) -> None:
    draws, gradients, _ = normals(30)
    alone = fitted_metric(draws, gradients, kind)
    draws[:, 1], gradients[:, 2] = 3.3, math.inf
    fitted = fitted_metric(draws, gradients, kind)
    for place in (1, 2):
        torch.testing.assert_close(fitted.inverse_mass[place], torch.eye(DIM).double())
    torch.testing.assert_close(fitted.inverse_mass[0], alone.inverse_mass[0])


def test_what_is_chosen_by_itself_follows_the_dimension() -> None:
    kinds = [choose_kind("auto", 10, dim) for dim in (1, 2, 128, 129)]
    assert kinds == ["diagonal", "dense", "dense", "low-rank"]
    assert choose_kind("auto", 10**6, 100) == "low-rank"  # for the memory

"""Estimators of Gaussian gradients against closed forms, and rank-one algebra against dense."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from aevb.inference.svi import gaussian_gradients as gg
from aevb.models import RankOnePrecisionNormal

from oracles import STANDARD_ERRORS

DRAWS = 40_000


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


K = 4
LOC = double(K, seed=1)
LINEAR = double(K, seed=2)
QUADRATIC = double(K, K, seed=3)
QUADRATIC = QUADRATIC + QUADRATIC.T
WAVE = 0.3 * double(K, seed=4)
ROOT = double(K, K, seed=5)
COVARIANCES: list[gg.Covariance] = [
    gg.DiagonalCovariance(double(K, seed=6).exp()),
    gg.RankOneCovariance(double(K, seed=7).exp(), double(K, seed=8)),
    gg.FullCovariance(ROOT @ ROOT.T / K + torch.eye(K, dtype=torch.float64)),
]
ESTIMATORS = [gg.reparameterization, gg.bonnet_price, gg.score_function]


def function(z: Tensor) -> Tensor:
    """Neither linear nor quadratic, with a known expectation."""
    return LINEAR @ z + z @ QUADRATIC @ z + torch.sin(WAVE @ z)


def expectation(loc: Tensor, matrix: Tensor) -> Tensor:
    """E f, in closed form: of a sine it is the sine of the mean, damped."""
    wave = torch.sin(WAVE @ loc) * torch.exp(-0.5 * WAVE @ matrix @ WAVE)
    return LINEAR @ loc + loc @ QUADRATIC @ loc + (QUADRATIC * matrix).sum() + wave


def exact(covariance: gg.Covariance) -> tuple[Tensor, dict[str, Tensor]]:
    values = {n: v.clone().requires_grad_() for n, v in covariance.parameters.items()}
    loc = LOC.clone().requires_grad_()
    result = expectation(loc, covariance.matrix(values))
    first, *rest = torch.autograd.grad(result, [loc, *values.values()])
    return first, dict(zip(values, rest, strict=True))


def apart(estimates: Tensor, truth: Tensor, factor: float = 1.0) -> float:
    """Largest error of a mean over draws, in standard errors."""
    flat = factor * estimates.flatten(1)
    error = flat.std(0) / math.sqrt(len(flat))
    difference = (flat.mean(0) - truth.flatten()).abs()
    return float((difference / error.clamp(min=1e-12)).max())


@pytest.mark.parametrize("covariance", COVARIANCES, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.__name__)
def test_every_estimator_is_unbiased(
    estimator: Callable[..., gg.GaussianGradients], covariance: gg.Covariance
) -> None:
    generator = torch.Generator().manual_seed(9)
    estimate = estimator(function, LOC, covariance, DRAWS, generator)
    loc, parameters = exact(covariance)
    assert apart(estimate.loc, loc) < STANDARD_ERRORS
    assert set(parameters) == set(estimate.covariance)
    for name, truth in parameters.items():
        assert apart(estimate.covariance[name], truth) < STANDARD_ERRORS


def test_half_a_hessian_too_much_is_found_out() -> None:
    covariance = COVARIANCES[2]
    generator = torch.Generator().manual_seed(9)
    estimate = gg.bonnet_price(function, LOC, covariance, DRAWS, generator)
    truth = exact(covariance)[1]["covariance"]
    assert apart(estimate.covariance["covariance"], truth, factor=1.1) > STANDARD_ERRORS


@pytest.mark.parametrize("covariance", COVARIANCES, ids=lambda c: type(c).__name__)
def test_derivatives_spare_variance(covariance: gg.Covariance) -> None:
    spreads = []
    for estimator in ESTIMATORS:
        generator = torch.Generator().manual_seed(9)
        estimate = estimator(function, LOC, covariance, 4000, generator)
        spreads.append([float(v.var(0).sum()) for v in estimate.covariance.values()])
    reparameterized, price, score = (sum(spread) for spread in spreads)
    assert price < reparameterized < score


def test_price_is_exact_for_a_quadratic() -> None:
    estimate = gg.bonnet_price(lambda z: z @ QUADRATIC @ z, LOC, COVARIANCES[2], 3)
    for draw in estimate.covariance["covariance"]:
        torch.testing.assert_close(draw, QUADRATIC, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES, ids=lambda c: type(c).__name__)
def test_roots_are_roots(covariance: gg.Covariance) -> None:
    values = covariance.parameters
    basis = torch.eye(K, dtype=torch.float64)
    root = torch.stack([covariance.root_times(values, column) for column in basis], dim=1)
    torch.testing.assert_close(root @ root.T, covariance.matrix(values), rtol=1e-10, atol=1e-10)


def test_no_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="num_samples: must be at least 1"):
        gg.bonnet_price(function, LOC, COVARIANCES[0], 0)


def rank_one(scale: float = 1.0, batch: tuple[int, ...] = (3,)) -> tuple[Any, Tensor]:
    loc, diagonal = double(*batch, K, seed=1), double(*batch, K, seed=2).exp()
    factor = scale * double(*batch, K, seed=3)
    precision = torch.diag_embed(diagonal) + factor.unsqueeze(-1) * factor.unsqueeze(-2)
    return RankOnePrecisionNormal(loc, diagonal, factor), precision


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 1e3])
def test_rank_one_formulas_are_the_dense_ones(scale: float) -> None:
    q, precision = rank_one(scale)
    dense = torch.distributions.MultivariateNormal(q.loc, precision_matrix=precision)
    value = double(7, 3, K, seed=4)
    torch.testing.assert_close(q.log_prob(value), dense.log_prob(value), rtol=1e-10, atol=1e-10)
    covariance = torch.linalg.inv(precision)
    torch.testing.assert_close(q.covariance_matrix, covariance, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        q.log_det_covariance, -torch.logdet(precision), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(
        q.variance, covariance.diagonal(dim1=-2, dim2=-1), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(q.entropy(), dense.entropy(), rtol=1e-10, atol=1e-10)


def test_rank_one_draws_have_the_covariance() -> None:
    q, precision = rank_one(batch=())

    def draw(noise: Tensor) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", lambda *args, **kwargs: noise)
            return q.rsample()

    root = jacobian(draw, torch.zeros(K, dtype=torch.float64))
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(precision), rtol=1e-10, atol=1e-10)


def test_rank_one_expands() -> None:
    q, _ = rank_one()
    wide = q.expand((5, 3))
    assert wide.rsample((2,)).shape == (2, 5, 3, K)
    torch.testing.assert_close(wide.log_prob(q.loc), q.log_prob(q.loc).expand(5, 3))

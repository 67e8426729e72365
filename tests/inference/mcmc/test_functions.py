"""Functions in place of models, starts and covariances that are given, masses of every kind."""

import math

import pytest
import torch
from torch import Tensor

from aevb.inference import hmc

from oracles import STANDARD_ERRORS, linear_gaussian, simulate

LOC = torch.tensor([[1.0, -2.0, 0.0], [30.0, 0.0, 5.0]])
FACTOR = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.2, 0.0], [-0.5, 0.3, 3.0]])
COVARIANCE = FACTOR @ FACTOR.T


def log_density(u: Tensor) -> Tensor:
    return -0.5 * ((u - LOC) @ torch.linalg.inv(FACTOR).T).square().sum(-1)


def started(chains: int = 16) -> Tensor:
    return LOC + 3 * torch.randn(chains, 2, 3)


def errors(draws: Tensor, covariance: Tensor) -> float:
    """Largest error of a mean or covariance, in standard errors from the spread of chains."""
    deviation = draws - LOC
    products = torch.einsum("csbi,csbj->cbij", deviation, deviation) / draws.shape[1]
    worst = 0.0
    for values in (deviation.mean(1), products - covariance):
        error = values.std(0) / math.sqrt(len(values))
        worst = max(worst, float((values.mean(0) / error).abs().max()))
    return worst


@pytest.mark.parametrize("mass", ["auto", "dense", "diagonal", "low-rank"])
def test_a_function_has_the_moments_of_its_normal_with_every_mass(mass: str) -> None:
    draws = hmc(
        log_density=log_density, start=started(32), mass=mass, num_samples=200, num_warmup=200
    )
    assert errors(draws.samples["u"], COVARIANCE) < STANDARD_ERRORS
    assert draws.is_local
    # the twin: another covariance is told from it
    assert errors(draws.samples["u"], 1.1 * COVARIANCE) > STANDARD_ERRORS


@pytest.mark.filterwarnings("ignore:HMC")  # of the diagonal one, which is slow
def test_a_dense_mass_needs_fewer_evaluations_for_an_effective_draw() -> None:
    rates = {}
    for mass in ("dense", "diagonal"):
        draws = hmc(log_density=log_density, start=started(), mass=mass, num_samples=150,
                    num_warmup=150)  # fmt: skip
        rates[mass] = float(draws.ess_bulk.min() / draws.stats["n_steps"].sum())
    assert rates["dense"] > 1.5 * rates["diagonal"]


def test_a_joint_posterior_is_a_function_of_vectors() -> None:
    start = torch.randn(8, 4)
    draws = hmc(
        log_density=lambda u: -0.5 * u.square().sum(-1), start=start, num_samples=30, num_warmup=60
    )
    assert draws.samples["u"].shape == (8, 30, 4)
    assert draws.stats["lp"].shape == (8, 30)
    assert not draws.is_local


@pytest.mark.parametrize("target", [0.8, 0.9])
def test_acceptance_comes_out_where_it_was_aimed_at(target: float) -> None:
    scale = torch.logspace(-3, 3, 30).unsqueeze(-1)

    def density(u: Tensor) -> Tensor:
        return -(u / scale).cosh().log().sum(-1)

    draws = hmc(log_density=density, start=scale * torch.randn(16, 30, 10), num_samples=100,
                num_warmup=300, target_acceptance=target)  # fmt: skip
    rate = draws.stats["acceptance_rate"].mean((0, 1))
    error = float(rate.std()) / math.sqrt(len(rate))
    assert abs(float(rate.mean()) - target) < 0.03 + STANDARD_ERRORS * error
    assert float((rate - target).abs().max()) < 0.1


def test_given_positions_and_covariances_are_what_chains_begin_with() -> None:
    covariance = COVARIANCE.expand(2, 3, 3)
    draws = hmc(
        log_density=log_density, start=started(), covariance=covariance, num_samples=100,
        num_warmup=15,
    )  # fmt: skip
    torch.testing.assert_close(draws.metric.inverse_mass, covariance)
    assert float(draws.step_size.min()) > 0.5  # of a standard normal's
    assert float(draws.rhat.max()) < 1.1
    fa = linear_gaussian()
    x = simulate(fa, 2)
    exact = fa.posterior(x)
    start = exact.rsample((6,)).detach()
    found = hmc(
        fa.model, x, num_chains=6, num_samples=1, num_warmup=0, start=start,
        covariance=exact.covariance_matrix.detach(),
    )  # fmt: skip
    torch.testing.assert_close(found.metric.inverse_mass, exact.covariance_matrix.detach())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected a model or a log_density"),
        ({"log_density": log_density}, "start: a log_density needs positions"),
        ({"log_density": log_density, "start": torch.ones(3)}, "start: expected positions"),
        (
            {"log_density": lambda u: u, "start": torch.ones(16, 2, 3)},
            r"log_density: of \(16, 2, 3\) expected \(16, 2\); got \(16, 2, 3\)",
        ),
        (
            {"log_density": log_density, "start": torch.ones(4, 2, 3), "num_chains": 16},
            r"start: expected positions \(16, 2, 3\); got \(4, 2, 3\)",
        ),
    ],
)
def test_what_is_no_density_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hmc(**settings)

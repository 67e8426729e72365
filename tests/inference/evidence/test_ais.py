"""Annealed importance sampling against closed forms, with twins that must fail."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import models
from aevb.inference import (
    AISEvidence,
    Pilot,
    adaptive_schedule,
    ais_evidence,
    bdmc_evidence,
    linear_schedule,
    sigmoid_schedule,
)
from aevb.inference.mcmc import kernel

from oracles import STANDARD_ERRORS, linear_gaussian, mean_field_guide, simulate


@pytest.fixture(scope="module", name="oracle")
def fixture_oracle() -> tuple[models.FactorAnalysis, Tensor, Tensor]:
    fa = linear_gaussian()
    x = simulate(fa, 100)
    with torch.no_grad():
        return fa, x, fa.log_evidence(x)


def standardized_bias(evidence: AISEvidence, exact: Tensor) -> float:
    """Mean of w/p(x) less one, over all chains and datapoints, in standard errors."""
    ratio = torch.exp(evidence.log_weights - exact).flatten()
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


SCHEDULES = {
    "linear": linear_schedule,
    "sigmoid": sigmoid_schedule,
    "adaptive": adaptive_schedule,
}


@pytest.mark.parametrize(
    ("start", "schedule"),
    [
        ("prior", "linear"),
        ("prior", "sigmoid"),
        ("prior", "adaptive"),
        ("guide", "adaptive"),
        # nothing new meets in these two
        pytest.param("guide", "linear", marks=pytest.mark.slow),
        pytest.param("guide", "sigmoid", marks=pytest.mark.slow),
    ],
)
def test_estimates_of_evidence_have_no_bias(schedule: str, start: str, oracle: Any) -> None:
    fa, x, exact = oracle
    guide = mean_field_guide(fa) if start == "guide" else None
    count = 30 if start == "guide" else 60
    evidence = ais_evidence(
        fa.model, x, guide=guide, num_chains=64, num_temperatures=count,
        schedule=SCHEDULES[schedule], seed=2,
    )  # fmt: skip
    assert abs(standardized_bias(evidence, exact)) < STANDARD_ERRORS
    z = (evidence.log_evidence - exact) / evidence.standard_error
    assert float(z.square().mean()) < 3.0
    assert float(evidence.acceptance_rate.mean()) == pytest.approx(0.65, abs=0.12)
    assert (evidence.start, evidence.schedule) == (start, schedule)


def test_more_temperatures_lose_less(oracle: Any) -> None:
    fa, x, exact = oracle
    errors = []
    for count in (5, 50):
        evidence = ais_evidence(fa.model, x, num_chains=16, num_temperatures=count, seed=3)
        errors.append(float((evidence.log_weights - exact).square().mean()))
    assert errors[1] < 0.2 * errors[0]


def test_between_equal_ends_weights_have_no_variance(oracle: Any) -> None:
    fa, x, exact = oracle
    evidence = ais_evidence(fa.model, x, guide=fa.guide, num_temperatures=5)
    assert float((evidence.log_weights - exact).abs().max()) < 1e-10
    assert float((evidence.ess - 16).abs().max()) < 1e-6


def bounds_in_standard_errors(seed: int, count: int = 8) -> tuple[float, float]:
    """How far mean lower and upper bounds are on their side of the truth."""
    fa = linear_gaussian()
    x = torch.zeros(200, 6, dtype=torch.float64)
    bounds = bdmc_evidence(fa.model, x, num_chains=1, num_temperatures=count, seed=seed)
    with torch.no_grad():
        exact = fa.log_evidence(bounds.data["x"])
    results = []
    for excess in (exact - bounds.lower, bounds.upper - exact):
        results.append(float(excess.mean() / (excess.std() / math.sqrt(len(excess)))))
    assert float(bounds.gap.mean()) == pytest.approx(float((bounds.upper - bounds.lower).mean()))
    return results[0], results[1]


def test_bounds_from_both_sides_contain_the_evidence() -> None:
    below, above = bounds_in_standard_errors(seed=1)
    # few temperatures, so that both bounds are clearly away from the truth, on their sides
    assert below > STANDARD_ERRORS
    assert above > STANDARD_ERRORS


def test_the_gap_closes_as_temperatures_grow() -> None:
    fa = linear_gaussian()
    x = torch.zeros(50, 6, dtype=torch.float64)
    wide, narrow = (
        float(bdmc_evidence(fa.model, x, num_temperatures=n, seed=4).gap.mean()) for n in (10, 200)
    )
    assert abs(narrow) < 0.1
    assert wide > 3 * abs(narrow)


def test_guide_of_a_simulated_datapoint_sees_it() -> None:
    fa = linear_gaussian()
    x = torch.zeros(5, 6, dtype=torch.float64)
    bounds = bdmc_evidence(fa.model, x, guide=fa.guide, num_temperatures=3, seed=4)
    with torch.no_grad():
        exact = fa.log_evidence(bounds.data["x"])
    torch.testing.assert_close(bounds.lower, exact)
    torch.testing.assert_close(bounds.upper, exact)


# Twins that must fail


def biased(oracle: Any, **kwargs: Any) -> float:
    fa, x, exact = oracle
    settings = {"num_chains": 64, "num_temperatures": 30, "seed": 2, **kwargs}
    return abs(standardized_bias(ais_evidence(fa.model, x, **settings), exact))


def test_without_the_accept_step_there_is_bias(
    oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = kernel.step

    def always(*args: Any) -> tuple[Any, Any]:
        _, info = step(*args)
        return info.proposal.end, info

    assert biased(oracle, target_acceptance=0.3) < STANDARD_ERRORS
    monkeypatch.setattr(kernel, "step", always)
    assert biased(oracle, target_acceptance=0.3) > STANDARD_ERRORS


def test_unsorted_temperatures_give_bias(oracle: Any) -> None:
    def shuffled(count: int, pilot: Pilot | None) -> Tensor:
        betas = sigmoid_schedule(count)
        return betas if pilot is None else torch.cat([betas[:1], betas[1:-1].flip(0), betas[-1:]])

    fa, x, exact = oracle
    evidence = ais_evidence(
        fa.model, x, num_chains=64, num_temperatures=30, schedule=shuffled, seed=2
    )
    assert evidence.schedule == "shuffled"
    error = (evidence.log_evidence - exact).abs().mean()
    assert float(error) > 0.5


# Other programs


def half_normal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        scale = pyro.sample("scale", dist.HalfNormal(2.0))
        pyro.sample("x", dist.Normal(0.0, scale), obs=x)


def by_quadrature(x: Tensor) -> Tensor:
    scale = torch.linspace(1e-4, 20, 200_001, dtype=torch.float64).view(-1, 1)
    joint = dist.HalfNormal(2.0).log_prob(scale) + dist.Normal(0.0, scale).log_prob(x.double())
    return torch.trapezoid(joint.exp(), scale, dim=0).log()


def test_constrained_latents_and_one_joint_posterior() -> None:
    x = torch.tensor([0.3, 1.0, 4.0])
    evidence = ais_evidence(half_normal, x, num_chains=200, num_temperatures=50, seed=1)
    z = (evidence.log_evidence - by_quadrature(x)) / evidence.standard_error
    assert float(z.abs().max()) < STANDARD_ERRORS

    def joint() -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    evidence = ais_evidence(joint, num_chains=200, num_temperatures=50, seed=1)
    covariance = torch.eye(3) + torch.ones(3, 3)
    exact = dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)
    z = (evidence.log_evidence - exact) / evidence.standard_error
    assert evidence.log_evidence.shape == (1,)
    assert float(z.abs().max()) < STANDARD_ERRORS


def test_same_seed_same_estimate_in_any_parts(oracle: Any) -> None:
    fa, x, _ = oracle
    runs = [
        ais_evidence(fa.model, x[:5], num_temperatures=10, num_chains=6, chain_batch_size=size)
        for size in (None, None, 4)
    ]
    assert torch.equal(runs[0].log_weights, runs[1].log_weights)
    torch.testing.assert_close(runs[0].log_weights, runs[2].log_weights)


def nan_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z * float("nan"), 1.0), obs=x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_chains": 0}, "num_chains"),
        ({"num_temperatures": 0}, "num_temperatures"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps"),
        ({"schedule": "cosine"}, "schedule: expected a function .*; got 'cosine'"),
        (
            {"schedule": lambda count, _: linear_schedule(count)[1:]},
            "schedule: expected 101 temperatures from 0 to 1; got 100",
        ),
        (
            {"schedule": lambda count, _: 0.5 * linear_schedule(count)},
            "schedule: expected .* from 0 to 0.5",
        ),
        ({"chain_batch_size": 0}, "chain_batch_size"),
        ({"target_acceptance": 0.0}, "target_acceptance"),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, Any], message: str, oracle: Any
) -> None:
    fa, x, _ = oracle
    with pytest.raises(ValueError, match=message):
        ais_evidence(fa.model, x, **settings)


@pytest.mark.parametrize("estimate", [ais_evidence, bdmc_evidence])
def test_nan_names_its_site(estimate: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="site 'x'"):
        estimate(nan_model, torch.zeros(3), num_temperatures=3)


def autoregression(x: Tensor) -> None:
    """Reads what it observes as lags, so that it cannot be drawn at once."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        lags = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], -1)
        pyro.sample("x", dist.Normal(0.9 * lags + z.unsqueeze(-1), 0.5).to_event(1), obs=x)


def shifted(x: Tensor, c: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(z, 0.3), obs=1.0 * x)  # a copy: found by its values


def test_data_that_a_model_reads_elsewhere_cannot_be_simulated() -> None:
    with pytest.raises(ValueError, match="site 'x' depends on observed arguments in another way"):
        bdmc_evidence(autoregression, torch.randn(5, 4), num_temperatures=5)
    with pytest.raises(ValueError, match="2 of them equal what site 'x' observes"):
        bdmc_evidence(shifted, torch.zeros(5), torch.zeros(5), num_temperatures=5)


def test_covariates_that_differ_from_the_data_are_left_alone() -> None:
    c = torch.linspace(-3, 3, 300).double()
    bounds = bdmc_evidence(shifted, torch.zeros(300).double(), c, num_temperatures=30)
    exact = dist.Normal(c, math.sqrt(1.09)).log_prob(bounds.data["x"])
    for bound, sign in ((bounds.lower, 1), (bounds.upper, -1)):
        off = sign * (bound - exact)
        assert float(off.mean() / off.std()) * math.sqrt(300) < STANDARD_ERRORS
    assert bool(torch.isnan(bounds.reverse.standard_error).all())


def test_few_chains_are_never_called_converged() -> None:
    fa = linear_gaussian()
    evidence = ais_evidence(fa.model, simulate(fa, 3), num_chains=4, num_temperatures=100)
    assert not bool(evidence.is_trusted.any())
    many = ais_evidence(fa.model, simulate(fa, 3), num_chains=16, num_temperatures=100)
    assert bool(many.is_trusted.all())

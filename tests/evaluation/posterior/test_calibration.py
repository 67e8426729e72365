"""Simulation-based calibration: uniform for exact posteriors, and only for those."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import models
from aevb.evaluation import Calibration, calibrate
from aevb.evaluation.posterior.ecdf import simultaneous_band, simultaneous_p_value
from aevb.inference import simulate

from oracles import (
    FALSE_ALARM_RATE,
    STANDARD_ERRORS,
    linear_gaussian,
    mean_field_guide,
    misscaled_guide,
)

DATA = torch.zeros(500, 6, dtype=torch.float64)


def shifted_guide(fa: models.FactorAnalysis, shift: float) -> Callable[..., Any]:
    """The exact posterior moved by so many of its standard deviations."""

    def guide(x: Tensor) -> Tensor:
        exact = fa.posterior(x)
        with pyro.plate("data", len(x)):
            loc = exact.loc + shift * exact.stddev
            wrong = dist.MultivariateNormal(loc, scale_tril=exact.scale_tril)
            return pyro.sample("z", wrong)

    return guide


def calibration_of(guide: Any, seed: int = 0) -> Calibration:
    fa = linear_gaussian()
    return calibrate(fa.model, guide(fa), DATA, num_simulations=1000, seed=seed)


# Bands and p-values


def uniform_counts(num: int, levels: int, repeats: int) -> np.ndarray:
    bins = np.random.default_rng(0).multinomial(
        num, np.full(levels + 1, 1 / (levels + 1)), repeats
    )
    return bins.cumsum(1)[:, :-1]


@pytest.mark.parametrize(("num", "levels"), [(50, 9), (300, 19), (1000, 99)])
def test_bands_cover_what_they_say_by_simulation(num: int, levels: int) -> None:
    repeats = 20_000
    counts = uniform_counts(num, levels, repeats)
    low, high = simultaneous_band(num, levels, coverage=0.9).numpy()
    covered = ((counts >= low) & (counts <= high)).all(1).mean()
    error = np.sqrt(0.9 * 0.1 / repeats)
    assert covered > 0.9 - STANDARD_ERRORS * error
    # the next narrower band is below; counts are discrete, so not by much at 1000 ranks
    assert covered < 0.9 + STANDARD_ERRORS * error + 0.02
    tighter = ((counts >= low + 1) & (counts <= high - 1)).all(1).mean()
    assert tighter < 0.9 - STANDARD_ERRORS * error


def test_p_values_are_uniform_under_uniformity() -> None:
    counts = torch.from_numpy(uniform_counts(200, 19, 2000))
    p = np.array([simultaneous_p_value(row, 200) for row in counts])
    for level in (0.01, 0.05, 0.2, 0.5):
        error = np.sqrt(level * (1 - level) / len(p))
        assert (p <= level).mean() < level + STANDARD_ERRORS * error
        assert (p <= level).mean() > 0.8 * level - STANDARD_ERRORS * error


def test_p_value_of_one_level_is_that_of_the_binomial() -> None:
    # two equal halves: 2 P(C <= 30) of 100 fair coins
    assert simultaneous_p_value(torch.tensor([30]), 100) == pytest.approx(7.85e-5, rel=1e-3)


def test_p_values_fall_without_end() -> None:
    p = [simultaneous_p_value(torch.tensor([c, 50, 75]), 100) for c in range(25, -1, -1)]
    assert all(a >= b for a, b in zip(p[:-1], p[1:], strict=True))
    assert 0 < p[-1] < 1e-10


# Guides


@pytest.mark.parametrize("seed", [0, 1])
def test_exact_posterior_is_calibrated(seed: int) -> None:
    calibration = calibration_of(lambda fa: fa.guide, seed)
    assert calibration.ranks.shape == (1000, 4)
    assert calibration.names == ("z[0]", "z[1]", "z[2]", "log_joint")
    assert calibration.p_value > 1e-6
    assert calibration.is_calibrated == (calibration.p_value > 0.05)
    # uniform on 0..99: mean 49.5, variance (100² - 1) / 12
    deviation = calibration.ranks.double().mean(0) - 49.5
    error = (9999 / 12 / 1000) ** 0.5
    assert float(deviation.abs().max()) < STANDARD_ERRORS * error


@pytest.mark.parametrize(
    "wrong",
    [
        lambda fa: misscaled_guide(fa, 0.8),
        lambda fa: misscaled_guide(fa, 1.25),
        lambda fa: shifted_guide(fa, 0.3),
    ],
    ids=["narrow", "wide", "shifted"],
)
def test_guides_wrong_by_a_fifth_are_flagged(wrong: Any) -> None:
    calibration = calibration_of(wrong)
    assert not calibration.is_calibrated
    assert calibration.p_value < FALSE_ALARM_RATE
    low, high = calibration.band
    outside = (calibration.ecdf_difference < low) | (calibration.ecdf_difference > high)
    assert bool(outside[:3].any(-1).all())  # log p(x, z) need not see a shift


def rejections(
    guide: Callable[[models.FactorAnalysis], Any], x: Tensor, seeds: int, simulations: int
) -> tuple[float, float]:
    """Share of seeds at which a guide is called wrong, and its standard error at 5 %."""
    fa = linear_gaussian(5, 2).to(x.dtype)
    found = [
        calibrate(
            fa.model, guide(fa), x, num_simulations=simulations, num_draws=49, seed=seed
        ).is_calibrated
        for seed in range(seeds)
    ]
    return 1 - sum(found) / seeds, math.sqrt(0.05 * 0.95 / seeds)


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)]
)
def test_exact_posterior_is_rejected_one_time_in_twenty(dtype: torch.dtype) -> None:
    """Few datapoints at once, so that a calibration is made of many blocks."""
    rate, error = rejections(lambda fa: fa.guide, torch.zeros(100, 5, dtype=dtype), 100, 200)
    assert rate < 0.05 + STANDARD_ERRORS * error


def test_narrow_guide_is_rejected_more_often() -> None:
    x = torch.zeros(100, 5, dtype=torch.float64)
    rate, error = rejections(lambda fa: misscaled_guide(fa, 0.8), x, 20, 200)
    assert rate > 0.05 + STANDARD_ERRORS * error


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_posterior_is_rejected_one_time_in_twenty_over_many_seeds(
    dtype: torch.dtype,
) -> None:
    rate, error = rejections(lambda fa: fa.guide, torch.zeros(30, 5, dtype=dtype), 500, 1000)
    assert abs(rate - 0.05) < STANDARD_ERRORS * error


def test_the_curve_says_which_way_a_scale_is_wrong() -> None:
    narrow, wide = (calibration_of(lambda fa, f=f: misscaled_guide(fa, f)) for f in (0.8, 1.25))
    third = len(narrow.grid) // 4
    assert bool((narrow.ecdf_difference[:3, third] > 0).all())
    assert bool((narrow.ecdf_difference[:3, -third] < 0).all())
    assert bool((wide.ecdf_difference[:3, third] < 0).all())


@pytest.mark.parametrize(
    ("wrong", "fault", "figure", "expected"),
    [
        # T of scale s among standard normal draws has rank share Φ(T), of variance
        # arcsin(s² / (1 + s²)) / 2π; the error of a variance of uniform numbers is 1/√(180 N)
        (lambda fa: misscaled_guide(fa, 0.8), "too narrow", "spread", (0.8**-2, 180)),
        (lambda fa: misscaled_guide(fa, 1.25), "too wide", "spread", (1.25**-2, 180)),
        # a shift d of the draws has mean rank share Φ(−d/√2), and of a mean 1/√(12 N)
        (lambda fa: shifted_guide(fa, 0.3), "too high", "shift", (-0.3, 12)),
        (lambda fa: shifted_guide(fa, -0.3), "too low", "shift", (0.3, 12)),
    ],
    ids=["narrow", "wide", "up", "down"],
)
def test_faults_have_the_size_of_the_closed_form(
    wrong: Any, fault: str, figure: str, expected: tuple[float, int]
) -> None:
    calibration = calibration_of(wrong)
    size, scale = expected
    if figure == "spread":
        excess = math.asin(size / (1 + size)) / (2 * math.pi) - 1 / 12
    else:
        excess = 0.5 * math.erf(size / 2)
    wanted = excess * math.sqrt(scale * 1000)
    # ranks that far from uniform have at most 1.4 times the standard error of uniform ones
    found = getattr(calibration, figure)[:3]
    assert float((found - wanted).abs().max()) < 1.4 * STANDARD_ERRORS
    assert abs(wanted) > 1.4 * STANDARD_ERRORS  # so that a guide without the fault would fail
    assert {calibration.fault(dim) for dim in range(3)} == {fault}
    rows = calibration.summary()["dimensions"]
    assert all(rows[f"z[{dim}]"]["strays"] for dim in range(3))
    assert list(rows) == [calibration.names[dim] for dim in calibration.worst]


def test_exact_posterior_has_neither_shift_nor_spread() -> None:
    calibration = calibration_of(lambda fa: fa.guide)
    assert float(calibration.shift.abs().max()) < STANDARD_ERRORS
    assert float(calibration.spread.abs().max()) < STANDARD_ERRORS
    assert calibration.summary()["num_straying"] == 0


def test_log_joint_sees_a_missing_correlation() -> None:
    """Independent normals with the exact marginal scales, so that single dimensions are right."""
    fa = linear_gaussian()

    def guide(x: Tensor) -> Tensor:
        exact = fa.posterior(x)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(exact.loc, exact.stddev).to_event(1))

    calibration = calibrate(fa.model, guide, DATA, num_simulations=2000)
    assert float(calibration.p_values[:3].min()) > 0.05 / 3
    assert float(calibration.p_values[3]) < FALSE_ALARM_RATE


def test_mean_field_guide_is_too_narrow() -> None:
    assert not calibration_of(mean_field_guide).is_calibrated


# Programs


def test_latents_in_two_sites_and_on_a_constrained_support() -> None:
    """Conjugate: a Gamma rate under Poisson counts, and a latent that the data say nothing of."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
            pyro.sample("other", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(3.0 + x, 2.0))
            pyro.sample("other", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    calibration = calibrate(model, guide, torch.zeros(500))
    assert calibration.names == ("rate", "other[0]", "other[1]", "log_joint")
    assert calibration.is_calibrated


def test_discrete_latents_break_ties_by_chance() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * k), obs=x)

    def guide(x: Tensor) -> None:
        yes, no = 0.3 * torch.where(x > 0, 0.8, 0.2), 0.7 * torch.where(x > 0, 0.2, 0.8)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(yes / (yes + no)))

    assert calibrate(model, guide, torch.zeros(500)).is_calibrated


def test_one_joint_posterior() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(x.sum() / (1 + len(x)), (1 + len(x)) ** -0.5))

    calibration = calibrate(model, guide, torch.zeros(4), num_simulations=200, num_draws=19)
    assert calibration.ranks.shape == (200, 2)
    assert calibration.is_calibrated


def test_same_seed_same_ranks_and_the_global_state_stays() -> None:
    fa = linear_gaussian()
    before = torch.get_rng_state()
    first, again, other = (
        calibrate(fa.model, fa.guide, DATA[:20], num_simulations=30, num_draws=9, seed=seed).ranks
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_data_that_the_guide_cannot_see_are_refused() -> None:
    data = torch.randn(5)

    def model() -> None:
        with pyro.plate("data", 5):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=data)

    def guide() -> None:
        with pyro.plate("data", 5):
            pyro.sample("z", dist.Normal(data / 2, 0.7))

    with pytest.raises(ValueError, match="observe what is no argument"):
        calibrate(model, guide)
    with pytest.raises(ValueError, match="num_draws: must be at least 1"):
        calibrate(model, guide, num_draws=0)


def test_arguments_are_told_apart_though_they_are_equal() -> None:
    """Two observed arguments of the same values: each gets what its own site simulates."""

    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(100.0, 1.0), obs=y)
            pyro.sample("x", dist.Normal(-100.0, 1.0), obs=x)

    simulation = simulate(model, torch.zeros(3), torch.zeros(3))
    assert bool((simulation.args[0] < 0).all())
    assert bool((simulation.args[1] > 0).all())

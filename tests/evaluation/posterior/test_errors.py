"""Guides against chains: errors in the directions of the posterior."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from aevb import evaluation, inference

from oracles import (
    STANDARD_ERRORS,
    mean_field_guide,
)

# Guides against chains


@pytest.fixture(scope="module", name="draws")
def fixture_draws(oracle: Any) -> inference.Draws:
    fa, x = oracle
    return inference.hmc(fa.model, x, num_chains=16, num_samples=200, num_warmup=200, seed=2)


def errors_of(guide: Callable[..., Any], oracle: Any, draws: Any) -> evaluation.PosteriorErrors:
    fa, x = oracle
    return evaluation.posterior_errors(fa.model, guide, x, draws=draws, seed=3)


def test_exact_guide_is_not_told_from_the_chains(oracle: Any, draws: Any) -> None:
    errors = errors_of(oracle[0].guide, oracle, draws)
    assert float((errors.mean_error / errors.noise).abs().max()) < STANDARD_ERRORS
    assert float(errors.log_scale_ratio.abs().max()) < 0.1
    assert float(errors.correlation_missed.max()) < 0.15
    # thirty p-values of which at most so many are below 0.05 but for once in a million
    assert int((errors.p_value < 0.05).sum()) <= 9


def test_narrow_guide_is_found_out_everywhere(oracle: Any, draws: Any) -> None:
    errors = errors_of(mean_field_guide(oracle[0], 0.6), oracle, draws)
    precision = oracle[0].posterior(oracle[1]).precision_matrix.detach()
    scale = 0.6 / precision.diagonal(dim1=-2, dim2=-1).sqrt()
    exact = torch.linalg.inv(precision).diagonal(dim1=-2, dim2=-1).sqrt()
    wanted = (scale / exact).log().expand(30, 3)
    torch.testing.assert_close(errors.log_scale_ratio, wanted, rtol=0.0, atol=0.1)
    assert float(errors.p_value.max()) < 0.01
    assert errors.worst.shape == (30,)


def test_p_values_of_equal_distributions_are_uniform() -> None:
    first, second = torch.randn(2, 40, 400, 2)
    _, p = evaluation.energy_distance_test(first, second, num_permutations=199)
    # the Kolmogorov distance of 400 uniform numbers exceeds 0.13 once in a million times
    steps = torch.arange(1, 401) / 400
    assert float((p.sort().values - steps).abs().max()) < 0.13
    _, p = evaluation.energy_distance_test(first, second + 0.5, num_permutations=199)
    assert float((p.sort().values - steps).abs().max()) > 0.13

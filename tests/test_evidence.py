"""The figures that a run reports, against the definitions of their names."""

import math

import pytest
import torch

from aevb.evaluation import summarize
from aevb.inference import importance_evidence, mean_elbo
from aevb.inference.fit import fit
from aevb.models import FactorAnalysis

from oracles import linear_gaussian, mean_field_guide, simulate


def test_means_and_errors_are_what_they_are_called() -> None:
    fa = linear_gaussian()
    evidence = importance_evidence(
        fa.model, mean_field_guide(fa, 1.5), simulate(fa, 30), num_samples=200, seed=4
    )
    figures = summarize(evidence)
    values, errors = evidence.log_evidence.numpy(), evidence.standard_error.numpy()
    assert figures["log_evidence"] == pytest.approx(values.mean())
    assert figures["standard_error"] == pytest.approx(values.std(ddof=1) / math.sqrt(30))
    assert figures["monte_carlo_error"] == pytest.approx(math.sqrt((errors**2).sum()) / 30)
    assert figures["elbo"] == pytest.approx(evidence.elbo.numpy().mean())
    assert figures["khat_above_0.7"] == int((evidence.khat.numpy() > 0.7).sum())
    assert (figures["num_datapoints"], figures["num_samples"], figures["seed"]) == (30, 200, 4)


def test_monte_carlo_error_is_the_spread_over_seeds() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 20)
    guide = mean_field_guide(fa, 1.5)
    runs = [
        summarize(importance_evidence(fa.model, guide, x, num_samples=400, seed=seed))
        for seed in range(60)
    ]
    spread = torch.tensor([run["log_evidence"] for run in runs]).std()
    stated = torch.tensor([run["monte_carlo_error"] for run in runs]).mean()
    # the sd of 60 normal draws has a relative standard error of 1/√(2·59)
    assert abs(float(spread / stated) - 1) < 5 / math.sqrt(2 * 59)
    assert abs(float(2 * spread / stated) - 1) > 5 / math.sqrt(2 * 59)


def test_unknown_khat_is_not_reported_as_good() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 5)
    figures = summarize(importance_evidence(fa.model, mean_field_guide(fa), x, num_samples=10))
    assert figures["khat_above_0.7"] is None
    assert figures["khat_median"] is None


def test_one_datapoint_has_no_population_error() -> None:
    fa = linear_gaussian()
    figures = summarize(importance_evidence(fa.model, fa.guide, simulate(fa, 1), num_samples=50))
    assert figures["standard_error"] is None


@pytest.mark.parametrize("batch_size", [7, 10, 15, 100])
def test_validation_elbo_weighs_datapoints_and_not_batches(batch_size: int) -> None:
    """With the exact guide the ELBO of each datapoint is its log p(x), whatever the draws."""
    fa = linear_gaussian()
    x = simulate(fa, 15)
    x[10:] *= 5  # the short last batch is unlike the others
    exact = float(fa.log_evidence(x).detach().mean())
    assert mean_elbo(fa, x, batch_size=batch_size) == pytest.approx(exact, rel=1e-10)


def test_training_weighs_datapoints_and_not_batches() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 15)
    x[10:] *= 5
    exact = float(fa.log_evidence(x).detach().mean())
    run = fit(fa, x, epochs=1, batch_size=10, learning_rate=1e-12, device="cpu")
    assert run.history[0]["train_objective"] == pytest.approx(exact, rel=1e-6)


def test_training_leaves_the_model_ready_to_be_judged() -> None:
    fa = FactorAnalysis((3,), 2)
    fit(fa, torch.randn(10, 3), epochs=1, batch_size=5, device="cpu")
    assert not fa.training

"""The figures that a run reports, against the definitions of their names."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from aevb.evaluation import evidence_curve, importance_curve, summarize
from aevb.evaluation import summaries as evidence_module
from aevb.inference import (
    AISEvidence,
    BDMCEvidence,
    Evidence,
    HMCEvidence,
    ais_evidence,
    bdmc_evidence,
    hmc,
    hmc_evidence,
    importance_evidence,
    mean_elbo,
)
from aevb.inference.svi.fit import fit
from aevb.models import VAE, FactorAnalysis

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
    assert figures["untrusted"] == int((evidence.khat_pooled.numpy() > 0.45).sum())
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
    assert figures["untrusted"] == 5
    assert figures["khat_median"] is None
    assert figures["verdict"] != "trusted"
    assert figures["why"] == "k̂ is not defined below 25 samples"


def test_few_chains_of_annealing_are_never_converged() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 5)
    few, enough = (
        ais_evidence(fa.model, x, guide=fa.guide, num_temperatures=5, num_chains=chains)
        for chains in (4, 8)
    )
    assert summarize(few)["low_ess"] == 5
    assert summarize(few)["verdict"] != "trusted"
    assert "few chains carry the estimate at 5 of 5" in summarize(few)["why"]
    # all weights are equal, since annealing starts from the posterior itself
    assert summarize(enough)["low_ess"] == 0
    assert summarize(enough)["verdict"] == "trusted"
    assert "why" not in summarize(enough)


EVIDENCES: dict[str, Callable[[FactorAnalysis, Tensor], Any]] = {
    "importance": lambda fa, x: importance_evidence(fa.model, fa.guide, x, num_samples=50),
    "ais": lambda fa, x: ais_evidence(fa.model, x, guide=fa.guide, num_temperatures=3),
    "bdmc": lambda fa, x: bdmc_evidence(fa.model, x, guide=fa.guide, num_temperatures=3),
    "hmc": lambda fa, x: hmc_evidence(fa.model, x, num_samples=50, num_warmup=50),
}


@pytest.mark.filterwarnings("ignore:HMC")  # of fifty draws
@pytest.mark.parametrize("name", EVIDENCES)
def test_every_estimator_tells_the_same_things(name: str) -> None:
    fa = linear_gaussian()
    evidence = EVIDENCES[name](fa, simulate(fa, 3))
    assert isinstance(evidence, Evidence)
    for value in (evidence.log_evidence, evidence.standard_error, evidence.is_trusted):
        assert value.shape == (3,)
    assert evidence.is_trusted.dtype == torch.bool
    figures = evidence.summary()
    assert json.loads(json.dumps(figures)) == figures == summarize(evidence)
    assert figures["num_datapoints"] == 3
    assert (figures["verdict"] == "trusted") is (
        float((~evidence.is_trusted).double().mean()) <= 0.05
    )
    assert repr(evidence).startswith(f"{type(evidence).__name__}(")
    assert "\n" not in repr(evidence)


def bounds_of_a_model(gap: float, spread: float = 0.0, reverse_ess: float = 16.0) -> BDMCEvidence:
    """Bounds of 20 datapoints with this mean gap; forward chains are as good as can be."""
    zeros, ess = torch.zeros(20), torch.full((20,), 16.0)
    forward = AISEvidence(
        zeros, zeros, ess, zeros + 0.6, torch.zeros(16, 20), 16, 10, "linear", "prior", 0
    )
    upper = zeros + gap + spread * torch.linspace(-1, 1, 20)
    reverse = dataclasses.replace(forward, log_evidence=-upper, ess=torch.full((20,), reverse_ess))
    return BDMCEvidence(forward, reverse, {})


def test_bounds_that_are_far_apart_are_not_converged() -> None:
    assert summarize(bounds_of_a_model(0.9))["verdict"] == "trusted"
    wide = summarize(bounds_of_a_model(2.6))
    assert wide["verdict"] != "trusted"
    assert wide["why"] == "the mean gap between the bounds is 2.60 nats"
    # within two standard errors of a nat
    assert summarize(bounds_of_a_model(1.1, spread=1.0))["verdict"] == "trusted"
    assert summarize(bounds_of_a_model(math.nan))["verdict"] != "trusted"


def test_dependent_chains_of_the_reverse_have_no_say() -> None:
    assert summarize(bounds_of_a_model(0.1, reverse_ess=1.0))["verdict"] == "trusted"
    bounds = bounds_of_a_model(0.1)
    low = dataclasses.replace(bounds.forward, ess=torch.ones(20))
    assert summarize(dataclasses.replace(bounds, forward=low))["verdict"] != "trusted"


@pytest.mark.parametrize(
    ("chains", "samples", "converged"), [(1, 600, False), (4, 30, False), (8, 300, True)]
)
def test_posterior_draws_are_converged_by_rhat_and_effective_draws(
    chains: int, samples: int, converged: bool
) -> None:
    fa = linear_gaussian(latent_dim=2)
    draws = hmc(
        fa.model, simulate(fa, 2), guide=fa.guide, num_chains=chains, num_samples=samples,
        num_warmup=100,
    )  # fmt: skip
    assert not bool(draws.suspicious.any())
    figures = summarize(HMCEvidence(torch.zeros(2), torch.zeros(2), draws))
    assert (figures["verdict"] == "trusted") is converged
    assert (figures["rhat_worst"] is None) is (chains == 1)
    assert ("R̂" in figures.get("why", "")) is not converged


def power_law(limit: float, exponent: float, noise: float) -> dict[str, Any]:
    counts = [2**power for power in range(13)]
    bounds = [limit - 3 * count**-exponent for count in counts]
    return evidence_module._extrapolated(counts, bounds, [None, *[noise] * 12])


def test_limit_of_a_curve_is_given_with_its_error_where_it_has_bent() -> None:
    bent = power_law(-90.0, 0.5, 0.01)
    assert bent["limit"] == pytest.approx(-90.0, abs=1e-3)
    assert bent["exponent"] == pytest.approx(0.5, abs=1e-3)
    assert 0 < bent["limit_error"] < 3 * 4096**-0.5


@pytest.mark.parametrize(
    ("exponent", "noise"),
    [(0.02, 0.01), (3.0, 0.0001), (0.2, 0.3)],
    ids=["too straight", "too bent", "too noisy"],
)
def test_limit_that_cannot_be_read_off_is_not_given(exponent: float, noise: float) -> None:
    curve = power_law(-90.0, exponent, noise)
    assert curve["limit"] is None
    assert curve["limit_error"] is None


def test_single_draw_has_an_unknown_error_and_not_none() -> None:
    fa = linear_gaussian()
    guide = mean_field_guide(fa, 1.5)
    curve = importance_curve(fa.model, guide, simulate(fa, 5), num_samples=2)
    assert curve["monte_carlo_error"][0] is None  # two runs are too few for a spread
    assert curve["monte_carlo_error"][1] > 0


def test_picture_of_a_curve_says_that_it_has_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, title, **_: titles.append(title))
    curve = {"num_samples": [1, 2], "bound": [-3.0, -2.0], "monte_carlo_error": [None, 0.1]}
    evidence_curve({**curve, "limit": None, "limit_error": None}, tmp_path / "none.png")
    evidence_curve({**curve, "limit": -1.0, "limit_error": 0.1}, tmp_path / "some.png")
    still = "no limit can be read off: the curve is still rising"
    assert titles == [still, "Importance bound on log p(x)"]


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


def test_validation_leaves_every_module_in_its_own_mode() -> None:
    """As a frozen part in evaluation mode inside a program that is being trained."""
    vae = VAE((8, 8), latent_dim=2).train()
    _ = mean_elbo(vae, torch.zeros(4, 8, 8))  # lazy parts exist from here on
    parts = list(vae.modules())
    parts[-1].eval()
    before = [part.training for part in parts]
    mean_elbo(vae, torch.zeros(4, 8, 8))
    assert before.count(False) == 1
    assert [part.training for part in parts] == before


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

"""Guides on trial: what the verdict says, and what it cannot know."""

import json
import math
import re
import warnings
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import evaluation, inference
from aevb.evaluation.trial.pages import explained
from aevb.evaluation.trial.verdict import headline, sentences

from oracles import (
    FALSE_ALARM_RATE,
    STANDARD_ERRORS,
    mean_field_guide,
    misscaled_guide,
    simulate,
)

# Trials


SECTIONS = [
    "What may be believed of this posterior", "The worst datapoints", "Evidence and gaps",
    "Calibration", "Predictive checks", "Latents", "Diagnostics", "Settings",
    "Words",
]  # fmt: skip


def trial_of(model: Any, guide: Any, x: Tensor, **options: Any) -> evaluation.Trial:
    """With chains and refinement as short as they may be, for what does not need them."""
    brief = {"num_chains": 4, "num_samples": 60, "num_warmup": 60, "num_temperatures": 0}
    program = inference.Program(model, guide)
    return evaluation.compare(
        program, x, **{**brief, "num_importance_samples": 100, "max_steps": 30, **options}
    )


def said(trial: evaluation.Trial, word: str) -> str:
    """The one sentence of the verdict with this word."""
    (sentence,) = [line for line in trial.verdict() if word in line]
    return sentence


def test_exact_guide_is_said_to_be_calibrated(oracle: Any) -> None:
    fa, x = oracle
    trial = trial_of(fa.model, fa.guide, x, seed=1)
    assert trial.missing == {}
    assert trial.calibration is not None
    assert trial.calibration.is_calibrated
    # what the size of `calibrate` is measured for holds here too: nothing else has moved the seed
    alone = evaluation.calibrate(fa.model, fa.guide, x, num_simulations=1000, seed=1)
    assert torch.equal(trial.calibration.ranks, alone.ranks)
    assert "looks calibrated" in said(trial, "1,000 datapoints simulated from the model itself")
    assert "None of 30 datapoints is unlike" in said(trial, "replications")
    assert "3 of 3 latents are active" in said(trial, "over 30 datapoints; few for such a count")
    page = evaluation.trial_page(trial, {"seed": 0})
    titles = re.findall("<h[12]>(.*?)</h[12]>", page)
    assert titles == SECTIONS
    assert explained(said(trial, "calibrated")) in page
    assert trial.summary() == json.loads(json.dumps(trial.summary()))


def test_narrow_guide_is_said_to_be_too_narrow(oracle: Any) -> None:
    fa, x = oracle
    trial = trial_of(fa.model, misscaled_guide(fa, 0.8), x)
    figures = trial.summary()["calibration"]
    assert figures["p_value"] < FALSE_ALARM_RATE
    # of each latent its closed form is 8.9 standard errors: posterior/test_calibration.py
    rows = [figures["dimensions"][f"z[{dim}]"] for dim in range(3)]
    assert [row["fault"] for row in rows] == ["too narrow"] * 3
    sentence = said(trial, "not calibrated")
    assert "in 4 of 4 dimensions" in sentence
    assert "too narrow for its errors" in sentence
    assert "too narrow" in evaluation.trial_page(trial, {}).split("<h2>Calibration</h2>")[1]


def test_data_unlike_the_model_are_counted(oracle: Any) -> None:
    fa, x = oracle
    trial = trial_of(fa.model, fa.guide, torch.cat([3 * x[:20], x[20:]]))
    row = trial.summary()["predictive_checks"]["statistics"]["log_likelihood"]
    sentence = said(trial, "replications")
    assert row["chance_at_most"] < FALSE_ALARM_RATE
    assert f"{row['num_extreme']} by log likelihood" in sentence
    missed = sentence.split("misses something of these data, seen in their ")[1]
    assert "log likelihood" in missed


def test_what_cannot_be_had_has_its_reason(oracle: Any) -> None:
    fa, x = oracle

    def model(x: Tensor) -> None:  # sees what is no argument, so that nothing can be simulated
        fa.model(x - 1)

    trial = trial_of(model, lambda x: fa.guide(x - 1), x, population=x[:1])
    assert trial.calibration is trial.latents is None
    assert trial.predictive_checks is not None  # there is only one observed site
    page = evaluation.trial_page(trial, {})
    for name, reason in (
        ("calibration", "observe what is no argument"),
        ("active units", "needs at least two datapoints"),
    ):
        sentence = said(trial, f"No {name}: ")
        assert reason in sentence
        assert explained(sentence) in page
    assert reason in trial.summary()["why_no_latents"]
    assert re.findall("<h[12]>(.*?)</h[12]>", page) == SECTIONS


def regression(x: Tensor, y: Tensor) -> None:
    b = pyro.sample("b", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ b, 0.5), obs=y)


def exact_guide(x: Tensor, y: Tensor, width: float = 1.0) -> None:
    precision = torch.eye(2, dtype=x.dtype) + 4 * x.mT @ x
    mean = torch.linalg.solve(precision, 4 * x.mT @ y)
    scale = torch.linalg.inv(torch.linalg.cholesky(precision)).mT
    pyro.sample("b", dist.MultivariateNormal(mean, (width**2) * scale @ scale.mT))


def test_a_joint_posterior_is_tried_as_one_datapoint() -> None:
    """An exact guide of a regression passes, and one four times too narrow does not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -1.0]).double() + torch.randn(20, generator=generator).double()

    def narrow(x: Tensor, y: Tensor) -> None:
        exact_guide(x, y, 0.25)

    brief: dict[str, Any] = {"num_chains": 8, "num_samples": 300, "num_warmup": 300}
    for guide, differs in ((exact_guide, False), (narrow, True)):
        trial = evaluation.compare(inference.Program(regression, guide), (x, y), **brief)
        assert trial.judged.tolist() == [True]
        assert trial.differs.tolist() == [differs]
        assert "fitted to these data" in said(trial, "No calibration: ")
        assert "one joint posterior" in said(trial, "No gaps: ")
        assert trial.predictive_checks is not None
        assert trial.to_arviz()["posterior"]["b"].shape == (8, 300, 2)
        assert "What may be believed" in evaluation.trial_page(trial, {})


def test_a_joint_posterior_of_a_network_is_refused_in_one_line() -> None:
    def model(x: Tensor) -> None:
        pyro.sample("w", dist.Normal(torch.zeros(20_000), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("w", dist.Normal(torch.zeros(20_000), 1.0).to_event(1))

    with pytest.raises(ValueError, match="joint posterior of 20,000 dimensions"):
        evaluation.compare(inference.Program(model, guide), torch.zeros(3))


def test_what_is_not_asked_for_is_said_to_be_missing(oracle: Any) -> None:
    fa, x = oracle
    population = simulate(fa, 300, seed=5)
    trial = trial_of(
        fa.model, fa.guide, x[:4], num_simulations=0, num_replications=0, population=population
    )
    assert "num_simulations is 0" in said(trial, "No calibration: ")
    assert "num_replications is 0" in said(trial, "No predictive checks: ")
    assert "over 300 datapoints)" in said(trial, "latents are active")
    with pytest.raises(ValueError, match="num_simulations: must be at least 0; got -1"):
        trial_of(fa.model, fa.guide, x, num_simulations=-1)


def test_undefined_khat_corrects_nothing(oracle: Any) -> None:
    fa, x = oracle
    trial = trial_of(fa.model, mean_field_guide(fa), x[:3], num_importance_samples=20)
    sentence = said(trial, "importance weights")
    assert "unknown below 25 samples" in sentence
    figures = trial.summary()
    assert (figures["num_corrected"], figures["num_khat_undefined"]) == (0, 3)
    assert figures["gaps"]["num_untrusted"] == 3
    assert "at least" in said(trial, "ELBO")
    page = evaluation.trial_page(trial, {})
    assert "nan" not in " ".join([*trial.verdict(), trial.table()])
    assert "no estimate may be trusted" in page


def test_one_datapoint_has_no_undefined_figures_in_words(oracle: Any) -> None:
    fa, x = oracle
    trial = trial_of(fa.model, mean_field_guide(fa), x[:1], num_simulations=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = " ".join([*trial.verdict(), trial.table()])
    assert "nan" not in words
    assert "1 datapoints" not in words
    assert "(over datapoints ± –)" in words
    assert json.loads(json.dumps(trial.summary(), allow_nan=False)) == trial.summary()


def test_little_power_is_said(oracle: Any) -> None:
    fa, x = oracle
    trial = trial_of(fa.model, fa.guide, x, num_simulations=60, num_replications=80)
    assert "too few simulations (60) to tell" in said(trial, "simulated from the model itself")
    assert "too few replications (80) to tell" in said(trial, "the model's replications")
    assert not any("looks calibrated" in line for line in trial.verdict())


def gap_sentence(family: float, network: float, error: float, **counts: int) -> str:
    rows = {
        "inference_gap": (family + network, error), "approximation_gap": (family, error),
        "amortization_gap": (network, error), "difference_of_gaps": (family - network, error),
    }  # fmt: skip
    found = {name: {"mean": m, "monte_carlo_error": e} for name, (m, e) in rows.items()}
    part = {**found, "num_datapoints": 40, "num_untrusted": 0, "num_unrefined": 0, **counts}
    chains = {"num_datapoints": 40, "num_judged": 0}
    khat = {"num_corrected": 40, "num_khat_undefined": 0}
    (sentence,) = [line for line in sentences({**chains, **khat, "gaps": part}) if "ELBO" in line]
    return sentence


def test_the_larger_gap_is_named_only_where_it_is_known() -> None:
    unknown = "Which of the two is larger cannot be told"
    assert "A better family would gain more" in gap_sentence(2.0, 1.0, 0.4)
    assert "A better encoder would gain more" in gap_sentence(1.0, 2.0, 0.4)
    assert unknown in gap_sentence(2.0, 1.0, 0.6)
    assert unknown in gap_sentence(2.0, 1.0, 0.1, num_unrefined=10)
    assert unknown in gap_sentence(1.0, 2.0, 0.1, num_untrusted=10)
    assert "encoder would gain more" in gap_sentence(1.0, 2.0, 0.1, num_unrefined=10)
    assert "-0.00" not in gap_sentence(-0.001, 0.001, 0.002)
    bounded = gap_sentence(1.0, 2.0, 0.1, num_untrusted=3, num_unrefined=4)
    assert "at least 3.00 ± 0.10 nats below log p(x), which is only bounded from" in bounded
    assert "at 3 of 40" in bounded
    assert "refinement stopped early at 4 of 40, where the family's part is too large" in bounded


def test_sentence_of_the_gaps_does_not_contradict_itself() -> None:
    for family, network in ((1.0, 2.0), (2.0, 1.0), (1.0, 1.0)):
        for unrefined in (0, 1, 20):
            for untrusted in (0, 1, 20):
                said = gap_sentence(
                    family, network, 0.1, num_unrefined=unrefined, num_untrusted=untrusted
                )
                assert "not known" not in said
                assert "so that" not in said
                assert ("cannot be told" in said) != ("would gain more" in said)


def figures_of(judged: int, differing: int, corrected: int, calibrated: bool) -> dict[str, Any]:
    return {
        "num_datapoints": 40, "num_judged": judged, "num_differing": differing,
        "num_corrected": corrected, "calibration": {"is_calibrated": calibrated},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "level", "following"),
    [
        (figures_of(40, 0, 40, True), "good", "aevb evaluate RUN"),
        (figures_of(40, 2, 0, True), "good", "aevb evaluate RUN"),
        (figures_of(40, 0, 40, False), "fair", "aevb posterior RUN"),
        (figures_of(40, 30, 39, True), "fair", "aevb posterior RUN"),
        (figures_of(40, 30, 3, True), "bad", "aevb posterior RUN"),
        (figures_of(10, 0, 40, True), "fair", "aevb compare RUN"),
        (figures_of(0, 0, 0, True), "fair", "aevb compare RUN"),
    ],
)
def test_headline_has_a_colour_and_the_next_command(
    found: dict[str, Any], level: str, following: str
) -> None:
    first = headline(found, "RUN")
    assert first["level"] == level
    assert first["next"].startswith(following)
    assert headline(found)["next"].startswith("aevb.")


def test_untrusted_and_unrefined_datapoints_are_counted(oracle: Any) -> None:
    fa, x = oracle
    gaps = evaluation.inference_gaps(
        fa.model, mean_field_guide(fa, 0.2), x[:4], num_samples=20, max_steps=30
    )
    assert not bool(gaps.trusted.any())
    figures = gaps.summary()
    assert [figures[f"num_{key}"] for key in ("datapoints", "untrusted", "unrefined")] == [4, 4, 4]
    highest = torch.maximum(gaps.amortized.log_evidence, gaps.refined.log_evidence)
    assert torch.equal(gaps.log_evidence, highest)


def test_estimate_with_an_unknown_error_is_the_last_resort() -> None:
    zeros = torch.zeros(2, dtype=torch.float64)

    def estimate(value: float, error: float, khat: float) -> inference.ImportanceEvidence:
        return inference.ImportanceEvidence(
            zeros + value,
            zeros + error,
            zeros,
            zeros,
            zeros + khat,
            zeros,
            zeros,
            1000,
            0,
            "guide",
        )

    known, unknown, untrusted = (
        estimate(1.0, 0.5, 0.1), estimate(2.0, math.nan, 0.1), estimate(3.0, 0.1, 0.9)
    )  # fmt: skip
    for estimates, value, error, trusted in (
        ([unknown, known, untrusted], 1.0, 0.5, True),
        ([untrusted, unknown], 2.0, math.inf, True),
        ([untrusted, estimate(math.nan, 0.1, math.nan)], 3.0, 0.1, False),
    ):
        chosen = evaluation.posterior.gaps._chosen(list(estimates))
        assert [part[0].item() for part in chosen] == [value, error, trusted]


# Evidence in words


def test_every_estimator_has_a_summary(oracle: Any) -> None:
    fa, x = oracle
    guide = mean_field_guide(fa)
    exact = float(fa.log_evidence(x).mean().detach())
    annealed = inference.ais_evidence(fa.model, x, guide=guide, num_temperatures=20)
    figures = evaluation.summarize(annealed)
    assert figures["verdict"] == "trusted"
    assert abs(figures["log_evidence"] - exact) < STANDARD_ERRORS * figures["monte_carlo_error"]
    assert figures["low_ess"] == 0
    bounds = inference.bdmc_evidence(fa.model, x, guide=guide, num_temperatures=20)
    figures = evaluation.summarize(bounds)
    assert figures["gap"] == pytest.approx(figures["upper"] - figures["lower"])
    few = inference.ais_evidence(fa.model, x * 10, num_temperatures=1, num_chains=32)
    assert evaluation.summarize(few)["verdict"] != "trusted"


def test_importance_curve_rises_to_the_evidence(oracle: Any) -> None:
    fa, x = oracle
    guide = mean_field_guide(fa, 1.5)
    curve = evaluation.importance_curve(fa.model, guide, x, num_samples=1024)
    assert curve["bound"][0] < curve["bound"][3] < curve["bound"][-1]
    assert curve["limit"] == pytest.approx(float(fa.log_evidence(x).mean().detach()), abs=0.05)

"""Runs without a density, with latent weights, moved, stopped early, with classes of one's own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aevb import inference

from command_runs import BRIEF, FIGURES, stable, strict, trained


def test_ordinary_autoencoder_is_embedded_and_not_put_on_trial(
    aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(aevb, "--model.posterior", "Delta")
    code, out, err = aevb("embed", run, "--limit", 30, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["kl"] is None
    assert "single point" in figures["why_no_kl"]
    arrays = np.load(figures["array"])
    assert arrays["mean"].shape == (30, 2)
    assert "kl" not in arrays
    monkeypatch.setattr(
        "aevb.evaluation.trial.compare.hmc", lambda *_, **__: pytest.fail("chains ran")
    )
    result = aevb("compare", run)
    assert (result.code, result.out) == (2, "")
    assert "guide: is a single point for each datapoint" in result.err


def test_annealing_from_a_point_names_the_other_start(
    run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise inference.NoDensityError("guide: sites ['z'] are single points")

    monkeypatch.setattr(inference, "ais_evidence", refuse)
    result = aevb("evaluate", run, "--estimator", "ais", "--limit", 2)
    assert result.code == 2
    assert "single points; --start prior anneals from the prior" in result.err


def test_records_say_that_latent_weights_are_at_their_means(aevb: Any) -> None:
    run = trained(aevb, "--model.weights", "LatentWeights")
    flags: dict[str, list[Any]] = {
        "embed": ["--limit", 5], "sample": ["--num", 2],
        "impute": ["--datapoints", 2, "--num_samples", 0, "--num_steps", 2],
        "compare": ["--datapoints", 2, "--num_chains", 4, "--num_samples", 50, "--num_warmup", 20,
                    "--num_temperatures", 0, "--max_steps", 10, "--population", 10,
                    "--num_simulations", 0, "--num_replications", 0],
    }  # fmt: skip
    for command, words in flags.items():
        figures = strict(aevb(command, run, *words, "--json").out)
        record = figures["settings"] if command == "compare" else figures
        assert record["weights"] == "means of their posterior"
    assert "means of their posterior" in (run / "report.html").read_text()


def test_moved_run_evaluates_to_the_same_figures(run: Path, tmp_path: Path, aevb: Any) -> None:
    flags = ["--num_samples", 3, "--limit", 5, "--json"]
    before = json.loads(aevb("evaluate", run, *flags).out)
    moved = run.rename(tmp_path / "moved")
    assert stable(json.loads(aevb("evaluate", moved, *flags).out)) == stable(before)


def test_evaluation_agrees_with_the_one_after_training(run: Path, aevb: Any) -> None:
    after_training = json.loads((run / FIGURES).read_text())
    figures = aevb("evaluate", run, "--num_samples", 3, "--limit", 20, "--json").out
    assert stable(json.loads(figures)) == stable(after_training)


def test_run_stopped_early_is_evaluated_at_its_best_weights(tmp_path: Path, aevb: Any) -> None:
    flags = [*BRIEF, "--epochs", 50, "--patience", 2, "--learning_rate", 1.0]
    trained = json.loads(aevb("train", *flags, "--out", "run", "--json").out)
    assert trained["stopped"] == "patience"
    figures = aevb("evaluate", "run", "--num_samples", 3, "--limit", 20, "--json").out
    assert json.loads(figures)["elbo"] == trained["elbo"]
    state = inference.load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    best, last = state["counters"]["best"]["weights"], state["weights"]
    assert all(torch.equal(weights[name], best[name]) for name in weights)
    assert not all(torch.equal(weights[name], last[name]) for name in weights)


def test_runs_with_own_classes_are_evaluated_by_another_process(tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(
        "from dataclasses import dataclass\n"
        "from aevb.models import StandardNormal\n\n\n"
        "@dataclass(frozen=True)\nclass Wide(StandardNormal):\n    scale: float = 2.0\n"
    )
    brief = ["--num_samples", "5", "--limit", "5"]
    words = [
        "train", "--data", "digits", "--compile", "eager", "--model.prior", "wide.Wide",
        "--epochs", "1", "--model.hidden", "[5]", "--batch_size", "400", *brief, "--out", "run",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "aevb", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "elsewhere").mkdir()
    for state, code in ((os.environ["AEVB_STATE"], 0), (str(tmp_path / "of another user"), 2)):
        done = subprocess.run(
            [sys.executable, "-m", "aevb", "evaluate", "../run", *brief],
            cwd=tmp_path / "elsewhere", capture_output=True, text=True,
            env={**os.environ, "AEVB_STATE": state},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
    assert "names wide.Wide" in done.stderr
    assert "--trust wide" in done.stderr

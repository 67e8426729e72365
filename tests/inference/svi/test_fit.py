"""Training: its arguments, what it gives back, and nothing left behind."""

import logging
import math
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

from aevb import data, inference, models
from aevb.inference import ELBO, NonFiniteLossError, Program, fit
from aevb.inference.svi.metrics import COLUMNS

from oracles import linear_gaussian, simulate
from small_trainings import (
    BATCH,
    EPOCHS,
    OBJECTIVES,
    ROWS,
    STEPS,
    breaking,
    differences,
    location,
    location_guide,
    location_model,
    metrics_file,
    process,
    small_vae,
    train,
    vae_acting,
)

# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": None}, "give either epochs or steps; got epochs=None, steps=None"),
        ({"steps": 3}, "give either epochs or steps; got epochs=1, steps=3"),
        ({"epochs": 0}, "epochs: must be at least 1; got 0"),
        ({"epochs": None, "steps": 0}, "steps: must be at least 1; got 0"),
        ({"patience": 0, "validation": ROWS}, "patience: must be at least 1; got 0"),
        ({"patience": 2}, "patience: early stopping needs validation data"),
        ({"resume": True}, "resume: needs the run folder out; got out=None"),
        ({"device": "gpu"}, "device: expected auto, cpu or cuda; got 'gpu'"),
        ({"device": "cuda"}, "this machine has no usable CUDA device; use cpu"),
        ({"batch_size": 41}, r"batch_size: 41; expected 1\.\.40"),
        ({"batch_size": 0}, r"batch_size: 0; expected 1\.\.40"),
        ({"weight_prior_scale": 0.0}, r"weight_prior_scale: must be positive; got 0\.0"),
        ({"weight_prior_scale": -1.0}, r"weight_prior_scale: must be positive; got -1\.0"),
        (
            {"data": [[1.0]]},
            "data: expected a split, a tensor, the tuple",
        ),
        ({"data": (ROWS, ROWS[:3]), "batch_size": 2}, "batch_size: minibatches need arguments"),
    ],
)
def test_bad_argument_is_named(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings: dict[str, Any] = {"data": ROWS, "epochs": 1, "device": "cpu", **arguments}
    with pytest.raises(ValueError, match=message):
        fit(models.FactorAnalysis((3,)), settings.pop("data"), **settings)


@pytest.mark.parametrize(("model", "guide"), [(None, location_guide), (location_model, 3)])
def test_program_of_something_else_than_callables_is_refused(model: Any, guide: Any) -> None:
    with pytest.raises(ValueError, match="(model|guide): expected a Pyro callable; got (None|3)"):
        Program(model, guide)


# What training gives back


def test_early_stopping_restores_the_best_weights(digits: data.Dataset) -> None:
    run = train(digits, 50, patience=2, learning_rate=1.0)
    elbos = [row["validation_elbo"] for row in run.history]
    assert run.stopped == "patience"
    assert elbos.index(max(elbos)) == len(elbos) - 3  # and two that are not better
    assert inference.mean_elbo(run.program, digits.validation, seed=0) == max(elbos)


def test_patience_that_is_left_over_restores_the_best_weights_too(digits: data.Dataset) -> None:
    run = train(digits, EPOCHS, patience=50, learning_rate=1.0)
    elbos = [row["validation_elbo"] for row in run.history]
    assert run.stopped == "finished"
    assert max(elbos) != elbos[-1]
    assert inference.mean_elbo(run.program, digits.validation, seed=0) == max(elbos)


def test_without_patience_the_last_weights_are_kept(digits: data.Dataset) -> None:
    run = train(digits, EPOCHS, learning_rate=1.0)
    elbos = [row["validation_elbo"] for row in run.history]
    assert max(elbos) != elbos[-1]
    assert inference.mean_elbo(run.program, digits.validation, seed=0) == elbos[-1]


def test_run_tells_what_was_done(digits: data.Dataset, tmp_path: Path) -> None:
    vae = small_vae()
    run = train(digits, 3, program=vae, out=tmp_path)
    assert run.program is vae
    assert (run.epoch, run.step, run.stopped, run.out) == (3, 3 * STEPS, "finished", tmp_path)
    assert [(row["epoch"], row["step"]) for row in run.history] == [(1, 4), (2, 8), (3, 12)]


def test_run_without_a_folder_writes_nothing(
    digits: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(digits, 1)
    assert run.out is None
    assert list(tmp_path.iterdir()) == []


def test_metrics_file_has_the_rows_of_the_history(digits: data.Dataset, tmp_path: Path) -> None:
    run = train(digits, 4, out=tmp_path, log_every=2)
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    rows = [
        {key: float(row[key]) if row[key] else None for key in COLUMNS}
        for row in metrics_file(tmp_path)
    ]
    assert rows == run.history
    assert [row["epoch"] for row in rows] == [2, 4]


def test_metrics_without_validation_have_an_empty_column(
    digits: data.Dataset, tmp_path: Path
) -> None:
    train(digits, 1, out=tmp_path, validation=None)
    assert [row["validation_elbo"] for row in metrics_file(tmp_path)] == [""]


def test_train_objective_is_the_mean_bound_of_the_datapoints() -> None:
    """With the exact guide and steps of no size, the bound of each datapoint is log p(x)."""
    fa = linear_gaussian()
    x = simulate(fa, 10)
    settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": 0.0}
    run = fit(fa, x, epochs=1, batch_size=4, device="cpu", **settings)
    expected = float(fa.log_evidence(x).detach().mean())
    assert run.history[0]["train_objective"] == pytest.approx(expected, rel=1e-10)


def test_steps_that_end_within_an_epoch_get_a_row(digits: data.Dataset) -> None:
    run = fit(small_vae(), digits.train, steps=STEPS + 1, batch_size=BATCH, device="cpu")
    assert [(row["epoch"], row["step"]) for row in run.history] == [(1, STEPS), (1, STEPS + 1)]


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("end", ["finished", "interrupted", "failed", "resumed"])
def test_training_leaves_the_process_as_it_was(end: str, validation: bool, tmp_path: Path) -> None:
    with pyro.validation_enabled(validation):
        if end == "resumed":
            fit(location(), ROWS, steps=3, device="cpu", out=tmp_path)
            random.random(), np.random.rand(), torch.rand(())  # noqa: NPY002
        vae = vae_acting(3, partial(signal.raise_signal, signal.SIGTERM))
        before = process()
        if end == "failed":
            with pytest.raises(NonFiniteLossError):
                fit(breaking("model", math.nan, 3), ROWS, steps=9, device="cpu")
        elif end == "interrupted":
            x = (ROWS[:, :1] > 2).float().expand(-1, 64).unflatten(1, (8, 8))
            assert fit(vae, x, steps=9, device="cpu").stopped == "SIGTERM"
        else:
            fit(location(), ROWS, steps=6, device="cpu", out=tmp_path, resume=True)
        assert differences(before, process()) == []


def test_result_depends_on_the_seed_and_not_on_the_global_state(digits: data.Dataset) -> None:
    weights: dict[tuple[int, int], dict[str, Tensor]] = {}
    for outside, seed in ((1, 0), (2, 0), (1, 3)):
        vae = small_vae()
        torch.manual_seed(outside)
        train(digits, 1, program=vae, seed=seed)
        weights[outside, seed] = dict(vae.state_dict())
    assert differences(weights[1, 0], weights[2, 0]) == []
    assert differences(weights[1, 0], weights[1, 3]) != []


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_training_is_quiet_where_there_is_no_terminal(
    objective: ELBO,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    digits: data.Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pyro_log = logging.getLogger("pyro")  # shows what it has to say on standard error
    monkeypatch.setattr(pyro_log, "handlers", [caplog.handler])
    train(digits, 2, objective=objective)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_progress_goes_to_standard_error_on_request(
    capfd: pytest.CaptureFixture[str], digits: data.Dataset
) -> None:
    train(digits, 2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "validation ELBO" in err
    assert "100%" in err

"""Runs that stop and go on are the uninterrupted ones, to the last bit."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyro.infer import autoguide
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from aevb import data, models
from aevb.inference import CHECKPOINT, ELBO, Program, Run, fit

from small_trainings import (
    EPOCHS,
    ROWS,
    differences,
    location_guide,
    location_model,
    outcome,
    train,
)

SGD = partial(torch.optim.SGD, momentum=0.9)


STEPWISE = partial(MultiStepLR, milestones=[1, 5])

PLATEAU = partial(ReduceLROnPlateau, patience=0, factor=0.5, threshold=1e9)  # halves every epoch

RESUMABLE: dict[str, dict[str, Any]] = {
    "Adam": {},
    "Adagrad": {"optimizer": torch.optim.Adagrad, "learning_rate": 0.01},
    "SGD with momentum": {"optimizer": SGD},
    "Adam, MultiStepLR": {"schedule": STEPWISE},
    "Adagrad, MultiStepLR": {"optimizer": torch.optim.Adagrad, "schedule": STEPWISE},
    "Adam, ReduceLROnPlateau": {"schedule": PLATEAU},
    "SGD with momentum, ReduceLROnPlateau": {"optimizer": SGD, "schedule": PLATEAU},
    "patience left over": {"patience": EPOCHS},
    "patience that runs out": {"patience": 3, "learning_rate": 1.0},
    "no validation": {"validation": None},
    "prior over the weights": {"weight_prior_scale": 1.0},
    "analytic KL": {"objective": ELBO(analytic_kl=True)},
    "three particles": {"objective": ELBO(num_particles=3)},
    "three particles, one by one": {"objective": ELBO(3, vectorize_particles=False)},
    "rows every third epoch": {"log_every": 3},
}


# A graph takes a second to make; one case for each optimizer and for each part of a graph's state.
TRACED = [
    "Adam, MultiStepLR",
    "Adagrad",
    "SGD with momentum, ReduceLROnPlateau",
    "three particles",
    "patience that runs out",
]
# Of these the slow ones: their optimizers and counters resume eagerly too, as do other graphs.
LONG = {"Adagrad", "patience that runs out"}


# Resumption


@pytest.mark.parametrize(
    ("case", "level"),
    [
        *((case, "eager") for case in RESUMABLE),
        *(
            pytest.param(case, "traced", marks=pytest.mark.slow if case in LONG else ())
            for case in TRACED
        ),
    ],
)
def test_stopped_and_resumed_run_is_the_uninterrupted_one(
    case: str, level: str, digits: data.Dataset, tmp_path: Path
) -> None:
    settings = {**RESUMABLE[case], "compile": level}
    whole = train(digits, EPOCHS, out=tmp_path / "whole", **settings)
    train(digits, EPOCHS // 2, out=tmp_path / "parts", **settings)
    torch.manual_seed(123)
    resumed = train(digits, EPOCHS, weights=1, out=tmp_path / "parts", resume=True, **settings)
    assert differences(outcome(whole), outcome(resumed)) == []


@pytest.mark.parametrize("case", list(RESUMABLE))
def test_each_case_of_resumption_does_what_it_is_called(case: str, digits: data.Dataset) -> None:
    settings = RESUMABLE[case]
    run = train(digits, EPOCHS, **settings)
    assert run.stopped == ("patience" if settings.get("patience") == 3 else "finished")
    assert EPOCHS // 2 < run.epoch <= EPOCHS
    rates = [row["learning_rate"] for row in run.history]
    if "schedule" in settings:  # both parts of the interrupted run see a change
        assert len(set(rates[: EPOCHS // 2])) > 1
        assert len(set(rates[EPOCHS // 2 :])) > 1


@pytest.mark.parametrize(
    "lost",
    [
        "aevb.inference.process.randomness.restore",
        "aevb.inference.svi.feeds.Feed.load_state_dict",
        "torch.optim.Adam.load_state_dict",
        "torch.optim.lr_scheduler.MultiStepLR.load_state_dict",
        "aevb.models.VAE.load_state_dict",
    ],
)
def test_resumption_that_loses_a_part_would_be_found(
    lost: str, digits: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RESUMABLE["Adam, MultiStepLR"]
    whole = train(digits, EPOCHS, out=tmp_path / "whole", **settings)
    train(digits, EPOCHS // 2, out=tmp_path / "parts", **settings)
    monkeypatch.setattr(lost, lambda *_: None)
    resumed = train(digits, EPOCHS, weights=1, out=tmp_path / "parts", resume=True, **settings)
    found = differences(outcome(whole), outcome(resumed))
    assert any(place.startswith("run.weights") for place in found)


def test_program_on_whole_data_resumes_exactly(tmp_path: Path) -> None:
    def part(steps: int, folder: str) -> Run:
        program = Program(location_model, autoguide.AutoNormal(location_model))
        settings: dict[str, Any] = {"validation": ROWS[:7], "log_every": 5, "device": "cpu"}
        return fit(program, ROWS, steps=steps, out=tmp_path / folder, resume=True, **settings)

    whole = part(20, "whole")
    part(10, "parts")
    assert differences(outcome(whole), outcome(part(20, "parts"))) == []


def test_draws_of_numpy_and_python_resume_exactly(tmp_path: Path) -> None:
    def noisy(x: Tensor) -> None:
        location_model(x + random.random() + np.random.rand())  # noqa: NPY002

    def part(steps: int, folder: str) -> Run:
        program, out = Program(noisy, location_guide), tmp_path / folder
        return fit(program, ROWS, steps=steps, log_every=5, out=out, resume=True, device="cpu")

    whole = part(20, "whole")
    part(10, "parts")
    assert differences(outcome(whole), outcome(part(20, "parts"))) == []


def test_finished_run_without_more_to_do_stays_as_it_is(
    digits: data.Dataset, tmp_path: Path
) -> None:
    first = outcome(train(digits, 2, out=tmp_path))
    again = outcome(train(digits, 2, weights=1, out=tmp_path, resume=True))
    assert differences(first, again) == []


def test_run_out_of_patience_does_not_go_on(digits: data.Dataset, tmp_path: Path) -> None:
    settings = RESUMABLE["patience that runs out"]
    first = outcome(train(digits, EPOCHS, out=tmp_path, **settings))
    again = train(digits, 2 * EPOCHS, weights=1, out=tmp_path, resume=True, **settings)
    assert again.stopped == "patience"
    assert differences(first, outcome(again)) == []


def test_resume_in_an_empty_folder_starts_from_nothing(
    digits: data.Dataset, tmp_path: Path
) -> None:
    fresh = train(digits, 2, out=tmp_path / "fresh")
    resumed = train(digits, 2, out=tmp_path / "resumed", resume=True)
    assert differences(outcome(fresh), outcome(resumed)) == []


def test_seconds_of_a_resumed_run_include_the_earlier_part(
    digits: data.Dataset, tmp_path: Path
) -> None:
    first = train(digits, 2, out=tmp_path)
    second = train(digits, 3, out=tmp_path, resume=True)
    assert second.seconds > first.seconds > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 300}, "written with batch_size=400; got 300"),
        ({"objective": ELBO(analytic_kl=True)}, r"written with objective='ELBO\(.*; got 'ELBO\("),
        ({"optimizer": torch.optim.Adagrad}, "written with optimizer='Adam'; got 'Adagrad'"),
        ({"learning_rate": 0.01}, r"written with learning_rate=0\.001; got 0\.01"),
        ({"schedule": PLATEAU}, "written with schedule='NoneType'; got 'ReduceLROnPlateau'"),
        ({"weight_prior_scale": 1.0}, r"written with weight_prior_scale=None; got 1\.0"),
        ({"seed": 1}, "written with seed=0; got 1"),
        ({"program": models.VAE((8, 8), 3, [6])}, r"written with parameters=\{.*; got \{"),
    ],
)
def test_other_settings_cannot_resume_a_run(
    changed: dict[str, Any], message: str, digits: data.Dataset, tmp_path: Path
) -> None:
    train(digits, 1, out=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match=message):
        train(digits, 2, out=tmp_path, resume=True, **changed)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_other_number_of_datapoints_cannot_resume_a_run(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 10, "device": "cpu", "out": tmp_path}
    fit(models.FactorAnalysis((3,)), ROWS, epochs=1, **settings)
    with pytest.raises(ValueError, match="written with num_datapoints=40; got 39"):
        fit(models.FactorAnalysis((3,)), ROWS[:39], epochs=2, resume=True, **settings)


def test_folder_with_a_run_is_refused_without_resume(digits: data.Dataset, tmp_path: Path) -> None:
    train(digits, 1, out=tmp_path)
    with pytest.raises(ValueError, match=r"out: .* already holds a run; resume it or choose"):
        train(digits, 1, out=tmp_path)

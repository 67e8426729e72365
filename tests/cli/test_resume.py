"""Interrupted commands: exit codes, and resumption."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml
from torch import Tensor

from aevb.inference.svi.steps import EagerStep
from aevb.inference.svi.training import Training

from command_runs import BRIEF, Result, metrics, snapshot


def test_interrupted_run_says_how_to_resume_it(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from aevb.cli.train import _interrupted

    run: Any = SimpleNamespace(epoch=3, step=1040)
    said = _interrupted(run, Path("runs/x"), 200)
    assert "interrupted in epoch 4 of 200, after 1,040 steps" in said
    assert said.endswith("aevb train --resume runs/x")


def terminate_after_an_epoch(folder: Path) -> Result:
    """Start a real process, of which nothing but a signal is known."""
    words = ["train", *BRIEF, "--epochs", "1000000", "--out", str(folder), "--json"]
    words += ["--objective.num_particles", "2"]  # Pyro would have something to log about these
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "aevb", *words]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        start = time.monotonic()
        while not (folder / "metrics.csv").is_file() or not metrics(folder):
            if process.poll() is not None or time.monotonic() - start > 300:
                process.kill()
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    return Result(process.returncode, out, err)


@pytest.fixture(scope="module", autouse=True, name="background")
def fixture_background(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Future[Result] | None"]:
    """The real process, started early because it takes seconds to import torch."""
    if any("terminated" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with ThreadPoolExecutor() as pool:
            yield pool.submit(terminate_after_an_epoch, tmp_path_factory.mktemp("real") / "run")
    else:
        yield None


@pytest.fixture(name="terminated")
def fixture_terminated(background: "Future[Result]") -> "Future[Result]":
    """What came of that process."""
    return background


# Resumption


def test_resumed_run_is_the_uninterrupted_one(finished: Path, run: Path, aevb: Any) -> None:
    assert aevb("train", *BRIEF, "--epochs", 5, "--out", "whole").code == 0
    assert aevb("train", "--resume", run, "--epochs", 5).code == 0
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (Path("whole"), run)]
    assert weights[0] == weights[1]
    assert weights[0] != (finished / "weights.safetensors").read_bytes()
    assert metrics(Path("whole")) == metrics(run)


def test_reports_on_older_weights_are_set_aside(run: Path, aevb: Any) -> None:
    names = ("report.html", "report.json", "draws.nc")
    for name in names:
        (run / name).write_text(name)
    assert aevb("train", "--resume", run).code == 0  # nothing to do
    assert all((run / name).exists() for name in names)
    assert aevb("train", "--resume", run, "--epochs", 3).code == 0
    assert not any((run / name).exists() for name in names)
    assert (run / "report-epoch2.html").read_text() == "report.html"
    assert (run / "draws-epoch2.nc").exists()


def test_resumed_run_records_its_new_length(run: Path, aevb: Any) -> None:
    aevb("train", f"--resume={run}", "--epochs", 3)
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size", "100"], "--batch_size: the run in run was started with 400; got 100"),
        (["--learning_rate", "1"], "--learning_rate: the run in run was started with 0.001; got"),
        (
            ["--model.hidden", "[7]"],
            "--model.hidden: the run in run was started with [6]; got [7]",
        ),
        (["--model", "ProbabilisticPCA"], "--model: the run in run was started with 'aevb.models"),
        (["--model.likelihood.relaxed", "true"], "--model.likelihood.relaxed: the run in run was"),
        (["--optimizer", "SGD"], "--optimizer: the run in run was started with 'torch.optim"),
        (["--binarize", "fixed"], "--binarize: the run in run was started with 'dynamic'; got"),
        (["--data", "other.npy"], "--data: the run in run was started with 'digits'; got '/"),
        (["--seed", "3"], "--seed: the run in run was started with 0; got 3"),
    ],
)
def test_resumption_with_other_settings_is_refused_and_changes_nothing(
    flags: list[str], message: str, run: Path, aevb: Any
) -> None:
    np.save("other.npy", np.full((600, 8, 8), 7, dtype=np.uint8))
    before = snapshot(run)
    result = aevb("train", "--resume", "run", "--epochs", 3, *flags)
    assert result.code == 2
    assert result.err.startswith(f"aevb: error: {message}")
    assert snapshot(run) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_has_its_exit_code_and_resumes_exactly(
    number: signal.Signals,
    code: int,
    finished: Path,
    aevb: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, made = EagerStep.__call__, 0

    def interrupted(self: EagerStep, *inputs: Tensor) -> Tensor:
        nonlocal made
        made += 1
        if made == 5:
            signal.raise_signal(number)
        return make(self, *inputs)

    with monkeypatch.context() as patch:
        patch.setattr(EagerStep, "__call__", interrupted)
        result = aevb("train", *BRIEF, "--epochs", 2, "--out", "run", "--json")
    summary = json.loads(result.out)
    assert (result.code, summary["stopped"], summary["steps"]) == (code, number.name, 5)
    assert aevb("train", "--resume", "run").code == 0
    weights = "weights.safetensors"
    assert Path("run", weights).read_bytes() == (finished / weights).read_bytes()


def test_interrupted_run_can_be_evaluated(aevb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    end_epoch = Training.end_epoch

    def interrupted(self: Training) -> None:
        end_epoch(self)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Training, "end_epoch", interrupted)
    assert aevb("train", *BRIEF, "--epochs", 9, "--out", "run").code == 143
    figures = aevb("evaluate", "run", "--num_samples", 2, "--limit", 2, "--json")
    assert json.loads(figures.out)["epoch"] == 1


def test_interruption_outside_training_is_one_line(
    aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("aevb.cli.train.datasets.load", interrupt)
    assert aevb("train", *BRIEF) == (130, "", "aevb: interrupted\n")


def test_terminated_process_leaves_its_exit_code_and_one_json_object(
    terminated: "Future[Result]",
) -> None:
    result = terminated.result()
    assert (result.code, result.err) == (143, "")
    assert json.loads(result.out)["stopped"] == "SIGTERM"

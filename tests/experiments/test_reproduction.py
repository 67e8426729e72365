"""The frame of the reproduced figures and tables, with items made up for the tests."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aevb.cli import main
from aevb.experiments.reproduction import catalog, queue, runner, summary, trainings
from aevb.experiments.reproduction.context import Context
from aevb.experiments.reproduction.experiment import (
    BUDGETS,
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)
from aevb.experiments.reproduction.pictures import image_grid, panels
from aevb.experiments.reproduction.trainings import state, train

ITEMS = catalog.experiments()
CHEAPEST = "gradient-variance"
TINY = {"data": "digits", "model": "VAE", "model.hidden": [8], "log_every": 1, "seed": 0}


def row(ours: float = 1.0, **more: Any) -> Row:
    return Row("a model", "nats", ours, **more)


def made_up(
    report: Callable[[Context], Report], *needed: Training, name: str = "made-up"
) -> Experiment:
    budget = Budget(needed, minutes=1.0)
    return Experiment(name, "Made up", "Nowhere", dict.fromkeys(BUDGETS, budget), report)


def registered(patch: pytest.MonkeyPatch, *items: Experiment) -> None:
    for module in (runner, queue, summary):
        patch.setattr(module, "experiments", lambda: {item.name: item for item in items})


def command(tmp_path: Path, *words: str) -> int:
    folders = ("--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "results"))
    return main(["reproduce", *words, *folders])


# What is declared.


def test_every_item_can_be_tried_and_run_to_the_end() -> None:
    lacking = {
        name: budget for name, item in ITEMS.items()
        for budget in ("quick", "full") if budget not in item.budgets
    }  # fmt: skip
    assert not lacking
    assert all(name == item.name for name, item in ITEMS.items())


def test_two_items_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from aevb.experiments.papers import iwae_table1

    twice = [*iwae_table1.EXPERIMENTS, *iwae_table1.EXPERIMENTS]
    monkeypatch.setattr(iwae_table1, "EXPERIMENTS", twice)
    catalog.experiments.cache_clear()
    try:
        with pytest.raises(ValueError, match="two are called iwae-table1"):
            catalog.experiments()
    finally:
        catalog.experiments.cache_clear()


def unequal(items: list[Experiment], budget: Any) -> list[str]:
    """Names that stand for more than one run in a budget, whose run folders are shared."""
    first: dict[str, Training] = {}
    found = []
    for item in items:
        for training in item.budgets[budget].trainings if budget in item.budgets else ():
            if first.setdefault(training.name, training) != training:
                found.append(training.name)
    return found


@pytest.mark.parametrize("budget", BUDGETS)
def test_trainings_of_one_name_are_one(budget: Any) -> None:
    assert unequal(list(ITEMS.values()), budget) == []


def test_trainings_that_share_only_a_name_would_be_found() -> None:
    one = made_up(lambda context: Report(), Training("run", TINY, 2))
    other = made_up(lambda context: Report(), Training("run", {**TINY, "seed": 1}, 2))
    assert unequal([one, other], "quick") == ["run"]


@pytest.mark.parametrize("stops", [(2, 1), (1, 1), (5,)])
def test_stops_out_of_order_are_refused(stops: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="stops: must rise and end before 5"):
        Training("run", TINY, 5, stops)


# What is inside, and what is not.


@pytest.mark.parametrize(
    ("ours", "verified", "inside"),
    [
        (1.0, True, True), (2.0, True, True), (2.01, True, False), (0.99, True, False),
        (float("nan"), True, False), (5.0, False, None),
    ],
)  # fmt: skip
def test_a_row_is_judged_by_its_band(ours: float, verified: bool, inside: bool | None) -> None:
    judged = row(ours, band=(1.0, 2.0), verified=verified)
    assert judged.is_inside is inside
    assert row(ours).is_inside is None
    assert bool(Report([judged]).failures) == (inside is False)


def test_a_claim_that_does_not_hold_is_a_failure() -> None:
    report = Report(claims=[Claim("up", holds=True), Claim("down", holds=False)])
    assert report.failures == ["not borne out: down"]


# What is written.


def full_report(context: Context) -> Report:
    figure, (axis,) = panels()
    axis.plot([0, 1])
    return Report(
        rows=[row(1.5, error=0.25, published=2.0, band=(1, 2), details={"seeds": 3}),
              replace(row(), published=3.0, verified=False)],
        claims=[Claim("it rises", holds=True, measured="by 1")],
        figures={"curve": figure, "images": image_grid(torch.rand(2, 3, 4, 4), 2, ["a", "b"])},
        tables={"curve": (("x", "y"), [(1, 2)])},
        notes=["A note."],
    )  # fmt: skip


def test_results_are_a_page_pictures_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(monkeypatch, made_up(full_report))
    assert command(tmp_path, "made-up", "--budget", "standard") == 0
    folder = tmp_path / "results" / "made-up"
    names = {"README.md", "rows.csv", "result.json", "curve.png", "curve.csv", "images.png"}
    assert {path.name for path in folder.iterdir()} == names
    page = (folder / "README.md").read_text()
    assert "| a model | nats | 1.50 ± 0.25 | 2 | -0.50 | 1 to 2 | yes | 3 |" in page
    assert "3 (unverified)" in page
    assert "- Borne out: it rises (by 1)." in page
    assert "A note." in page
    with (folder / "rows.csv").open() as file:
        assert [each["seeds"] for each in csv.DictReader(file)] == ["3", ""]
    record = json.loads((folder / "result.json").read_text())
    assert (record["budget"], record["failures"]) == ("standard", [])
    assert record["rows"][0]["ours"] == 1.5
    assert (folder / "curve.csv").read_text() == "x,y\n1,2\n"
    assert "made-up" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.parametrize(("ours", "code"), [(1.5, 0), (2.5, 1)])
def test_the_exit_code_says_whether_all_is_inside(
    ours: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registered(monkeypatch, made_up(lambda context: Report([row(ours, band=(1, 2))])))
    assert command(tmp_path, "made-up", "--budget", "standard") == code
    assert ("2.50 is outside [1.00, 2.00]" in capsys.readouterr().out) == bool(code)
    # on digits, and for a few epochs, nothing is compared
    assert command(tmp_path, "made-up", "--budget", "quick") == 0


def test_an_unknown_item_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "fig99") == 2
    assert "no experiment is called 'fig99'" in capsys.readouterr().err


# How far it is.


def written(folder: Path, epoch: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(f"epoch,seconds\n{epoch},1.5\n")


def test_the_list_shows_how_far_every_item_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered(monkeypatch, made_up(full_report, Training("run", TINY, 10)))
    runs = tmp_path / "runs" / "standard"

    def listed() -> str:
        assert command(tmp_path, "--list", "--budget", "standard") == 0
        return capsys.readouterr().out

    assert "not run" in listed()
    written(runs / "run", 4)
    assert "at 40% of the training" in listed()
    (runs / "run" / "running.json").write_text(json.dumps({"process": os.getpid()}))
    assert "running, 40% of the training" in listed()
    (runs / "run" / "running.json").write_text(json.dumps({"process": ended()}))
    assert "at 40% of the training" in listed()
    (runs / "run" / "done.json").write_text('{"epochs": 10}')
    assert "trained, no report yet" in listed()
    assert command(tmp_path, "made-up", "--budget", "standard") == 0
    capsys.readouterr()
    assert "done, inside" in listed()


def ended() -> int:
    """A process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_more_epochs_than_were_made_are_not_done(tmp_path: Path) -> None:
    written(tmp_path / "run", 10)
    (tmp_path / "run" / "done.json").write_text('{"epochs": 10}')
    assert state(Training("run", TINY, 10), tmp_path).is_done
    longer = state(Training("run", TINY, 20), tmp_path)
    assert (longer.is_done, longer.fraction, longer.seconds) == (False, 0.5, 1.5)


def test_a_run_folder_has_one_process(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "running.json").write_text(json.dumps({"process": os.getpid()}))
    with pytest.raises(trainings.InterruptedTrainingError, match="is at it"):
        train(Training("run", TINY, 1), tmp_path, None, threads=1)


def test_the_queue_has_each_run_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = (Training(name, TINY, 1) for name in "abc")
    one = made_up(full_report, b, a, name="one")
    two = made_up(full_report, c, b, name="two")
    registered(monkeypatch, one, two)

    def names(*items: str) -> str:
        return "".join(run.name for run in queue.pending(list(items), "full", tmp_path))

    assert names() == "bac"
    assert names("two", "one") == "cba"
    assert names("c", "one") == "cba"
    assert names("a") == "a"
    with pytest.raises(KeyError, match="three"):
        names("three")
    written(tmp_path / "a", 1)
    (tmp_path / "a" / "done.json").write_text('{"epochs": 1}')
    assert names() == "bc"


def test_a_part_is_computed_once(tmp_path: Path) -> None:
    def opened() -> Context:
        budget = Budget((), 1)
        return Context("quick", budget, tmp_path, tmp_path / "cache", None, lambda p, e: None)  # type: ignore[arg-type,return-value]

    assert opened().part("sum", lambda: [1, 2]) == [1, 2]
    assert opened().part("sum", refuse) == [1, 2]
    with pytest.raises(RuntimeError, match="computed"):
        opened().part("product", refuse)
    # what was cut off while it was written is computed again
    (tmp_path / "cache" / "product.partial").write_text("[1,")
    assert opened().part("product", lambda: [3]) == [3]


def refuse() -> Any:
    raise RuntimeError("computed")


# Trainings.


def kill_at(epoch: int, patch: pytest.MonkeyPatch, folder: Path) -> None:
    """SIGKILL the next training process once its metrics have come to an epoch."""
    make = subprocess.Popen

    class Killed(make):  # type: ignore[misc,valid-type]
        def wait(self, timeout: float | None = None) -> int:
            if "train" in self.args:
                while self.poll() is None and not reached(folder, epoch):
                    time.sleep(0.01)
                self.kill()
            return int(super().wait(timeout))

    patch.setattr(trainings.subprocess, "Popen", Killed)


def reached(folder: Path, epoch: int) -> bool:
    rows = trainings.read_history(folder)
    return bool(rows) and (rows[-1].get("epoch") or 0) >= epoch


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training("run", TINY, 40, stops=(3,))
    whole = train(replace(training, stops=()), tmp_path / "whole", None, threads=1)
    with monkeypatch.context() as patch:
        kept = tmp_path / "cut" / "run"
        # the first process ends at the stop; the second, which goes on from it, is killed after 10
        kill_at(10, patch, kept)
        with pytest.raises(trainings.InterruptedTrainingError, match="exit code -9"):
            train(training, tmp_path / "cut", None, threads=1)
    cut = state(training, tmp_path / "cut")
    assert 0 < cut.fraction < 1
    assert not cut.is_done
    assert cut.process is None
    resumed = train(training, tmp_path / "cut", None, threads=1)
    assert whole.is_done
    assert resumed.is_done
    weights = [load_file(tmp_path / way / "run/weights.safetensors") for way in ("whole", "cut")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    early = load_file(tmp_path / "cut/run/epoch-3/weights.safetensors")
    assert any(not torch.equal(early[name], weights[0][name]) for name in early)


def quick(name: str, folder: Path) -> None:
    assert command(folder, name, "--budget", "quick") == 0
    results = folder / "results" / name
    assert json.loads((results / "result.json").read_text())["rows"]
    assert all(path.stat().st_size for path in results.iterdir())
    assert list(results.glob("*.png")) or name.endswith(("table1", "table"))


def test_the_cheapest_item_comes_out(tmp_path: Path) -> None:
    quick(CHEAPEST, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ITEMS if name != CHEAPEST])
def test_every_item_comes_out(name: str, tmp_path: Path) -> None:
    quick(name, tmp_path)

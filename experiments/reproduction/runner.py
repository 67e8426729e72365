"""Reproduce an item: make or resume its trainings, compute its report, write its results."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aevb.experiments.reproduction import results
from aevb.experiments.reproduction.catalog import experiments
from aevb.experiments.reproduction.context import Context
from aevb.experiments.reproduction.experiment import BudgetName, Experiment, Report
from aevb.experiments.reproduction.pictures import style
from aevb.experiments.reproduction.summary import summarize
from aevb.experiments.reproduction.trainings import folder_at, state, train

__all__ = ["Overview", "overview", "reproduce"]


def reproduce(
    name: str,
    budget: BudgetName,
    data_root: Path | None,
    runs: Path,
    out: Path,
    reopen: Callable[[Path], Any],
    threads: int = 2,
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Regenerate a figure or table.

    Args:
        name: Of the experiment.
        budget: How far.
        data_root: Folder of the datasets.
        runs: Run folders lie in a folder of this one for each budget.
        out: Results are written to ``out / name``.
        reopen: Opens a run folder; gives its model and dataset.
        threads: Of a training run's process.
        tell: Takes a line for each step of the work.

    Returns:
        What was found, as it was written.

    Raises:
        ValueError: If there is no such experiment or budget.
    """
    experiment = _named(name)
    described = experiment.budgets[budget]
    folder = runs.resolve() / budget
    for training in described.trainings:
        if not state(training, folder).is_done:
            tell(f"training {training.name}, {training.epochs} epochs")
        train(training, folder, data_root, threads)
    tell(f"report on {name}")
    context = Context(
        budget_name=budget,
        budget=described,
        runs=folder,
        cache=folder / "reports" / name,
        data_root=data_root,
        reopen=lambda path, epoch: reopen(folder_at(path, epoch)),
    )
    began = time.perf_counter()
    with style():
        report = experiment.report(context)
    if budget == "quick":  # on other data than the paper's, and for too short a time
        report.rows = [replace(row, published=None, band=None) for row in report.rows]
        report.claims = []
    seconds = time.perf_counter() - began
    seconds += sum(state(training, folder).seconds for training in described.trainings)
    results.write(experiment, budget, report, out / name, seconds)
    if budget != "quick":
        (out.parent / "RESULTS.md").write_text(summarize(out))
    return report


@dataclass(frozen=True)
class Overview:
    """One line of ``aevb reproduce --list``.

    Attributes:
        experiment: The item.
        budget: Of this line.
        state: Not run, at which fraction, running, done, inside or outside its bands.
        minutes: What it costs on two cores.
    """

    experiment: Experiment
    budget: BudgetName
    state: str
    minutes: float


def overview(budget: BudgetName, runs: Path, out: Path) -> list[Overview]:
    """How far every item is.

    Args:
        budget: Of the lines.
        runs: See :func:`reproduce`.
        out: See :func:`reproduce`.
    """
    return [
        Overview(
            item, budget, _state(item, budget, runs / budget, out), item.budgets[budget].minutes
        )
        for item in experiments().values()
        if budget in item.budgets
    ]


def _state(experiment: Experiment, budget: BudgetName, runs: Path, out: Path) -> str:
    trainings = experiment.budgets[budget].trainings
    states = [state(training, runs) for training in trainings]
    epochs = [training.epochs for training in trainings]
    record = out / experiment.name / results.RECORD
    if record.exists() and json.loads(record.read_text())["budget"] == budget:
        failures = json.loads(record.read_text())["failures"]
        return f"done, outside: {len(failures)}" if failures else "done, inside"
    if any(one.process for one in states):
        done = sum(one.fraction * count for one, count in zip(states, epochs, strict=True))
        return f"running, {done / sum(epochs):.0%} of the training"
    if states and all(one.is_done for one in states):
        return "trained, no report yet"
    if any(one.fraction for one in states):
        done = sum(one.fraction * count for one, count in zip(states, epochs, strict=True))
        return f"at {done / sum(epochs):.0%} of the training"
    return "not run"


def _named(name: str) -> Experiment:
    known = experiments()
    if name not in known:
        raise ValueError(f"name: no experiment is called {name!r}; there are {', '.join(known)}")
    return known[name]

"""What a report is made from: the run folders of a budget, opened."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from aevb import data
from aevb.experiments.reproduction.experiment import Budget, BudgetName
from aevb.models import LatentVariableModel
from aevb.models.composed import ComposedModel

__all__ = ["Context", "Opened"]

T = TypeVar("T")


@dataclass(frozen=True)
class Opened:
    """A training run that is done.

    Attributes:
        folder: Its folder.
        model: With its weights, in evaluation mode.
        dataset: As it was trained on.
        history: Rows of ``metrics.csv``, numbers as floats, None where empty.
    """

    folder: Path
    model: LatentVariableModel
    dataset: data.Dataset
    history: list[dict[str, float | None]]

    @property
    def seconds(self) -> float:
        """Time spent training."""
        return float(self.history[-1]["seconds"] or 0.0) if self.history else 0.0

    def curve(self, column: str, num_train: int) -> tuple[list[float], list[float]]:
        """A column of the metrics against the number of training points seen.

        Args:
            column: Such as ``"train_objective"``.
            num_train: Datapoints of one epoch.

        Returns:
            Training points, and values.
        """
        kept = [row for row in self.history if row.get(column) is not None]
        return [float(r["epoch"] or 0) * num_train for r in kept], [float(r[column]) for r in kept]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Context:
    """Handed to the report of an experiment.

    Attributes:
        budget_name: ``"quick"``, ``"standard"`` or ``"full"``.
        budget: What it says.
        runs: Where the run folders are.
        cache: Where finished parts of a report are kept.
        data_root: Folder of the datasets.
        reopen: Opens a run folder at its last weights, or at those of a stop.
    """

    budget_name: BudgetName
    budget: Budget
    runs: Path
    cache: Path
    data_root: Path | None
    reopen: Callable[[Path, int | None], tuple[LatentVariableModel, data.Dataset]]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the budget."""
        return self.budget.settings

    def load(self, name: str, binarize: str = "none", seed: int = 0) -> data.Dataset:
        """A dataset, found where the runs find theirs.

        Args:
            name: As :func:`aevb.data.load` takes it.
            binarize: The same.
            seed: The same.
        """
        return data.load(name, root=self.data_root, binarize=binarize, seed=seed)

    def open(self, name: str, epoch: int | None = None, at_means: bool = True) -> Opened:
        """A training run of this budget.

        Args:
            name: Of the training.
            epoch: A stop of it; None for its end.
            at_means: Give latent weights the means of their posterior; otherwise the model keeps
                the posterior.
        """
        folder = self.runs / name
        model, dataset = self.reopen(folder, epoch)
        if at_means and isinstance(model, ComposedModel):
            model = model.at_mean_weights()
        return Opened(folder, model, dataset, read_history(folder))

    def part(self, name: str, compute: Callable[[], T]) -> T:
        """A part of a report, computed once: what takes minutes survives an interruption.

        Args:
            name: Of the part, with everything that it depends on besides the budget.
            compute: Gives what JSON can hold.
        """
        path = self.cache / f"{name}.json"
        if path.exists():
            found: T = json.loads(path.read_text())
            return found
        value = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(value))
        partial.replace(path)
        return value


def read_history(folder: Path) -> list[dict[str, float | None]]:
    """The rows of a run's ``metrics.csv``; none where there is no file yet."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            {key: float(value) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def standard_error(values: torch.Tensor) -> float:
    """Of the mean of independent values."""
    return float(values.std()) / len(values) ** 0.5

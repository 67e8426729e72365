"""The record of a run while it trains: history, metrics.csv and TensorBoard."""

import csv
from pathlib import Path
from typing import Any

__all__ = ["COLUMNS", "MetricsLog", "summary", "validated"]

COLUMNS = (
    "epoch",
    "step",
    "train_objective",
    "validation_elbo",
    "validation_log_joint",
    "learning_rate",
    "seconds",
    "datapoints_per_second",
)


class MetricsLog:
    """Rows of metrics, kept in memory and, with a folder, in ``metrics.csv`` and TensorBoard.

    Args:
        out: Run folder, or None to keep the rows in memory only.
        history: Rows of an earlier part of the run, which this goes on with; the file is
            rewritten to hold just these, so that rows written after the checkpoint do not appear
            twice.

    Example:
        >>> log = MetricsLog(None, [])
        >>> log.add({"epoch": 1, "train_objective": -100.0})
        >>> log.history
        [{'epoch': 1, 'train_objective': -100.0}]
    """

    def __init__(self, out: Path | None, history: list[dict[str, Any]]) -> None:
        self.history = history
        self._csv = None if out is None else out / "metrics.csv"
        self._board: Any = None
        if self._csv is not None and out is not None:
            from torch.utils.tensorboard import SummaryWriter

            purge = self.history[-1]["step"] + 1 if self.history else None
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=purge)
            with self._csv.open("w", newline="") as file:
                writer = _writer(file)
                writer.writeheader()
                writer.writerows(self.history)

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self.history.append(row)
        if self._csv is not None:
            with self._csv.open("a", newline="") as file:
                _writer(file).writerow(row)
            for name in COLUMNS[2:]:
                if row.get(name) is not None:
                    self._board.add_scalar(name, row[name], row["step"])

    def close(self) -> None:
        """Flush what TensorBoard holds back."""
        if self._board is not None:
            self._board.close()


def validated(row: dict[str, Any]) -> float | None:
    """The figure that patience and plateaus look at."""
    for name in ("validation_elbo", "validation_log_joint"):
        if row.get(name) is not None:
            return float(row[name])
    return None


def summary(row: dict[str, Any], unit: str) -> str:
    """A row beside the progress bar."""
    validation = validated(row)
    shown = row["train_objective"] if validation is None else validation
    name = "objective"
    if validation is not None:
        name = "validation ELBO" if row["validation_elbo"] is not None else "validation log joint"
    return f"{name} {shown:.2f} {unit}, {row['datapoints_per_second']:,.0f} points/s"


def _writer(file: Any) -> "csv.DictWriter[str]":
    return csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")

"""What training gives back."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.data.tables import html_table
from aevb.inference.programs.program import name_of
from aevb.inference.svi.metrics import COLUMNS, summary
from aevb.inference.svi.stopping import Rise

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Run"]


@dataclass
class Run:
    """What :func:`fit` gives back.

    Attributes:
        program: The trained pair; with early stopping, at its best validation ELBO.
        history: One row of metrics per logged epoch, as in ``metrics.csv``.
        epoch: Completed epochs.
        step: Completed steps.
        level: How steps were made at the end: ``"eager"``, ``"traced"`` or ``"compiled"``.
        stopped: ``"finished"``, ``"converged"``, ``"patience"``, ``"SIGINT"`` or ``"SIGTERM"``.
        seconds: Time spent training, earlier parts of a resumed run included.
        out: The run folder, or None.
        unit: Of the objective: ``"nats per datapoint"`` with minibatches or a plate ``"data"``,
            else ``"nats"`` of the whole data.
        rise: With ``steps="auto"``, how the bound still moved at the last look.
        seed: Of everything random in it.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> x = torch.zeros(100, 5)
        >>> run = inference.fit(models.FactorAnalysis((5,), 2), x, epochs=3, batch_size=50)
        >>> run.to_dataframe()["step"].to_list()
        [2, 4, 6]
    """

    program: Any
    history: list[dict[str, Any]]
    epoch: int
    step: int
    level: str
    stopped: str
    seconds: float
    out: Path | None
    unit: str = "nats per datapoint"
    rise: Rise | None = None
    seed: int = 0

    def to_dataframe(self) -> "DataFrame":
        """The history, with a row for each logged epoch."""
        from pandas import DataFrame  # not before it is asked for

        return DataFrame(self.history, columns=list(COLUMNS)).set_index("epoch")

    def __repr__(self) -> str:
        """One line: what was trained, how far, and its last figure."""
        figure = [summary(self.history[-1], self.unit).partition(", ")[0]] if self.history else []
        done = [f"{self.epoch:,} epochs", f"{self.step:,} steps", self.stopped]
        shown = ", ".join([name_of(self.program), *done, *figure, f"{self.seconds:.1f} s"])
        return f"Run({shown}, seed={self.seed})"

    def _repr_html_(self) -> str:
        """The same as a table, with the program as it is written."""
        last = self.history[-1] if self.history else {}
        rows = {
            "epochs": self.epoch, "steps": self.step, "stopped": self.stopped,
            **{name: last.get(name) for name in COLUMNS[2:5]},
            "unit": self.unit, "seconds": self.seconds, "level": self.level, "seed": self.seed,
            "folder": self.out,
        }  # fmt: skip
        return html_table(f"Run of {name_of(self.program)}", rows, repr(self.program))

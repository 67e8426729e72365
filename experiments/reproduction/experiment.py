"""The description of a figure or table: its training runs, its published values, its bands."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from aevb.experiments.reproduction.context import Context

__all__ = ["BUDGETS", "Budget", "BudgetName", "Claim", "Experiment", "Report", "Row", "Training"]

BudgetName = Literal["quick", "standard", "full"]
BUDGETS: tuple[BudgetName, ...] = ("quick", "standard", "full")


@dataclass(frozen=True)
class Training:
    """One training run, an ordinary run folder of ``aevb train``.

    Attributes:
        name: Of its folder; experiments that name the same run share it.
        flags: Of ``aevb train``, without dashes: ``{"model.latent_dim": 20}``. The order of flags
            that choose a class and set its arguments is kept.
        epochs: When it is done.
        stops: Epochs whose weights are kept besides the last ones, for curves of what only
            weights tell.
    """

    name: str
    flags: Mapping[str, Any]
    epochs: int
    stops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse stops out of order."""
        if list(self.stops) != sorted(set(self.stops)) or any(
            s >= self.epochs for s in self.stops
        ):
            raise ValueError(f"stops: must rise and end before {self.epochs}; got {self.stops}")


@dataclass(frozen=True)
class Budget:
    """What an experiment costs and how far it goes.

    Attributes:
        trainings: Runs that must be done first, the most valuable first.
        minutes: On two cores, as measured; an estimate before the first measurement.
        settings: Of the report: numbers of samples, images, seeds.
    """

    trainings: tuple[Training, ...]
    minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One figure of ours beside the published one.

    Attributes:
        label: What it belongs to, such as ``"20 latents, AEVB"``.
        quantity: What it is, with estimator, its samples, split and unit.
        ours: The figure.
        error: Its standard error.
        published: The value in print, or None.
        verified: Whether it was read in the paper itself; other values gate nothing.
        band: Where ours must lie, both ends included.
        details: Further columns: binarization, seeds, samples seen, wall time.
    """

    label: str
    quantity: str
    ours: float
    error: float | None = None
    published: float | None = None
    verified: bool = True
    band: tuple[float, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_inside(self) -> bool | None:
        """Whether ours lies in the band; None where nothing is asked of it."""
        if self.band is None or not self.verified:
            return None
        return math.isfinite(self.ours) and self.band[0] <= self.ours <= self.band[1]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper that our figures bear out or not.

    Attributes:
        text: The statement.
        holds: Whether ours agree.
        measured: The figures that decide.
    """

    text: str
    holds: bool
    measured: str = ""


@dataclass
class Report:
    """What an experiment found.

    Attributes:
        rows: Figures beside published ones.
        claims: What must hold between them.
        figures: Pictures by file name without suffix.
        tables: CSV files by name: a header and rows.
        notes: Sentences below the table: what differs from the paper, what was found.
    """

    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Rows outside their bands and claims that do not hold."""
        outside = [
            f"{row.label}, {row.quantity}: {row.ours:.2f} is outside "
            f"[{row.band[0]:.2f}, {row.band[1]:.2f}]"
            for row in self.rows
            if row.is_inside is False and row.band is not None
        ]
        return outside + [f"not borne out: {c.text}" for c in self.claims if not c.holds]


@dataclass(frozen=True)
class Experiment:
    """One figure or table of a paper.

    Attributes:
        name: As ``aevb reproduce`` takes it.
        title: One line.
        source: Paper, figure or table, address.
        budgets: What ``quick``, ``standard`` and ``full`` run.
        report: Computes the rows and figures once the trainings are done.
    """

    name: str
    title: str
    source: str
    budgets: Mapping[BudgetName, Budget]
    report: Callable[["Context"], Report]

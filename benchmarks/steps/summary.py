"""Repeated runs become one row: medians, spread, ratios, distance to the arithmetic limit."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.common.runs import Result
from benchmarks.common.tables import median, median_rates, problem
from benchmarks.steps.competitors import COMPETITORS, takes_part
from benchmarks.steps.workloads import Workload

__all__ = ["Row", "Table", "break_even", "summarize"]

NUMPYRO = ("numpyro", "numpyro-loop")


@dataclass(frozen=True)
class Row:
    """One competitor on one program.

    Attributes:
        name: Of the competitor.
        results: Those of its processes that finished.
        attempts: All its processes.
        problem: Why there is none, in words.
    """

    name: str
    results: list[Result]
    attempts: int
    problem: str

    def median(self, key: str) -> float | None:
        """Over the repeats; None where it was not measured."""
        return median(self.results, key)

    def spread(self, key: str) -> tuple[float, float] | None:
        """Smallest and largest over the repeats."""
        values = [result[key] for result in self.results if result.get(key) is not None]
        return (min(values), max(values)) if values else None


@dataclass(frozen=True)
class Table:
    """All competitors on one program.

    Attributes:
        workload: The program.
        rows: In the order of the competitors.
        rates: Multiply-adds per second at the largest product, by library, medians.
    """

    workload: Workload
    rows: list[Row]
    rates: dict[str, float]

    def row(self, name: str) -> Row | None:
        """The row of a competitor, if it is in the table."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def limit(self) -> float | None:
        """Milliseconds that the matrix products of a step take at the best measured rate."""
        if not self.rates:
            return None
        return self.workload.multiply_adds / max(self.rates.values()) * 1e3

    def speedup(self, row: Row, references: Iterable[str]) -> float | None:
        """How many times as fast a row is as the fastest of the references."""
        found = [other.median("milliseconds") for name in references if (other := self.row(name))]
        times = [time for time in found if time is not None]
        own = row.median("milliseconds")
        return min(times) / own if times and own else None

    def of_limit(self, row: Row) -> float | None:
        """Share of a step's time that its matrix products need at the best measured rate."""
        own = row.median("milliseconds")
        return self.limit / own if self.limit and own else None


def summarize(workload: Workload, results: list[Result]) -> Table:
    """Gather a program's results by competitor.

    Args:
        workload: The program.
        results: Of all programs.
    """
    own = [result for result in results if result["program"] == workload.name]
    rows = []
    for name in COMPETITORS:
        if takes_part(name, workload):
            mine = [result for result in own if result["competitor"] == name]
            finished = [result for result in mine if "milliseconds" in result]
            rows.append(Row(name, finished, len(mine), problem(mine)))
    return Table(workload, rows, median_rates(own))


def break_even(table: Table, slow: str, fast: str) -> float | None:
    """Steps after which the competitor with the dearer first step has caught up.

    Args:
        table: The program's table.
        slow: The one with the cheaper first step.
        fast: The one with the cheaper steps.

    Returns:
        The number of steps; infinity if ``fast`` is not faster; None if either was not measured.
    """
    values = [
        row.median(key)
        for name in (slow, fast)
        if (row := table.row(name))
        for key in ("first_step_seconds", "milliseconds")
    ]
    measured = [value for value in values if value is not None]
    if len(measured) < 4:
        return None
    first_slow, step_slow, first_fast, step_fast = measured
    extra = max(0.0, first_fast - first_slow)
    saved = (step_slow - step_fast) / 1e3
    return extra / saved if saved > 0 else float("inf")

"""Numbers and tables of Markdown."""

import math
import statistics
from collections.abc import Iterable, Sequence

from benchmarks.common.runs import Result

__all__ = ["ABSENT", "markdown", "median", "median_rates", "number", "problem"]

ABSENT = "not measured"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are numbers."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """With so many digits; None is what was not measured."""
    if value is None or math.isnan(value):
        return ABSENT if value is None else "NaN"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return format(value, f"#.{digits}g")


def median(results: Iterable[Result], key: str) -> float | None:
    """Over the results that have it; None where none does."""
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def median_rates(results: Iterable[Result]) -> dict[str, float]:
    """Multiply-adds per second of each library, over the processes that measured them."""
    found = [result["rates"] for result in results if result.get("rates")]
    return {name: statistics.median(rates[name] for rates in found) for name in (found or [{}])[0]}


def problem(results: Sequence[Result]) -> str:
    """Why a row without a finished process has no numbers."""
    for result in results:
        if "failure" in result:
            return f"{ABSENT}: {result['failure']}".replace("|", "/")
    absent = [result["absent"] for result in results if "absent" in result]
    return f"{ABSENT}: {absent[0]} is not installed" if absent else ABSENT

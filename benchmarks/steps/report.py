"""The measurements as a page of Markdown."""

import math
from collections.abc import Callable, Sequence

from benchmarks.steps.competitors import COMPETITORS
from benchmarks.steps.summary import NUMPYRO, Row, Table, break_even

__all__ = ["CPU_COLUMNS", "GPU_COLUMNS", "Column", "markdown", "number", "page"]

Column = tuple[str, Callable[[Table, Row], str]]
ABSENT = "not measured"


def page(
    title: str,
    facts: dict[str, str],
    notes: str,
    tables: list[Table],
    columns: Sequence[Column],
) -> str:
    """The whole page.

    Args:
        title: Heading.
        facts: Machine, versions, commit, command, date and whatever else fixes the measurement.
        notes: How to read the tables.
        tables: One per program.
        columns: Of the tables.
    """
    parts = [f"# {title}", "\n".join(f"- {key}: {value}" for key, value in facts.items()), notes]
    for table in tables:
        parts += [f"## {table.workload.title}", _arithmetic(table), _grid(table, columns)]
    parts += ["## First step and break-even of aevb's levels", _break_even_grid(tables)]
    return "\n\n".join(parts) + "\n"


def _arithmetic(table: Table) -> str:
    """The limit of the program in a sentence."""
    shape = table.workload.largest_product
    if shape is None:
        return "No matrix products: no arithmetic limit is given."
    million = table.workload.multiply_adds / 1e6
    size = " x ".join(f"{number:,}" for number in shape)
    start = f"{number(million)} million multiply-adds in a step's matrix products; "
    if table.limit is None:
        return start + f"the rate at {size} was {ABSENT}."
    rates = ", ".join(f"{name} {rate / 1e9:,.1f}" for name, rate in table.rates.items())
    return (
        start + f"10⁹ multiply-adds per second at {size}: {rates}; so the products alone take "
        f"{table.limit:.3g} ms at the better rate."
    )


def _grid(table: Table, columns: Sequence[Column]) -> str:
    rows = []
    for row in table.rows:
        cells = [value(table, row) if row.results else "–" for _, value in columns]
        if not row.results:
            cells[0] = row.problem.replace("|", "/")
        runs = f" ({len(row.results)} of {row.attempts} runs)"
        incomplete = 0 < len(row.results) < row.attempts
        rows.append([COMPETITORS[row.name].title + runs * incomplete, *cells])
    return markdown(["competitor", *(name for name, _ in columns)], rows)


def _break_even_grid(tables: list[Table]) -> str:
    pairs = [("eager", "traced"), ("eager", "compiled"), ("traced", "compiled")]
    levels = ("eager", "traced", "compiled")
    header = ["program", *(f"first step, {level}" for level in levels)]
    header += [f"{fast} repays over {slow} after" for slow, fast in pairs]
    rows = []
    for table in tables:
        cells = [table.workload.name]
        for level in levels:
            row = table.row(f"aevb-{level}")
            cells.append(_unit(row.median("first_step_seconds") if row else None, "s"))
        for slow, fast in pairs:
            cells.append(_steps(break_even(table, f"aevb-{slow}", f"aevb-{fast}")))
        rows.append(cells)
    return markdown(header, rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are numbers."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _median(key: str, digits: int = 3) -> Callable[[Table, Row], str]:
    return lambda table, row: number(row.median(key), digits)


def _spread(key: str) -> Callable[[Table, Row], str]:
    def cell(table: Table, row: Row) -> str:
        found = row.spread(key)
        return f"{number(found[0])}–{number(found[1])}" if found else ABSENT

    return cell


def _speedup(*references: str) -> Callable[[Table, Row], str]:
    def cell(table: Table, row: Row) -> str:
        if table.row(references[0]) is None:
            return "–"
        ratio = table.speedup(row, references)
        return ABSENT if ratio is None else f"{number(ratio)}×"

    return cell


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0%}"


def _of_limit(table: Table, row: Row) -> str:
    share = table.of_limit(row)
    if table.workload.largest_product is None:
        return "–"
    return ABSENT if share is None else f"{number(1 / share)}× ({share:.0%})"


def _epoch(table: Table, row: Row) -> str:
    time = row.median("milliseconds")
    steps = table.workload.num_data / table.workload.batch
    return _unit(None if time is None else time * steps / 1e3, "s")


def number(value: float | None, digits: int = 3) -> str:
    """With so many digits; None is what was not measured."""
    if value is None or math.isnan(value):
        return ABSENT if value is None else "NaN"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return format(value, f"#.{digits}g")


def _unit(value: float | None, unit: str) -> str:
    return ABSENT if value is None else f"{number(value)} {unit}"


def _steps(count: float | None) -> str:
    if count is None:
        return ABSENT
    return "never" if math.isinf(count) else f"{math.ceil(count):,} steps"


_SHARED: list[Column] = [
    ("ms per step", _median("milliseconds")),
    ("min–max", _spread("milliseconds")),
    ("vs PyTorch by hand", _speedup("torch")),
    ("vs Pyro `SVI`", _speedup("pyro")),
    ("vs NumPyro", _speedup(*NUMPYRO)),
    ("× the limit (share of it reached)", _of_limit),
    ("first step, s", _median("first_step_seconds")),
]
CPU_COLUMNS: list[Column] = [
    *_SHARED,
    ("peak memory, MiB", _median("memory_mib", 4)),
    ("before the model, MiB", _median("memory_before_mib", 4)),
    ("loss", _median("loss", 5)),
]
GPU_COLUMNS: list[Column] = [
    *_SHARED,
    ("epoch", _epoch),
    ("no kernel runs", lambda table, row: _percent(row.median("gap"))),
    ("peak GPU memory, MiB", _median("device_memory_mib", 4)),
    ("ran on", lambda table, row: str(row.results[0]["backend"])),
    ("loss", _median("loss", 5)),
]

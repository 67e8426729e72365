"""The tables of the page."""

import math
from collections.abc import Callable, Sequence

from benchmarks.common.tables import ABSENT, markdown, number
from benchmarks.steps.competitors import COMPETITORS
from benchmarks.steps.summary import NUMPYRO, Row, Table, break_even

__all__ = ["CPU_COLUMNS", "GPU_COLUMNS", "Column", "break_even_grid", "program_section"]

Column = tuple[str, Callable[[Table, Row], str]]


def program_section(table: Table, columns: Sequence[Column]) -> list[str]:
    """What the page says of one program."""
    return [f"## {table.workload.title}", _arithmetic(table), _grid(table, columns)]


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
            cells[0] = row.problem
        runs = f" ({len(row.results)} of {row.attempts} runs)"
        incomplete = 0 < len(row.results) < row.attempts
        rows.append([COMPETITORS[row.name].title + runs * incomplete, *cells])
    return markdown(["competitor", *(name for name, _ in columns)], rows)


def break_even_grid(tables: list[Table]) -> list[str]:
    """After how many steps a level with a dearer first step has caught up, by program."""
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
    return ["## First step and break-even of aevb's levels", markdown(header, rows)]


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

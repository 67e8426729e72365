"""The tables of the page: medians over repeats, spread, ratios, distance to the limit."""

import math
from collections.abc import Callable, Sequence

from benchmarks.common.runs import Result
from benchmarks.common.tables import ABSENT, markdown, median, median_rates, number, problem
from benchmarks.steps.competitors import COMPETITORS, takes_part
from benchmarks.steps.workloads import Workload

__all__ = ["CPU_COLUMNS", "GPU_COLUMNS", "Column", "Table", "break_even_grid", "program_section"]

_LEVELS = ("eager", "traced", "compiled")


class Table:
    """All competitors on one program.

    Args:
        workload: The program.
        results: Of all programs.

    Attributes:
        rows: Results of each competitor, in their order.
        rates: Multiply-adds per second at the largest product, by library, medians.
        limit: Milliseconds that the matrix products of a step take at the best measured rate.
    """

    def __init__(self, workload: Workload, results: Sequence[Result]) -> None:
        own = [result for result in results if result["program"] == workload.name]
        self.workload = workload
        self.rows = {
            name: [result for result in own if result["competitor"] == name]
            for name in COMPETITORS
            if takes_part(name, workload)
        }
        self.rates = median_rates(own)
        self.limit = None
        if self.rates:
            self.limit = workload.multiply_adds / max(self.rates.values()) * 1e3

    def median(self, name: str, key: str = "milliseconds") -> float | None:
        """Over a competitor's repeats; None where it was not measured."""
        return median(self.rows.get(name, ()), key)


Column = tuple[str, Callable[[Table, str], str]]


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
    lines = []
    for name, mine in table.rows.items():
        finished = sum("milliseconds" in result for result in mine)
        runs = f" ({finished} of {len(mine)} runs)" if 0 < finished < len(mine) else ""
        cells = [value(table, name) if finished else "–" for _, value in columns]
        if not finished:
            cells[0] = problem(mine)
        lines.append([COMPETITORS[name].title + runs, *cells])
    return markdown(["competitor", *(name for name, _ in columns)], lines)


def break_even_grid(tables: list[Table]) -> list[str]:
    """After how many steps a level with a dearer first step has caught up, by program."""
    pairs = [("eager", "traced"), ("eager", "compiled"), ("traced", "compiled")]
    header = ["program", *(f"first step, {level}" for level in _LEVELS)]
    header += [f"{fast} repays over {slow} after" for slow, fast in pairs]
    rows = [
        [
            table.workload.name,
            *(
                _unit(table.median(f"aevb-{level}", "first_step_seconds"), "s")
                for level in _LEVELS
            ),
            *(_break_even(table, f"aevb-{slow}", f"aevb-{fast}") for slow, fast in pairs),
        ]
        for table in tables
    ]
    return ["## First step and break-even of aevb's levels", markdown(header, rows)]


def _break_even(table: Table, slow: str, fast: str) -> str:
    """Steps after which ``fast``, whose first step is dearer, has caught up."""
    (slow_first, slow_step), (fast_first, fast_step) = (
        (table.median(name, "first_step_seconds"), table.median(name)) for name in (slow, fast)
    )
    if slow_first is None or slow_step is None or fast_first is None or fast_step is None:
        return ABSENT
    saved = (slow_step - fast_step) / 1e3
    if saved <= 0:
        return "never"
    return f"{math.ceil(max(0.0, fast_first - slow_first) / saved):,} steps"


def _median(key: str, digits: int = 3) -> Callable[[Table, str], str]:
    return lambda table, name: number(table.median(name, key), digits)


def _spread(table: Table, name: str) -> str:
    times = [result["milliseconds"] for result in table.rows[name] if "milliseconds" in result]
    return f"{number(min(times))}–{number(max(times))}"


def _speedup(*references: str) -> Callable[[Table, str], str]:
    """How many times as fast a row is as the fastest of the references."""

    def cell(table: Table, name: str) -> str:
        if references[0] not in table.rows:
            return "–"
        own, *others = (table.median(each) for each in (name, *references))
        times = [time for time in others if time is not None]
        return f"{number(min(times) / own)}×" if times and own else ABSENT

    return cell


def _of_limit(table: Table, name: str) -> str:
    """A step's time in times of its matrix products, at the best measured rate."""
    if table.workload.largest_product is None:
        return "–"
    own = table.median(name)
    return (
        f"{number(own / table.limit)}× ({table.limit / own:.0%})"
        if own and table.limit
        else ABSENT
    )


def _epoch(table: Table, name: str) -> str:
    time, steps = table.median(name), table.workload.num_data / table.workload.batch
    return _unit(None if time is None else time * steps / 1e3, "s")


def _gap(table: Table, name: str) -> str:
    share = table.median(name, "gap")
    return ABSENT if share is None else f"{share:.0%}"


def _backend(table: Table, name: str) -> str:
    return next(str(result["backend"]) for result in table.rows[name] if "backend" in result)


def _unit(value: float | None, unit: str) -> str:
    return ABSENT if value is None else f"{number(value)} {unit}"


_SHARED: list[Column] = [
    ("ms per step", _median("milliseconds")),
    ("min–max", _spread),
    ("vs PyTorch by hand", _speedup("torch")),
    ("vs Pyro `SVI`", _speedup("pyro")),
    ("vs NumPyro", _speedup("numpyro", "numpyro-loop")),
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
    ("no kernel runs", _gap),
    ("peak GPU memory, MiB", _median("device_memory_mib", 4)),
    ("ran on", _backend),
    ("loss", _median("loss", 5)),
]

"""How near importance sampling and annealing come to the speed of their matrix products.

    uv run --group benchmark python -m benchmarks.evidence

Writes ``benchmarks/results/evidence-<machine>.md``; with ``--quick``, a draft under ``runs/``.
Images come from the folder in ``$AEVB_DATA``.
"""

from collections.abc import Iterable

from benchmarks.common.products import products_job
from benchmarks.common.publish import publish, shared_options
from benchmarks.common.runs import Job, Result
from benchmarks.common.tables import ABSENT, markdown, median, median_rates, number, problem
from benchmarks.common.trained import made

_HIDDEN, _CHAINS, _BUDGET = 500, 16, 128
_PRODUCT_ROWS = 5_000
_READING = """\
log p(x) of {datapoints} test images (annealing: {annealed}) under a VAE
{pixels}-{hidden}-20, tanh, Bernoulli. A decoder evaluation is one latent vector of one image;
annealing ({chains} chains from the prior, 10 leapfrog steps a temperature) needs its gradient too,
twice the products, and its pilot run counts. “Of the products” is the share of the time that a
decoder's matrix products take at the better measured rate ({rates}). “First” includes tracing and
compilation; “again” is a second call in the same process, which traces anew. The memory budget of
importance sampling is {budget} MiB: memory above that before the call is what it holds, with the
code that it loads and compiles."""
_HEADER = [
    "estimator", "decoder evaluations per second, again", "of the products", "first",
    "of the products", "seconds, first", "again", "log p(x), nats", "standard error, nats",
    "peak memory, MiB", "before, MiB",
]  # fmt: skip


def main() -> None:
    """Parse, prepare, run, write."""
    parser = shared_options(__doc__, "3; quick: 1")
    parser.add_argument("--samples", type=int, nargs="+", help="(500 5000; quick: 50 500)")
    parser.add_argument("--temperatures", type=int, nargs="+", help="(100 1000; quick: 10)")
    options = parser.parse_args()
    quick: bool = options.quick
    repeats = options.repeats or (1 if quick else 3)
    data, pixels, steps = ("digits", 64, 200) if quick else ("mnist", 784, 10_000)
    datapoints, annealed = (10, 10) if quick else (1_000, 50)
    shared = {"trained": str(made(data, _HIDDEN, steps)), "chains": _CHAINS, "budget": _BUDGET}

    def job(row: str, estimator: str, size: int, count: int) -> Job:
        mine = {"estimator": estimator, "size": size, "datapoints": count}
        return Job({"row": row}, "benchmarks.evidence.worker", shared | mine)

    jobs = [
        *(
            job(f"importance sampling, {n:,} samples", "importance", n, datapoints)
            for n in options.samples or ([50, 500] if quick else [500, 5_000])
        ),
        *(
            job(f"annealing, {n:,} temperatures", "ais", n, annealed)
            for n in options.temperatures or ([10] if quick else [100, 1_000])
        ),
    ]

    def sections(results: list[Result]) -> list[str]:
        rates = median_rates(results)
        said = ", ".join(f"{name} {rate / 1e9:,.1f}" for name, rate in rates.items())
        notes = _READING.format(
            datapoints=datapoints, annealed=annealed, pixels=pixels, hidden=_HIDDEN,
            chains=_CHAINS, budget=_BUDGET,
            rates=f"10⁹ multiply-adds per second: {said}" if rates else ABSENT,
        )  # fmt: skip
        rows = [job.names["row"] for job in jobs]
        return [notes, _table(rows, results, max(rates.values(), default=None))]

    publish(
        [products_job({"row": "products"}, (_PRODUCT_ROWS, _HIDDEN, pixels), 1.0), *jobs]
        * repeats,
        sections,
        options,
        command="benchmarks.evidence",
        heading="Evidence",
        measured=f"{repeats} × each row, each in a process, in turn; medians",
        prefix="evidence-",
    )


def _table(rows: Iterable[str], results: list[Result], best: float | None) -> str:
    lines = []
    for row in rows:
        mine = [result for result in results if result["row"] == row]
        work, evaluations = (median(mine, key) for key in ("multiply_adds", "evaluations"))
        if work is None or evaluations is None:
            lines.append([row, problem(mine), *["–"] * (len(_HEADER) - 2)])
            continue
        cells = [row]
        for key in ("later_seconds", "seconds"):
            seconds = median(mine, key) or 0.0
            share = f"{work / seconds / best:.0%}" if best else ABSENT
            cells += [number(evaluations / seconds), share]
        digits = {
            "seconds": 3, "later_seconds": 3, "log_evidence": 5, "standard_error": 3,
            "memory_mib": 4, "memory_before_mib": 4,
        }  # fmt: skip
        lines.append([*cells, *(number(median(mine, key), n) for key, n in digits.items())])
    return markdown(_HEADER, lines)


if __name__ == "__main__":
    main()

"""How near importance sampling and annealing come to the speed of their matrix products.

    uv run --group benchmark python -m benchmarks.evidence

Writes ``benchmarks/results/evidence-<machine>.md``; with ``--quick``, a draft under ``runs/``.
Images come from the folder in ``$AEVB_DATA``.
"""

import argparse
import statistics
from collections.abc import Iterable

from benchmarks.common.publish import publish, shared_options
from benchmarks.common.runs import Job, Result
from benchmarks.common.tables import ABSENT, markdown, median_rates, number, problem
from benchmarks.common.trained import made

_WORKER = "benchmarks.evidence.worker"
_HIDDEN = 500
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

_FIGURES = (
    "evaluations", "multiply_adds", "later_seconds", "seconds", "log_evidence", "standard_error",
    "memory_mib", "memory_before_mib",
)  # fmt: skip


def main() -> None:
    """Parse, prepare, run, write."""
    options = _parse()
    quick: bool = options.quick
    repeats = options.repeats or (1 if quick else 3)
    dataset = options.data or ("digits" if quick else "mnist")
    shared = ["--trained", str(made(dataset, _HIDDEN, 200 if quick else 10_000))]
    shared += ["--threads", str(options.threads), "--chains", str(options.chains)]
    shared += ["--memory-budget", str(options.memory_budget)]
    datapoints = options.datapoints or (10 if quick else 1_000)
    annealed = options.annealed_datapoints or (10 if quick else 50)
    samples = options.samples or ([50, 500] if quick else [500, 5_000])
    temperatures = options.temperatures or ([10] if quick else [100, 1_000])

    def job(row: str, estimator: str, size: int, count: int) -> Job:
        mine = ["--estimator", estimator, "--size", str(size), "--datapoints", str(count)]
        return Job({"row": row}, _WORKER, [*shared, *mine])

    products = Job({"row": "products"}, _WORKER, [*shared, "--estimator", "products"], "torch")
    jobs = [
        *(
            job(f"importance sampling, {n:,} samples", "importance", n, datapoints)
            for n in samples
        ),
        *(job(f"annealing, {n:,} temperatures", "ais", n, annealed) for n in temperatures),
    ]

    def sections(results: list[Result]) -> list[str]:
        rates = median_rates(results)
        said = ", ".join(f"{name} {rate / 1e9:,.1f}" for name, rate in rates.items())
        notes = _READING.format(
            datapoints=datapoints, annealed=annealed, pixels=64 if dataset == "digits" else 784,
            hidden=_HIDDEN, chains=options.chains, budget=options.memory_budget,
            rates=f"10⁹ multiply-adds per second: {said}" if rates else ABSENT,
        )  # fmt: skip
        rows = [job.names["row"] for job in jobs]
        return [notes, _table(rows, results, max(rates.values(), default=None))]

    publish(
        [products, *jobs] * repeats,
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
        finished = [result for result in mine if "seconds" in result]
        if not finished:
            lines.append([row, problem(mine), *["–"] * (len(_HEADER) - 2)])
            continue
        found = {key: statistics.median(r[key] for r in finished) for key in _FIGURES}
        cells = [row]
        for key in ("later_seconds", "seconds"):
            cells.append(number(found["evaluations"] / found[key]))
            share = found["multiply_adds"] / found[key] / best if best else None
            cells.append(ABSENT if share is None else f"{share:.0%}")
        cells += [number(found["seconds"]), number(found["later_seconds"])]
        cells += [number(found["log_evidence"], 5), number(found["standard_error"])]
        cells += [number(found["memory_mib"], 4), number(found["memory_before_mib"], 4)]
        lines.append(cells)
    return markdown(_HEADER, lines)


def _parse() -> argparse.Namespace:
    parser = shared_options(__doc__, "3; quick: 1")
    parser.add_argument("--datapoints", type=int, help="images (1,000; quick: 10)")
    parser.add_argument(
        "--annealed-datapoints", type=int, help="images of annealing (50; quick: 10)"
    )
    parser.add_argument("--samples", type=int, nargs="+", help="(500 5000; quick: 50 500)")
    parser.add_argument("--temperatures", type=int, nargs="+", help="(100 1000; quick: 10)")
    parser.add_argument("--chains", type=int, default=16, help="of annealing")
    parser.add_argument("--memory-budget", type=int, default=128, help="MiB")
    parser.add_argument("--data", help="dataset of the VAE (mnist; quick: digits)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

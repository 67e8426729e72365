"""How near importance sampling and annealing come to the speed of their matrix products.

    uv run --group benchmark python -m benchmarks.evidence

Writes ``benchmarks/results/evidence-<machine>.md``; with ``--quick``, a draft under ``runs/``.
Images come from the folder in ``$AEVB_DATA``.
"""

import argparse
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.common.machine import commit, describe_cpu, slug
from benchmarks.common.publish import DRAFTS, facts_of, place, versions
from benchmarks.common.runs import Job, Result, alternate_jobs
from benchmarks.common.trained import job_arguments
from benchmarks.steps.report import markdown, number

__all__ = ["main"]

_HIDDEN = 500
_READING = """\
log p(x) of {datapoints} test images (annealing: {annealed}) under a VAE
{pixels}-{hidden}-20, tanh, Bernoulli. A decoder evaluation is one latent vector of one image;
annealing ({chains} chains from the prior, 10 leapfrog steps a temperature) needs its gradient too,
twice the products, and its pilot run counts. “Of the products” is the share of the time that a
decoder's matrix products take at the better measured rate{rates}. “First” includes tracing and
compilation; “again” is a second call in the same process, which traces anew. The memory budget of
importance sampling is {budget} MiB: memory above that before the call is what it holds, with the
code that it loads and compiles."""


def main() -> None:
    """Parse, prepare, run, write."""
    options = _parse()
    quick: bool = options.quick
    target = place(options.out, quick)
    started = datetime.now(UTC)
    machine = describe_cpu()
    facts = facts_of("benchmarks.evidence", machine, commit(), options.threads, started)
    repeats = options.repeats or (1 if quick else 3)
    facts["measured"] = f"{repeats} × each row, each in a process, in turn; medians"
    name = f"evidence-{slug(machine)}"
    log = DRAFTS / f"{name}-{started:%Y%m%d-%H%M%S}.jsonl"
    dataset = options.data or ("digits" if quick else "mnist")
    trained, arguments = job_arguments(dataset, _HIDDEN, 200 if quick else 10_000, DRAFTS)
    if not trained.exists():
        made = alternate_jobs([Job("training", "benchmarks.common.trained", arguments)], 1, 1, log)
        if "failure" in made[0]:
            raise SystemExit(f"no VAE to estimate with: {made[0]['failure']}")
    datapoints = {
        "importance": options.datapoints or (10 if quick else 1_000),
        "ais": options.annealed_datapoints or (10 if quick else 50),
    }
    shared = ["--trained", str(trained), "--threads", str(options.threads)]
    shared += ["--chains", str(options.chains), "--memory-budget", str(options.memory_budget)]
    sizes = {
        "importance": options.samples or ([50, 500] if quick else [500, 5_000]),
        "ais": options.temperatures or ([10] if quick else [100, 1_000]),
    }
    jobs = [
        Job(
            "products", "benchmarks.evidence.worker", [*shared, "--estimator", "products"], "torch"
        )
    ]
    for estimator, numbers in sizes.items():
        for size in numbers:
            mine = [*shared, "--estimator", estimator, "--size", str(size)]
            mine += ["--datapoints", str(datapoints[estimator])]
            jobs.append(Job(_title(estimator, size), "benchmarks.evidence.worker", mine))
    results = alternate_jobs(jobs, repeats, options.threads, log)
    facts["load average at the end"] = f"{os.getloadavg()[0]:.2f} (with the runs' own)"
    facts["versions"] = versions(results)
    rates = _rates(results)
    said = ", ".join(f"{name} {rate / 1e9:,.1f}" for name, rate in rates.items())
    notes = _READING.format(
        datapoints=datapoints["importance"],
        annealed=datapoints["ais"],
        pixels=64 if dataset == "digits" else 784,
        hidden=_HIDDEN,
        chains=options.chains,
        rates=f" (10⁹ multiply-adds per second: {said})" if rates else " (not measured)",
        budget=options.memory_budget,
    )
    if quick:
        notes = "**A quick run, to see that all of it works: its times mean nothing.**\n\n" + notes
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    path = target / f"{name}{'-quick' * quick}.md"
    table = _table([job.row for job in jobs[1:]], results, max(rates.values(), default=None))
    path.write_text("\n\n".join([f"# Evidence on {machine}", lines, notes, table]) + "\n")
    print(f"{path}\n\n{path.read_text()}")


def _title(estimator: str, size: int) -> str:
    if estimator == "importance":
        return f"importance sampling, {size:,} samples"
    return f"annealing, {size:,} temperatures"


def _rates(results: list[Result]) -> dict[str, float]:
    found = [result["rates"] for result in results if "rates" in result]
    libraries = found[0] if found else {}
    return {name: statistics.median(rates[name] for rates in found) for name in libraries}


def _table(rows: list[str], results: list[Result], best: float | None) -> str:
    header = [
        "estimator", "decoder evaluations per second, again", "of the products", "first",
        "of the products", "seconds, first", "again", "log p(x), nats", "standard error, nats",
        "peak memory, MiB", "before, MiB",
    ]  # fmt: skip
    lines = []
    for row in rows:
        mine = [result for result in results if result["row"] == row]
        finished = [result for result in mine if "seconds" in result]
        if not finished:
            lines.append([row, f"not measured: {mine[0].get('failure')}", *["–"] * 9])
            continue

        def median(key: str, finished: list[Result] = finished) -> float:
            return statistics.median(result[key] for result in finished)

        cells = [row]
        for key in ("later_seconds", "seconds"):
            cells.append(number(median("evaluations") / median(key)))
            share = median("multiply_adds") / median(key) / best if best else None
            cells.append("not measured" if share is None else f"{share:.0%}")
        cells += [number(median("seconds")), number(median("later_seconds"))]
        cells += [number(median("log_evidence"), 5), number(median("standard_error"))]
        cells += [number(median("memory_mib"), 4), number(median("memory_before_mib"), 4)]
        lines.append(cells)
    return markdown(header, lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, help="processes of each row (3; quick: 1)")
    parser.add_argument("--datapoints", type=int, help="images (1,000; quick: 10)")
    parser.add_argument(
        "--annealed-datapoints", type=int, help="images of annealing (50; quick: 10)"
    )
    parser.add_argument("--samples", type=int, nargs="+", help="(500 5000; quick: 50 500)")
    parser.add_argument("--temperatures", type=int, nargs="+", help="(100 1000; quick: 10)")
    parser.add_argument("--chains", type=int, default=16, help="of annealing")
    parser.add_argument("--memory-budget", type=int, default=128, help="MiB")
    parser.add_argument("--data", help="dataset of the VAE (mnist; quick: digits)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="folder of the page")
    parser.add_argument("--quick", action="store_true", help="minutes, to see it work")
    return parser.parse_args()


if __name__ == "__main__":
    main()

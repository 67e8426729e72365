"""Effective samples per second of aevb's HMC beside NumPyro's and Pyro's, on this machine's CPU.

    uv run --group benchmark python -m benchmarks.sampling

Writes ``benchmarks/results/hmc-<machine>.md``; with ``--quick``, a draft under ``runs/``. Images
come from the folder in ``$AEVB_DATA``.
"""

import argparse
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common.machine import commit, describe_cpu, slug
from benchmarks.common.publish import DRAFTS, facts_of, place, versions
from benchmarks.common.runs import Job, Result, alternate_jobs
from benchmarks.common.trained import job_arguments
from benchmarks.sampling.samplers import SAMPLERS
from benchmarks.steps.report import markdown, number

__all__ = ["main"]

_HIDDEN = 200
_READING = """\
Everyone samples the posteriors of the same test images under the same decoder (VAE
{pixels}-{hidden}-20, tanh, Bernoulli), with {warmup} iterations of warm-up and {samples} draws a
chain and 0.8 for target acceptance. aevb adapts the lengths of trajectories. Those of the others
last {length:.3g} in units of time with unit masses; 2.5 was found by hand to be NumPyro's best,
and the default of both, 2π, gives it a sixteenth as many effective samples a second. Nobody gets a
guide.

Effective samples are ArviZ's bulk ones, the least over dimensions, the mean over posteriors, of
all {chains} chains. “First” counts everything from a process that is ready, compilation included;
“again” has nothing left to compile but what a sampler compiles anew at each call. “vs” says how
many times as many effective samples aevb makes in a second. Where “drawn” is not everything, the
time is that of the calls made, extrapolated to all, and effective samples of few chains are scaled
to all. E‖z‖² is over the first two posteriors: it shows whether all sample the same."""


def main() -> None:
    """Parse, prepare, run, write."""
    options = _parse()
    quick: bool = options.quick
    target = place(options.out, quick)
    started = datetime.now(UTC)
    machine = describe_cpu()
    facts = facts_of("benchmarks.sampling", machine, commit(), options.threads, started)
    repeats = options.repeats or (1 if quick else 3)
    facts["measured"] = f"{repeats} × each row, each in a process, in turn; medians"
    name = f"hmc-{slug(machine)}"
    log = DRAFTS / f"{name}-{started:%Y%m%d-%H%M%S}.jsonl"
    dataset = options.data or ("digits" if quick else "mnist")
    trained, arguments = job_arguments(dataset, _HIDDEN, 200 if quick else 10_000, DRAFTS)
    if not trained.exists():
        made = alternate_jobs([Job("training", "benchmarks.common.trained", arguments)], 1, 1, log)
        if "failure" in made[0]:
            raise SystemExit(f"no VAE to sample from: {made[0]['failure']}")
    sizes = _sizes(options)
    shared = ["--trained", str(trained), "--threads", str(options.threads)]
    shared += [text for key, value in sizes.items() for text in (f"--{key}", str(value))]
    jobs = [
        Job(
            sampler,
            "benchmarks.sampling.worker",
            [*shared, "--sampler", sampler],
            SAMPLERS[sampler].needs,
        )
        for sampler in options.samplers
    ]
    results = alternate_jobs(jobs, repeats, options.threads, log)
    facts["load average at the end"] = f"{os.getloadavg()[0]:.2f} (with the runs' own)"
    facts["versions"] = versions(results)
    notes = _READING.format(
        pixels=64 if dataset == "digits" else 784,
        hidden=_HIDDEN,
        warmup=sizes["num-warmup"],
        samples=sizes["num-samples"],
        chains=sizes["chains"],
        length=sizes["trajectory-length"],
    )
    if quick:
        notes = "**A quick run, to see that all of it works: its times mean nothing.**\n\n" + notes
    heading = f"# {sizes['datapoints']} posteriors × {sizes['chains']} chains on {machine}"
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    path = target / f"{name}{'-quick' * quick}.md"
    table = _table(options.samplers, results, sizes)
    path.write_text("\n\n".join([heading, lines, notes, table]) + "\n")
    print(f"{path}\n\n{path.read_text()}")


def _sizes(options: argparse.Namespace) -> dict[str, Any]:
    quick: bool = options.quick
    iterations = options.iterations or (30 if quick else 500)
    return {
        "datapoints": options.datapoints or (6 if quick else 100),
        "chains": options.chains or (4 if quick else 16),
        "num-warmup": iterations,
        "num-samples": iterations,
        "trajectory-length": options.trajectory_length,
        "most-datapoints": 2 if quick else 5,
        "most-chains": 2,
    }


def _table(samplers: list[str], results: list[Result], sizes: dict[str, Any]) -> str:
    own = (
        _median(results, "aevb", "ess_per_second"),
        _median(results, "aevb", "later_ess_per_second"),
    )
    header = [
        "sampler", "effective samples per second, first", "vs", "again", "vs", "seconds, first",
        "first call", "again", "effective samples", "drawn", "worst R̂", "E‖z‖²",
        "peak memory, MiB",
    ]  # fmt: skip
    rows = []
    for name in samplers:
        mine = [result for result in results if result["row"] == name]
        finished = [result for result in mine if "seconds" in result]
        if not finished:
            problem = mine[0].get("failure") or f"{mine[0]['absent']} is not installed"
            rows.append([SAMPLERS[name].title, f"not measured: {problem}", *["–"] * 11])
            continue
        rate, later = (
            _median(results, name, key) for key in ("ess_per_second", "later_ess_per_second")
        )
        cells = [number(rate), _ratio(own[0], rate), number(later), _ratio(own[1], later)]
        for key in ("seconds", "first_call", "later_seconds", "ess"):
            cells.append(number(_median(results, name, key)))
        cells.append(_drawn(name, sizes))
        cells += [
            number(_median(results, name, key), 4)
            for key in ("worst_rhat", "second_moment", "memory_mib")
        ]
        rows.append([SAMPLERS[name].title, *cells])
    return markdown(header, rows)


def _drawn(name: str, sizes: dict[str, Any]) -> str:
    sampler = SAMPLERS[name]
    datapoints = sizes["datapoints" if sampler.all_datapoints else "most-datapoints"]
    chains = sizes["chains" if sampler.all_chains else "most-chains"]
    if sampler.all_datapoints and sampler.all_chains:
        return "everything"
    return (
        f"{datapoints} of {sizes['datapoints']} posteriors, {chains} of {sizes['chains']} chains; "
        "extrapolated"
    )


def _median(results: list[Result], row: str, key: str) -> float | None:
    values = [r[key] for r in results if r["row"] == row and r.get(key) is not None]
    return statistics.median(values) if values else None


def _ratio(own: float | None, other: float | None) -> str:
    return f"{number(own / other)}×" if own and other else "not measured"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, help="processes of each row (3; quick: 1)")
    parser.add_argument("--datapoints", type=int, help="posteriors (100; quick: 6)")
    parser.add_argument("--chains", type=int, help="of each posterior (16; quick: 4)")
    parser.add_argument("--iterations", type=int, help="of warm-up, and draws (500; quick: 30)")
    parser.add_argument("--trajectory-length", type=float, default=2.5, help="of the others (2.5)")
    parser.add_argument("--data", help="dataset of the VAE (mnist; quick: digits)")
    parser.add_argument(
        "--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS), metavar="SAMPLER"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="folder of the page")
    parser.add_argument("--quick", action="store_true", help="minutes, to see it work")
    return parser.parse_args()


if __name__ == "__main__":
    main()

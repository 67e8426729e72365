"""Effective samples per second of aevb's HMC beside NumPyro's and Pyro's, on this machine's CPU.

    uv run --group benchmark python -m benchmarks.sampling

Writes ``benchmarks/results/hmc-<machine>.md``; with ``--quick``, a draft under ``runs/``. Images
come from the folder in ``$AEVB_DATA``.
"""

import argparse
from typing import Any

from benchmarks.common.publish import publish, shared_options
from benchmarks.common.runs import Job, Result
from benchmarks.common.tables import ABSENT, markdown, median, number, problem
from benchmarks.common.trained import made
from benchmarks.sampling.samplers import SAMPLERS

_HIDDEN = 200
_READING = """\
Everyone samples the posteriors of the same test images under the same decoder (VAE
{pixels}-{hidden}-20, tanh, Bernoulli), with {num_warmup} iterations of warm-up and {num_samples}
draws a chain and 0.8 for target acceptance. aevb adapts the lengths of trajectories. Those of the
others last {trajectory_length:.3g} in units of time with unit masses; 2.5 was found by hand to be
NumPyro's best, and the default of both, 2π, gives it a sixteenth as many effective samples a
second. Nobody gets a guide.

Effective samples are ArviZ's bulk ones, the least over dimensions, the mean over posteriors, of
all {chains} chains. “First” counts everything from a process that is ready, compilation included;
“again” has nothing left to compile but what a sampler compiles anew at each call. “vs” says how
many times as many effective samples aevb makes in a second. Where “drawn” is not everything, the
time is that of the calls made, extrapolated to all, and effective samples of few chains are scaled
to all. E‖z‖² is over the first two posteriors: it shows whether all sample the same."""
_HEADER = [
    "sampler", "effective samples per second, first", "vs", "again", "vs", "seconds, first",
    "first call", "again", "effective samples", "drawn", "worst R̂", "E‖z‖²", "peak memory, MiB",
]  # fmt: skip


def main() -> None:
    """Parse, prepare, run, write."""
    options = _parse()
    quick: bool = options.quick
    repeats = options.repeats or (1 if quick else 3)
    dataset = options.data or ("digits" if quick else "mnist")
    iterations = options.iterations or (30 if quick else 500)
    sizes: dict[str, Any] = {
        "datapoints": options.datapoints or (6 if quick else 100),
        "chains": options.chains or (4 if quick else 16),
        "num_warmup": iterations,
        "num_samples": iterations,
        "trajectory_length": options.trajectory_length,
        "most_datapoints": 2 if quick else 5,
        "most_chains": 2,
    }
    shared = ["--trained", str(made(dataset, _HIDDEN, 200 if quick else 10_000))]
    shared += ["--threads", str(options.threads)]
    for key, value in sizes.items():
        shared += [f"--{key.replace('_', '-')}", str(value)]
    jobs = [
        Job(
            {"row": name},
            "benchmarks.sampling.worker",
            [*shared, "--sampler", name],
            SAMPLERS[name].needs,
        )
        for name in options.samplers
    ]
    pixels = 64 if dataset == "digits" else 784
    publish(
        jobs * repeats,
        lambda results: [
            _READING.format(pixels=pixels, hidden=_HIDDEN, **sizes),
            _table(options.samplers, results, sizes),
        ],
        options,
        command="benchmarks.sampling",
        heading=f"{sizes['datapoints']} posteriors × {sizes['chains']} chains",
        measured=f"{repeats} × each row, each in a process, in turn; medians",
        prefix="hmc-",
    )


def _table(samplers: list[str], results: list[Result], sizes: dict[str, Any]) -> str:
    by_row = {name: [r for r in results if r["row"] == name] for name in samplers}
    rates = ("ess_per_second", "later_ess_per_second")
    own = {key: median(by_row.get("aevb", []), key) for key in rates}
    rows = []
    for name, mine in by_row.items():
        title = SAMPLERS[name].title
        if median(mine, "seconds") is None:
            rows.append([title, problem(mine), *["–"] * (len(_HEADER) - 2)])
            continue
        cells = [title]
        for key in rates:
            rate, best = median(mine, key), own[key]
            cells += [number(rate), f"{number(best / rate)}×" if best and rate else ABSENT]
        cells += [
            number(median(mine, k)) for k in ("seconds", "first_call", "later_seconds", "ess")
        ]
        cells.append(_drawn(name, sizes))
        last = ("worst_rhat", "second_moment", "memory_mib")
        rows.append([*cells, *(number(median(mine, key), 4) for key in last)])
    return markdown(_HEADER, rows)


def _drawn(name: str, sizes: dict[str, Any]) -> str:
    sampler = SAMPLERS[name]
    if sampler.all_datapoints and sampler.all_chains:
        return "everything"
    datapoints = sizes["datapoints" if sampler.all_datapoints else "most_datapoints"]
    chains = sizes["chains" if sampler.all_chains else "most_chains"]
    return (
        f"{datapoints} of {sizes['datapoints']} posteriors, {chains} of {sizes['chains']} chains; "
        "extrapolated"
    )


def _parse() -> argparse.Namespace:
    parser = shared_options(__doc__, "3; quick: 1")
    parser.add_argument("--datapoints", type=int, help="posteriors (100; quick: 6)")
    parser.add_argument("--chains", type=int, help="of each posterior (16; quick: 4)")
    parser.add_argument("--iterations", type=int, help="of warm-up, and draws (500; quick: 30)")
    parser.add_argument("--trajectory-length", type=float, default=2.5, help="of the others (2.5)")
    parser.add_argument("--data", help="dataset of the VAE (mnist; quick: digits)")
    parser.add_argument(
        "--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS), metavar="SAMPLER"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

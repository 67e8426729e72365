"""Effective samples per second of six joint posteriors, beside NUTS of Pyro and of NumPyro.

    uv run --group benchmark python -m benchmarks.sampling.joint_posteriors

Writes ``benchmarks/results/joint-posteriors-<machine>.md``; with ``--quick``, a draft under
``runs/``.
"""

import statistics
import time

from benchmarks.common.publish import publish, shared_options
from benchmarks.common.runs import Job, Result
from benchmarks.common.tables import markdown, median, number, problem
from benchmarks.sampling.joint.observations import POSTERIORS

_SAMPLERS = {"aevb": "aevb", "numpyro": "numpyro", "pyro": "pyro"}
_TITLES = {
    "aevb": "aevb `hmc`",
    "numpyro": "NumPyro NUTS, vectorized chains",
    "pyro": "Pyro NUTS, one chain",
}
# How many times as many effective samples a second as theirs are aimed at.
_TARGETS = {"numpyro": 1.0, "pyro": 25.0}
_FULL = {"chains": 16, "num_warmup": 250, "num_samples": 250}
# Seconds for everything; a row that is not done by then says so.
_LONGEST = 690.0
_QUICK = {"chains": 4, "num_warmup": 50, "num_samples": 50}
_READING = """\
Whole calls from a process that has its libraries imported, compilation included: {num_warmup}
iterations of warm-up and {num_samples} draws a chain, {chains} chains, everything else as each
sampler has it by default. Pyro draws one chain, of half as many
iterations, whose effective samples a second are those of many
that are drawn one after another.

Effective samples are ArviZ's bulk ones of the worst number of the posterior, “tail” those of its
5 and 95 % quantiles. |median| is the length of the vector of all medians: it shows whether all
sample the same.

Data are simulated once for all samplers, from a fixed seed; those of the eight schools are real.
Priors of the Gaussian process are those of "Vanilla Bayesian Optimization Performs Great in High
Dimensions" (Hvarfner, Hellsten & Nardi, 2024) for its 22 lengths and its noise, and a Gamma(2, 1)
for its height; 60 observations have three inputs that matter. The first choice, an input's
effects half and a quarter as strong and priors of other widths, had a posterior of two modes: what
is weak may as well be noise. Chains of any sampler seldom go from one to the other, so effective
samples of few chains would tell where they started; effects were made stronger, and one is
left."""
_HEADER = [
    "posterior", "sampler", "effective samples per second", "vs", "target", "seconds",
    "effective samples", "tail", "worst R̂", "|median|",
]  # fmt: skip


def main() -> None:
    """Run every sampler on every posterior, and write."""
    parser = shared_options(__doc__, "1")
    parser.add_argument("--samplers", nargs="+", default=list(_SAMPLERS), choices=list(_SAMPLERS))
    parser.add_argument("--posteriors", nargs="+", default=list(POSTERIORS), choices=[*POSTERIORS])
    options = parser.parse_args()
    sizes = _QUICK if options.quick else _FULL
    repeats = options.repeats or 1
    # those that take longest last
    jobs = [
        Job(
            {"posterior": posterior, "sampler": sampler},
            "benchmarks.sampling.joint.worker",
            {"posterior": posterior, "sampler": sampler, **sizes},
            _SAMPLERS[sampler],
        )
        for sampler in sorted(options.samplers, key=list(_SAMPLERS).index)
        for posterior in options.posteriors
    ]
    publish(
        jobs * repeats,
        lambda results: [_READING.format(**sizes), _table(results), _summary(results)],
        options,
        command="benchmarks.sampling.joint_posteriors",
        heading="Six joint posteriors",
        measured=f"{repeats} × each row, each in a process, in turn; medians",
        prefix="joint-posteriors-",
        deadline=time.monotonic() + _LONGEST * repeats,
    )


def _table(results: list[Result]) -> str:
    rows = []
    for posterior, (title, _) in POSTERIORS.items():
        for sampler, name in _TITLES.items():
            mine = _of(results, posterior, sampler)
            if not mine:
                continue
            if median(mine, "rate") is None:
                rows.append([title, name, problem(mine), *["–"] * (len(_HEADER) - 3)])
                continue
            ratio = _ratio(results, posterior, sampler)
            target = _TARGETS.get(sampler)
            rest = (median(mine, key) for key in ("seconds", "ess", "tail"))
            last = (median(mine, key) for key in ("rhat", "moment"))
            rows.append([
                title, name, number(median(mine, "rate")),
                "–" if ratio is None else f"{number(ratio)}×",
                "–" if target is None else f"≥ {target:g}×",
                *map(number, rest), *(number(value, 4) for value in last),
            ])  # fmt: skip
    return markdown(_HEADER, rows)


def _summary(results: list[Result]) -> str:
    lines = []
    for sampler, target in _TARGETS.items():
        found = [_ratio(results, posterior, sampler) for posterior in POSTERIORS]
        ratios = [ratio for ratio in found if ratio is not None]
        if ratios:
            lines.append(
                f"Against {_TITLES[sampler]}: {number(min(ratios))} to {number(max(ratios))} "
                f"times as many, geometric mean {number(statistics.geometric_mean(ratios))}, "
                f"at least {target:g} on {sum(r >= target for r in ratios)} of {len(ratios)}."
            )
    return "\n".join(lines)


def _of(results: list[Result], posterior: str, sampler: str) -> list[Result]:
    return [r for r in results if (r["posterior"], r["sampler"]) == (posterior, sampler)]


def _ratio(results: list[Result], posterior: str, sampler: str) -> float | None:
    """How many times as many effective samples a second aevb draws."""
    ours, theirs = (median(_of(results, posterior, who), "rate") for who in ("aevb", sampler))
    return ours / theirs if ours and theirs and sampler != "aevb" else None


if __name__ == "__main__":
    main()

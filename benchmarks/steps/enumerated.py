"""Compare steps with enumerated discrete latents with those of Pyro's SVI, and time both.

    uv run --group benchmark python -m benchmarks.steps.enumerated

Writes ``benchmarks/results/enumerated-<machine>.md``; with ``--quick``, a draft under ``runs/``.
"""

from collections.abc import Sequence

from benchmarks.common.publish import publish, shared_options
from benchmarks.common.runs import Job, Result
from benchmarks.common.tables import ABSENT, markdown, median, number, problem
from benchmarks.steps.enumerated_programs import PROGRAMS

_QUICK_PROGRAMS = ("mixture",)
_FACTOR = 3
_DIFFERENCE = 1e-6
_READING = f"""\
Of each program: how far the loss and the gradient of a traced step of `EnumeratedELBO()` are from
those of `TraceEnum_ELBO()` with the same parameters and draws, in float64, relative to their own
size (the largest over three draws; target: below {_DIFFERENCE:g}); and steps per second in float32
of Pyro's `SVI` and of `compiled_step`, both with Adam, in one process, in blocks that take turns,
with validation off. Rates are medians over blocks, “×” is the median ratio of neighbouring blocks,
and over repeats the median of that, with its range (target: at least {_FACTOR}). The first steps
are the seconds up to the third, in which graph and kernels are made."""


def main() -> None:
    """Parse, run, write."""
    parser = shared_options(__doc__ or "", "3; quick: 1")
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), metavar="PROGRAM")
    parser.add_argument("--level", default="compiled", choices=["traced", "compiled"])
    parser.add_argument("--blocks", type=int, help="of each, in turn (15; quick: 3)")
    options = parser.parse_args()
    quick: bool = options.quick
    names = options.programs or (_QUICK_PROGRAMS if quick else list(PROGRAMS))
    blocks = options.blocks or (3 if quick else 15)
    repeats = options.repeats or (1 if quick else 3)
    jobs = [
        Job(
            {"program": name}, "benchmarks.steps.enumerated_worker",
            {"program": name, "blocks": blocks, "level": options.level},
        )
        for name in names
    ]  # fmt: skip
    publish(
        jobs * repeats,
        lambda results: [_READING, _table(names, results)],
        options,
        command="benchmarks.steps.enumerated",
        heading="Steps with enumerated latents",
        measured=f"{repeats} × {blocks} blocks of 0.1 s or more, aevb and Pyro in turn",
        prefix="enumerated-",
    )


def _table(names: Sequence[str], results: Sequence[Result]) -> str:
    header = [
        "program", "loss differs by", "gradient differs by", "level", "steps/s, aevb",
        "steps/s, Pyro", "× Pyro", "min–max", f"≥ {_FACTOR} ×", "first steps, s",
    ]  # fmt: skip
    rows = []
    for name in names:
        mine = [result for result in results if result["program"] == name]
        ratios = [result["ratio"] for result in mine if "ratio" in result]
        if not ratios:
            rows.append([PROGRAMS[name].title, problem(mine), *["–"] * (len(header) - 2)])
            continue
        ratio = median(mine, "ratio")
        rows.append(
            [
                PROGRAMS[name].title,
                *(f"{max(r[key] for r in mine if key in r):.1e}" for key in ("loss", "gradient")),
                next(str(r["level"]) for r in mine if "level" in r),
                *(number(median(mine, key)) for key in ("aevb", "pyro")),
                number(ratio),
                f"{number(min(ratios))}–{number(max(ratios))}",
                ABSENT if ratio is None else ("yes" if ratio >= _FACTOR else "no"),
                number(median(mine, "first_steps")),
            ]
        )
    return markdown(header, rows)


if __name__ == "__main__":
    main()

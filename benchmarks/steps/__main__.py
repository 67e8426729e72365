"""Time a training step of aevb beside Pyro, PyTorch and NumPyro on this machine's CPU.

    uv run --group benchmark python -m benchmarks.steps

Writes ``benchmarks/results/<machine>.md``; with ``--quick``, a draft under ``runs/``.
"""

import argparse

from benchmarks.common.publish import shared_options
from benchmarks.steps.competitors import COMPETITORS
from benchmarks.steps.plan import one_round, publish_steps
from benchmarks.steps.report import CPU_COLUMNS
from benchmarks.steps.workloads import PROGRAMS

_QUICK_PROGRAMS = ("vae-100", "eight-schools")


def main() -> None:
    """Parse, run, write."""
    options = _parse()
    quick: bool = options.quick
    seconds: float = options.steps_seconds or (0.3 if quick else 3.0)
    check_steps = 40 if quick else None
    worker = ["--seconds", str(seconds)]
    worker += ["--check-steps", str(check_steps), "--blocks", "3"] if quick else []
    programs = options.programs or (_QUICK_PROGRAMS if quick else PROGRAMS)
    repeats = options.repeats or (1 if quick else 5)
    datapoints = 2_000 if quick else 20_000
    rounds = [one_round(name, datapoints, options, worker) * repeats for name in programs]
    publish_steps(
        [job for jobs in rounds for job in jobs],
        options,
        command="benchmarks.steps",
        programs=programs,
        datapoints=datapoints,
        columns=CPU_COLUMNS,
        check_steps=check_steps,
        measured=f"{repeats} × {seconds:g} s of steps per row, each in a process, in turn",
    )


def _parse() -> argparse.Namespace:
    parser = shared_options(__doc__, "5; quick: 1")
    parser.add_argument(
        "--steps-seconds", type=float, help="timed steps of each process (3; quick: 0.3)"
    )
    parser.add_argument(
        "--programs",
        nargs="+",
        metavar="PROGRAM",
        help=f"{', '.join(PROGRAMS)} (all; quick: {', '.join(_QUICK_PROGRAMS)}), or vae-B and "
        "two-layer-B at any batch size B",
    )
    parser.add_argument(
        "--competitors", nargs="+", default=list(COMPETITORS), choices=list(COMPETITORS)
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

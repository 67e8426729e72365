"""Time a training step of aevb beside Pyro, PyTorch and NumPyro on this machine's CPU.

    uv run --group benchmark python -m benchmarks.steps

Writes ``benchmarks/results/<machine>.md``; with ``--quick``, a draft under ``runs/``.
"""

import argparse
import os
from pathlib import Path

from benchmarks.common.machine import commit, describe_cpu, slug
from benchmarks.common.publish import measure_and_publish
from benchmarks.common.runs import Plan
from benchmarks.steps.competitors import COMPETITORS
from benchmarks.steps.report import CPU_COLUMNS
from benchmarks.steps.workloads import PROGRAMS

__all__ = ["main"]

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
    plan = Plan(
        programs=programs,
        competitors=options.competitors,
        repeats=options.repeats or (1 if quick else 5),
        threads=options.threads,
        device="cpu",
        datapoints=2_000 if quick else 20_000,
        options=dict.fromkeys(programs, worker),
    )
    machine = describe_cpu()
    measure_and_publish(
        plan,
        module="benchmarks.steps",
        machine=machine,
        commit=commit(),
        columns=CPU_COLUMNS,
        name=slug(machine),
        folder=options.out,
        check_steps=check_steps,
        seconds=seconds,
        quick=quick,
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, help="processes of each row (5; quick: 1)")
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
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="folder of the page")
    parser.add_argument("--quick", action="store_true", help="a minute or two, to see it work")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Time a training step of aevb beside Pyro, PyTorch and NumPyro on this machine's CPU.

    uv run --group benchmark python -m benchmarks.steps

Writes ``benchmarks/results/<machine>.md``; with ``--quick``, a draft under ``runs/``.
"""

from benchmarks.common.publish import publish
from benchmarks.steps.plan import one_round, steps_options, steps_sections
from benchmarks.steps.report import CPU_COLUMNS
from benchmarks.steps.workloads import PROGRAMS, find_workload

_QUICK_PROGRAMS = ("vae-100", "eight-schools")


def main() -> None:
    """Parse, run, write."""
    programs = f"{', '.join(PROGRAMS)}; quick: {', '.join(_QUICK_PROGRAMS)}"
    parser = steps_options(__doc__, "5; quick: 1", programs)
    parser.add_argument(
        "--steps-seconds", type=float, help="timed steps of each process (3; quick: 0.3)"
    )
    options = parser.parse_args()
    quick: bool = options.quick
    seconds: float = options.steps_seconds or (0.3 if quick else 3.0)
    check_steps = 40 if quick else None
    repeats = options.repeats or (1 if quick else 5)
    workloads = [
        find_workload(name, 2_000 if quick else 20_000)
        for name in options.programs or (_QUICK_PROGRAMS if quick else PROGRAMS)
    ]
    blocks = 3 if quick else 10
    rounds = [
        one_round(each, options.competitors, seconds, blocks=blocks, check_steps=check_steps)
        for each in workloads
    ]
    publish(
        [job for jobs in rounds for job in jobs * repeats],
        steps_sections(workloads, CPU_COLUMNS, check_steps),
        options,
        command="benchmarks.steps",
        heading="Training steps",
        measured=f"{repeats} × {seconds:g} s of steps per row, each in a process, in turn",
    )


if __name__ == "__main__":
    main()

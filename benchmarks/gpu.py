"""Time a training step of aevb beside Pyro, PyTorch and NumPyro on a CUDA GPU.

    python3 -m benchmarks.gpu --out "$OUT"

Needs no installation of aevb and no network, and ends in under eight minutes: every row is
measured once before any is measured again. A block is an epoch of 60,000 datapoints, as many as
MNIST has. Without a GPU, ``--device cpu --quick`` goes the same ways.
"""

import importlib.util
import time

from benchmarks.common.machine import describe_cpu
from benchmarks.common.publish import publish
from benchmarks.steps.plan import one_round, steps_options, steps_sections
from benchmarks.steps.report import GPU_COLUMNS
from benchmarks.steps.workloads import find_workload

__all__ = ["main"]

_PROGRAMS = ["vae-100", "vae-1000", "vae-10000", "two-layer-100"]


def main() -> None:
    """Parse, run, write."""
    parser = steps_options(__doc__, "3 at most; time may allow fewer", ", ".join(_PROGRAMS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--minutes", type=float, default=7.5, help="no process runs beyond them")
    parser.add_argument("--commit", help="of the checkout, where git cannot say")
    options = parser.parse_args()
    quick: bool = options.quick
    seconds = 0.3 if quick else 2.0
    check_steps = 20 if quick else None
    repeats = options.repeats or 3
    workloads = [
        find_workload(name, 2_000 if quick else 60_000)
        for name in options.programs or (_PROGRAMS[:2] if quick else _PROGRAMS)
    ]
    rounds = [
        one_round(
            each, options.competitors, seconds, block_steps=each.num_data // each.batch,
            check_steps=check_steps,
        )
        for each in workloads
    ]  # fmt: skip
    publish(
        [job for jobs in rounds for job in jobs] * repeats,
        steps_sections(workloads, GPU_COLUMNS, check_steps),
        options,
        command="benchmarks.gpu",
        heading="Training steps",
        measured=f"{repeats} × {seconds:g} s of steps per row, each in a process, in turn",
        machine=_describe(options.device),
        deadline=time.monotonic() + 60 * options.minutes,
    )


def _describe(device: str) -> str:
    """The GPU, its driver's CUDA and the processor beside it."""
    if device == "cpu":
        return f"{describe_cpu()} (no GPU)"
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("--device cuda: PyTorch is not installed")
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: PyTorch finds no GPU here; try --device cpu --quick")
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {describe_cpu()}"


if __name__ == "__main__":
    main()

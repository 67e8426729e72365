"""Time a training step of aevb beside Pyro, PyTorch and NumPyro on a CUDA GPU.

    python3 -m benchmarks.gpu --out "$OUT"

Needs no installation of aevb and no network, and ends in under eight minutes: every row is
measured once before any is measured again. A block is an epoch of 60,000 datapoints, as many as
MNIST has. Without a GPU, ``--device cpu --quick`` goes the same ways.
"""

import argparse
import importlib.util
import time

from benchmarks.common.machine import describe_cpu
from benchmarks.common.publish import shared_options
from benchmarks.steps.competitors import COMPETITORS
from benchmarks.steps.plan import one_round, publish_steps
from benchmarks.steps.report import GPU_COLUMNS
from benchmarks.steps.workloads import find_workload

__all__ = ["main"]

_PROGRAMS = ["vae-100", "vae-1000", "vae-10000", "two-layer-100"]


def main() -> None:
    """Parse, run, write."""
    options = _parse()
    quick: bool = options.quick
    seconds = 0.3 if quick else 2.0
    check_steps = 20 if quick else None
    worker = ["--seconds", str(seconds)]
    worker += ["--check-steps", str(check_steps)] if quick else []
    programs = ["vae-100", "vae-1000"] if quick else options.programs
    datapoints = 2_000 if quick else 60_000
    repeats = options.repeats or 3

    jobs = []
    for name in programs:
        block = str(datapoints // find_workload(name, datapoints).batch)
        jobs += one_round(name, datapoints, options, [*worker, "--block-steps", block])
    publish_steps(
        jobs * repeats,
        options,
        command="benchmarks.gpu",
        programs=programs,
        datapoints=datapoints,
        columns=GPU_COLUMNS,
        check_steps=check_steps,
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


def _parse() -> argparse.Namespace:
    parser = shared_options(__doc__, "3 at most; time may allow fewer")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--minutes", type=float, default=7.5, help="no process runs beyond them")
    parser.add_argument("--programs", nargs="+", default=_PROGRAMS, metavar="PROGRAM")
    parser.add_argument(
        "--competitors", nargs="+", default=list(COMPETITORS), choices=list(COMPETITORS)
    )
    parser.add_argument("--commit", help="of the checkout, where git cannot say")
    return parser.parse_args()


if __name__ == "__main__":
    main()

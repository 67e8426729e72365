"""Time a training step of aevb beside Pyro, PyTorch and NumPyro on a CUDA GPU.

    python3 -m benchmarks.gpu --out "$OUT"

Needs no installation of aevb and no network, and ends in under eight minutes: every row is
measured once before any is measured again. A block is an epoch of 60,000 datapoints, as many as
MNIST has. Without a GPU, ``--device cpu --quick`` goes the same ways.
"""

import argparse
import importlib.util
import os
import time
from pathlib import Path

from benchmarks.common.machine import commit, describe_cpu, slug
from benchmarks.common.publish import measure_and_publish
from benchmarks.common.runs import Plan
from benchmarks.steps.competitors import COMPETITORS
from benchmarks.steps.report import GPU_COLUMNS
from benchmarks.steps.workloads import find_workload

__all__ = ["main"]

_PROGRAMS = ["vae-100", "vae-1000", "vae-10000", "two-layer-100"]
_DATAPOINTS = 60_000


def main() -> None:
    """Parse, run, write."""
    options = _parse()
    quick: bool = options.quick
    seconds = 0.3 if quick else 2.0
    check_steps = 20 if quick else None
    programs = ["vae-100", "vae-1000"] if quick else options.programs
    datapoints = 2_000 if quick else _DATAPOINTS
    worker = ["--seconds", str(seconds)]
    worker += ["--check-steps", str(check_steps)] if quick else []
    plan = Plan(
        programs=programs,
        competitors=options.competitors,
        repeats=options.repeats,
        threads=len(os.sched_getaffinity(0)),
        device=options.device,
        datapoints=datapoints,
        options={
            name: [
                *worker,
                "--block-steps",
                str(datapoints // find_workload(name, datapoints).batch),
            ]
            for name in programs
        },
        deadline=time.monotonic() + 60 * options.minutes,
        rounds_outside=True,
    )
    machine = _describe(options.device)
    measure_and_publish(
        plan,
        module="benchmarks.gpu",
        machine=machine,
        commit=options.commit or commit(),
        columns=GPU_COLUMNS,
        name=slug(machine.split(",")[0]) if options.device == "cuda" else slug(machine),
        folder=options.out,
        check_steps=check_steps,
        seconds=seconds,
        quick=quick,
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--repeats", type=int, default=3, help="at most; time may allow fewer")
    parser.add_argument("--minutes", type=float, default=7.5, help="no process runs beyond them")
    parser.add_argument("--programs", nargs="+", default=_PROGRAMS, metavar="PROGRAM")
    parser.add_argument(
        "--competitors", nargs="+", default=list(COMPETITORS), choices=list(COMPETITORS)
    )
    parser.add_argument("--commit", help="of the checkout, where git cannot say")
    parser.add_argument("--out", type=Path, help="folder of the page")
    parser.add_argument("--quick", action="store_true", help="two small programs, once")
    return parser.parse_args()


if __name__ == "__main__":
    main()

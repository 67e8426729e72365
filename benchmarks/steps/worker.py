"""One competitor on one program in a process of its own; prints one line of JSON.

    python -m benchmarks.steps.worker --program vae-100 --competitor torch --threads 2

The clock of the first step starts when everything is imported and the data are in place, and stops
when the first step is done: building the model, tracing and compiling lie in between.
"""

import argparse
import importlib
import json
import os
import statistics
import time
from typing import Any

from benchmarks.common.machine import installed_versions, peak_memory
from benchmarks.steps.competitors import COMPETITORS, Run
from benchmarks.steps.device import (
    backend,
    gap_between_kernels,
    peak_device_memory,
    start_device,
)
from benchmarks.steps.workloads import Workload, find_workload

_MIN_BLOCKS, _MAX_BLOCKS = 3, 200


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--competitor", required=True, choices=[*COMPETITORS, "products"])
    parser.add_argument("--datapoints", type=int, default=20_000)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed steps")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--block-steps", type=int, help="a block's steps, in place of its share")
    parser.add_argument("--check-steps", type=int, help="untimed, before the blocks")
    options = parser.parse_args()
    # JAX has no setting for its threads, but makes one for each processor it may run on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    workload = find_workload(options.program, options.datapoints)
    if options.competitor == "products":
        from benchmarks.common.products import measure_products  # not in a process of JAX's

        if workload.largest_product is None:
            raise ValueError(f"{workload.name} has no matrix product")
        result = measure_products(workload.largest_product, options.device, options.seconds / 3)
    else:
        result = measure(workload, options)
    print(json.dumps(result | {"versions": installed_versions()}), flush=True)


def measure(workload: Workload, options: argparse.Namespace) -> dict[str, Any]:
    """Time the first step and then many, in blocks."""
    competitor = COMPETITORS[options.competitor]
    module = importlib.import_module(f"benchmarks.steps.competitors.{competitor.module}")
    start_device(options.device, competitor.module)
    loaded = module.load(workload, options.device)
    memory_before = peak_memory()

    start = time.perf_counter()
    run: Run = module.build(workload, competitor.variant, loaded)
    run(0, 1)
    first_step = time.perf_counter() - start

    check_steps = options.check_steps or workload.check_steps
    done, loss, seconds_per_step = check(run, check_steps)
    loss /= workload.loss_unit
    share = options.seconds / options.blocks
    size = options.block_steps or max(1, round(share / seconds_per_step))
    blocks = round(options.seconds / (size * seconds_per_step))
    times = []
    for _ in range(min(max(blocks, _MIN_BLOCKS), _MAX_BLOCKS)):
        start = time.perf_counter()
        run(done, size)
        times.append((time.perf_counter() - start) / size * 1e3)
        done += size
    milliseconds = statistics.median(times)
    return {
        "milliseconds": milliseconds,
        "fastest_block": min(times),
        "slowest_block": max(times),
        "blocks": len(times),
        "block_steps": size,
        "first_step_seconds": first_step,
        "loss": loss,
        "loss_step": check_steps,
        "memory_before_mib": memory_before,
        "memory_mib": peak_memory(),
        "device_memory_mib": peak_device_memory(options.device, competitor.module),
        "backend": backend(options.device, competitor.module),
        "gap": gap_between_kernels(options.device, run, done, size, milliseconds),
        "brief": f"{milliseconds:.3f} ms, first step {first_step:.2f} s, loss {loss:.3f}",
    }


def check(run: Run, count: int) -> tuple[int, float, float]:
    """Steps up to ``count``, the same for every competitor.

    Returns:
        Steps done, mean loss of the last quarter, seconds per step in it.
    """
    last = max(1, count // 4)
    run(1, count - last - 1)
    start = time.perf_counter()
    loss = run(count - last, last)
    return count, loss, (time.perf_counter() - start) / last


if __name__ == "__main__":
    main()

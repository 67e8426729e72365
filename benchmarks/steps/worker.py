"""One competitor on one program in a process of its own.

The clock of the first step starts when everything is imported and the data are in place, and stops
when the first step is done: building the model, tracing and compiling lie in between.
"""

import importlib
import statistics
import time
from types import SimpleNamespace
from typing import Any

from benchmarks.common.machine import peak_memory
from benchmarks.common.worker import run_worker
from benchmarks.steps.competitors import COMPETITORS, Run
from benchmarks.steps.device import (
    backend,
    gap_between_kernels,
    peak_device_memory,
    start_device,
)
from benchmarks.steps.workloads import Workload

_MIN_BLOCKS, _MAX_BLOCKS = 3, 200


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Time the first step and then many, in blocks."""
    workload = Workload(**settings.workload)
    competitor = COMPETITORS[settings.competitor]
    module = importlib.import_module(f"benchmarks.steps.competitors.{competitor.module}")
    start_device(settings.device, competitor.module)
    loaded = module.load(workload, settings.device)
    memory_before = peak_memory()

    start = time.perf_counter()
    run: Run = module.build(workload, competitor.variant, loaded)
    run(0, 1)
    first_step = time.perf_counter() - start

    check_steps = settings.check_steps or workload.check_steps
    done, loss, seconds_per_step = check(run, check_steps)
    loss /= workload.loss_unit
    share = settings.seconds / settings.blocks
    size = settings.block_steps or max(1, round(share / seconds_per_step))
    blocks = round(settings.seconds / (size * seconds_per_step))
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
        "device_memory_mib": peak_device_memory(settings.device, competitor.module),
        "backend": backend(settings.device, competitor.module),
        "gap": gap_between_kernels(settings.device, run, done, size, milliseconds),
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
    run_worker(measure)

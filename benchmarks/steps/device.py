"""What is read off the device: its memory, and the time in which no kernel runs."""

import sys
from typing import Any

from benchmarks.steps.competitors import Run

__all__ = ["backend", "gap_between_kernels", "peak_device_memory", "start_device"]

_PROFILED_STEPS = 50


def start_device(device: str, module: str) -> None:
    """Make the CUDA context, which is no competitor's work."""
    if device == "cuda" and module != "numpyro_svi":
        import torch

        torch.zeros(1, device="cuda").add_(1).item()


def backend(device: str, module: str) -> str:
    """What the steps really ran on: JAX may know less of the machine than PyTorch does."""
    if module != "numpyro_svi":
        return device
    import jax

    return "cuda" if jax.default_backend() == "gpu" else str(jax.default_backend())


def peak_device_memory(device: str, module: str) -> float | None:
    """Largest allocation on the GPU so far, in MiB; None without one."""
    if device != "cuda":
        return None
    if module == "numpyro_svi":
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        return None if peak is None else peak / 2**20
    import torch

    return float(torch.cuda.max_memory_allocated()) / 2**20


def gap_between_kernels(
    device: str, run: Run, first: int, count: int, milliseconds: float
) -> float | None:
    """Share of a step's time in which the GPU runs no kernel and copies nothing.

    Args:
        device: ``"cuda"``, or the answer is None.
        run: Makes steps.
        first: Number of the next step.
        count: Steps at once, of which at most 50 are profiled.
        milliseconds: Of a step when no profiler slows it down.
    """
    if device != "cuda":
        return None
    count = min(count, _PROFILED_STEPS)
    try:
        busy = _kernel_milliseconds(run, first, count)
    except Exception as error:  # the profiler needs rights that not every machine gives
        print(f"no profile: {error}", file=sys.stderr)
        return None
    return 1 - busy / count / milliseconds if busy else None


def _kernel_milliseconds(run: Run, first: int, count: int) -> float:
    """Time in which at least one kernel or copy runs."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run(first, count)
    events: Any = profiler.events()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    )
    busy = last_end = 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, last_end))
        last_end = max(last_end, end)
    return busy / 1e3

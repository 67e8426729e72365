"""How fast this machine multiplies matrices of a given shape: the limit of every competitor."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["measure_products"]

_BATCHES = 7


def measure_products(shape: tuple[int, int, int], device: str, seconds: float) -> dict[str, Any]:
    """Multiply-adds per second in float32, by each library that PyTorch has for it.

    Args:
        shape: Rows, inner size and columns of a layer's product ``x w.T``.
        device: ``"cpu"`` or ``"cuda"``.
        seconds: Time for each library.

    Returns:
        ``rates`` of each library by its name, and a ``brief`` line on them.
    """
    rows, inner, columns = shape
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(rows, inner, device=device, generator=generator)
    w = torch.randn(columns, inner, device=device, generator=generator)
    libraries: dict[str, Callable[[], Any]] = {}
    if device == "cuda":
        libraries["cuBLAS"] = lambda: torch.mm(x, w.t())
    else:
        libraries["mm"] = lambda: torch.mm(x, w.t())
        if torch.backends.mkldnn.is_available():
            libraries["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(
                x, w, None, "none", [], ""
            )
    work = rows * inner * columns
    with torch.no_grad():
        rates = {name: work / _seconds(call, device, seconds) for name, call in libraries.items()}
    brief = ", ".join(f"{name} {rate / 1e9:.1f} G/s" for name, rate in rates.items())
    return {"rates": rates, "brief": brief}


def _seconds(function: Callable[[], Any], device: str, budget: float) -> float:
    """Median over batches of calls."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            function()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    timed(5)
    count = max(1, round(budget / _BATCHES / timed(5)))
    return statistics.median(timed(count) for _ in range(_BATCHES))

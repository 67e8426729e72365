"""How fast this machine multiplies matrices of a given shape: the limit of every competitor."""

from types import SimpleNamespace
from typing import Any

from benchmarks.common.runs import Job
from benchmarks.common.worker import run_worker

__all__ = ["products_job"]


def products_job(names: dict[str, str], shape: tuple[int, int, int], seconds: float) -> Job:
    """Multiply-adds per second in float32, by each library that PyTorch has for it.

    Args:
        names: Of the result.
        shape: Rows, inner size and columns of a layer's product ``x w.T``.
        seconds: Time for each library.

    Returns:
        A job whose result has ``rates`` of each library by its name, and a ``brief`` line on them.
    """
    return Job(names, "benchmarks.common.products", {"shape": shape, "seconds": seconds}, "torch")


def _measure(settings: SimpleNamespace) -> dict[str, Any]:
    import torch  # not in the process that starts this one
    from torch.utils.benchmark import Timer

    rows, inner, columns = settings.shape
    generator = torch.Generator(settings.device).manual_seed(0)
    x = torch.randn(rows, inner, device=settings.device, generator=generator)
    w = torch.randn(columns, inner, device=settings.device, generator=generator)
    libraries = {"cuBLAS" if settings.device == "cuda" else "mm": "torch.mm(x, w.t())"}
    if settings.device == "cpu" and torch.backends.mkldnn.is_available():
        product = 'torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")'
        libraries["oneDNN"] = product
    rates = {}
    for name, product in libraries.items():
        timer = Timer(
            product, globals={"torch": torch, "x": x, "w": w},
            num_threads=torch.get_num_threads(),
        )  # fmt: skip
        with torch.no_grad():
            median = timer.blocked_autorange(min_run_time=settings.seconds).median
        rates[name] = rows * inner * columns / median
    brief = ", ".join(f"{name} {rate / 1e9:.1f} G/s" for name, rate in rates.items())
    return {"rates": rates, "brief": brief}


if __name__ == "__main__":
    run_worker(_measure)

"""One program with enumerated latents: its steps beside Pyro's, in a process of its own."""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pyro
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from torch import Tensor

from aevb import inference
from benchmarks.common.worker import run_worker
from benchmarks.steps.enumerated_programs import PROGRAMS, make

__all__ = ["compare", "measure"]

_RATE = 1e-3
_BLOCK_SECONDS = 0.1
# Ordinary steps, graph, and the first comparisons of both.
_WARM_UP = 70


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """How far apart both are, and how fast each is."""
    pyro.enable_validation(False)  # of Pyro's steps; aevb's never validate
    torch.set_default_dtype(torch.float64)
    loss, gradient = compare(settings.program)
    torch.set_default_dtype(torch.float32)
    start = time.perf_counter()
    step, ours = _aevb(settings.program, settings.level)
    for _ in range(3):
        ours()
    first_steps = time.perf_counter() - start
    theirs = _pyro(settings.program)
    sizes = []
    for run in (ours, theirs):
        for _ in range(_WARM_UP):
            run()
        start = time.perf_counter()
        for _ in range(5):
            run()
        sizes.append(max(1, round(_BLOCK_SECONDS * 5 / (time.perf_counter() - start))))
    rates = [
        [_rate(run, size) for run, size in zip((ours, theirs), sizes, strict=True)]
        for _ in range(settings.blocks)
    ]
    ratio = statistics.median(mine / other for mine, other in rates)
    aevb, svi = (statistics.median(column) for column in zip(*rates, strict=True))
    return {
        "loss": loss,
        "gradient": gradient,
        "level": step.level,
        "aevb": aevb,
        "pyro": svi,
        "ratio": ratio,
        "first_steps": first_steps,
        "brief": f"{step.level}, {aevb:,.0f} steps/s, {ratio:.1f} × Pyro, loss {loss:.1e}",
    }


def compare(name: str, level: str = "traced") -> tuple[float, float]:
    """Relative differences of loss and gradient from Pyro's, at three draws.

    Steps of size one without momentum move parameters by their gradients.
    """
    model, guide, args = make(name)
    program = inference.Program(model, guide)
    descent = partial(torch.optim.SGD, lr=1.0)
    objective = inference.EnumeratedELBO()
    step = inference.compiled_step(program, descent, objective, *args, compile=level)
    parameters = list(program.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    buffers = [buffer.detach().clone() for buffer in program.buffers()]
    pyros = _loss(name)
    pyros.loss(program.model, program.guide, *args)  # guesses, by a run of the programs

    def restore() -> None:
        with torch.no_grad():
            for held, values in ((parameters, start), (list(program.buffers()), buffers)):
                for tensor, value in zip(held, values, strict=True):
                    tensor.copy_(value)

    worst_loss = worst_gradient = 0.0
    for seed in range(-2, 3):  # two steps first, in which the graph is made
        restore()
        torch.manual_seed(abs(seed))
        loss = -float(step(*args))
        moved = torch.cat(
            [(a - b).detach().flatten() for a, b in zip(start, parameters, strict=True)]
        )
        restore()
        torch.manual_seed(abs(seed))
        reference, grads = _of_pyro(pyros, program, parameters, args)
        if seed >= 0:
            error = float((moved - grads).norm() / grads.norm())
            if not math.isfinite(loss - reference + error):  # max() would pass over NaN
                raise RuntimeError(f"loss {loss}, Pyro's {reference}, gradients off by {error}")
            worst_loss = max(worst_loss, abs(loss - reference) / abs(reference))
            worst_gradient = max(worst_gradient, error)
    if step.level != level:
        raise RuntimeError(f"steps are {step.level}, not {level}")
    return worst_loss, worst_gradient


def _of_pyro(
    pyros: TraceEnum_ELBO, program: Any, parameters: list[Tensor], args: tuple[Any, ...]
) -> tuple[float, Tensor]:
    loss = pyros.differentiable_loss(program.model, program.guide, *args)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = [
        (torch.zeros_like(p) if g is None else g).flatten()
        for p, g in zip(parameters, grads, strict=True)
    ]
    return float(loss.detach()), torch.cat(flat)


def _loss(name: str) -> TraceEnum_ELBO:
    nesting = PROGRAMS[name].max_plate_nesting
    named = {} if nesting is None else {"max_plate_nesting": nesting}
    return TraceEnum_ELBO(**named, strict_enumeration_warning=False)


def _aevb(name: str, level: str) -> tuple[Any, Callable[[], Any]]:
    model, guide, args = make(name)
    program = inference.Program(model, guide)
    adam = partial(torch.optim.Adam, lr=_RATE)
    objective = inference.EnumeratedELBO()
    step = inference.compiled_step(program, adam, objective, *args, compile=level)
    return step, lambda: step(*args)


def _pyro(name: str) -> Callable[[], Any]:
    model, guide, args = make(name)
    pyro.clear_param_store()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": _RATE}), _loss(name))
    return lambda: svi.step(*args)


def _rate(run: Callable[[], Any], size: int) -> float:
    start = time.perf_counter()
    for _ in range(size):
        run()
    return size / (time.perf_counter() - start)


if __name__ == "__main__":
    run_worker(measure)

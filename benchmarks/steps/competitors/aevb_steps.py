"""aevb at each of its three levels."""

import math
import warnings
from functools import partial

import pyro
import torch
from torch import Tensor

from aevb import inference, models
from benchmarks.steps.competitors import Run
from benchmarks.steps.competitors.on_torch import Loaded, load
from benchmarks.steps.pyro_programs import programs
from benchmarks.steps.workloads import LEARNING_RATE, Workload, initial_weights

__all__ = ["build", "load"]


def build(workload: Workload, variant: str, loaded: Loaded) -> Run:
    """``variant`` is ``"eager"``, ``"traced"`` or ``"compiled"``."""
    pyro.enable_validation(False)  # no other competitor validates either
    # a level that turns into another one is not measured under its name
    warnings.filterwarnings("error", "training steps run eagerly|steps are traced")
    torch.manual_seed(0)
    if workload.kind == "vae":
        program: inference.ProgramPair = _vae(workload).to(loaded.device)
    else:
        program = inference.Program(*programs(workload, loaded.device))

    def arguments(step: int) -> tuple[Tensor, ...]:
        if loaded.rows is None:
            return loaded.inputs(step)
        data, rows = loaded.inputs(step)
        return (data.index_select(0, rows),)

    adam = partial(torch.optim.Adam, lr=LEARNING_RATE)
    step = inference.compiled_step(program, adam, inference.ELBO(), *arguments(0), compile=variant)
    if variant != "eager":
        step(*arguments(0))  # an ordinary step, which makes the optimizer's state

    def run(first: int, count: int) -> float:
        if variant != "eager":
            return -float(step.many(map(arguments, range(first, first + count)))) / count
        # as `fit` looks at each eager bound; on a GPU the host waits for it
        bounds = [float(step(*arguments(number))) for number in range(first, first + count)]
        if not math.isfinite(sum(bounds)):
            raise RuntimeError(f"a bound of {bounds} is not finite")
        return -sum(bounds) / count

    return run


def _vae(workload: Workload) -> models.VAE:
    encoder = workload.networks["encoder"]
    vae = models.VAE((workload.features,), encoder.heads[0], list(encoder.hidden))
    arrays = [array for layer in initial_weights(workload).values() for array in layer]
    with torch.no_grad():
        # both list encoder before decoder, and layers in order of use
        for parameter, array in zip(vae.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return vae

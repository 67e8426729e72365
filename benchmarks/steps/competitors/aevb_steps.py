"""aevb at each of its three levels."""

import math
import warnings
from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from aevb import inference, models
from aevb.inference.graphs.step_definition import StepDefinition
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.program import prepare
from aevb.inference.svi.steps import EagerStep, Stepper
from benchmarks.steps.competitors import Run
from benchmarks.steps.competitors.on_torch import Loaded, load
from benchmarks.steps.pyro_programs import programs
from benchmarks.steps.workloads import LEARNING_RATE, Workload, initial_weights

__all__ = ["build", "load"]


def build(workload: Workload, variant: str, loaded: Loaded) -> Run:
    """``variant`` is ``"eager"``, ``"traced"`` or ``"compiled"``."""
    pyro.enable_validation(False)  # as in fit
    # a level that turns into another one is not measured under its name
    warnings.filterwarnings("error", "training steps run eagerly|steps are traced")
    torch.manual_seed(0)
    if workload.kind == "vae":
        program: inference.ProgramPair = _vae(workload).to(loaded.device)
    else:
        program = inference.Program(*programs(workload, loaded.device))

    def arguments(*inputs: Tensor) -> tuple[Tensor, ...]:
        if loaded.rows is None:
            return inputs
        data, rows = inputs
        return (data.index_select(0, rows),)

    return training_run(program, arguments, variant, loaded)


def training_run(
    program: inference.ProgramPair,
    arguments: Callable[..., tuple[Tensor, ...]],
    level: str,
    loaded: Loaded,
) -> Run:
    """aevb's steps at a level, made as ``fit`` makes them: the only place that knows how.

    On a GPU, ``fit`` launches several steps of a graph at once, and so does this.

    Args:
        program: Model and guide.
        arguments: From a step's inputs to the arguments of the programs.
        level: ``"eager"``, ``"traced"`` or ``"compiled"``.
        loaded: Where the inputs come from.
    """
    prepare(program, Arguments(arguments(*loaded.inputs(0))))
    parameters = list(program.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    estimator = inference.ELBO().estimator()
    estimator.max_plate_nesting = 1

    def gradients(*inputs: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        with torch.enable_grad():
            loss = estimator.differentiable_loss(program.model, program.guide, *arguments(*inputs))
            grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return -loss.detach(), list(grads)

    definition = StepDefinition(gradients, optimizer, parameters, [])
    stepper = Stepper(definition, EagerStep(definition, _refuse_non_finite), level, loaded.device)
    if level != "eager":
        stepper(0, *loaded.inputs(0))  # an ordinary step, which makes the optimizer's state

    def run(first: int, count: int) -> float:
        bounds = torch.zeros((), dtype=torch.float64, device=loaded.device)
        number, end = first, first + count
        while number < end:
            block = stepper.block
            if 1 < block <= end - number:
                bounds += stepper.many([loaded.inputs(number + i) for i in range(block)])
                number += block
            else:
                bounds += stepper(end - number - 1, *loaded.inputs(number))
                number += 1
        return -float(bounds) / count

    return run


def _refuse_non_finite(bound: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """As ``fit`` looks at each eager bound; on a GPU the host waits for it."""
    del inputs
    if not math.isfinite(bound):
        raise RuntimeError(f"the bound is {float(bound)}")


def _vae(workload: Workload) -> models.VAE:
    encoder = workload.networks["encoder"]
    vae = models.VAE((workload.features,), encoder.heads[0], list(encoder.hidden))
    arrays = [array for layer in initial_weights(workload).values() for array in layer]
    with torch.no_grad():
        # both list encoder before decoder, and layers in order of use
        for parameter, array in zip(vae.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return vae

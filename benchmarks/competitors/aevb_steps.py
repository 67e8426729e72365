"""aevb at each of its three levels."""

from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from aevb import inference, models
from aevb.inference.compile import StepDefinition, graph_step
from aevb.inference.program import prepare
from benchmarks.competitors import Run
from benchmarks.competitors.on_torch import Loaded, load, loop
from benchmarks.pyro_programs import programs
from benchmarks.workloads import LEARNING_RATE, Workload, initial_weights

__all__ = ["build", "load"]


def build(workload: Workload, variant: str, loaded: Loaded) -> Run:
    """``variant`` is ``"eager"``, ``"traced"`` or ``"compiled"``."""
    pyro.enable_validation(False)  # as in fit
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

    return loop(training_step(program, arguments, variant, loaded.inputs(0)), loaded)


def training_step(
    program: inference.ProgramPair,
    arguments: Callable[..., tuple[Tensor, ...]],
    level: str,
    inputs: tuple[Tensor, ...],
) -> Callable[..., Tensor]:
    """A step of aevb at a level: the only place that knows how one is made.

    Args:
        program: Model and guide.
        arguments: From a step's inputs to the arguments of the programs.
        level: ``"eager"``, ``"traced"`` or ``"compiled"``.
        inputs: Those of the first step.

    Returns:
        A function of the inputs that makes the step and gives its loss.
    """
    prepare(program, *arguments(*inputs))
    parameters = list(program.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    estimator = inference.ELBO().estimator()
    estimator.max_plate_nesting = 1

    def gradients(*inputs: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        with torch.enable_grad():
            loss = estimator.differentiable_loss(program.model, program.guide, *arguments(*inputs))
            grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return loss.detach(), list(grads)

    def eager(*inputs: Tensor) -> Tensor:
        loss, grads = gradients(*inputs)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        optimizer.step()
        return loss

    if level == "eager":
        return eager
    eager(*inputs)  # makes the optimizer's state
    return graph_step(StepDefinition(gradients, optimizer, parameters, []), level, *inputs)


def _vae(workload: Workload) -> models.VAE:
    encoder = workload.networks["encoder"]
    vae = models.VAE((workload.features,), encoder.heads[0], list(encoder.hidden))
    arrays = [array for layer in initial_weights(workload).values() for array in layer]
    with torch.no_grad():
        # both list encoder before decoder, and layers in order of use
        for parameter, array in zip(vae.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return vae

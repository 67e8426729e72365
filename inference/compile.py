"""A whole training step as one graph: traced, or traced and compiled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from aevb.inference import randomness
from aevb.inference.cuda_graphs import RecordedSteps
from aevb.inference.graphs import (
    compile_graph,
    constants_to_inputs,
    keep_first_output,
    prepare_for_cpu,
)
from aevb.inference.tracing import NotTraceableError, trace_graph
from aevb.inference.updates import (
    can_update_in_graph,
    hyperparameters,
    learning_rate_tensors,
    state_tensors,
    update,
)

__all__ = ["GraphStep", "StepDefinition", "graph_function", "graph_step"]

# Rounding of the gradients, relative to the largest entry: sums of thousands of float32 terms in
# another order agree to about 1e-5.
_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True)
class StepDefinition:
    """A training step in terms of tensors.

    Attributes:
        gradients: Maps the step's inputs to the bound (a scalar, in nats) and to the gradient of
            each parameter, None where the loss does not depend on it.
        optimizer: Has made an ordinary step before, so that its state exists.
        parameters: Trainable parameters, in the optimizer's order.
        buffers: Other tensors of the program, which a step may change.
    """

    gradients: Callable[..., tuple[Tensor, list[Tensor | None]]]
    optimizer: torch.optim.Optimizer
    parameters: list[Tensor]
    buffers: list[Tensor]

    def changed_in_place(self) -> list[Tensor]:
        """What a step updates."""
        return [*self.parameters, *self.buffers, *state_tensors(self.optimizer)]


class GraphStep:
    """One training step as a graph; called like the eager one.

    Attributes:
        level: ``"traced"`` or ``"compiled"``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        held: list[Tensor],
        rates: list[Tensor],
        definition: StepDefinition,
        level: str,
    ) -> None:
        self.level = level
        self._definition = definition
        self._function = function
        self._held = held
        self._rates = rates
        self._groups = definition.optimizer.param_groups
        self._filled = [float(rate) for rate in rates]
        self._kept = hyperparameters(definition.optimizer)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Make the step; returns the bound as a scalar tensor, in nats."""
        self.fill_rates()
        return self._run(*inputs)

    def recorded(self, inputs: Sequence[Tensor], steps: int) -> RecordedSteps:
        """Several of these steps as one launch on a GPU; nothing is left changed."""
        several = RecordedSteps(self._run, inputs, steps)
        device = self._definition.parameters[0].device
        with _everything_restored(self._definition, device):
            several.record(device)
        return several

    @property
    def is_stale(self) -> bool:
        """Whether the optimizer has other hyperparameters now than when it was recorded."""
        return bool(self._rates) and hyperparameters(self._definition.optimizer) != self._kept

    def fill_rates(self) -> None:
        """Let the graph know the learning rates of today."""
        for number, rate in enumerate(self._rates):
            wanted = float(self._groups[number]["lr"])
            if wanted != self._filled[number]:
                self._filled[number] = wanted
                rate.fill_(wanted)

    def _run(self, *inputs: Tensor) -> Tensor:
        with torch.no_grad():
            bound: Tensor = self._function(*self._held, *inputs)[0]
        return bound


def graph_step(definition: StepDefinition, level: str, *inputs: Tensor) -> GraphStep:
    """Trace a step, check the graph against eager execution, and compile it if asked.

    Nothing is left changed: weights, optimizer state and random state are put back.

    Args:
        definition: The step.
        level: ``"traced"`` or ``"compiled"``.
        inputs: Example inputs; later ones have the same shapes.

    Raises:
        NotTraceableError: If there is no such graph, or it computes something else than the
            program does.
    """
    optimizer = definition.optimizer
    if isinstance(optimizer, torch.optim.LBFGS):
        raise NotTraceableError("LBFGS evaluates the loss several times a step")
    device = definition.parameters[0].device
    in_graph = can_update_in_graph(optimizer)
    rates = learning_rate_tensors(optimizer) if in_graph else []
    held = [*definition.changed_in_place(), *rates]
    num_held = len(held)
    used: list[int] = []  # parameters that the loss depends on

    def step(*flat: Tensor) -> tuple[Tensor, ...]:
        bound, grads = definition.gradients(*flat[num_held:])
        used[:] = [i for i, grad in enumerate(grads) if grad is not None]
        by_parameter = {
            parameter: grad
            for parameter, grad in zip(definition.parameters, grads, strict=True)
            if grad is not None
        }
        # the update may write over a gradient, and the check below wants it as it was
        kept = [grad.clone() for grad in grads if grad is not None]
        if in_graph:
            update(optimizer, rates, by_parameter, fused=level == "traced")
        return (bound, *kept)

    with _everything_restored(definition, device):
        graph = trace_graph(step, [*held, *inputs])
    held += constants_to_inputs(graph, position=len(held))
    _check(definition, graph, held, used, inputs)
    if in_graph:
        keep_first_output(graph)
    if device.type == "cpu":
        with _everything_restored(definition, device):
            prepare_for_cpu(graph, [*held, *inputs], level)
    function: Callable[..., Any] = graph
    if level == "compiled":
        with _everything_restored(definition, device):
            function = compile_graph(graph, [*held, *inputs])
            function(*held, *inputs)
    if not in_graph:
        function = _with_ordinary_update(function, definition, used)
    return GraphStep(function, held, rates, definition, level)


def graph_function(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[..., Tensor]:
    """A function without side effects as a graph with the fastest matrix products.

    Args:
        function: Called as ``function(*inputs)``, without gradients.
        inputs: Example inputs; later ones have the same shapes.

    Raises:
        NotTraceableError: If there is no such graph.

    Example:
        >>> double = graph_function(lambda x: 2 * x, torch.ones(2))
        >>> double(torch.full((2,), 3.0))
        tensor([6., 6.])
    """
    with torch.no_grad():
        graph = trace_graph(lambda *flat: (function(*flat),), list(inputs))
        held = constants_to_inputs(graph, position=len(inputs))
        everything = [*inputs, *held]
        if inputs[0].device.type == "cpu":
            prepare_for_cpu(graph, everything, "traced")

    def run(*flat: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = graph(*flat, *held)[0]
        return result

    return run


@contextmanager
def _everything_restored(definition: StepDefinition, device: torch.device) -> Iterator[None]:
    """Run a real step inside without a trace of it afterwards."""
    tensors = definition.changed_in_place()
    copies = [tensor.detach().clone() for tensor in tensors]
    random = randomness.capture_torch(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        randomness.restore_torch(random, device)


def _check(
    definition: StepDefinition,
    graph: GraphModule,
    held: list[Tensor],
    used: list[int],
    inputs: tuple[Tensor, ...],
) -> None:
    """Compare the graph with the program itself at two fresh draws of everything random."""
    device = definition.parameters[0].device
    for seed in (1, 2):
        bound, grads = _eager_gradients(definition, seed, inputs)
        again, _ = _eager_gradients(definition, seed, inputs)
        # a GPU may add in another order at each call; a CPU does not
        if abs(float(again - bound)) > (1e-5 * abs(float(bound)) if device.type == "cuda" else 0):
            raise NotTraceableError(
                "the same draws and data give another loss at each call, so Python keeps a state "
                "that a graph would freeze (keep it in a tensor and change it in place)"
            )
        with _everything_restored(definition, device), torch.no_grad():
            torch.manual_seed(seed)
            traced_bound, *traced = graph(*held, *inputs)
        if used != [i for i, grad in enumerate(grads) if grad is not None]:
            raise NotTraceableError("the set of parameters in use changes between steps")
        wanted = [bound.detach(), *(grads[i] for i in used)]
        for reference, value in zip(wanted, [traced_bound, *traced], strict=True):
            if reference is None or not torch.isfinite(reference).all():
                continue
            size = float(reference.abs().max())
            error = float((reference - value).abs().max())
            if error > _AGREEMENT.get(reference.dtype, 1e-2) * max(size, 1e-6):
                raise NotTraceableError(
                    f"its graph is not the program: a gradient of size {size:.3g} differs by "
                    f"{error:.3g}, as when Python decides differently at each step"
                )


def _eager_gradients(
    definition: StepDefinition, seed: int, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    with _everything_restored(definition, definition.parameters[0].device):
        torch.manual_seed(seed)
        return definition.gradients(*inputs)


def _with_ordinary_update(
    gradients: Callable[..., Any], definition: StepDefinition, used: list[int]
) -> Callable[..., Any]:
    """A graph of gradients followed by the optimizer's own step."""
    parameters = [definition.parameters[i] for i in used]

    def step(*inputs: Tensor) -> tuple[Tensor]:
        bound, *grads = gradients(*inputs)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        definition.optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        return (bound,)

    return step

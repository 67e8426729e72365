"""A whole training step as one graph: traced, or traced and compiled."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aevb.inference.graphs.agreement import (
    check_contract,
    check_function,
    check_gradients,
    check_whole_step,
)
from aevb.inference.graphs.cuda_graphs import RecordedSteps
from aevb.inference.graphs.optimizer_updates import (
    can_update_in_graph,
    hyperparameters,
    lacks_state,
    learning_rate_tensors,
    needs_closure,
    update,
)
from aevb.inference.graphs.passes import (
    compile_graph,
    constants_to_inputs,
    keep_first_output,
    prepare_for_cpu,
)
from aevb.inference.graphs.python_watch import PythonWatch
from aevb.inference.graphs.snapshots import everything_restored
from aevb.inference.graphs.step_definition import StepDefinition
from aevb.inference.graphs.tracing import NotTraceableError, trace_graph

__all__ = ["GraphStep", "StepDefinition", "graph_function", "graph_step"]


class GraphStep:
    """One training step as a graph; called like the eager one.

    Attributes:
        level: ``"traced"`` or ``"compiled"``.
        python: What the program kept in Python when this step was last checked.
    """

    python: PythonWatch

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
        self._state = definition.optimizer.state
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
        with everything_restored(self._held, device):
            several.record(device)
        return several

    @property
    def is_stale(self) -> bool:
        """Whether the optimizer has other hyperparameters now than when it was recorded."""
        return bool(self._rates) and hyperparameters(self._definition.optimizer) != self._kept

    @property
    def is_detached(self) -> bool:
        """Whether the optimizer has loaded another state, which lies elsewhere."""
        return self._definition.optimizer.state is not self._state

    def check_again(self, *inputs: Tensor, seed: int) -> None:
        """Compare with an ordinary step once more; nothing is left changed.

        Raises:
            NotTraceableError: If Python does something else by now.
        """
        self.fill_rates()  # now, because the check puts back every tensor that it finds
        with PythonWatch(**self._definition.keepers) as self.python:
            check_contract(self._definition, self._held, inputs, seed)
            check_whole_step(self._definition, self, self._held, inputs, seed)

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


def graph_step(
    definition: StepDefinition,
    level: str,
    *inputs: Tensor,
    others: Sequence[tuple[Tensor, ...]] = (),
) -> GraphStep:
    """Trace a step, check the graph against eager execution, and compile it if asked.

    Nothing is left changed: weights, optimizer state and random state are put back. Later inputs
    have the shapes of these; on others, of other steps, the graph is tried out as well.

    Raises:
        NotTraceableError: If there is no such graph, or it computes something else than the
            program does.
    """
    optimizer = definition.optimizer
    if needs_closure(optimizer):
        name = type(optimizer).__name__
        raise NotTraceableError(f"{name} evaluates the loss several times a step")
    with PythonWatch(**definition.keepers) as python:
        if python.iterator is not None:
            raise NotTraceableError(f"{python.iterator} is an iterator, whose place Python keeps")
        result = _checked_step(definition, level, inputs, others)
    result.python = python
    return result


def _checked_step(
    definition: StepDefinition,
    level: str,
    inputs: tuple[Tensor, ...],
    others: Sequence[tuple[Tensor, ...]],
) -> GraphStep:
    optimizer = definition.optimizer
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

    check_contract(definition, held, inputs)
    with everything_restored(held, device, watch=True):
        graph = trace_graph(step, [*held, *inputs])
    if in_graph and any(lacks_state(optimizer, definition.parameters[i]) for i in used):
        raise NotTraceableError("a parameter is used for the first time, and has no state yet")
    held += constants_to_inputs(graph, position=len(held))
    check_gradients(definition, graph, held, used, inputs)
    if in_graph:
        keep_first_output(graph)
    if device.type == "cpu":
        with everything_restored(held, device):
            prepare_for_cpu(graph, [*held, *inputs], level)
    function: Callable[..., Any] = graph
    if level == "compiled":
        with everything_restored(held, device):
            function = compile_graph(graph, [*held, *inputs])
            function(*held, *inputs)
    if not in_graph:
        function = _with_ordinary_update(function, definition, used)
    result = GraphStep(function, held, rates, definition, level)
    for example in (inputs, *others):
        check_whole_step(definition, result, held, example)
    return result


def graph_function(
    function: Callable[..., Any], *inputs: Tensor, level: str = "traced"
) -> Callable[..., Any]:
    """A function without side effects as a graph with the fastest matrix products.

    Args:
        function: Called as ``function(*inputs)``; returns a tensor or a tuple of tensors. It may
            differentiate within, but nothing differentiates through the graph.
        inputs: Example inputs; later ones have the same shapes. Of other strides they are copied,
            because compiled code reads memory as it lay in the example.
        level: ``"traced"``, or ``"compiled"`` by inductor as well.

    Raises:
        NotTraceableError: If there is no such graph, or it gives something else for other inputs.

    Example:
        >>> double = graph_function(lambda x: 2 * x, torch.ones(2))
        >>> double(torch.full((2,), 3.0))
        tensor([6., 6.])
    """
    is_tuple = False

    def outputs(*flat: Tensor) -> tuple[Tensor, ...]:
        nonlocal is_tuple
        result = function(*flat)
        is_tuple = isinstance(result, tuple)
        return result if is_tuple else (result,)

    # of an expanded tensor several elements are one, and no copy could lie as it does
    inputs = tuple(
        value.contiguous() if 0 in value.stride() and value.numel() > 1 else value
        for value in inputs
    )
    with torch.no_grad():
        graph = trace_graph(outputs, list(inputs))
        held = constants_to_inputs(graph, position=len(inputs))
        everything = [*inputs, *held]
        if inputs[0].device.type == "cpu":
            prepare_for_cpu(graph, everything, level)
        run_graph: Callable[..., Any] = graph
        if level == "compiled":
            run_graph = compile_graph(graph, everything)

    strides = [value.stride() for value in inputs]

    def run(*flat: Tensor) -> Any:
        with torch.no_grad():
            laid = [
                value if value.stride() == stride else _with_strides(value, stride)
                for value, stride in zip(flat, strides, strict=True)
            ]
            result = run_graph(*laid, *held)
        return tuple(result) if is_tuple else result[0]

    check_function(function, run, inputs)
    return run


def _with_strides(value: Tensor, stride: tuple[int, ...]) -> Tensor:
    """A copy that lies in memory in another way."""
    return torch.empty_strided(value.shape, stride, dtype=value.dtype, device=value.device).copy_(
        value
    )


def _with_ordinary_update(
    gradients: Callable[..., Any], definition: StepDefinition, used: list[int]
) -> Callable[..., Any]:
    """A graph of gradients followed by the optimizer's own step."""

    def step(*inputs: Tensor) -> tuple[Tensor]:
        bound, *found = gradients(*inputs)
        grads = dict(zip(used, found, strict=True))
        definition.update([grads.get(i) for i in range(len(definition.parameters))])
        return (bound,)

    return step

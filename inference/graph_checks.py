"""A graph is compared with the program before it takes its place."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from aevb.inference import randomness
from aevb.inference.definition import StepDefinition
from aevb.inference.python_state import PythonState
from aevb.inference.snapshots import everything_restored
from aevb.inference.tracing import NotTraceableError

__all__ = ["check_function", "check_gradients", "check_whole_step"]

# Rounding of the gradients, relative to the largest entry: sums of thousands of float32 terms in
# another order agree to about 1e-5.
_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-9}
# Gradients below this part of the largest may be rounding, which Adam makes as large as any.
_CLEAR = 1e-2
_REMEDY = "(keep it in a tensor that is changed in place)"
# Of a whole step: what wrong memory, a stale minibatch or a lost update is far from.
_STEP_AGREEMENT = 2e-2


def check_gradients(
    definition: StepDefinition,
    graph: GraphModule,
    held: list[Tensor],
    used: list[int],
    inputs: tuple[Tensor, ...],
) -> None:
    """Compare the graph with the program itself at two fresh draws of everything random."""
    device = definition.parameters[0].device
    for seed in (1, 2):
        bound, grads = _eager_gradients(definition, held, seed, inputs)
        python = definition.python_state()
        again, _ = _eager_gradients(definition, held, seed, inputs)
        _refuse_change(python)
        # a GPU may add in another order at each call; a CPU does not
        if abs(float(again - bound)) > (1e-5 * abs(float(bound)) if device.type == "cuda" else 0):
            raise NotTraceableError(
                "the same draws and data give another loss at each call, so Python keeps a state "
                f"that a graph would freeze {_REMEDY}"
            )
        with everything_restored(held, device, watch=True), torch.no_grad():
            randomness.seed_everything(seed)
            traced_bound, *traced = graph(*held, *inputs)
        if used != [i for i, grad in enumerate(grads) if grad is not None]:
            raise NotTraceableError("the set of parameters in use changes between steps")
        wanted = [bound.detach(), *(grads[i] for i in used)]
        for reference, value in zip(wanted, [traced_bound, *traced], strict=True):
            if reference is None or not reference.numel() or not torch.isfinite(reference).all():
                continue
            size = float(reference.abs().max())
            error = float((reference - value).abs().max())
            if error > _AGREEMENT.get(reference.dtype, 1e-2) * max(size, 1e-6):
                raise NotTraceableError(
                    f"its graph is not the program: a gradient of size {size:.3g} differs by "
                    f"{error:.3g}, as when Python decides differently at each step"
                )


def _refuse_change(python: PythonState) -> None:
    where = python.difference()
    if where is not None:
        raise NotTraceableError(
            f"{where} changes when the program runs, and a graph would freeze it {_REMEDY}"
        )


def _eager_gradients(
    definition: StepDefinition, held: list[Tensor], seed: int, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    with everything_restored(held, definition.parameters[0].device, watch=True):
        randomness.seed_everything(seed)
        return definition.gradients(*inputs)


def check_whole_step(
    definition: StepDefinition,
    step: Callable[..., Tensor],
    held: list[Tensor],
    inputs: tuple[Tensor, ...],
) -> None:
    """Compare one step of the finished graph, update included, with an ordinary one.

    Args:
        definition: The step.
        step: The graph's.
        held: Every tensor that may change.
        inputs: Of the step.

    Raises:
        NotTraceableError: If weights, buffers, optimizer state or the bound differ, or if the
            program changes something in Python.
    """
    device = definition.parameters[0].device
    tensors = definition.changed_in_place()
    python = definition.python_state()
    before = [tensor.detach().clone() for tensor in tensors]
    with everything_restored(held, device, watch=True):
        randomness.seed_everything(1)
        bound, grads = definition.gradients(*inputs)
        for parameter, grad in zip(definition.parameters, grads, strict=True):
            parameter.grad = grad
        with torch.no_grad():
            definition.optimizer.step()
        for parameter in definition.parameters:
            parameter.grad = None
        wanted = [tensor.detach().clone() for tensor in tensors]
    try:
        _refuse_change(python)
    except NotTraceableError:
        python.restore()
        raise
    with everything_restored(held, device):
        randomness.seed_everything(1)
        again = step(*inputs)
        got = [tensor.detach().clone() for tensor in tensors]
    if not bool(torch.isfinite(bound).all()):
        return
    bound_error = float((bound.detach() - again).abs())
    if bound_error > _AGREEMENT.get(bound.dtype, 1e-2) * abs(float(bound.detach())) + 1e-6:
        raise NotTraceableError(
            f"its graph is not the program: the bound is {float(again):.6g} in place of "
            f"{float(bound.detach()):.6g}"
        )
    sizes = [float(g.abs().max()) for g in grads if g is not None and g.numel()]
    largest = max(sizes, default=0.0)
    for number, (start, reference, value) in enumerate(zip(before, wanted, got, strict=True)):
        name = "a buffer or the optimizer's state"
        if number < len(grads):
            grad, name = grads[number], "a weight"
            if grad is None or not grad.numel():
                continue
            size = grad.abs().to_dense() if grad.is_sparse else grad.abs()
            clear = (size >= _CLEAR * size.max()) & (size > 1e-6 * largest)
            start, reference, value = start[clear], reference[clear], value[clear]
        _compare(name, reference, value, start)


def check_function(
    function: Callable[..., Any], graph: Callable[..., Any], inputs: Sequence[Tensor]
) -> None:
    """Compare a graph with its function where the inputs are in reverse order.

    Args:
        function: Without side effects.
        graph: Called like it.
        inputs: That the graph was made from.

    Raises:
        NotTraceableError: If they differ by more than rounding.
    """
    others = [value.flip(0) if value.ndim else value for value in inputs]
    with torch.no_grad():
        references, values = function(*others), graph(*others)
    if not isinstance(references, tuple):
        references, values = (references,), (values,)
    tolerance = _AGREEMENT.get(others[0].dtype, 1e-2)
    for reference, value in zip(references, values, strict=True):
        size = float(reference[torch.isfinite(reference)].abs().sum()) / max(1, reference.numel())
        close = torch.allclose(
            value, reference, rtol=tolerance, atol=tolerance * size, equal_nan=True
        )
        if not close:
            raise NotTraceableError("its graph is not the function: it differs for other inputs")


def _compare(name: str, reference: Tensor, value: Tensor, start: Tensor) -> None:
    if not reference.numel() or not reference.is_floating_point():
        if not torch.equal(reference, value):
            raise NotTraceableError(f"its graph is not the program: {name} differs")
        return
    if not bool(torch.isfinite(reference).all()):
        return
    moved = float((reference - start).abs().max())
    error = float((reference - value).abs().max())
    rounding = 1e-5 * float(reference.abs().max())
    if not error <= _STEP_AGREEMENT * moved + rounding:
        raise NotTraceableError(
            f"its graph is not the program: {name} moves by up to {moved:.3g} in a step, and "
            f"differs by {error:.3g}"
        )

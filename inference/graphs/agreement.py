"""A graph is compared with the program before it takes its place."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from aevb.inference.graphs.python_watch import PythonWatch
from aevb.inference.graphs.snapshots import everything_restored
from aevb.inference.graphs.step_definition import StepDefinition
from aevb.inference.graphs.tracing import NotTraceableError
from aevb.inference.process import randomness

__all__ = ["check_contract", "check_function", "check_gradients", "check_whole_step"]

# Rounding of the gradients, relative to the largest entry: sums of thousands of float32 terms in
# another order agree to about 1e-5.
_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-9}
# Gradients below this part of the largest may be rounding, which Adam makes as large as any.
_CLEAR = 1e-2
_REMEDY = "(keep it in a tensor that is changed in place, or not at all if nothing reads it)"
# Below this part of the largest gradient of all, a parameter's whole gradient may be rounding, as
# that of a bias in front of batch normalization, which is zero.
_SPECK = 1e-6
# Of a whole step: what wrong memory, a stale minibatch or a lost update is far from.
_STEP_AGREEMENT = 2e-2


def check_contract(
    definition: StepDefinition, held: list[Tensor], inputs: tuple[Tensor, ...], seed: int = 1
) -> None:
    """Run the program twice, which must do the same both times and change nothing in Python.

    Raises:
        NotTraceableError: If what the program does depends on more than its arguments, its
            parameters and buffers, and torch's generator.
    """
    bound, _ = _eager_gradients(definition, held, seed, inputs)
    watch = PythonWatch(**definition.keepers)
    again, _ = _eager_gradients(definition, held, seed, inputs)
    where = watch.changed()
    if where is not None:
        raise NotTraceableError(
            f"{where} changes when the program runs, and a graph would freeze it {_REMEDY}"
        )
    # a GPU may add in another order at each call; a CPU does not
    slack = 1e-5 * abs(float(bound)) if bound.device.type == "cuda" else 0
    if abs(float(again - bound)) > slack:
        raise NotTraceableError(
            "the same draws and data give another loss at each call, so Python keeps a state "
            f"that a graph would freeze {_REMEDY}"
        )


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
        with everything_restored(held, device, watch=True), torch.no_grad():
            randomness.seed_everything(seed)
            traced_bound, *traced = graph(*held, *inputs)
        tolerance = _tolerance(definition, bound)
        if used != [i for i, grad in enumerate(grads) if grad is not None]:
            raise NotTraceableError("the set of parameters in use changes between steps")
        wanted = [bound.detach(), *(grads[i] for i in used)]
        for reference, value in zip(wanted, [traced_bound, *traced], strict=True):
            if reference is None or not reference.numel() or not torch.isfinite(reference).all():
                continue
            size = float(reference.abs().max())
            error = float((reference - value).abs().max())
            if error > tolerance * max(size, 1e-6):
                raise NotTraceableError(
                    f"its graph is not the program: a gradient of size {size:.3g} differs by "
                    f"{error:.3g}, as when Python decides differently at each step"
                )


def _eager_gradients(
    definition: StepDefinition, held: list[Tensor], seed: int, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    with everything_restored(held, definition.parameters[0].device, watch=True):
        randomness.seed_everything(seed)
        with _only_torch_draws():
            return definition.gradients(*inputs)


@contextmanager
def _only_torch_draws() -> Iterator[None]:
    """Refuse draws that a graph would make once and for all."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    yield
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    for name, old, new in zip(("Python", "NumPy"), before, after, strict=True):
        # NumPy's state has an array at its second place
        if any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True) if b is not None):
            raise NotTraceableError(
                f"it draws from {name}'s own random numbers, which a graph would freeze (draw "
                "with torch)"
            )


def _tolerance(definition: StepDefinition, *values: Tensor) -> float:
    """Of the coarsest floating-point type that takes part."""
    kinds = {tensor.dtype for tensor in (*definition.parameters, *values)}
    return max(_AGREEMENT.get(kind, 1e-2) for kind in kinds if kind.is_floating_point)


def check_whole_step(
    definition: StepDefinition,
    step: Callable[..., Tensor],
    held: list[Tensor],
    inputs: tuple[Tensor, ...],
    seed: int = 1,
) -> None:
    """Compare one step of the finished graph, update included, with an ordinary one.

    What the program keeps in Python is not put back.

    Raises:
        NotTraceableError: If weights, buffers, optimizer state or the bound differ.
    """
    device = definition.parameters[0].device
    tensors = definition.changed_in_place()
    optimizer = definition.optimizer
    before = [tensor.detach().clone() for tensor in tensors]
    with PythonWatch(optimizer=optimizer), everything_restored(held, device, watch=True):
        randomness.seed_everything(seed)
        with _only_torch_draws():
            bound, grads = definition.gradients(*inputs)
        with torch.no_grad():
            definition.update(grads)
        wanted = [tensor.detach().clone() for tensor in tensors]
    with PythonWatch(optimizer=optimizer), everything_restored(held, device):
        randomness.seed_everything(seed)
        again = step(*inputs)
        got = [tensor.detach().clone() for tensor in tensors]
    if not bool(torch.isfinite(bound).all()):
        return
    bound_error = float((bound.detach() - again).abs())
    if bound_error > _tolerance(definition, bound) * abs(float(bound.detach())) + 1e-6:
        raise NotTraceableError(
            f"its graph is not the program: the bound is {float(again):.6g} in place of "
            f"{float(bound.detach()):.6g}"
        )
    sizes = [float(g.abs().max()) for g in grads if g is not None and g.numel()]
    speck = _SPECK * max(sizes, default=0.0)
    of_specks = _states_of_specks(definition, grads, speck)
    for number, (start, reference, value) in enumerate(zip(before, wanted, got, strict=True)):
        name = "a buffer or the optimizer's state"
        if number < len(grads):
            grad, name = grads[number], "a weight"
            if grad is None or not grad.numel():
                continue
            size = grad.abs().to_dense() if grad.is_sparse else grad.abs()
            clear = (size >= _CLEAR * size.max()) & (size > speck)
            start, reference, value = start[clear], reference[clear], value[clear]
        slack = max(speck, speck**2) if id(tensors[number]) in of_specks else 0.0
        _compare(name, reference, value, start, slack)


def _states_of_specks(
    definition: StepDefinition, grads: list[Tensor | None], speck: float
) -> set[int]:
    """Tensors, by identity, in which the optimizer averages gradients that may be rounding."""
    return {
        id(value)
        for parameter, grad in zip(definition.parameters, grads, strict=True)
        if grad is not None and grad.numel() and float(grad.abs().max()) <= speck
        for value in definition.optimizer.state.get(parameter, {}).values()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }


def check_function(
    function: Callable[..., Any], graph: Callable[..., Any], inputs: Sequence[Tensor]
) -> None:
    """Compare a graph with its function where the inputs are in reverse order.

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


def _compare(
    name: str, reference: Tensor, value: Tensor, start: Tensor, slack: float = 0.0
) -> None:
    if not reference.numel() or not reference.is_floating_point():
        if not torch.equal(reference, value):
            raise NotTraceableError(f"its graph is not the program: {name} differs")
        return
    if not bool(torch.isfinite(reference).all()):
        return
    moved = float((reference - start).abs().max())
    error = float((reference - value).abs().max())
    rounding = 1e-5 * float(reference.abs().max())
    if not error <= _STEP_AGREEMENT * moved + rounding + slack:
        raise NotTraceableError(
            f"its graph is not the program: {name} moves by up to {moved:.3g} in a step, and "
            f"differs by {error:.3g}"
        )

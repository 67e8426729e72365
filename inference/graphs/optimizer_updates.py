"""Optimizer updates inside a graph, where the learning rate is a tensor."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from aevb.inference.process.devices import device_of
from aevb.inference.process.patches import updates_in_tensors

__all__ = [
    "can_update_in_graph",
    "hyperparameters",
    "lacks_state",
    "learning_rate_tensors",
    "needs_closure",
    "state_tensors",
    "update",
]

# Their step can be recorded as it is: with `capturable` its arithmetic stays in tensors.
_CAPTURABLE = (
    torch.optim.Adam,
    torch.optim.Adamax,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
# Given to a graph as tensors, or of no effect on it (schedulers note `initial_lr`).
_NOT_KEPT = ("params", "lr", "initial_lr")
_FUSED = (torch.optim.Adam, torch.optim.AdamW)


def can_update_in_graph(optimizer: torch.optim.Optimizer) -> bool:
    """Whether :func:`update` knows the optimizer.

    Example:
        >>> can_update_in_graph(torch.optim.LBFGS([torch.zeros(2, requires_grad=True)]))
        False
    """
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return type(optimizer) in (*_CAPTURABLE, *_RULES) and not hooks


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step evaluates the loss itself."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def lacks_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> bool:
    """Whether an optimizer that keeps a state for each parameter has none for this one."""
    own = any(isinstance(value, Tensor) for value in optimizer.state.get(parameter, {}).values())
    return bool(state_tensors(optimizer)) and not own


def learning_rate_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """One scalar tensor per parameter group, which the caller fills with the group's rate."""
    rates = []
    for group in optimizer.param_groups:
        wide = any(parameter.dtype == torch.float64 for parameter in group["params"])
        rate = torch.tensor(float(group["lr"]), dtype=torch.float64 if wide else torch.float32)
        rates.append(rate.to(device_of(args=group["params"])))
    return rates


def hyperparameters(optimizer: torch.optim.Optimizer) -> list[tuple[Any, ...]]:
    """Everything that the groups say except the learning rates: a graph keeps it as it was."""
    return [
        tuple(value for key, value in group.items() if key not in _NOT_KEPT)
        for group in optimizer.param_groups
    ]


def state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Every tensor of the optimizer's state, in a fixed order."""
    return [
        value
        for group in optimizer.param_groups
        for parameter in group["params"]
        for value in optimizer.state.get(parameter, {}).values()
        if isinstance(value, Tensor)
    ]


def update(
    optimizer: torch.optim.Optimizer,
    rates: list[Tensor],
    grads: dict[Any, Tensor],
    fused: bool,
) -> None:
    """One step of the optimizer, in place, in operations that a graph can record.

    Args:
        optimizer: Has made an ordinary step before, so that its state exists.
        rates: From :func:`learning_rate_tensors`.
        grads: Gradient of each parameter that the loss depends on; others stay as they are.
        fused: Use one fused kernel where the optimizer has one: best without a compiler.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rule = _RULES.get(type(optimizer))
    with torch.no_grad():
        if rule is not None:
            _apply(rule, optimizer, rates, grads)
            return
        # the fused kernel of a CPU reads all tensors as they lie in memory, whatever their strides
        fused = fused and isinstance(optimizer, _FUSED)
        fused = fused and all(t.is_contiguous() for t in (*grads, *state_tensors(optimizer)))
        for parameter in parameters:
            grad = grads.get(parameter)
            parameter.grad = grad.contiguous() if fused and grad is not None else grad
        with _recordable(optimizer, rates, fused):
            optimizer.step()
        for parameter in parameters:
            parameter.grad = None


def _apply(
    rule: Callable[..., None],
    optimizer: torch.optim.Optimizer,
    rates: list[Tensor],
    grads: dict[Any, Tensor],
) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        for parameter in group["params"]:
            if parameter not in grads:
                continue
            grad = grads[parameter]
            grad = -grad if group["maximize"] else grad
            if group["weight_decay"]:
                grad = grad + group["weight_decay"] * parameter
            rule(parameter, grad, optimizer.state[parameter], group, rate)


def _sgd(parameter: nn.Parameter, grad: Tensor, state: Any, group: Any, rate: Tensor) -> None:
    if group["momentum"]:
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(grad, alpha=1 - group["dampening"])
        grad = grad + group["momentum"] * buffer if group["nesterov"] else buffer
    parameter.sub_(rate * grad)


def _adagrad(parameter: nn.Parameter, grad: Tensor, state: Any, group: Any, rate: Tensor) -> None:
    state["step"].add_(1)
    state["sum"].addcmul_(grad, grad)
    decayed = rate / (1 + (state["step"] - 1) * group["lr_decay"])
    parameter.sub_(decayed * grad / (state["sum"].sqrt() + group["eps"]))


def _rmsprop(parameter: nn.Parameter, grad: Tensor, state: Any, group: Any, rate: Tensor) -> None:
    state["step"].add_(1)
    square = (
        state["square_avg"].mul_(group["alpha"]).addcmul_(grad, grad, value=1 - group["alpha"])
    )
    if group["centered"]:
        mean = state["grad_avg"].lerp_(grad, 1 - group["alpha"])
        square = square - mean * mean
    direction = grad / (square.sqrt() + group["eps"])
    if group["momentum"]:
        direction = state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
    parameter.sub_(rate * direction)


# torch takes the learning rate of these as a number, which a graph would keep for ever.
_RULES: dict[type[torch.optim.Optimizer], Callable[..., None]] = {
    torch.optim.Adagrad: _adagrad,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.SGD: _sgd,
}


@contextmanager
def _recordable(
    optimizer: torch.optim.Optimizer, rates: list[Tensor], fused: bool
) -> Iterator[None]:
    """Groups set to arithmetic in tensors, and put back as they were."""
    before = [dict(group) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group.update(lr=rate, foreach=False, capturable=not fused)
        if "fused" in group:
            group["fused"] = fused
    try:
        with nullcontext() if fused else updates_in_tensors():
            yield
    finally:
        for group, original in zip(optimizer.param_groups, before, strict=True):
            group.clear()
            group.update(original)

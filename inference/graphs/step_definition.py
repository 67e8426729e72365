"""A training step in terms of tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from aevb.inference.graphs.optimizer_updates import state_tensors

__all__ = ["StepDefinition"]


@dataclass(frozen=True)
class StepDefinition:
    """A training step in terms of tensors.

    Attributes:
        gradients: Maps the step's inputs to the bound (a scalar, in nats) and to the gradient of
            each parameter, None where the loss does not depend on it.
        optimizer: Has made an ordinary step before, so that its state exists.
        parameters: Trainable parameters, in the optimizer's order.
        buffers: Other tensors of the program, which a step may change.
        keepers: What the step runs, by name: objects in which Python may keep a state.
    """

    gradients: Callable[..., tuple[Tensor, list[Tensor | None]]]
    optimizer: torch.optim.Optimizer
    parameters: list[Tensor]
    buffers: list[Tensor]
    keepers: Mapping[str, Any] = field(default_factory=dict)

    def changed_in_place(self) -> list[Tensor]:
        """What a step updates."""
        return [*self.parameters, *self.buffers, *state_tensors(self.optimizer)]

    def update(self, grads: list[Tensor | None]) -> None:
        """The optimizer's own step; the gradients do not stay with the parameters."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

"""A training step in terms of tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.inference.updates import state_tensors

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
    """

    gradients: Callable[..., tuple[Tensor, list[Tensor | None]]]
    optimizer: torch.optim.Optimizer
    parameters: list[Tensor]
    buffers: list[Tensor]

    def changed_in_place(self) -> list[Tensor]:
        """What a step updates."""
        return [*self.parameters, *self.buffers, *state_tensors(self.optimizer)]

"""The loss of a training step: from tensors to the bound and its gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aevb.inference.graphs.step_definition import StepDefinition
from aevb.inference.process.precision import bf16_products
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.svi.subsampling import Minibatch

__all__ = ["StepLoss", "weight_penalty"]


def weight_penalty(parameters: list[nn.Parameter], scale: float, num_datapoints: float) -> Tensor:
    """−log N(θ; 0, s²I) / N without its constant, a scalar in nats per datapoint."""
    squares = torch.stack([p.square().sum() for p in parameters]).sum()
    return 0.5 * squares / (scale**2 * num_datapoints)


@dataclass(frozen=True)
class StepLoss:
    """What a step descends: called with the inputs of a step, tensors that vary between steps.

    Attributes:
        program: Model and guide.
        estimator: Pyro loss, fresh and prepared for the program.
        parameters: What is trained.
        arguments: From a step's inputs to the arguments of both programs, in tensor operations.
        constants: What the arguments hold besides tensors.
        num_datapoints: Datapoints that the bound of a step is a sum over, and that the loss is
            divided by; None for the length of the first input.
        minibatch: What is done so that a minibatch stands for all the data.
        penalty: Added to the loss.
        precision: Of matrix products.
    """

    program: Any
    estimator: Any
    parameters: list[nn.Parameter]
    arguments: Callable[..., Arguments]
    constants: list[Any]
    num_datapoints: float | None = None
    minibatch: Minibatch = Minibatch()
    penalty: Callable[[], Tensor] | None = None
    precision: str = "float32"

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The bound of a minibatch, in nats, and the gradient of the loss for each parameter."""
        args, kwargs = self.arguments(*inputs)
        with (
            torch.enable_grad(),
            argument_checks(False),
            bf16_products(self.precision == "bf16"),
            self.minibatch.counted(self.program),
        ):
            loss = self.estimator.differentiable_loss(
                self.program.model, self.program.guide, *args, **kwargs
            )
            total = loss / self.count(inputs)
            if self.penalty is not None:
                total = total + self.penalty()
            grads = torch.autograd.grad(total, self.parameters, allow_unused=True)
        return -loss.detach(), list(grads)

    def count(self, inputs: tuple[Tensor, ...]) -> float:
        """Datapoints that the bound of a step is a sum over."""
        return float(len(inputs[0])) if self.num_datapoints is None else self.num_datapoints

    @property
    def counters(self) -> list[Tensor]:
        """Of schedules inside the objective; they count steps."""
        return list(getattr(self.estimator, "buffers", []))

    def step(self, optimizer: torch.optim.Optimizer) -> StepDefinition:
        """A whole training step, for graphs."""
        keepers = {"program": self.program, "estimator": self.estimator, "data": self.constants}
        buffers = [*self.program.buffers(), *self.counters]
        return StepDefinition(self, optimizer, list(self.parameters), buffers, keepers)

"""What counts as a difference between a graph and its program."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aevb.inference.graphs.agreement import check_whole_step
from aevb.inference.graphs.step_definition import StepDefinition
from aevb.inference.graphs.tracing import NotTraceableError

ROWS = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))


class Normalized:
    """Steps of a network whose first bias has no effect, so that its gradient is rounding."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)
        )
        self.parameters = list(self.network.parameters())
        optimizer = torch.optim.Adam(self.parameters, lr=1e-3)
        buffers = list(self.network.buffers())
        self.definition = StepDefinition(self.gradients, optimizer, self.parameters, buffers)  # type: ignore[arg-type]
        self(ROWS)
        self.held = self.definition.changed_in_place()

    def gradients(self, rows: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        bound = self.network(rows).exp().mean()
        return bound, list(torch.autograd.grad(bound, self.parameters))

    def __call__(self, rows: Tensor) -> Tensor:
        bound, grads = self.gradients(rows.flip(0))  # the same sums, in another order
        self.definition.update(grads)
        return bound.detach()


def test_rounding_of_a_gradient_that_vanishes_is_no_difference() -> None:
    step = Normalized()
    first, second = (step.gradients(rows)[1][1] for rows in (ROWS, ROWS.flip(0)))
    assert first is not None
    assert second is not None
    assert float((first - second).abs().max()) > 0.02 * float(first.abs().max())
    check_whole_step(step.definition, step, step.held, (ROWS,))


@pytest.mark.parametrize("number", range(6))
def test_another_average_of_gradients_is_one(number: int) -> None:
    step = Normalized()
    state: Any = step.definition.optimizer.state

    def spoilt(rows: Tensor) -> Tensor:
        bound = step(rows)
        state[step.parameters[number]]["exp_avg"] += 0.1
        return bound

    with pytest.raises(NotTraceableError, match="the optimizer's state moves"):
        check_whole_step(step.definition, spoilt, step.held, (ROWS,))

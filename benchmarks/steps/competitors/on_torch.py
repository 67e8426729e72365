"""What the competitors on PyTorch share: the data as tensors, and a Python loop over steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.steps.competitors import Run
from benchmarks.steps.workloads import Workload, make_data, make_order

__all__ = ["Loaded", "load", "loop"]


@dataclass(frozen=True)
class Loaded:
    """Data set and minibatch indices, on the device.

    Attributes:
        data: The data set.
        rows: Indices of each step, in turn; None for programs that take all data.
        device: Where they are.
    """

    data: tuple[Tensor, ...]
    rows: tuple[Tensor, ...] | None
    device: torch.device

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        """Data set, and the indices of a step where there are any."""
        if self.rows is None:
            return self.data
        return (*self.data, self.rows[step % len(self.rows)])


def load(workload: Workload, device: str) -> Loaded:
    """Data and order as tensors on the device."""
    target = torch.device(device)
    data = tuple(torch.from_numpy(part).to(target) for part in make_data(workload))
    rows = None
    if workload.networks:
        rows = torch.from_numpy(make_order(workload)).to(target).unbind(0)
    return Loaded(data, rows, target)


def loop(step: Callable[..., Any], loaded: Loaded) -> Run:
    """Steps one after another; ``step(*inputs)`` gives its loss as a float or a tensor."""

    def run(first: int, count: int) -> float:
        losses = [step(*loaded.inputs(number)) for number in range(first, first + count)]
        if loaded.device.type == "cuda":
            torch.cuda.synchronize()
        if isinstance(losses[0], Tensor):
            return float(torch.stack(losses).mean())
        return sum(losses) / count

    return run

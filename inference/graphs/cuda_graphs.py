"""Several training steps as one launch on a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["RecordedSteps"]


class RecordedSteps:
    """A number of equal steps, recorded once as a CUDA graph and replayed as a whole.

    Between two replays the host only copies the positions of the minibatches, so the device does
    not wait for Python. Weights and optimizer state are those that the function holds and changes.
    On a CPU the same steps are called one after the other.

    Args:
        function: Makes one step, ``function(*inputs)``, and returns its bound.
        inputs: Example inputs of one step; they stay at the addresses that the graph reads.
        steps: Steps of one replay.

    Example:
        >>> weight = torch.zeros(())
        >>> pair = RecordedSteps(lambda x: weight.add_(x).clone(), [torch.ones(())], steps=2)
        >>> pair([[torch.tensor(1.0)], [torch.tensor(2.0)]]), weight
        (tensor([1., 3.], dtype=torch.float64), tensor(3.))
    """

    def __init__(
        self, function: Callable[..., Tensor], inputs: Sequence[Tensor], steps: int
    ) -> None:
        self.steps = steps
        self._function = function
        self._slots = [[tensor.clone() for tensor in inputs] for _ in range(steps)]
        self._graph: Any = None
        self._bounds: Tensor | None = None

    def record(self, device: torch.device) -> None:
        """Make the CUDA graph, if on one; the caller puts back what the trial steps change."""
        if device.type != "cuda":
            return
        # outside the graph first, on a side stream, as libraries set themselves up at first use
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._function(*self._slots[0])
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._bounds = self._run()

    def __call__(self, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Make the steps; returns the bound of each, ``(steps,)`` in float64."""
        for slot, values in zip(self._slots, inputs, strict=True):
            for place, value in zip(slot, values, strict=True):
                place.copy_(value, non_blocking=True)
        if self._bounds is None:
            return self._run()
        self._graph.replay()
        return self._bounds

    def _run(self) -> Tensor:
        bounds = [self._function(*slot) for slot in self._slots]
        return torch.stack(bounds).double()

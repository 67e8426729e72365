"""Where the arguments of a training step come from: whole data or shuffled minibatches."""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from aevb.data import Minibatches, Split
from aevb.data.seeds import stream_seed
from aevb.inference.process.devices import moved
from aevb.inference.programs.arguments import Arguments

__all__ = ["Data", "Feed", "evaluation_batches"]

Data = Split | Tensor | tuple[Any, ...] | Mapping[str, Any]


class Feed:
    """Successive arguments of ``model`` and ``guide``, with a state that resumes exactly.

    Args:
        data: A split, a tensor whose rows are datapoints, the tuple of all arguments, or keyword
            arguments by name. An argument may be a list, tuple or dictionary of tensors.
        batch_size: Datapoints of one step; None gives the whole data at every step.
        seed: Seed of the order. Binarization draws from torch's global generator.
        device: Where the data are kept and gathered.

    Raises:
        ValueError: If ``batch_size`` is given and the arguments hold no tensors, or some of
            different lengths.

    Example:
        >>> feed = Feed(torch.arange(5.0), batch_size=2, seed=0, device=torch.device("cpu"))
        >>> [len(feed.present(*feed.next()).args[0]) for _ in range(3)], feed.epoch
        ([2, 2, 1], 1)
    """

    def __init__(
        self, data: Data, batch_size: int | None, seed: int, device: torch.device
    ) -> None:
        self.data = _on_device(data, device)
        self.num_datapoints = _length(self.data, required=batch_size is not None)
        self.batch_size = batch_size
        self.device = device
        self.order = (
            None
            if batch_size is None
            else Minibatches(
                self.num_datapoints, batch_size=batch_size, seed=stream_seed(seed, "order")
            )
        )
        self._steps = 0
        self._epoch_order: Tensor | None = None

    @property
    def epoch(self) -> int:
        """Completed passes over the data."""
        return self._steps if self.order is None else self.order.epoch

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the data."""
        return 1 if self.order is None else self.order.num_batches

    @property
    def equal_steps_ahead(self) -> int:
        """Steps to the end of the epoch whose minibatches are full."""
        if self.order is None or self.batch_size is None:
            return 1
        return (self.num_datapoints - self.order.position) // self.batch_size

    @property
    def at_epoch_end(self) -> bool:
        """Whether the last step completed a pass."""
        return self.order is None or self.order.position == 0

    def next(self) -> tuple[Tensor, ...]:
        """What varies from step to step: the positions of the minibatch, or nothing."""
        self._steps += 1
        if self.order is None:
            return ()
        start = self.order.position
        if self._epoch_order is None or start == 0:
            # once an epoch, so that a GPU need not wait for the positions of each step
            self._epoch_order = self.order.epoch_order().to(self.device)
        return (self._epoch_order[start : start + len(self.order.next_indices())],)

    def present(self, *inputs: Tensor) -> Arguments:
        """Gathered rows, scaled and binarized as the data say, in operations on tensors alone."""
        if isinstance(self.data, Split):
            rows = inputs[0] if inputs else torch.arange(len(self.data), device=self.device)
            return Arguments((self.data.present(rows),))
        if not inputs:
            return _arguments(self.data)
        return _arguments(_rows(self.data, lambda part: part.index_select(0, inputs[0])))

    def examples(self, batch_size: int | None) -> Iterator[Arguments]:
        """The evaluation copy of the data, in order; see :func:`evaluation_batches`."""
        return evaluation_batches(self.data, batch_size, self.device)

    @property
    def others(self) -> list[Any]:
        """What the arguments hold besides tensors."""
        if isinstance(self.data, Split):
            return []
        return [leaf for leaf in tree_leaves(self.data) if not isinstance(leaf, Tensor)]

    def state_dict(self) -> dict[str, Any]:
        """Order, position and random states."""
        order = None if self.order is None else self.order.state_dict()
        return {"order": order, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` of an equal feed."""
        if self.order is not None:
            self.order.load_state_dict(state["order"])
        self._steps = state["steps"]
        self._epoch_order = None


def evaluation_batches(
    data: Data, batch_size: int | None, device: torch.device
) -> Iterator[Arguments]:
    """The evaluation copy of the data, in order, as arguments of the programs for each batch."""
    data = _on_device(data, device)
    length = _length(data, required=batch_size is not None)
    if isinstance(data, Split):
        for x in data.batches(batch_size or length):
            yield Arguments((x.to(device),))
        return
    if batch_size is None:
        yield _arguments(data)
        return
    for start in range(0, length, batch_size):
        rows = slice(start, start + batch_size)
        yield _arguments(_rows(data, operator.itemgetter(rows)))


def _arguments(data: Any) -> Arguments:
    if isinstance(data, Mapping):
        return Arguments(kwargs=data)
    return Arguments(data if isinstance(data, tuple) else (data,))


def _rows(data: Any, take: Callable[[Tensor], Tensor]) -> Any:
    """Some rows of every tensor that has rows."""
    return tree_map(
        lambda part: take(part) if isinstance(part, Tensor) and part.ndim else part, data
    )


def _on_device(data: Data, device: torch.device) -> Data:
    if isinstance(data, Split):
        return data.to(device)
    if not isinstance(data, Tensor | tuple | Mapping):
        raise ValueError(
            "data: expected a split, a tensor, the tuple of all arguments or a dictionary of "
            f"keyword arguments; got {type(data).__name__}"
        )
    return moved(dict(data) if isinstance(data, Mapping) else data, device)


def _length(data: Data, required: bool) -> int:
    if isinstance(data, Split):
        return len(data)
    tensors = [leaf for leaf in tree_leaves(data) if isinstance(leaf, Tensor)]
    lengths = {len(tensor) for tensor in tensors if tensor.ndim}
    if required and len(lengths) != 1:
        raise ValueError(
            "batch_size: minibatches need arguments that are tensors of equal length; got lengths "
            f"{sorted(lengths) or 'of no tensor'}"
        )
    return max(lengths, default=1)

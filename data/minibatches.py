"""The order of training: which datapoints each step sees."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Minibatches"]


class Minibatches:
    """A fresh permutation of the datapoints in each epoch, cut into batches.

    The permutations come from a CPU generator of its own, so that the order depends on nothing
    but the seed and can be resumed in the middle of an epoch.

    Args:
        num_datapoints: N.
        batch_size: Datapoints of a batch, at most N. The last one of an epoch is short where this
            does not divide N.
        seed: Of the order.

    Attributes:
        num_batches: Of an epoch.
        epoch: Completed ones.
        position: Datapoints of the current epoch that have been presented, below N: the last
            batch of an epoch completes it and draws the order of the next.

    Raises:
        ValueError: If ``num_datapoints`` or ``batch_size`` is below 1, or ``batch_size`` above
            ``num_datapoints``.

    Example:
        >>> batches = Minibatches(num_datapoints=10, batch_size=4, seed=0)
        >>> [len(batches.next_indices()) for _ in range(batches.num_batches)]
        [4, 4, 2]
        >>> batches.epoch, batches.position
        (1, 0)
    """

    def __init__(self, num_datapoints: int, batch_size: int, seed: int) -> None:
        if num_datapoints < 1:
            raise ValueError(f"num_datapoints: {num_datapoints}; expected at least 1")
        if not 1 <= batch_size <= num_datapoints:
            raise ValueError(
                f"batch_size: {batch_size}; expected 1..{num_datapoints} (num_datapoints)"
            )
        self.num_datapoints = num_datapoints
        self.batch_size = batch_size
        self.num_batches = -(-num_datapoints // batch_size)
        self.epoch = 0
        self.position = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._order = self._permutation()

    def __repr__(self) -> str:
        """One line: sizes and progress."""
        return (
            f"Minibatches(num_datapoints={self.num_datapoints}, batch_size={self.batch_size}, "
            f"epoch={self.epoch}, position={self.position})"
        )

    def next_indices(self) -> Tensor:
        """The datapoints of the next batch.

        Returns:
            Positions, ``(B,)``, int64 on the CPU; B is ``batch_size`` but for a short last batch.

        Example:
            >>> Minibatches(10, 10, seed=0).next_indices().sort().values
            tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        """
        indices = self._order[self.position : self.position + self.batch_size].clone()
        self.position += len(indices)
        if self.position == self.num_datapoints:
            self.epoch += 1
            self.position = 0
            self._order = self._permutation()
        return indices

    def epoch_order(self) -> Tensor:
        """The whole permutation of the current epoch, ``(N,)``, int64 on the CPU.

        Example:
            >>> batches = Minibatches(10, 4, seed=0)
            >>> order = batches.epoch_order()
            >>> bool((batches.next_indices() == order[:4]).all())
            True
        """
        return self._order.clone()

    def state_dict(self) -> dict[str, Tensor | int]:
        """All that the rest of the order depends on: tensors and integers, by name.

        Example:
            >>> Minibatches(10, 4, seed=0).state_dict()["position"]
            0
        """
        return {
            "generator": self._generator.get_state(),
            "order": self._order.clone(),
            "position": self.position,
            "epoch": self.epoch,
            "num_datapoints": self.num_datapoints,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Continue exactly where a saved order stopped; on an error, nothing is changed.

        Args:
            state: What ``state_dict`` returned; integers may have become tensors of one value.

        Raises:
            ValueError: If the state lacks an entry, belongs to another ``num_datapoints`` or
                ``batch_size``, or is damaged.

        Example:
            >>> first, second = Minibatches(10, 4, seed=0), Minibatches(10, 4, seed=1)
            >>> second.load_state_dict(first.state_dict())
            >>> bool((first.next_indices() == second.next_indices()).all())
            True
        """
        missing = sorted(self.state_dict().keys() - state.keys())
        if missing:
            raise ValueError(f"state: lacks {', '.join(missing)}; expected a state_dict()")
        for name in ("num_datapoints", "batch_size"):
            if int(state[name]) != getattr(self, name):
                raise ValueError(
                    f"state: {name} {int(state[name])}; expected {getattr(self, name)}"
                )
        order, position, epoch = self._checked(state)
        self._generator = _generator(state["generator"])
        self._order, self.position, self.epoch = order, position, epoch

    def _checked(self, state: dict[str, Tensor | int]) -> tuple[Tensor, int, int]:
        order = torch.as_tensor(state["order"]).to("cpu", torch.int64, copy=True)
        if not torch.equal(order.sort().values, torch.arange(self.num_datapoints)):
            raise ValueError(
                f"state: order of shape {tuple(order.shape)}; expected a permutation of "
                f"0..{self.num_datapoints - 1}"
            )
        position, epoch = int(state["position"]), int(state["epoch"])
        if position % self.batch_size or not 0 <= position < self.num_datapoints or epoch < 0:
            raise ValueError(
                f"state: position {position} and epoch {epoch}; expected a multiple of "
                f"{self.batch_size} below {self.num_datapoints}, and at least 0"
            )
        return order, position, epoch

    def _permutation(self) -> Tensor:
        return torch.randperm(self.num_datapoints, generator=self._generator)


def _generator(state: Tensor | int) -> torch.Generator:
    generator = torch.Generator()
    try:
        generator.set_state(torch.as_tensor(state).cpu())
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"state: damaged generator ({error}); expected its state") from error
    return generator

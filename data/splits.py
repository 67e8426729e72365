"""One part of a dataset: stored as it came, presented scaled and, if asked, binarized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.binarization import (
    bernoulli,
    check_binarize,
    check_probabilities,
    draw_once,
    presented_dtype,
    scale,
)

__all__ = ["Split"]


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    r"""The datapoints of one part of a dataset, in memory in their stored form.

    With pixels :math:`p = \text{values} / \text{divisor}`, training sees (``gather``) and
    evaluation sees (``evaluation``, ``batches``)

    - ``"none"``: :math:`x = p`, both times;
    - ``"dynamic"``: :math:`x \sim \text{Bernoulli}(p)`, drawn anew at every call for training, and
      drawn once for evaluation;
    - ``"fixed"``: :math:`x \sim \text{Bernoulli}(p)`, drawn once and the same for both; ``values``
      are then this draw. :func:`aevb.data.load` makes it.

    The draw for evaluation comes from a CPU generator seeded by ``(seed, name)``: it is the same
    at every call and on every device.

    References:
        On the quantitative analysis of deep belief networks (Salakhutdinov & Murray, 2008),
        https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf

    Args:
        values: Stored values, ``(N, *shape)``.
        name: ``"train"``, ``"validation"`` or ``"test"``.
        divisor: What scales the stored values: 255 for 8-bit pixels.
        binarize: ``"none"``, ``"fixed"`` or ``"dynamic"``.
        seed: Of the draw for evaluation.
        indices: Position of each datapoint in the array or file that it comes from, ``(N,)`` int64
            on the CPU; by default 0..N−1.
        ids: What that file calls each datapoint, ``(N,)`` strings, or None.

    Raises:
        ValueError: If ``binarize`` is unknown, the values cannot be binarized, or there are not
            as many indices or ids as datapoints.

    Example:
        >>> pixels = torch.tensor([[0, 255], [255, 51]], dtype=torch.uint8)
        >>> split = Split(pixels, divisor=255.0)
        >>> split.gather(torch.tensor([1]))
        tensor([[1.0000, 0.2000]])
        >>> len(split), split.shape
        (2, (2,))
    """

    values: Tensor
    name: str = "train"
    divisor: float = 1.0
    binarize: str = "none"
    seed: int = 0
    indices: Tensor = None  # type: ignore[assignment]
    ids: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        """Refuses what could not be presented."""
        if self.indices is None:
            object.__setattr__(  # type: ignore[unreachable] # of the default alone
                self, "indices", torch.arange(len(self.values))
            )
        if self.values.ndim < 2 or self.values.numel() == 0:
            found = tuple(self.values.shape)
            raise ValueError(f"values: shape {found}; expected (N, *shape), not empty")
        for name, named in (("indices", self.indices), ("ids", self.ids)):
            if named is not None and len(named) != len(self.values):
                raise ValueError(f"{name}: {len(named)}; expected one for each datapoint")
        if self.divisor <= 0:
            raise ValueError(f"divisor: {self.divisor}; expected a positive number")
        check_binarize(self.binarize)
        if self.binarize != "none":
            check_probabilities(self.values, self.divisor, self.binarize)
        if self.binarize == "fixed" and (self.values.dtype, self.divisor) != (torch.uint8, 1):
            raise ValueError(
                f"values: dtype {self.values.dtype} with divisor {self.divisor}; expected the "
                "draw itself (uint8, divisor 1) with binarize='fixed': use aevb.data.load"
            )

    def __len__(self) -> int:
        """Number of datapoints."""
        return len(self.values)

    def __repr__(self) -> str:
        """One line: name, size, storage, binarization and device."""
        return (
            f"Split({self.name!r}, {len(self)} x {self.shape}, {self.values.dtype}, "
            f"divisor={self.divisor:g}, binarize={self.binarize!r}, device='{self.device}')"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datapoint."""
        return tuple(self.values.shape[1:])

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return self.values.device

    def to(self, device: torch.device | str) -> Split:
        """The same numbers, with the values on another device.

        Example:
            >>> Split(torch.zeros(3, 2)).to("cpu").device
            device(type='cpu')
        """
        return replace(self, values=self.values.to(device))

    def first(self, limit: int | None) -> Split:
        """The same split cut short.

        Args:
            limit: At most so many datapoints, the first ones; None for all.

        Returns:
            A split that shares its values with this one.

        Raises:
            ValueError: If `limit` is below 1.

        Example:
            >>> len(Split(torch.zeros(9, 2)).first(4))
            4
        """
        rows = slice(self._limited(limit))
        ids = None if self.ids is None else self.ids[rows]
        return replace(self, values=self.values[rows], indices=self.indices[rows], ids=ids)

    def joined(self, other: Split) -> Split:
        """Both splits as one, under this one's name.

        Args:
            other: With values of the same kind.

        Raises:
            ValueError: If the splits present their values differently.

        Example:
            >>> len(Split(torch.zeros(3, 2)).joined(Split(torch.zeros(2, 2), name="validation")))
            5
        """
        kinds = [(s.shape, s.divisor, s.binarize, s.values.dtype) for s in (self, other)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"other presents {kinds[1]}; expected {kinds[0]}")
        values, indices = (
            torch.cat([getattr(self, name), getattr(other, name)])
            for name in ("values", "indices")
        )
        named = self.ids is not None and other.ids is not None
        ids = np.concatenate([self.ids, other.ids]) if named else None
        return replace(self, values=values, indices=indices, ids=ids)

    def gather(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Present datapoints for training.

        Args:
            indices: Positions in 0..N−1, ``(B,)``, int64 or int32, on any device.
            generator: Source of the dynamic draw, on the device of the values; None for torch's
                global generator.

        Returns:
            Scaled or binarized values, ``(B, *shape)``, on the device of the values; float64 if
            the values are, else float32.

        Raises:
            ValueError: If the indices are no such positions (their range is checked on the CPU
                only, so as not to wait for a GPU), or the generator is on another device.

        Example:
            >>> Split(torch.ones(9, 28, 28), binarize="dynamic").gather(torch.arange(4)).shape
            torch.Size([4, 28, 28])
        """
        _check_indices(indices, len(self))
        return self.present(indices.to(self.device, non_blocking=True), generator)

    def present(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What ``gather`` does without its checks: nothing but operations on tensors."""
        pixels = scale(self.values.index_select(0, indices), self.divisor)
        return bernoulli(pixels, generator) if self.binarize == "dynamic" else pixels

    def evaluation(self, limit: int | None = None) -> Tensor:
        """Present the split for evaluation, the same numbers at every call.

        Args:
            limit: At most so many datapoints, the first ones; None for all.

        Returns:
            Scaled or binarized values, ``(min(limit, N), *shape)``, a copy in the dtype of
            ``gather``.

        Raises:
            ValueError: If ``limit`` is below 1.

        Example:
            >>> Split(torch.zeros(9, 28, 28)).evaluation(limit=5).shape
            torch.Size([5, 28, 28])
        """
        return self._rows(0, self._limited(limit))

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Tensor]:
        """Present the split for evaluation in consecutive chunks.

        Args:
            batch_size: Datapoints of a chunk; the last may be shorter.
            limit: As for ``evaluation``.

        Returns:
            Chunks, ``(B, *shape)``, which joined equal ``evaluation(limit)``.

        Raises:
            ValueError: If ``batch_size`` or ``limit`` is below 1.

        Example:
            >>> [len(chunk) for chunk in Split(torch.zeros(7, 2)).batches(3)]
            [3, 3, 1]
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size}; expected at least 1")
        stop = self._limited(limit)
        starts = range(0, stop, batch_size)
        return (self._rows(start, min(start + batch_size, stop)) for start in starts)

    def _limited(self, limit: int | None) -> int:
        if limit is not None and limit < 1:
            raise ValueError(f"limit: {limit}; expected at least 1, or None for all")
        return len(self) if limit is None else min(limit, len(self))

    def _rows(self, start: int, stop: int) -> Tensor:
        if self.binarize == "dynamic":
            return self._draw[start:stop].to(presented_dtype(self.values))
        return scale(self.values[start:stop], self.divisor)

    @cached_property
    def _draw(self) -> Tensor:
        draw = draw_once(self.values, self.divisor, self.name, self.seed)
        return draw.to(self.device)


def _check_indices(indices: Tensor, count: int) -> None:
    if indices.ndim != 1 or indices.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"indices: shape {tuple(indices.shape)} and dtype {indices.dtype}; "
            "expected shape (B,) and int64"
        )
    if indices.device.type == "cpu" and len(indices):
        low, high = (int(bound) for bound in torch.aminmax(indices))
        if low < 0 or high >= count:
            raise ValueError(f"indices: between {low} and {high}; expected 0..{count - 1}")

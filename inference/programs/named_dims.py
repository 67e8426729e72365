"""Tensors whose dimensions have names, as Pyro's packed ones, with the event behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Named", "agree", "named", "taken_at"]

# Relative rounding of float32 terms summed in any order; what is other differs by far more.
_AGREEMENT = 1e-4


@dataclass(frozen=True)
class Named:
    """A tensor whose leading dimensions have names: ``(*dims, *event)``.

    Example:
        >>> pair = Named(torch.zeros(3, 2), ("a", "b"))
        >>> pair.along(["b", "c", "a"]).shape
        torch.Size([2, 1, 3])
    """

    values: Tensor
    dims: tuple[str, ...]

    def along(self, dims: Sequence[str]) -> Tensor:
        """The values with these dimensions in order, of size 1 where there is none."""
        order = [self.dims.index(dim) for dim in dims if dim in self.dims]
        rest = range(len(self.dims), self.values.ndim)
        sizes = [self.values.shape[self.dims.index(d)] if d in self.dims else 1 for d in dims]
        event = self.values.shape[len(self.dims) :]
        return self.values.permute((*order, *rest)).reshape((*sizes, *event))

    def placed(self, where: Mapping[str, int], rank: int) -> Tensor:
        """The values with each dimension at a place counted from the event's left.

        Args:
            where: Place of each, negative.
            rank: Least number of dimensions before the event.
        """
        dims = sorted(self.dims, key=lambda dim: where[dim])
        values = self.along(dims)
        shape = [1] * max(rank, max((-where[dim] for dim in dims), default=0))
        for dim, size in zip(dims, values.shape, strict=False):
            shape[where[dim]] = size
        return values.reshape((*shape, *values.shape[len(dims) :]))


def named(value: Tensor, event_dim: int, names: Mapping[int, str]) -> Named:
    """A tensor with those dimensions named that hold more than one element.

    Args:
        value: ``(*batch, *event)``.
        event_dim: Dimensions of the event.
        names: Of the batch's, counted from its right.
    """
    batch = value.shape[: value.ndim - event_dim]
    kept = [i for i, size in enumerate(batch) if size > 1]
    dims = tuple(names.get(i - len(batch), f"undeclared {i - len(batch)}") for i in kept)
    return Named(value.reshape([batch[i] for i in kept] + list(value.shape[len(batch) :])), dims)


def taken_at(source: Named, places: Mapping[str, Named]) -> Named:
    """The entries at places along some dimensions, for each element of where places are given.

    Args:
        source: What is taken from.
        places: Integers by dimension, with dimensions of their own.
    """
    kept = [dim for dim in source.dims if dim not in places]
    for dim in source.dims:
        kept += [own for own in places[dim].dims if own not in kept] if dim in places else []
    index = []
    for dim, size in zip(source.dims, source.values.shape, strict=False):
        every = Named(torch.arange(size, device=source.values.device), (dim,))
        index.append(places.get(dim, every).along(kept))
    return Named(source.values[tuple(index)], tuple(kept)) if index else source


def agree(found: Named, truth: Named, where: Named | None = None) -> bool:
    """Whether tensors are equal to rounding, relative to the second and to its mean size.

    Args:
        found: One, without event.
        truth: The other.
        where: Elements that count; all by default.
    """
    dims = list(dict.fromkeys((*found.dims, *truth.dims, *(where.dims if where else ()))))
    first, second = torch.broadcast_tensors(found.along(dims), truth.along(dims))
    if where is not None:
        first, second = (torch.where(where.along(dims), each, 0.0) for each in (first, second))
    finite = second[torch.isfinite(second)]
    size = float(finite.abs().mean()) if len(finite) else 0.0
    return torch.allclose(first, second, _AGREEMENT, _AGREEMENT * (1e-3 + size), equal_nan=True)

"""Rows as a file holds them: their values, and the names that it has for rows and columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_VALUES", "Rows", "Table", "listed", "refuse_larger"]

# 8 GiB in float64: a small file may claim to unpack to any size
MOST_VALUES = 2**30

_SHOWN = 5  # names that an error lists


@dataclass(frozen=True)
class Table:
    """How a table is read; all other columns are the features.

    Args:
        id_column: Column that names the rows, kept with whatever is made of them. By default the
            index of the file, where it has one: the first column of a ``.csv`` without a name, the
            index of pandas in ``.parquet``, ``obs_names`` in ``.h5ad``.
        columns: The features, in this order; None for all.
        ignore: Columns that are left out, such as labels.
        layer: Of an ``.h5ad`` file, as ``"counts"``; None for its ``X``.

    Example:
        >>> Table(id_column="cell", ignore=["label"]).layer is None
        True
    """

    id_column: str | None = None
    columns: Sequence[str] | None = None
    ignore: Sequence[str] = ()
    layer: str | None = None

    def features(self, found: Sequence[str], where: str) -> list[int]:
        """Positions of the features among the columns of a file.

        Args:
            found: Names of all columns.
            where: The file, for the errors.

        Raises:
            ValueError: If a column that was named is not there, or none is left.

        Example:
            >>> Table(id_column="cell", ignore=["b"]).features(["cell", "a", "b", "c"], "x.csv")
            [1, 3]
        """
        place = {name: position for position, name in enumerate(found)}
        if unknown := [n for n in (*(self.columns or ()), *self.ignore) if n not in place]:
            raise ValueError(f"{where}: has no column {listed(unknown)}; it has {listed(found)}")
        left_out = {self.id_column, *self.ignore}
        chosen = found if self.columns is None else self.columns
        places = [place[name] for name in chosen if name not in left_out]
        if not places:
            raise ValueError(f"{where}: no columns are left as features")
        return places


class Rows(NamedTuple):
    """Datapoints in the order of their file.

    Attributes:
        array: Values, ``(N, *shape)``.
        ids: What the file calls each row, ``(N,)`` strings; None where it has no names.
        columns: What it calls the features; None where it has no names.

    Example:
        >>> Rows(np.zeros((3, 2))).ids is None
        True
    """

    array: NDArray[Any]
    ids: NDArray[np.str_] | None = None
    columns: tuple[str, ...] | None = None


def listed(names: Sequence[str]) -> str:
    """The first few names, for an error.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{name:.40}" for name in names[:_SHOWN]) + more


def refuse_larger(shape: Sequence[int], where: str) -> None:
    """Refuse what a file only claims to hold, before memory is asked for.

    Raises:
        ValueError: If there are more than ``MOST_VALUES`` values.

    Example:
        >>> refuse_larger((2**20, 2**20), "x.h5ad")
        Traceback (most recent call last):
        ValueError: x.h5ad: 1,048,576 × 1,048,576 values; at most 1,073,741,824 are read: ...
    """
    count = 1
    for size in shape:
        count *= int(size)
    if count > MOST_VALUES:
        sizes = " × ".join(f"{int(size):,}" for size in shape)
        raise ValueError(
            f"{where}: {sizes} values; at most {MOST_VALUES:,} are read: choose rows or columns"
        )

"""Datapoints that a dataset has not seen, prepared as it was itself."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from aevb.data.binarization import check_probabilities, draw_once
from aevb.data.rows import Rows, Table
from aevb.data.sources import DATASETS, Source, read, read_rows
from aevb.data.splits import Split
from aevb.data.values import interpret

if TYPE_CHECKING:
    from aevb.data.datasets import Dataset

__all__ = ["read_new"]


def read_new(dataset: Dataset, source: Source, table: Table | None = None) -> Split:
    """See :meth:`aevb.data.Dataset.new`."""
    rows = _rows(dataset, source, table)
    where = str(source) if isinstance(source, (str, os.PathLike)) else "source"
    if rows.array.shape[1:] != dataset.shape:
        raise ValueError(
            f"{where}: datapoints of shape {rows.array.shape[1:]}; expected {dataset.shape}, "
            f"as of {dataset.name}"
        )
    array, divisor = _scaled(rows.array, dataset, where)
    values, binarize, seed = torch.from_numpy(array), dataset.train.binarize, dataset.train.seed
    if binarize == "fixed":
        check_probabilities(values, divisor, binarize)
        values, divisor = draw_once(values, divisor, "new", seed), 1.0
    return Split(values, "new", divisor, binarize, seed, ids=rows.ids)


def _rows(dataset: Dataset, source: Source, table: Table | None) -> Rows:
    if isinstance(source, str) and source in DATASETS:
        return Rows(np.concatenate(read(source).partition[:3]))
    table = table or Table(dataset.table.id_column, layer=dataset.table.layer)
    if table.columns is None and dataset.columns is not None:
        table = replace(table, columns=dataset.columns, ignore=())
    return read_rows(source, table)


def _scaled(array: NDArray[Any], dataset: Dataset, where: str) -> tuple[NDArray[Any], float]:
    """The array in the form in which this dataset would be stored, and its divisor."""
    real = np.float64 if dataset.dtype == "float64" else np.float32
    if array.dtype.kind not in "iu":
        values = interpret(array, where, minimum=1).array.astype(real)
        outside = dataset.divisor != 1 and not 0 <= values.min() <= values.max() <= 1
        if outside:
            raise ValueError(
                f"{where}: decimals from {values.min():g} to {values.max():g}; expected whole "
                f"numbers from 0 to {dataset.divisor:g}, as {dataset.name} has, or these divided "
                f"by {dataset.divisor:g}"
            )
        return values, 1.0
    least, most = int(array.min(initial=0)), int(array.max(initial=0))
    if dataset.divisor != 1 and not 0 <= least <= most <= dataset.divisor:
        raise ValueError(
            f"{where}: whole numbers from {least} to {most}; expected 0 to {dataset.divisor:g}, "
            f"as {dataset.name} has"
        )
    meaning = "counts" if least >= 0 else "auto"
    stored = interpret(array, where, meaning, minimum=1).array  # type: ignore[arg-type]
    return (stored.astype(real) if real is np.float64 else stored), dataset.divisor

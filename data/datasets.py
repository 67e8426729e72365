""":func:`load`: any source of data as three splits that know how they were made."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.binarization import check_binarize, check_probabilities, draw_once
from aevb.data.new_data import read_new
from aevb.data.partitions import Partition
from aevb.data.rows import Table
from aevb.data.seeds import fresh_if_none
from aevb.data.sources import DATASETS, Source, read
from aevb.data.splits import Split
from aevb.data.tables import html_table
from aevb.data.values import Meaning

__all__ = ["Datapoints", "Dataset", "load"]


class Datapoints(NamedTuple):
    """Datapoints as evaluation sees them, and which they are.

    Attributes:
        values: ``(B, *shape)``.
        indices: Position of each in the array or file that it comes from, ``(B,)``.
        ids: What that file calls each, ``(B,)`` strings, or None.
        splits: Name of the split that each is in, ``(B,)``.

    Example:
        >>> load("digits").datapoints("all").indices[:4]
        tensor([0, 1, 2, 3])
    """

    values: Tensor
    indices: Tensor
    ids: NDArray[np.str_] | None
    splits: NDArray[np.str_]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three splits and where they come from; made by :func:`load`.

    Attributes:
        name: Of the dataset, or stem of its file.
        train: To learn from.
        validation: To choose by.
        test: To report.
        source: The path it was read from, or what stands in for one.
        split_rule: How the splits were chosen, in words.
        divisor: What scales the raw values.
        dtype: NumPy's name of the dtype of the raw values.
        sha256: Fingerprint of the raw values of the three splits.
        columns: Names of the features, where the file has them.
        table: How a table was read.

    Example:
        >>> load("digits", binarize="dynamic")
        Dataset('digits': train 1297, validation 250, test 250, shape (8, 8), binarize='dynamic')
    """

    name: str
    train: Split
    validation: Split
    test: Split
    source: str
    split_rule: str
    divisor: float
    dtype: str
    sha256: str
    columns: tuple[str, ...] | None = None
    table: Table = Table()

    def __repr__(self) -> str:
        """One line: name, sizes, shape and binarization."""
        sizes = ", ".join(f"{split.name} {len(split)}" for split in self._splits)
        return (
            f"Dataset({self.name!r}: {sizes}, shape {self.shape}, "
            f"binarize={self.train.binarize!r})"
        )

    def _repr_html_(self) -> str:
        """What :meth:`record` says, as a table."""
        record = self.record()
        sizes = ", ".join(f"{name} {size:,}" for name, size in record.pop("sizes").items())
        rows = {"sizes": sizes, **record, "sha256": self.sha256[:12] + "…"}
        return html_table(f"Dataset {rows.pop('name')!r}", rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datapoint."""
        return self.train.shape

    def to(self, device: torch.device | str) -> Dataset:
        """The same numbers, with the values on another device.

        Example:
            >>> load("digits").to("cpu").test.device
            device(type='cpu')
        """
        train, validation, test = (split.to(device) for split in self._splits)
        return replace(self, train=train, validation=validation, test=test)

    def datapoints(self, split: str = "test", limit: int | None = None) -> Datapoints:
        """The datapoints of a split, or of all of them, as evaluation sees them.

        Args:
            split: ``"train"``, ``"validation"``, ``"test"``, or ``"all"``, in the order of the
                file, or, where there were several, one split after the other.
            limit: Only the first so many.

        Raises:
            ValueError: If there is no such split, or ``limit`` is below 1.

        Example:
            >>> values = torch.arange(40.0).reshape(20, 2)
            >>> torch.equal(load(values).datapoints("all").values, values)
            True
        """
        chosen = [each for each in self._splits if split in (each.name, "all")]
        if not chosen:
            raise ValueError(f"split: {split!r}; expected train, validation, test or all")
        found = _datapoints(chosen, None if split == "all" else limit)
        if split == "all":
            order = found.indices.argsort(stable=True)
            # the positions of one file; those of several begin anew
            if torch.equal(found.indices[order], torch.arange(len(order))):
                found = _chosen(found, order)
            if limit is not None:
                found = _chosen(found, torch.arange(min(limit, len(order))))
        return found

    def new(self, source: Source, table: Table | None = None) -> Split:
        """Other datapoints under this dataset's own preprocessing.

        Whole numbers are scaled as this dataset's are. Decimals are presented as they are: between
        0 and 1 where this dataset is scaled. Columns are found by their names, where both have
        them. What is binarized here is drawn once there.

        Args:
            source: As of :func:`load`; of an ``.npz`` file exactly one array.
            table: How a table is read; by default as this dataset's was.

        Returns:
            All rows in their order, named ``"new"``.

        Raises:
            ValueError: If they cannot be read, or are of another kind or shape.

        Example:
            >>> load("digits").new(np.full((2, 8, 8), 4)).evaluation().unique()
            tensor([0.2500])
        """
        return read_new(self, source, table)

    def as_counts(self) -> Dataset:
        """The same 8-bit values as counts, presented unscaled, where they were taken for pixels.

        Raises:
            ValueError: If they are binarized.

        Example:
            >>> photons = load(torch.full((20, 3), 200, dtype=torch.uint8))
            >>> photons.as_counts().test.evaluation().unique()
            tensor([200.])
        """
        if self.divisor != 255 or self.name in DATASETS:
            return self
        if self.train.binarize != "none":
            raise ValueError(
                f"binarize: {self.train.binarize!r} would take counts for pixels; use "
                "binarize='none'"
            )
        train, validation, test = (replace(split, divisor=1.0) for split in self._splits)
        return replace(self, train=train, validation=validation, test=test, divisor=1.0)

    def record(self) -> dict[str, Any]:
        """What a run must write down to say which data it saw, JSON-able.

        ``divisor``, ``dtype`` and ``sha256`` describe the raw values: they do not depend on
        ``binarize`` and ``seed``.

        Example:
            >>> record = load("digits").record()
            >>> record["sizes"], record["divisor"], record["dtype"], record["shape"]
            ({'train': 1297, 'validation': 250, 'test': 250}, 16.0, 'uint8', [8, 8])
        """
        return {
            "name": self.name,
            "source": self.source,
            "sizes": {split.name: len(split) for split in self._splits},
            "split_rule": self.split_rule,
            "binarize": self.train.binarize,
            "seed": self.train.seed,
            "divisor": self.divisor,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "sha256": self.sha256,
        }

    @property
    def _splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.validation, self.test


def load(
    source: Source,
    *,
    root: str | os.PathLike[str] | None = None,
    binarize: str = "none",
    download: bool = True,
    seed: int | None = 0,
    kind: Meaning = "auto",
    table: Table = Table(),
) -> Dataset:
    """Load a dataset into memory and split it into train, validation and test.

    Named datasets have their usual splits. Anything else is split 80/10/10 by a permutation that
    depends on their number alone, unless an ``.npz`` file holds ``train`` and ``test``.

    The dtype says what values are: uint8 are pixels and presented divided by 255, bool are binary
    values, other integers are counts and presented as they are, and so are floats. Tables have
    one feature a column.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), for MNIST and Frey faces,
        https://arxiv.org/abs/1312.6114

    Args:
        source: One of ``DATASETS``; the path of an ``.npy`` or ``.npz`` file, of a table
            (``.csv``, ``.tsv``, ``.parquet``, ``.h5ad``), or of a folder of images of one size and
            mode; or a tensor or array, ``(N, *shape)``. A file or folder named like a dataset is
            reached as a ``Path`` or with ``./`` before it.
        root: The folder of the named datasets; None for ``$AEVB_DATA``, else the user's cache.
        binarize: ``"none"``, ``"fixed"`` (one draw for training and evaluation) or ``"dynamic"``
            (training draws at every presentation). See :class:`Split`.
        download: Whether to download a named dataset that is not in ``root``.
        seed: Of the binary draws; it does not change the splits. None draws one afresh, which
            :meth:`Dataset.record` holds.
        kind: What the values of an array, file or folder are whatever their dtype:
            ``"counts"`` or ``"pixels"``; ``"auto"`` lets the dtype tell.
        table: How a table is read: which column holds ids, which are features.

    Returns:
        The dataset, on the CPU: grey images are ``(H, W)``, colour images ``(3, H, W)``.

    Raises:
        FileNotFoundError: If a named dataset is missing and was not, or could not be, downloaded.
        ValueError: If the source is unknown, damaged or no data, or cannot be binarized.

    Example:
        >>> digits = load("digits")
        >>> digits.train.gather(torch.arange(100)).shape
        torch.Size([100, 8, 8])
        >>> load(torch.zeros(50, 3)).test.evaluation().shape
        torch.Size([5, 3])
    """
    seed = fresh_if_none(seed)
    check_binarize(binarize)
    raw = read(source, root=root, download=download, kind=kind, table=table)
    parts = raw.partition
    train, validation, test = (
        _split(torch.from_numpy(array), raw.divisor, name, binarize, seed, places, raw.ids)
        for name, array, places in zip(
            ("train", "validation", "test"), parts[:3], parts.indices, strict=True
        )
    )
    return Dataset(
        name=raw.name,
        train=train,
        validation=validation,
        test=test,
        source=raw.source,
        split_rule=parts.rule,
        divisor=raw.divisor,
        dtype=str(parts.train.dtype),
        sha256=_fingerprint(parts),
        columns=raw.columns,
        table=table,
    )


def _split(
    values: Tensor,
    divisor: float,
    name: str,
    binarize: str,
    seed: int,
    places: NDArray[np.int64],
    ids: NDArray[np.str_] | None,
) -> Split:
    if binarize == "fixed":
        check_probabilities(values, divisor, binarize)
        values, divisor = draw_once(values, divisor, name, seed), 1.0
    own = None if ids is None else ids[places]
    return Split(values, name, divisor, binarize, seed, torch.from_numpy(places), own)


def _datapoints(splits: list[Split], limit: int | None) -> Datapoints:
    values = torch.cat([split.evaluation(limit) for split in splits])
    splits = [split.first(limit) for split in splits]
    ids = [split.ids for split in splits if split.ids is not None]
    return Datapoints(
        values,
        torch.cat([split.indices for split in splits]),
        np.concatenate(ids) if len(ids) == len(splits) else None,
        np.repeat([split.name for split in splits], [len(split) for split in splits]),
    )


def _chosen(found: Datapoints, order: Tensor) -> Datapoints:
    places = order.numpy()
    return Datapoints(
        found.values[order.to(found.values.device)],
        found.indices[order],
        None if found.ids is None else found.ids[places],
        found.splits[places],
    )


def _fingerprint(parts: Partition) -> str:
    digest = hashlib.sha256()
    for array in parts[:3]:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

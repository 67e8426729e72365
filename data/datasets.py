""":func:`load`: any source of data as three splits that know how they were made."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aevb.data.binarization import check_binarize, check_probabilities, draw_once
from aevb.data.partitions import Partition
from aevb.data.seeds import fresh_if_none
from aevb.data.sources import Source, read
from aevb.data.splits import Split
from aevb.data.tables import html_table

__all__ = ["Dataset", "load"]


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
) -> Dataset:
    """Load a dataset into memory and split it into train, validation and test.

    Named datasets have their usual splits. Anything else is split 80/10/10 by a permutation that
    depends on their number alone, unless an ``.npz`` file holds ``train`` and ``test``.

    The dtype says what values are: uint8 are pixels and presented divided by 255, bool are binary
    values, other integers are counts and presented as they are, and so are floats.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), for MNIST and Frey faces,
        https://arxiv.org/abs/1312.6114

    Args:
        source: One of ``DATASETS``; the path of an ``.npy`` or ``.npz`` file, or of a folder of
            images of one size and mode; or a tensor or array, ``(N, *shape)``. A file or folder
            named like a dataset is reached as a ``Path`` or with ``./`` before it.
        root: The folder of the named datasets; None for ``$AEVB_DATA``, else the user's cache.
        binarize: ``"none"``, ``"fixed"`` (one draw for training and evaluation) or ``"dynamic"``
            (training draws at every presentation). See :class:`Split`.
        download: Whether to download a named dataset that is not in ``root``.
        seed: Of the binary draws; it does not change the splits. None draws one afresh, which
            :meth:`Dataset.record` holds.

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
    raw = read(source, root=root, download=download)
    parts = raw.partition
    train, validation, test = (
        _split(torch.from_numpy(array), raw.divisor, name, binarize, seed)
        for name, array in zip(("train", "validation", "test"), parts[:3], strict=True)
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
    )


def _split(values: Tensor, divisor: float, name: str, binarize: str, seed: int) -> Split:
    if binarize == "fixed":
        check_probabilities(values, divisor, binarize)
        values, divisor = draw_once(values, divisor, name, seed), 1.0
    return Split(values, name, divisor, binarize, seed)


def _fingerprint(parts: Partition) -> str:
    digest = hashlib.sha256()
    for array in parts[:3]:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

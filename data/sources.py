"""Where datapoints come from: a name, a file, a folder or an array in memory."""

import difflib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.locations import data_root
from aevb.data.partitions import Partition, by_permutation, by_position
from aevb.data.readers.arrays import read_array, read_npz, shuffled
from aevb.data.readers.folders import read_folder
from aevb.data.readers.frey import frey_file, read_frey
from aevb.data.readers.h5ad import read_h5ad
from aevb.data.readers.tables import read_parquet, read_text
from aevb.data.readers.torchvision_sets import read_set
from aevb.data.rows import Rows, Table
from aevb.data.values import Meaning, from_tensor

__all__ = ["DATASETS", "Raw", "Source", "read", "read_rows"]

Source = str | os.PathLike[str] | NDArray[Any] | Tensor

# Train, validation and test datapoints. The AEVB paper does not state its split of the Frey faces;
# these are the VampPrior code's (Tomczak & Welling, 2018). Random frames of one video are near
# neighbours of each other, so that figures on its test set are optimistic.
SIZES = {
    "digits": (1_297, 250, 250),
    "mnist": (50_000, 10_000, 10_000),
    "fashion-mnist": (50_000, 10_000, 10_000),
    "kmnist": (50_000, 10_000, 10_000),
    "cifar10": (45_000, 5_000, 10_000),
    "svhn": (65_931, 7_326, 26_032),
    "frey-face": (1_565, 200, 200),
}

DATASETS = tuple(SIZES)

_ARRAYS = (".npy", ".npz")
_TABLES = {
    ".csv": read_text,
    ".tsv": read_text,
    ".parquet": read_parquet,
    ".h5ad": read_h5ad,
}


class Raw(NamedTuple):
    """A dataset as it was read, before any binarization.

    Attributes:
        name: Of the dataset, or stem of its file.
        source: The path it was read from, or what stands in for one.
        divisor: What scales the stored values.
        partition: The three parts and the rule that made them.
        ids: What the file calls its rows, in its order, ``(N,)``; None where it has no names.
        columns: What it calls the features; None where it has no names.

    Example:
        >>> read("digits").divisor
        16.0
    """

    name: str
    source: str
    divisor: float
    partition: Partition
    ids: NDArray[np.str_] | None = None
    columns: tuple[str, ...] | None = None


def read(
    source: Source,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    kind: Meaning = "auto",
    table: Table = Table(),
) -> Raw:
    """Read and split a dataset; a string that is one of ``DATASETS`` is always that dataset.

    Args:
        source: As of :func:`aevb.data.load`, as are the others.
        root: The folder of the named datasets; None for the default.
        download: Whether to download what is missing.
        kind: What the values of an array, file or folder are.
        table: How a table is read.

    Returns:
        The dataset in its stored form.

    Raises:
        FileNotFoundError: If a named dataset is missing and was not, or could not be, downloaded.
        ValueError: If the source is none of these, or does not hold what it should.

    Example:
        >>> read(np.zeros((20, 3))).partition.test.shape
        (2, 3)
    """
    if isinstance(source, str) and source in DATASETS:
        return _read_named(source, data_root(root), download)
    path = Path(source).expanduser() if isinstance(source, (str, os.PathLike)) else None
    if path is not None and path.is_file() and path.suffix.lower() == ".npz":
        return Raw(path.stem, str(path.absolute()), *read_npz(path, kind))
    rows = read_rows(source, table)
    name, location = ("tensor" if isinstance(source, Tensor) else "array"), "source"
    if path is not None:
        name, location = path.stem, str(path)
    divisor, partition = shuffled(rows.array, location, kind)
    location = f"{name} in memory" if path is None else str(path.absolute())
    return Raw(name, location, divisor, partition, rows.ids, rows.columns)


def read_rows(source: Source, table: Table = Table()) -> Rows:
    """Read all rows of an array, file or folder in their order, without splitting them.

    Args:
        source: As of :func:`aevb.data.load`, without the named datasets; of an ``.npz`` file
            exactly one array.
        table: How a table is read.

    Returns:
        The values as they are stored, and the names of rows and columns.

    Raises:
        ValueError: If the source is none of these, or does not hold what it should.

    Example:
        >>> read_rows(np.zeros((3, 2))).array.shape
        (3, 2)
    """
    if isinstance(source, Tensor):
        return Rows(from_tensor(source, "source"))
    if isinstance(source, np.ndarray):
        return Rows(source)
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"source: {type(source).__name__}; expected {_expected()}")
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path)
    if path.is_file() and path.suffix.lower() in _ARRAYS:
        return Rows(read_array(path))
    if path.is_file() and path.suffix.lower() in _TABLES:
        return _TABLES[path.suffix.lower()](path, table)
    found = "is no such file" if path.is_file() else "does not exist"
    close = difflib.get_close_matches(str(path).lower(), DATASETS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"source: {str(path)!r} {found}{hint}; expected {_expected()}")


def _read_named(name: str, root: Path, download: bool) -> Raw:
    if name == "digits":
        return _read_digits()
    if name == "frey-face":
        path = frey_file(root, download=download)
        partition = by_permutation(read_frey(path), SIZES[name], str(path))
        return Raw(name, str(path), 255.0, partition)
    location, training, test = read_set(name, root, download=download)
    return Raw(name, location, 255.0, by_position(training, test, SIZES[name], location))


def _read_digits() -> Raw:
    from sklearn.datasets import load_digits

    where = "scikit-learn load_digits"
    images = load_digits().images.astype(np.uint8)  # (1797, 8, 8), levels 0..16
    return Raw("digits", where, 16.0, by_permutation(images, SIZES["digits"], where))


def _expected() -> str:
    return (
        f"one of {', '.join(DATASETS)}, the path of an .npy file, an .npz file, a table "
        f"({', '.join(_TABLES)}) or a folder of images, a torch tensor or a NumPy array"
    )

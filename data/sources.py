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
from aevb.data.readers.arrays import read_npy, read_npz, shuffled
from aevb.data.readers.folders import read_folder
from aevb.data.readers.frey import frey_file, read_frey
from aevb.data.readers.torchvision_sets import read_set
from aevb.data.values import from_tensor

__all__ = ["DATASETS", "Raw", "Source", "read"]

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


class Raw(NamedTuple):
    """A dataset as it was read, before any binarization.

    Attributes:
        name: Of the dataset, or stem of its file.
        source: The path it was read from, or what stands in for one.
        divisor: What scales the stored values.
        partition: The three parts and the rule that made them.

    Example:
        >>> read("digits").divisor
        16.0
    """

    name: str
    source: str
    divisor: float
    partition: Partition


def read(
    source: Source, *, root: str | os.PathLike[str] | None = None, download: bool = True
) -> Raw:
    """Read and split a dataset; a string that is one of ``DATASETS`` is always that dataset.

    Args:
        source: As of :func:`aevb.data.load`, as are the others.
        root: The folder of the named datasets; None for the default.
        download: Whether to download what is missing.

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
    if isinstance(source, Tensor):
        values = from_tensor(source, "source")
        return Raw("tensor", "tensor in memory", *shuffled(values, "source"))
    if isinstance(source, np.ndarray):
        return Raw("array", "array in memory", *shuffled(source, "source"))
    if isinstance(source, (str, os.PathLike)):
        return _read_path(Path(source).expanduser())
    raise ValueError(f"source: {type(source).__name__}; expected {_expected()}")


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


def _read_path(path: Path) -> Raw:
    name, location = path.stem, str(path.absolute())
    if path.is_dir():
        return Raw(name, location, *shuffled(read_folder(path), str(path)))
    if path.is_file() and path.suffix.lower() in (".npy", ".npz"):
        reader = read_npy if path.suffix.lower() == ".npy" else read_npz
        return Raw(name, location, *reader(path))
    found = "is no such file" if path.is_file() else "does not exist"
    close = difflib.get_close_matches(str(path).lower(), DATASETS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"source: {str(path)!r} {found}{hint}; expected {_expected()}")


def _expected() -> str:
    return (
        f"one of {', '.join(DATASETS)}, the path of an .npy file, an .npz file or a folder of "
        "images, a torch tensor or a NumPy array"
    )

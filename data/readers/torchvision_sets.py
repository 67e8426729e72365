"""CIFAR-10 and SVHN: colour 3 x 32 x 32 images, read by torchvision."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.locations import not_found

__all__ = ["read_cifar10", "read_svhn"]


def read_cifar10(root: Path, *, download: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reads CIFAR-10 from torchvision's folder `cifar-10-batches-py`, with its checksums.

    References:
        | Learning multiple layers of features from tiny images (Krizhevsky, 2009)
        | https://www.cs.toronto.edu/~kriz/cifar.html

    Args:
        root: The folder that holds `cifar-10-batches-py`.
        download: Whether to download missing files.

    Returns:
        The training and the test images, levels 0..255 with shape `(N, 3, 32, 32)`.

    Raises:
        FileNotFoundError: If a file is missing and was not, or could not be, downloaded.
        ValueError: If a file has another checksum or cannot be decoded.

    Example:
        >>> read_cifar10(Path("no-such-folder"), download=False)
        Traceback (most recent call last):
        FileNotFoundError: cifar10 is not in root=no-such-folder: expected ...
    """
    from torchvision.datasets import CIFAR10

    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    files = {
        root / CIFAR10.base_folder / name: md5
        for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, meta]
    }
    try:
        parts = [CIFAR10(root, train=train, download=download).data for train in (True, False)]
    except Exception as error:  # torchvision, tarfile and pickle share no error type
        raise _diagnosis("cifar10", root, files, error, download) from error
    training, test = (np.ascontiguousarray(part.transpose(0, 3, 1, 2)) for part in parts)
    return training, test


def read_svhn(root: Path, *, download: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reads SVHN's cropped digits from torchvision's `.mat` files, with their checksums.

    References:
        | Reading digits in natural images with unsupervised feature learning (Netzer et al., 2011)
        | http://ufldl.stanford.edu/housenumbers/

    Args:
        root: The folder that holds `train_32x32.mat` and `test_32x32.mat`.
        download: Whether to download missing files.

    Returns:
        The training and the test images, levels 0..255 with shape `(N, 3, 32, 32)`.

    Raises:
        FileNotFoundError: If a file is missing and was not, or could not be, downloaded.
        ValueError: If a file has another checksum or cannot be decoded.

    Example:
        >>> read_svhn(Path("no-such-folder"), download=False)
        Traceback (most recent call last):
        FileNotFoundError: svhn is not in root=no-such-folder: expected ...
    """
    from torchvision.datasets import SVHN

    splits = ("train", "test")
    files = {root / SVHN.split_list[split][1]: SVHN.split_list[split][2] for split in splits}
    try:
        parts = [SVHN(root, split=split, download=download).data for split in splits]
    except Exception as error:  # torchvision, urllib and scipy share no error type
        raise _diagnosis("svhn", root, files, error, download) from error
    training, test = (np.ascontiguousarray(part) for part in parts)
    return training, test


def _diagnosis(
    name: str, root: Path, files: dict[Path, str], error: Exception, download: bool
) -> Exception:
    """Names the file behind torchvision's error: the missing one, or the one that differs."""
    missing = [path for path in files if not path.is_file()]
    if missing:
        return not_found(name, root, missing, error if download else None)
    for path, expected in files.items():
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != expected:
            return ValueError(
                f"{path} has MD5 {found}; expected {expected}: delete the file and load it again"
            )
    return ValueError(f"{name} in root={root} cannot be decoded ({error}); expected its own files")

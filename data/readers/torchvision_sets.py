"""MNIST and its kin, CIFAR-10 and SVHN: fetched, checked and decoded by torchvision."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.locations import not_found

__all__ = ["TORCHVISION_SETS", "read_set"]

Images = NDArray[np.uint8]

# torchvision's class of each; after those of the grey ones it names their folders too
TORCHVISION_SETS = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "svhn": "SVHN",
}

_SVHN = ("train", "test")

# torchvision reads an idx file whole before it looks at it; the largest of these has 47 MB
_MOST_BYTES = 2**28


def read_set(name: str, root: Path, *, download: bool) -> tuple[str, Images, Images]:
    """Read the images of a dataset from the files where torchvision keeps them.

    torchvision checks the MD5 of what it downloads, and of the files of CIFAR-10 and SVHN whenever
    they are read. Those of the grey sets are kept unpacked: their headers are held against their
    sizes. Of these no labels are needed.

    References:
        Gradient-based learning applied to document recognition (LeCun et al., 1998), for MNIST,
        http://yann.lecun.com/exdb/mnist/; Learning multiple layers of features from tiny images
        (Krizhevsky, 2009), for CIFAR-10, https://www.cs.toronto.edu/~kriz/cifar.html; Reading
        digits in natural images with unsupervised feature learning (Netzer et al., 2011), for
        SVHN, http://ufldl.stanford.edu/housenumbers/

    Args:
        name: A key of ``TORCHVISION_SETS``.
        root: The folder that torchvision calls ``root``.
        download: Whether to download missing files.

    Returns:
        The folder, and the training and the test images, levels 0..255, ``(N, 28, 28)`` or
        ``(N, 3, 32, 32)``.

    Raises:
        FileNotFoundError: If a file is missing and was not, or could not be, downloaded.
        ValueError: If a file has another checksum or cannot be decoded.

    Example:
        >>> read_set("svhn", Path("no-such-folder"), download=False)
        Traceback (most recent call last):
        FileNotFoundError: svhn: not in root=no-such-folder; expected train_32x32.mat, test_32x...
    """
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION_SETS[name])
    return (_colour if name in ("cifar10", "svhn") else _grey)(name, kind, root, download)


def _grey(name: str, kind: Any, root: Path, download: bool) -> tuple[str, Images, Images]:
    folder = root / kind.__name__ / "raw"
    files = [folder / f"{part}-images-idx3-ubyte" for part in ("train", "t10k")]
    failure = None
    if download and not all(map(Path.is_file, files)):
        try:
            kind(root, download=True)
        except Exception as error:  # network, checksum and decoding share no error type
            failure = error  # labels may have failed alone: the images on disk are judged below
    if not all(map(Path.is_file, files)):
        raise not_found(name, root, files, failure) from failure
    return str(folder), _decoded(files[0]), _decoded(files[1])


def _decoded(path: Path) -> Images:
    from torchvision.datasets.mnist import read_image_file

    size = path.stat().st_size
    try:
        if size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} are not read")
        images: Images = read_image_file(str(path)).numpy()
    except Exception as error:  # asserts, lookups and views of the wrong size among them
        raise ValueError(
            f"{path}: {size:,} bytes that cannot be decoded ({error!r}); expected idx images: "
            "delete the file and load it again"
        ) from error
    return images


def _colour(name: str, kind: Any, root: Path, download: bool) -> tuple[str, Images, Images]:
    if name == "cifar10":
        listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        files = {root / kind.base_folder / file: md5 for file, md5 in listed}
        halves: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    else:
        files = {root / kind.split_list[part][1]: kind.split_list[part][2] for part in _SVHN}
        halves = [{"split": part} for part in _SVHN]
    try:
        parts = [kind(root, download=download, **half).data for half in halves]
    except Exception as error:  # torchvision, tarfile, pickle and scipy share no error type
        raise _diagnosis(name, root, files, error, download) from error
    if name == "cifar10":
        parts = [part.transpose(0, 3, 1, 2) for part in parts]
    training, test = map(np.ascontiguousarray, parts)
    return str(root), training, test


def _diagnosis(
    name: str, root: Path, files: dict[Path, Any], error: Exception, download: bool
) -> Exception:
    """The file behind torchvision's error: the missing one, or the one that differs."""
    missing = [path for path in files if not path.is_file()]
    if missing:
        return not_found(name, root, missing, error if download else None)
    for path, expected in files.items():
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != expected:
            return ValueError(
                f"{path}: MD5 {found}; expected {expected}: delete the file and load it again"
            )
    return ValueError(f"{name}: cannot be decoded in {root} ({error}); expected its own files")

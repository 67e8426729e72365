"""MNIST, Fashion-MNIST and KMNIST: grey 28 x 28 images in idx files."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aevb.data.locations import not_found

__all__ = ["FOLDERS", "image_files", "read_images"]

FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's

# The idx format: two zero bytes, the type (8: unsigned byte), the number of axes, and then each
# axis as a big-endian 32-bit integer. http://yann.lecun.com/exdb/mnist/
MAGIC = 0x00000803
HEADER_BYTES = 16


def image_files(name: str, root: Path, *, download: bool) -> tuple[Path, Path]:
    """Finds the training and test images, and has torchvision download what is missing.

    torchvision checks the MD5 of what it downloads.

    Args:
        name: A key of `FOLDERS`.
        root: The folder that holds torchvision's folder of the dataset.
        download: Whether to download missing files.

    Returns:
        The paths of the training images and of the test images.

    Raises:
        FileNotFoundError: If a file is missing and was not, or could not be, downloaded.

    Example:
        >>> image_files("mnist", Path("no-such-folder"), download=False)
        Traceback (most recent call last):
        FileNotFoundError: mnist is not in root=no-such-folder: expected ...
    """
    folder = root / FOLDERS[name] / "raw"
    train, test = folder / "train-images-idx3-ubyte", folder / "t10k-images-idx3-ubyte"
    failure: Exception | None = None
    if download and not (train.is_file() and test.is_file()):
        failure = _download(name, root)
    if not (train.is_file() and test.is_file()):
        raise not_found(name, root, [train, test], failure) from failure
    return train, test


def read_images(path: Path) -> NDArray[np.uint8]:
    """Reads an idx file of images, after holding its header against its size.

    Args:
        path: An uncompressed idx3 file of unsigned bytes.

    Returns:
        Grey levels 0..255 with shape `(N, H, W)`.

    Raises:
        ValueError: If the file is no such file, or is longer or shorter than its header says.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "images"
        >>> _ = path.write_bytes(struct.pack(">4I", 2051, 1, 2, 2) + bytes(4))
        >>> read_images(path).shape
        (1, 2, 2)
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise ValueError(f"{path} has {size} bytes; expected an idx header of 16 and the images")
    magic, *shape = struct.unpack(">4I", header)
    if magic != MAGIC:
        raise ValueError(f"{path} starts with {magic:#010x}; expected {MAGIC:#010x} (idx images)")
    expected = HEADER_BYTES + math.prod(shape)
    if size != expected:
        raise ValueError(
            f"{path} has {size} bytes; expected {expected} for the images of shape "
            f"{tuple(shape)} that its header announces: delete the file and load it again"
        )
    return np.fromfile(path, dtype=np.uint8, offset=HEADER_BYTES).reshape(shape)


def _download(name: str, root: Path) -> Exception | None:
    from torchvision import datasets

    try:
        getattr(datasets, FOLDERS[name])(root, download=True)
    # torchvision also decodes here, and its failures (network, checksum, decoding) share no type.
    # The error is kept for the message; what lies on disk is judged by `read_images`.
    except Exception as error:
        return error
    return None

"""The Frey faces of the AEVB paper: 1,965 grey frames of one video, 28 x 20 pixels."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aevb.data.locations import not_found

__all__ = ["frey_file", "read_frey"]

URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
# seconds without a byte from the server
TIMEOUT = 60

# Of the pixels as (1965, 560) bytes in C order, from a repacked copy of the original file: such
# copies differ in the .mat container alone, so that the file itself is not hashed.
SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"


def frey_file(root: Path, *, download: bool) -> Path:
    """Find ``frey_rawface.mat`` in ``root`` or ``root/FreyFace``, and download it if need be.

    A download gets its name only once it is complete and its pixels have been checked.

    Args:
        root: The folder to look in.
        download: Whether to download a missing file to ``root/FreyFace``.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If the file is missing and was not, or could not be, downloaded.
        ValueError: If what was downloaded does not hold the expected pixels.

    Example:
        >>> frey_file(Path("no-such-folder"), download=False)
        Traceback (most recent call last):
        FileNotFoundError: frey-face: not in root=no-such-folder; expected ...
    """
    candidates = [root / "frey_rawface.mat", root / "FreyFace" / "frey_rawface.mat"]
    for path in candidates:
        if path.is_file():
            return path
    if not download:
        raise not_found("frey-face", root, candidates)
    try:
        _download(candidates[-1])
    except (OSError, http.client.HTTPException) as error:
        raise not_found("frey-face", root, candidates, error) from error
    return candidates[-1]


def read_frey(path: Path, label: str | None = None) -> NDArray[np.uint8]:
    """Read the frames from the variable ``ff`` of a MATLAB file and check their SHA-256.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), https://arxiv.org/abs/1312.6114

    Args:
        path: The file.
        label: What errors call the file, if not by its path.

    Returns:
        Grey levels 0..255, ``(1965, 28, 20)``, in the order of the video.

    Raises:
        ValueError: If the file cannot be decoded or holds other pixels.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "frey_rawface.mat"
        >>> path.touch()
        >>> read_frey(path, "empty.mat")
        Traceback (most recent call last):
        ValueError: empty.mat: cannot be decoded (...); expected a MATLAB file with variable ff
    """
    from scipy.io import loadmat

    label = label or str(path)
    try:
        faces = loadmat(path, appendmat=False)["ff"]
    except Exception as error:  # scipy's reader lets through whatever the bytes provoke
        raise ValueError(
            f"{label}: cannot be decoded ({error}); expected a MATLAB file with variable ff"
        ) from error
    if faces.shape != (560, 1965) or faces.dtype != np.uint8:
        raise ValueError(
            f"{label}: ff of shape {faces.shape} and dtype {faces.dtype}; "
            "expected (560, 1965) and uint8"
        )
    pixels: NDArray[np.uint8] = np.ascontiguousarray(faces.T)
    digest = hashlib.sha256(pixels.data).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{label}: pixels with SHA-256 {digest}; expected {SHA256}")
    return pixels.reshape(-1, 28, 20)


def _download(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder: a rename is atomic only within one file system
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        with urllib.request.urlopen(URL, timeout=TIMEOUT) as response, partial.open("wb") as file:
            shutil.copyfileobj(response, file)
        read_frey(partial, URL)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

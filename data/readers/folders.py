"""A user's own folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.rows import Rows

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "read_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
# 1-bit, grey, colour, palette of colours
MODES = ("1", "L", "RGB", "P")


def read_folder(folder: Path) -> Rows:
    """Read every image below a folder, in the order of the sorted paths.

    1-bit images become bool, grey ones uint8, both ``(H, W)``; RGB and palette images become uint8
    ``(3, H, W)``. Hidden files and folders (names that start with a dot) are passed over.

    Args:
        folder: Searched recursively for files with one of ``SUFFIXES``.

    Returns:
        Levels, ``(N, H, W)`` or ``(N, 3, H, W)``, with the paths within the folder as ids.

    Raises:
        ValueError: If there is no image, one cannot be decoded, has transparency, several frames
            or more than 8 bits per level, or differs from the first in size or mode.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (5, 4)).save(folder / "black.png")
        >>> read_folder(folder).array.shape, read_folder(folder).ids
        ((1, 3, 4, 5), array(['black.png'], dtype='<U9'))
    """
    paths = _images(folder)
    first = _read(paths[0])
    images = np.empty((len(paths), *first.shape), dtype=first.dtype)
    for index, path in enumerate(paths):
        image = _read(path)
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"{path}: image of {_form(image)}; expected {_form(first)} like {paths[0]}"
            )
        images[index] = image
    return Rows(images, np.array([path.relative_to(folder).as_posix() for path in paths]))


def _images(folder: Path) -> list[Path]:
    relative = (path.relative_to(folder) for path in folder.rglob("*"))
    visible = (path for path in relative if not any(part.startswith(".") for part in path.parts))
    names = sorted(path.as_posix() for path in visible if path.suffix.lower() in SUFFIXES)
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        raise ValueError(f"{folder}: no image; expected files with {', '.join(SUFFIXES)}")
    return paths


def _read(path: Path) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if not (problem := _problem(image)):
                levels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except Exception as error:  # each of Pillow's decoders fails in its own way
        raise ValueError(f"{path}: cannot be decoded ({error}); expected an image") from error
    if problem:
        raise ValueError(f"{path}: {problem}; expected one opaque 1-bit, greyscale or RGB image")
    return levels if levels.ndim == 2 else np.ascontiguousarray(levels.transpose(2, 0, 1))


def _problem(image: Image) -> str:
    """What would be lost in silence if the image were read, or nothing."""
    if getattr(image, "n_frames", 1) > 1:
        return "several frames"
    if image.mode not in MODES:
        return f"mode {image.mode}"
    if "transparency" in image.info:
        return "transparency"
    return ""


def _form(image: NDArray[Any]) -> str:
    return f"shape {image.shape} and dtype {image.dtype}"

"""Datapoints as small pictures, and many of them as one."""

import base64
import io
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["Painter", "address", "png", "sheet"]

Pictures = NDArray[np.uint8]

# Height of the bars that stand for a datapoint which is no image, and the most bars.
_BARS = (24, 96)
# Sides of thumbnails beyond which they are made smaller: of few datapoints, and of many.
_THUMBNAIL, _MANY, _THUMBNAIL_OF_MANY = 64, 2_000, 32


class Painter:
    """Turns datapoints into grey or colour levels on the scale of the data.

    Args:
        x: The data, ``(N, *shape)``, which set the scale.

    Example:
        >>> Painter(torch.eye(3)[:, None, :])(torch.full((1, 1, 3), 0.5)).tolist()
        [[[128, 128, 128]]]
    """

    def __init__(self, x: Tensor) -> None:
        low, high = (float(bound) for bound in torch.aminmax(x))
        self.low, self.high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
        shape = tuple(x.shape[1:])
        self.is_image = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))

    def __call__(self, values: Tensor) -> Pictures:
        """``(B, *shape)`` → levels, ``(B, H, W)`` or ``(B, H, W, 3)``."""
        span = max(self.high - self.low, 1e-12)
        levels = ((values.detach().cpu().float() - self.low) / span).nan_to_num(0.0).clamp(0, 1)
        pixels = levels.numpy()
        if not self.is_image:
            pixels = _bars(pixels.reshape(len(pixels), -1))
        elif pixels.ndim == 4:
            pixels = np.moveaxis(pixels, 1, -1)
            pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        return (pixels * 255 + 0.5).astype(np.uint8)


def _bars(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """A bar for each feature, or for each of as many groups of neighbours as there is room for."""
    height, most = _BARS
    groups = np.array_split(np.arange(rows.shape[1]), min(most, rows.shape[1]))
    heights = np.stack([rows[:, group].mean(1) for group in groups], 1)  # shape: (B, bars)
    level = 1 - (np.arange(height) + 0.5) / height
    return (heights[:, None, :] > level[:, None]).astype(np.float32)


def png(pixels: Pictures) -> bytes:
    """One picture as the bytes of a file, ``(H, W)`` or ``(H, W, 3)``."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=pixels.size < 2**16)
    return buffer.getvalue()


def address(pixels: Pictures) -> str:
    """One picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def sheet(pictures: Pictures, columns: int | None = None) -> tuple[bytes, dict[str, Any]]:
    """Many pictures as one, row by row.

    Args:
        pictures: ``(N, H, W)`` or ``(N, H, W, 3)``.
        columns: Pictures in a row; by default such that the sheet is about square.

    Returns:
        The file, and where to find a picture in it: ``columns``, ``width`` and ``height``.

    Example:
        >>> sheet(np.zeros((5, 8, 8), np.uint8))[1]
        {'columns': 3, 'width': 8, 'height': 8}
    """
    num = len(pictures)
    columns = columns or math.ceil(math.sqrt(num))
    side = _THUMBNAIL if num <= _MANY else _THUMBNAIL_OF_MANY
    factor = max(pictures.shape[1:3]) / side
    if factor > 1:
        size = tuple(max(1, round(length / factor)) for length in pictures.shape[2:0:-1])
        pictures = np.stack([np.asarray(Image.fromarray(p).resize(size)) for p in pictures])
    height, width = pictures.shape[1:3]
    rows = math.ceil(num / columns)
    room = np.zeros((rows * columns, *pictures.shape[1:]), np.uint8)
    room[:num] = pictures
    whole = room.reshape(rows, columns, *pictures.shape[1:]).swapaxes(1, 2)
    whole = whole.reshape(rows * height, columns * width, *pictures.shape[3:])
    return png(whole), {"columns": columns, "width": width, "height": height}

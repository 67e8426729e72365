"""From stored values to pixels in [0, 1], and from pixels to binary values."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.data.seeds import stream_seed

__all__ = [
    "BINARIZE",
    "bernoulli",
    "check_binarize",
    "check_probabilities",
    "draw_once",
    "presented_dtype",
    "scale",
]

BINARIZE = ("none", "fixed", "dynamic")

CHUNK = 4096  # datapoints drawn at a time: 50 MB of float32 for 3 x 32 x 32 images


def check_binarize(binarize: str) -> None:
    """Refuses an unknown name of a binarization.

    Args:
        binarize: The name.

    Raises:
        ValueError: If it is none of `BINARIZE`.

    Example:
        >>> check_binarize("fixed")
    """
    if binarize not in BINARIZE:
        raise ValueError(f"binarize is {binarize!r}; expected one of {', '.join(BINARIZE)}")


def check_probabilities(values: Tensor, divisor: float, binarize: str) -> None:
    """Refuses values that are no probabilities once they are scaled.

    Args:
        values: Stored values with shape `(N, *shape)`.
        divisor: What scales them.
        binarize: The binarization asked for, for the error message.

    Raises:
        ValueError: If a scaled value lies outside [0, 1].

    Example:
        >>> check_probabilities(torch.full((3, 2), 16), 16.0, "fixed")
    """
    if values.dtype == torch.uint8 and divisor == 255:
        return
    low, high = (bound.item() / divisor for bound in torch.aminmax(values))
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"values lie between {low:g} and {high:g}; expected values in [0, 1] with "
            f"binarize={binarize!r} (use binarize='none' for counts and reals)"
        )


def presented_dtype(values: Tensor) -> torch.dtype:
    """The dtype in which values are presented: float64 if they are, else float32.

    Args:
        values: Stored values of any shape.

    Returns:
        The dtype.

    Example:
        >>> presented_dtype(torch.zeros(2, dtype=torch.uint8))
        torch.float32
    """
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def scale(values: Tensor, divisor: float, dtype: torch.dtype) -> Tensor:
    """Divides a copy of stored values, with the same rounding on every device.

    Args:
        values: Stored values of any shape.
        divisor: What divides them.
        dtype: Floating dtype of the result.

    Returns:
        The scaled values, a copy on the same device.

    Example:
        >>> scale(torch.tensor([0, 51, 255], dtype=torch.uint8), 255.0, torch.float32)
        tensor([0.0000, 0.2000, 1.0000])
    """
    scaled = values.to(dtype, copy=True)
    if divisor == 1:
        return scaled
    # By a tensor on the device: CUDA divides by a Python number through its reciprocal, whose
    # rounding would differ from the CPU's in the last bit.
    return scaled.div_(torch.full((), divisor, dtype=dtype, device=scaled.device))


def bernoulli(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    r"""Draws \(x = 1[u < p]\) with \(u \sim \text{Uniform}[0, 1)\), so that 0 and 1 stay put.

    Args:
        probabilities: Probabilities \(p\) of any shape.
        generator: Source of \(u\) on the same device; None for torch's global generator.

    Returns:
        Zeros and ones in the shape, dtype and device of `probabilities`.

    Raises:
        ValueError: If the generator is on another kind of device.

    Example:
        >>> bernoulli(torch.tensor([0.0, 1.0]), torch.Generator())
        tensor([0., 1.])
    """
    device, dtype = probabilities.device, probabilities.dtype
    if generator is not None and generator.device.type != device.type:
        raise ValueError(f"generator is on {generator.device}; expected the values' {device}")
    uniform = torch.rand(probabilities.shape, generator=generator, device=device, dtype=dtype)
    return (uniform < probabilities).to(dtype)


def draw_once(values: Tensor, divisor: float, name: str, seed: int) -> Tensor:
    """Draws the one binary copy of a split that its seed and name stand for.

    Args:
        values: Stored values with shape `(N, *shape)`, on any device.
        divisor: What scales them to probabilities.
        name: Name of the split.
        seed: Seed of the dataset.

    Returns:
        Zeros and ones with shape `(N, *shape)`, as uint8 on the CPU.

    Example:
        >>> draw_once(torch.full((3, 2), 255), 255.0, "test", seed=0).sum()
        tensor(6)
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, name))
    draw = torch.empty(values.shape, dtype=torch.uint8)
    for start in range(0, len(values), CHUNK):
        rows = values[start : start + CHUNK].cpu()
        pixels = scale(rows, divisor, presented_dtype(values))
        draw[start : start + CHUNK] = bernoulli(pixels, generator)
    return draw

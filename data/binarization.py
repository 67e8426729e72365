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

# datapoints drawn at a time: 50 MB of float32 for images of 3 × 32 × 32
CHUNK = 4096


def check_binarize(binarize: str) -> None:
    """Refuse a name that is none of ``BINARIZE`` by a ``ValueError``."""
    if binarize not in BINARIZE:
        raise ValueError(f"binarize: {binarize!r}; expected one of {', '.join(BINARIZE)}")


def check_probabilities(values: Tensor, divisor: float, binarize: str) -> None:
    """Refuse values that are no probabilities once they are scaled.

    Args:
        values: Stored values, ``(N, *shape)``.
        divisor: What scales them.
        binarize: What was asked for, as the error says.

    Raises:
        ValueError: If a scaled value lies outside [0, 1].
    """
    if values.dtype == torch.uint8 and divisor == 255:
        return
    low, high = (bound.item() / divisor for bound in torch.aminmax(values))
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"values: between {low:g} and {high:g}; expected values in [0, 1] with "
            f"binarize={binarize!r} (use binarize='none' for counts and reals)"
        )


def presented_dtype(values: Tensor) -> torch.dtype:
    """The dtype in which values are presented: float64 if they are, else float32."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def scale(values: Tensor, divisor: float) -> Tensor:
    """Divide a copy of stored values, with the same rounding on every device.

    Args:
        values: Stored values of any shape.
        divisor: What divides them.

    Returns:
        The scaled values in their :func:`presented_dtype`, a copy on the same device.

    Example:
        >>> scale(torch.tensor([0, 51, 255], dtype=torch.uint8), 255.0)
        tensor([0.0000, 0.2000, 1.0000])
    """
    scaled = values.to(presented_dtype(values), copy=True)
    if divisor == 1:
        return scaled
    # by a tensor on the device: CUDA divides by a Python number through its reciprocal, whose
    # rounding would differ from the CPU's in the last bit
    return scaled.div_(torch.full((), divisor, dtype=scaled.dtype, device=scaled.device))


def bernoulli(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    r"""Draw :math:`x = 1[u < p]` with :math:`u \sim \text{Uniform}[0, 1)`: 0 and 1 stay put.

    Args:
        probabilities: p, of any shape.
        generator: Source of u on the same device; None for torch's global generator.

    Returns:
        Zeros and ones in the shape, dtype and device of ``probabilities``.

    Raises:
        ValueError: If the generator is on another kind of device.

    Example:
        >>> bernoulli(torch.tensor([0.0, 1.0]), torch.Generator())
        tensor([0., 1.])
    """
    device, dtype = probabilities.device, probabilities.dtype
    if generator is not None and generator.device.type != device.type:
        raise ValueError(f"generator: on {generator.device}; expected the values' {device}")
    uniform = torch.rand(probabilities.shape, generator=generator, device=device, dtype=dtype)
    return (uniform < probabilities).to(dtype)


def draw_once(values: Tensor, divisor: float, name: str, seed: int) -> Tensor:
    """Draw the one binary copy of a split that its seed and name stand for.

    Args:
        values: Stored values, ``(N, *shape)``, on any device.
        divisor: What scales them to probabilities.
        name: Of the split.
        seed: Of the dataset.

    Returns:
        Zeros and ones, ``(N, *shape)``, as uint8 on the CPU.

    Example:
        >>> draw_once(torch.full((3, 2), 255), 255.0, "test", seed=0).sum()
        tensor(6)
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, name))
    draw = torch.empty(values.shape, dtype=torch.uint8)
    for start in range(0, len(values), CHUNK):
        pixels = scale(values[start : start + CHUNK].cpu(), divisor)
        draw[start : start + CHUNK] = bernoulli(pixels, generator)
    return draw

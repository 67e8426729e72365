"""What the numbers of an array are (pixels, binary values, counts or reals), told by its dtype."""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["MIN_DATAPOINTS", "Meaning", "Values", "from_tensor", "interpret"]

Meaning = Literal["auto", "pixels", "counts"]

# the fewest that leave one datapoint for each tenth of an 80/10/10 split
MIN_DATAPOINTS = 10

# float32 has 24 significant bits: every integer up to here is exact
MAX_COUNT = 2**24

FORMS = (
    "uint8 (pixels 0..255), bool (binary values), integers (counts) "
    "or float16, float32, float64 (reals)"
)


class Values(NamedTuple):
    """Values as they are stored, and what divides them when they are presented to a model.

    Attributes:
        array: Stored values, ``(N, *shape)``.
        divisor: 255 for pixels, 1 otherwise: ``array / divisor`` is presented.

    Example:
        >>> Values(np.zeros((10, 2), dtype=np.uint8), divisor=255.0).divisor
        255.0
    """

    array: NDArray[Any]
    divisor: float


def interpret(
    array: NDArray[Any], where: str, meaning: Meaning = "auto", *, minimum: int = MIN_DATAPOINTS
) -> Values:
    """Check an array and bring it to the form in which its values are stored.

    The dtype says what the values are. uint8 are pixels, stored as they are and presented divided
    by 255. bool are binary values, stored as uint8 zeros and ones. Other integers are counts,
    stored in at most 32 bits and presented unscaled. float64 stays float64, smaller floats become
    float32, and both are presented as they are.

    Args:
        array: Values, ``(N, *shape)``.
        where: The file or argument that holds them, for the errors.
        meaning: What the values are whatever their dtype: ``"counts"``, whole numbers that are not
            negative, or ``"pixels"``, whole numbers from 0 to 255; ``"auto"`` lets the dtype tell.
        minimum: The fewest datapoints to accept.

    Returns:
        The stored values, ``(N, *shape)``, and their divisor.

    Raises:
        ValueError: If there are no datapoint axes, too few datapoints, no values in a datapoint,
            values that are NaN or infinite, or a dtype or range that cannot be presented exactly.

    Example:
        >>> interpret(np.eye(10, dtype=bool), "mask.npy").array.dtype
        dtype('uint8')
        >>> interpret(np.full((10, 2), 200, dtype=np.uint8), "x.npy", "counts").divisor
        1.0
    """
    _check_shape(array, where, minimum)
    if meaning != "auto":
        return _meant(array, where, meaning)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.dtype == np.uint8:
        return Values(_pixels(array, where), 255.0)
    if kind == "b":
        return Values(array.astype(np.uint8), 1.0)
    if kind in "iu":
        return Values(_counts(array, where), 1.0)
    if kind == "f" and size <= 8:
        _check_finite(array, where)
        return Values(array.astype(np.float64 if size == 8 else np.float32, copy=False), 1.0)
    raise ValueError(f"{where}: dtype {array.dtype}; expected {FORMS}")


def from_tensor(tensor: Tensor, where: str) -> NDArray[Any]:
    """View a tensor of any device and float dtype as a NumPy array of the same values.

    Args:
        tensor: Dense, ``(N, *shape)``.
        where: The argument that holds it, for the errors.

    Returns:
        The values, ``(N, *shape)``; bfloat16 widened to float32, which is exact.

    Raises:
        ValueError: If the tensor is sparse or has a dtype that NumPy lacks.

    Example:
        >>> from_tensor(torch.ones(10, 2, dtype=torch.bfloat16), "source").dtype
        dtype('float32')
    """
    if tensor.layout != torch.strided:
        raise ValueError(f"{where}: layout {tensor.layout}; expected a dense tensor")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        return tensor.resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{where}: dtype {tensor.dtype}; expected {FORMS}") from error


def _check_shape(array: NDArray[Any], where: str, minimum: int) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{where}: masked array; expected all values, without a mask")
    if array.ndim < 2:
        raise ValueError(f"{where}: shape {array.shape}; expected (N, *shape)")
    if 0 in array.shape[1:]:
        raise ValueError(
            f"{where}: shape {array.shape}, whose datapoints are empty; expected (N, *shape) with "
            "at least one value per datapoint"
        )
    if len(array) < minimum:
        raise ValueError(f"{where}: {len(array)} datapoints; expected at least {minimum}")


def _meant(array: NDArray[Any], where: str, meaning: Meaning) -> Values:
    """Values of which the user has said what they are."""
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where}: dtype {array.dtype}; expected {FORMS}")
    _check_finite(array, where)
    low, high = array.min(), array.max()
    most = 255 if meaning == "pixels" else MAX_COUNT
    if low < 0 or high > most or not bool((array == np.rint(array)).all()):
        raise ValueError(
            f"{where}: values from {low:g} to {high:g}"
            f"{', not all whole' * bool((array != np.rint(array)).any())}; expected whole numbers "
            f"from 0 to {most} with kind={meaning!r}"
        )
    if meaning == "pixels":
        return Values(array.astype(np.uint8), 255.0)
    return Values(array.astype(np.int32), 1.0)


def _pixels(array: NDArray[Any], where: str) -> NDArray[Any]:
    # binary data saved as uint8 would be presented as 0 and 1/255, a mistake no model reports
    if array.max() == 1:
        raise ValueError(
            f"{where}: uint8 values that are all 0 or 1; expected pixels 0..255 as uint8, "
            "binary values as bool (array.astype(bool)), or kind='counts'"
        )
    return array


def _counts(array: NDArray[Any], where: str) -> NDArray[Any]:
    low, high = int(array.min()), int(array.max())
    if low < -MAX_COUNT or high > MAX_COUNT:
        raise ValueError(
            f"{where}: integers from {low} to {high}; expected magnitudes up to 2**24, the "
            "largest that float32 presents exactly (give larger ones as float64)"
        )
    small = array.dtype.kind == "i" and array.dtype.itemsize <= 2
    return array.astype(array.dtype.newbyteorder("=") if small else np.int32, copy=False)


def _check_finite(array: NDArray[Any], where: str) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    first = tuple(int(i) for i in np.unravel_index(int(finite.argmin()), array.shape))
    raise ValueError(
        f"{where}: {finite.size - int(finite.sum())} values that are NaN or infinite, the first "
        f"({array[first]}) at index {first}; expected finite values"
    )

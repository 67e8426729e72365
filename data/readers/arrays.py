"""A user's own ``.npy`` and ``.npz`` files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.partitions import Partition, by_permutation, by_position, given, tenths
from aevb.data.values import MIN_DATAPOINTS, Meaning, interpret

__all__ = ["read_array", "read_npz", "shuffled"]

PARTS = ("train", "validation", "test")
NPZ_FORM = "exactly one array, or the arrays train, test and, if there is one, validation"


def read_array(path: Path) -> NDArray[Any]:
    """Read the one array of a file.

    Args:
        path: A file written by ``numpy.save``, or by ``numpy.savez`` of one array.

    Returns:
        The array as it is stored.

    Raises:
        ValueError: If the file cannot be decoded, holds pickled objects, or other than one array.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.zeros((20, 3)))
        >>> read_array(path).shape
        (20, 3)
    """
    arrays = _arrays(path)
    if path.suffix.lower() == ".npy" and list(arrays) != [""]:
        raise ValueError(f"{path}: archive of arrays; expected one array (name it .npz)")
    if len(arrays) != 1:
        raise ValueError(f"{path}: the arrays {sorted(arrays)}; expected exactly one array")
    (array,) = arrays.values()
    return array


def read_npz(path: Path, meaning: Meaning = "auto") -> tuple[float, Partition]:
    """Read an archive of one array, split 80/10/10, or of arrays that are the parts already.

    Without ``validation``, the last tenth of ``train`` (rounded down) becomes it.

    Args:
        path: A file written by ``numpy.savez``, with arrays ``(N, *shape)``.
        meaning: What its values are, as for :func:`aevb.data.values.interpret`.

    Returns:
        The divisor of the values, and the parts.

    Raises:
        ValueError: If the file cannot be decoded, holds pickled objects or other arrays than
            those, or its arrays are no data or differ in shape or meaning.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npz"
        >>> np.savez(path, train=np.zeros((20, 3)), test=np.zeros((5, 3)))
        >>> read_npz(path)[1].validation.shape
        (2, 3)
    """
    arrays = _arrays(path)
    if len(arrays) == 1:
        ((name, array),) = arrays.items()
        return shuffled(array, f"{path} [{name}]", meaning)
    if not {"train", "test"} <= set(arrays) <= set(PARTS):
        raise ValueError(f"{path}: the arrays {sorted(arrays)}; expected {NPZ_FORM}")
    divisors, parts = {}, {}
    for name in (part for part in PARTS if part in arrays):
        least = MIN_DATAPOINTS if name == "train" else 1
        values = interpret(arrays[name], f"{path} [{name}]", meaning, minimum=least)
        divisors[name], parts[name] = values.divisor, values.array
    forms = {name: (arrays[name].dtype, array.shape[1:]) for name, array in parts.items()}
    if len(set(forms.values())) > 1:
        found = ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in forms.items())
        raise ValueError(f"{path}: {found}; expected one dtype and one shape per datapoint")
    return divisors["train"], _given(path, parts)


def shuffled(
    array: NDArray[Any], where: str, meaning: Meaning = "auto"
) -> tuple[float, Partition]:
    """Split one array 80/10/10.

    Args:
        array: Values, ``(N, *shape)``.
        where: The file or argument that holds them, for the errors.
        meaning: What its values are, as for :func:`aevb.data.values.interpret`.

    Returns:
        The divisor of the values, and the parts.

    Raises:
        ValueError: If the array is no data.
    """
    values = interpret(array, where, meaning)
    return values.divisor, by_permutation(values.array, tenths(len(values.array)), where)


def _given(path: Path, parts: dict[str, NDArray[Any]]) -> Partition:
    if "validation" in parts:
        return given(**parts, rule="the file's own train, validation and test")
    held_out = len(parts["train"]) // 10
    sizes = (len(parts["train"]) - held_out, held_out, len(parts["test"]))
    return by_position(parts["train"], parts["test"], sizes, str(path))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a file by name; the one array of a ``.npy`` file has the empty name."""
    try:
        # opened here, since numpy.load forgets to close an archive that it cannot read
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            return {name: loaded[name] for name in loaded.files}
    # of a damaged file: ValueError, EOFError, OSError, BadZipFile, zlib.error, KeyError, ...
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be decoded ({error}); expected arrays written by numpy.save or "
            "numpy.savez, without pickled objects"
        ) from error

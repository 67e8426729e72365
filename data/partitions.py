"""How the datapoints of a source are shared out to train, validation and test."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Partition", "by_permutation", "by_position", "given", "tenths"]

# one for every shuffled dataset: the split is part of the data, not of the experiment, so that it
# does not follow the seed of a run
PERMUTATION_SEED = 0


class Partition(NamedTuple):
    """The three parts of a dataset, and the rule in words that made them.

    Attributes:
        train: Stored values, ``(N, *shape)``, as are the next two.
        validation: To choose by.
        test: To report.
        rule: How the parts were chosen, for the record of a run.
        indices: Positions of each part's datapoints in the array or file that they come from,
            ``(N,)`` int64 each.

    Example:
        >>> part = np.zeros((10, 2))
        >>> given(part, part, part, "given by the user").indices[2][:3]
        array([0, 1, 2])
    """

    train: NDArray[Any]
    validation: NDArray[Any]
    test: NDArray[Any]
    rule: str
    indices: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def tenths(count: int) -> tuple[int, int, int]:
    """Train, validation and test datapoints of an 80/10/10 split; the remainder goes to train.

    Example:
        >>> tenths(1999)
        (1601, 199, 199)
    """
    return count - 2 * (count // 10), count // 10, count // 10


def by_permutation(array: NDArray[Any], sizes: tuple[int, int, int], where: str) -> Partition:
    """Shuffle by a permutation that depends on the number of datapoints alone, then cut.

    The permutation sorts the raw 64-bit outputs of PCG64, a stream that NumPy keeps the same
    across its releases, which it does not promise of ``Generator.permutation``.

    References:
        NEP 19: Random number generator policy (Kern, 2018),
        https://numpy.org/neps/nep-0019-rng-policy.html

    Args:
        array: Values, ``(N, *shape)``.
        sizes: Train, validation and test datapoints, N in all.
        where: The source of the array, for the error.

    Returns:
        The parts, which are copies.

    Raises:
        ValueError: If there are not as many datapoints.

    Example:
        >>> by_permutation(np.zeros((10, 2)), (8, 1, 1), "zeros").train.shape
        (8, 2)
    """
    if sum(sizes) != len(array):
        raise ValueError(f"{where}: {len(array)} datapoints; expected {sum(sizes)}")
    keys = np.random.PCG64(PERMUTATION_SEED).random_raw(len(array))
    order = np.argsort(keys, kind="stable")
    train, validation, test = np.split(order, np.cumsum(sizes)[:2])
    rule = (
        f"fixed permutation (PCG64, seed {PERMUTATION_SEED}) of all {len(array):,} datapoints: "
        f"first {sizes[0]:,} train, next {sizes[1]:,} validation, last {sizes[2]:,} test of "
        f"numpy.argsort(numpy.random.PCG64({PERMUTATION_SEED}).random_raw({len(array)}), "
        "kind='stable')"
    )
    indices = (train, validation, test)
    return Partition(array[train], array[validation], array[test], rule, indices)


def given(
    train: NDArray[Any], validation: NDArray[Any], test: NDArray[Any], rule: str
) -> Partition:
    """Parts that are arrays of their own, in their own order.

    Args:
        train: Values, ``(N, *shape)``.
        validation: The same.
        test: The same.
        rule: How they were chosen.

    Example:
        >>> given(np.zeros((6, 2)), np.zeros((2, 2)), np.zeros((2, 2)), "").indices[1]
        array([0, 1])
    """
    first, second, third = (np.arange(len(part)) for part in (train, validation, test))
    return Partition(train, validation, test, rule, (first, second, third))


def by_position(
    training: NDArray[Any], test: NDArray[Any], sizes: tuple[int, int, int], where: str
) -> Partition:
    """Keep the order of the two files: validation is the end of the training file.

    Args:
        training: The training file's values, ``(N, *shape)``.
        test: The test file's.
        sizes: Train, validation and test datapoints.
        where: The source of the arrays, for the error.

    Returns:
        The parts, which are views.

    Raises:
        ValueError: If there are not as many datapoints.

    Example:
        >>> by_position(np.zeros((6, 2)), np.zeros((3, 2)), (5, 1, 3), "zeros").rule
        'training file in its order: first 5 train, last 1 validation; test file: 3 test'
    """
    found, expected = (len(training), len(test)), (sizes[0] + sizes[1], sizes[2])
    if found != expected:
        raise ValueError(
            f"{where}: {found[0]} training and {found[1]} test datapoints; "
            f"expected {expected[0]} and {expected[1]}"
        )
    rule = (
        f"training file in its order: first {sizes[0]:,} train, last {sizes[1]:,} validation; "
        f"test file: {sizes[2]:,} test"
    )
    positions = np.arange(len(training))
    indices = (positions[: sizes[0]], positions[sizes[0] :], np.arange(len(test)))
    return Partition(training[: sizes[0]], training[sizes[0] :], test, rule, indices)

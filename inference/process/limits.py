"""Numbers that a caller may give."""

from numbers import Integral
from typing import Any

__all__ = ["refuse_below"]


def refuse_below(least: int, **numbers: Any) -> None:
    """Refuse numbers that are too small or not whole, by name; None is none.

    Raises:
        ValueError: Names the first.

    Example:
        >>> refuse_below(1, num_chains=4, chain_batch_size=None)
    """
    for name, value in numbers.items():
        if value is None:
            continue
        if not isinstance(value, Integral):
            raise ValueError(f"{name}: must be a whole number; got {value!r}")
        if value < least:
            raise ValueError(f"{name}: must be at least {least}; got {value}")

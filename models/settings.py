"""What the settings of a part may be, said once where they are declared."""

import dataclasses
from typing import Any

__all__ = ["Checked", "at_least", "in_unit_interval", "positive"]


class Checked:
    """A dataclass that refuses the settings that its fields do not allow.

    Raises:
        ValueError: Names the part, the setting, what it must be and what it is.

    Example:
        >>> from aevb.models import FixedScale
        >>> FixedScale(-1.0)
        Traceback (most recent call last):
        ValueError: FixedScale: value must be positive; got -1.0
    """

    def __post_init__(self) -> None:
        """Hold every setting against its field."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            allowed, words = field.metadata.get("allowed", (None, ""))
            value = getattr(self, field.name)
            if allowed is not None and not allowed(value):
                raise ValueError(
                    f"{type(self).__name__}: {field.name} must be {words}; got {value}"
                )


def positive(default: float) -> Any:
    """A field for numbers above 0, with its default."""
    return _field(default, lambda value: value > 0, "positive")


def at_least(least: int, default: int) -> Any:
    """A field for numbers from ``least`` on, with its default."""
    return _field(default, lambda value: value >= least, f"at least {least}")


def in_unit_interval(default: float) -> Any:
    """A field for numbers from 0 to 1, with its default."""
    return _field(default, lambda value: 0 <= value <= 1, "in [0, 1]")


def _field(default: Any, allowed: Any, words: str) -> Any:
    return dataclasses.field(default=default, metadata={"allowed": (allowed, words)})

"""How parts with classes among their settings are shown."""

import dataclasses
import inspect
from typing import Any

__all__ = ["Shown"]


class Shown:
    """A dataclass whose ``repr`` gives classes by their bare names."""

    def __repr__(self) -> str:
        """The part as it would be written, ``MLP(hidden=[500], activation=Tanh, gated=False)``."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        settings = ", ".join(
            f"{field.name}={_word(getattr(self, field.name))}" for field in fields
        )
        return f"{type(self).__name__}({settings})"


def _word(value: Any) -> str:
    if inspect.isclass(value):
        return value.__name__
    return repr(list(value)) if isinstance(value, tuple) else repr(value)

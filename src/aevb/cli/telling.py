"""What a command returns: figures for programs, and words for people."""

from typing import Any

__all__ = ["Told"]


class Told(dict[str, Any]):
    """The figures of a command, which ``--json`` prints, with the text that is printed otherwise.

    Args:
        figures: JSON-able.
        text: Lines for a person.

    Example:
        >>> told = Told({"mse": 0.5}, "Off by 0.5.")
        >>> told["mse"], told.text
        (0.5, 'Off by 0.5.')
    """

    def __init__(self, figures: dict[str, Any], text: str) -> None:
        super().__init__(figures)
        self.text = text

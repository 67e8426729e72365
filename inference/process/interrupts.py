"""Ctrl-C and SIGTERM as a request that the training loop honours between two steps."""

import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupts"]


class Interrupts:
    """While entered, the first SIGINT or SIGTERM is remembered; a second one acts as usual.

    Signals reach only the main thread; elsewhere nothing is installed and nothing requested.

    Example:
        >>> with Interrupts() as interrupts:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     interrupts.requested
        <Signals.SIGTERM: 15>
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the previous handlers back."""
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

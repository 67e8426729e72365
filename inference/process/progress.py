"""Progress bars: shown in notebooks, and elsewhere where they are asked for."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["in_notebook", "progress_bar", "showing_progress", "tracked", "with_progress"]

P = ParamSpec("P")
T = TypeVar("T")

_shown: ContextVar[bool | None] = ContextVar("aevb_progress", default=None)
_DELAY = 0.5  # seconds of work before a bar appears


def progress_bar(
    total: int | None,
    unit: str,
    done: int = 0,
    show: bool | None = None,
    description: str | None = None,
    delay: float = _DELAY,
    *,
    on_terminal: bool = False,
) -> Any:
    """A bar of tqdm's: ``bar.update(n)``, ``bar.set_postfix_str(text)``, and a context.

    Args:
        total: Work in all, if it is known.
        unit: One piece of it, in a word.
        done: Pieces done already.
        show: Whether to; None leaves it to :func:`showing_progress`, and outside of it to whether
            this is a notebook.
        description: What is done, before the bar.
        delay: Seconds before it appears.
        on_terminal: Show it on a terminal too where nothing says otherwise.

    Example:
        >>> with progress_bar(3, "step", show=False) as bar:
        ...     _ = bar.update(3)
        >>> bar.disable
        True
    """
    if show is None:
        show = _shown.get()
    if show is None:
        show = in_notebook() or (on_terminal and sys.stderr.isatty())
    tqdm: Any
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in notebooks without ipywidgets the bar is text
        if in_notebook():
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
    return tqdm(
        total=total,
        initial=done,
        desc=description,
        unit=f" {unit}s",
        unit_scale=(total or 0) >= 1000,
        disable=not show,
        dynamic_ncols=True,
        delay=delay,
        leave=description is None,
    )


def tracked(
    items: Iterable[T],
    total: int,
    unit: str,
    description: str,
    size: Callable[[T], int] = lambda _: 1,
) -> Iterator[T]:
    """Items one by one, with a bar of how far they are.

    Args:
        items: To go through.
        total: Work in all.
        unit: One piece of it, in a word.
        description: What is done.
        size: Pieces of an item.

    Example:
        >>> sum(tracked(range(3), 3, "number", "adding"))
        3
    """
    with progress_bar(total, unit, description=description) as bar:
        for item in items:
            yield item
            bar.update(size(item))


@contextmanager
def showing_progress(show: bool | None) -> Iterator[None]:
    """Inside the block, bars that were not asked for otherwise are shown, or are not.

    Args:
        show: None changes nothing.

    Example:
        >>> with showing_progress(False):
        ...     progress_bar(3, "step").disable
        True
    """
    token = _shown.set(_shown.get() if show is None else show)
    try:
        yield
    finally:
        _shown.reset(token)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process.

    Example:
        >>> in_notebook()
        False
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())


def with_progress(function: Callable[P, T]) -> Callable[P, T]:
    """Lets the argument ``progress`` of a function decide on all bars of its call.

    Example:
        >>> @with_progress
        ... def hidden(progress: bool | None = None) -> bool:
        ...     return progress_bar(3, "step").disable
        >>> hidden(progress=True), hidden(progress=False)
        (False, True)
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        show = kwargs.get("progress")
        with showing_progress(show if isinstance(show, bool) else None):
            return function(*args, **kwargs)

    return call

"""What jsonargparse has no setting for: two of its functions, wrapped.

Written for jsonargparse 4.53; ``tests/cli/test_jsonargparse_hooks.py`` knows the lines that it
relies on. Both functions are wrapped once, when this file is imported, and do what they always did
but within :func:`hooked`, which holds for one thread alone.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from jsonargparse import _typehints, _util

__all__ = ["hooked"]

_CHECK: ContextVar[Callable[[str], None] | None] = ContextVar("check", default=None)


@contextmanager
def hooked(check: Callable[[str], None] | None = None) -> Iterator[None]:
    """Parse with classes that begin with their own defaults, and with a check of every import.

    jsonargparse passes on what a class and the one named before it both have: IWAE would get
    ELBO's one particle. Its ``import_path_denylist`` holds for the whole process and for good, for
    what the user types as for what a file says, and knows paths but not what lies there.

    Args:
        check: Raises if an import path among the values is refused; called before the import, and
            after it with where the object is defined. By default, jsonargparse's own.
    """
    token = _CHECK.set(check or _check_import_path)
    try:
        yield
    finally:
        _CHECK.reset(token)


def _import(path: str) -> None:
    (_CHECK.get() or _check_import_path)(path)


def _change_class(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    if _CHECK.get() is None:
        _discard_init_args(parser_or_action, prev_val, value)
    elif prev_val and "init_args" in prev_val and prev_val["class_path"] != value["class_path"]:
        prev_val.pop("init_args")


def _wrapped(module: ModuleType, name: str, wrapper: Callable[..., None]) -> Callable[..., None]:
    """The function whose place a wrapper takes, if it is the one that this was written for."""
    found: Callable[..., None] | None = getattr(module, name, None)
    expected = list(inspect.signature(wrapper).parameters)
    if found is None or list(inspect.signature(found).parameters) != expected:
        raise ImportError(
            f"jsonargparse: has no {module.__name__}.{name}({', '.join(expected)}); aevb was "
            "written for version 4.53"
        )
    setattr(module, name, wrapper)
    return found


_check_import_path = _wrapped(_util, "check_import_path", _import)
_discard_init_args = _wrapped(_typehints, "discard_init_args_on_class_path_change", _change_class)

"""Values as a program finds them: whether two are the same to it, and how to put them back."""

import collections
import sys
import types
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Attributes",
    "cell_contents",
    "fill_cell",
    "first_difference",
    "is_library",
    "may_hold_state",
    "refill",
    "runs_user_code",
]

# Engines: what they keep is looked after elsewhere, or is no state.
_ENGINES = frozenset({"numpy", "pyro", "scipy", "torch", "torchvision"})
_CLOSED = _ENGINES | {"_thread", "asyncio", "ctypes", "logging", "multiprocessing", "threading"}
# Their functions and classes keep no state for a step to depend on.
_TRUSTED = _ENGINES | {
    *sys.stdlib_module_names,
    "aevb", "arviz", "jax", "jsonargparse", "matplotlib", "numpyro", "pandas", "polars",
    "pytest", "_pytest", "sklearn", "tensorboard", "tqdm", "wandb", "xarray",
}  # fmt: skip
# Objects that programs make anew at each call, and exchange rather than change.
_REMADE = (torch.distributions.Distribution, torch.distributions.Transform)


class Attributes(dict[str, Any]):
    """A dictionary of attributes, so that a difference in it is written with a dot."""


def first_difference(held: Any, now: Any, depth: int = 0) -> str | None:
    """Where two pictures differ, as the end of a path; None if they do not."""
    if isinstance(held, dict) and isinstance(now, dict):
        mark = ".{}" if isinstance(held, Attributes) else "[{!r}]"
        for key in [*held, *(key for key in now if key not in held)]:
            if key not in held or key not in now:
                return mark.format(key)
            if not _same(held[key], now[key], depth):
                return mark.format(key)
        return None
    if isinstance(held, list) and isinstance(now, list) and len(held) == len(now):
        pairs = enumerate(zip(held, now, strict=True))
        return next((f"[{i}]" for i, (a, b) in pairs if not _same(a, b, depth)), None)
    return None if _same(held, now, depth) else ""


def _same(held: Any, now: Any, depth: int = 0) -> bool:
    """Whether a step that reads ``now`` reads what it would have read in ``held``."""
    if held is now:
        return True
    if type(held) is not type(now) or depth > 8:
        return type(held) is type(now)
    if isinstance(held, Tensor):
        return bool(
            held.shape == now.shape
            and held.dtype == now.dtype
            and held.device == now.device
            and held.layout is torch.strided
            and ((held.detach() == now.detach()) | (held.isnan() & now.isnan())).all()
        )
    if isinstance(held, np.ndarray):
        may_be_nan = held.dtype.kind in "fc"
        return held.shape == now.shape and bool(np.array_equal(held, now, equal_nan=may_be_nan))
    if isinstance(held, float):
        return held == now or (held != held and now != now)
    if isinstance(held, dict):
        return first_difference(held, now, depth + 1) is None
    if isinstance(held, list | tuple | collections.deque):
        pairs = zip(held, now, strict=False)
        return len(held) == len(now) and all(_same(a, b, depth + 1) for a, b in pairs)
    if isinstance(held, types.FunctionType):
        before, after = ([cell_contents(c) for c in f.__closure__ or ()] for f in (held, now))
        return held.__code__ is now.__code__ and _same(before, after, depth + 1)
    if isinstance(held, types.MethodType):
        return held.__func__ is now.__func__ and _same(held.__self__, now.__self__, depth + 1)
    if isinstance(held, _REMADE):
        both = vars(held).keys() & vars(now).keys()
        return all(_same(vars(held)[k], vars(now)[k], depth + 1) for k in both if k[0] != "_")
    if isinstance(held, weakref.ReferenceType) or not may_hold_state(type(held)):
        return True  # an engine's own object, made anew: a plate, a trace
    if hasattr(held, "__dict__"):
        return first_difference(vars(held), vars(now), depth + 1) is None
    return bool(held == now)


def refill(container: Any, held: Any, kept: tuple[str, ...] = ()) -> None:
    """Give a container its former contents without making another."""
    if isinstance(container, dict):
        if _holds_the_same(container, held, kept):
            return
        rest = {key: container[key] for key in kept if key in container}
        container.clear()
        container.update(rest)
        container.update(held)
    elif isinstance(container, list):
        container[:] = held
    else:
        container.clear()
        container.update(held) if isinstance(container, set) else container.extend(held)


def _holds_the_same(
    container: dict[Any, Any], held: dict[Any, Any], kept: tuple[str, ...]
) -> bool:
    """Whether a dictionary holds the very objects that it held."""
    return len(container) - sum(key in container for key in kept) == len(held) and all(
        key in container and container[key] is value for key, value in held.items()
    )


def cell_contents(cell: Any) -> Any:
    """What a closure's variable holds; None if nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def fill_cell(cell: Any, held: Any) -> None:
    """Give a closure's variable its former value."""
    if cell_contents(cell) is not held:
        cell.cell_contents = held


def is_library(thing: Any) -> bool:
    """Whether a class, function or module comes from a library that keeps no state for a step."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    return (name or "builtins").partition(".")[0] in _TRUSTED


def may_hold_state(cls: type) -> bool:
    """Whether objects of a class are looked into: configurations of any make, but no engine's."""
    if issubclass(cls, _REMADE):
        return not is_library(cls)  # what a library's computes when first asked is no state
    return cls.__module__.partition(".")[0] not in _CLOSED


def runs_user_code(thing: Any) -> bool:
    """Whether calling an object of a library may run functions that a user wrote.

    Example:
        >>> runs_user_code(torch.optim.lr_scheduler.StepLR)
        False
        >>> runs_user_code(torch.optim.lr_scheduler.LambdaLR)
        True
    """
    if any(map(runs_user_code, getattr(thing, "_schedulers", ()))):
        return True
    cls = thing if isinstance(thing, type) else type(thing)
    return not is_library(cls) or "Lambda" in cls.__name__ or "Multiplicative" in cls.__name__

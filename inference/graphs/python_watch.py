"""A watch on what a program keeps in Python, which a graph would freeze.

The contract of programs with a graph: *what a program does depends on its arguments, its
parameters and buffers, and torch's generator.* See ``docs/architecture.md``.
"""

import functools
import logging
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["PythonWatch"]

_PLAIN = (int, float, complex, str, bytes, type(None), np.generic, torch.dtype, torch.device)
_NOT_FOLLOWED = (*_PLAIN, types.ModuleType, logging.Logger)  # the last lead to the whole process
# What stands for something else, as a method for a function, and where it refers to that.
_STANDING = (types.MethodType, staticmethod, classmethod, property, functools.partial)
_FOR = ("__self__", "__func__", "fget", "fset", "func", "args", "keywords")
_MEMBERS = ("__dict__", "_parameters", "_buffers", "_modules")  # of an object, not of a path
_MOST = 10_000  # things that are watched; longer containers and arrays are data


class PythonWatch(AbstractContextManager["PythonWatch"]):
    """A picture of what is reachable from named objects and may be changed in Python.

    Followed are attributes, containers, closures, arguments bound beforehand, and of code that is
    not installed the classes of objects and the globals that functions name. Installed is what
    lies in ``site-packages``, came with Python or is part of this package. Tensors are compared
    where they are exchanged, not where they are written into. A context puts everything back.

    Attributes:
        iterator: The first one met, because nobody can tell where it stands; or None.
        reaches_user_code: Whether a function that is not installed was met.

    Example:
        >>> counter = {"calls": 0, "scales": [1.0]}
        >>> with PythonWatch(counter=counter) as watch:
        ...     counter["calls"] += 1
        ...     watch.changed()
        "counter['calls']"
        >>> counter
        {'calls': 0, 'scales': [1.0]}
    """

    def __init__(self, **roots: Any) -> None:
        self.reaches_user_code = False
        self.iterator: str | None = None
        self._places: list[tuple[str, Any, dict[Any, Any]]] = []
        self._seen: dict[int, Any] = {}  # holding what was seen keeps identities unique
        waiting = deque(roots.items())
        while waiting and len(self._seen) < _MOST:
            path, value = waiting.popleft()
            if id(value) in self._seen or isinstance(value, _NOT_FOLLOWED):
                continue
            self._seen[id(value)] = value
            if isinstance(value, types.FunctionType):
                self.reaches_user_code |= not _is_installed(str(value.__globals__.get("__name__")))
            elif isinstance(value, Iterator) and not hasattr(value, "__dict__"):
                self.iterator = self.iterator or path
            contents = _contents(value)
            if contents is not None:
                self._places.append((path, value, dict(contents)))
            for key, item in {**_links(value), **(contents or {})}.items():
                waiting.append((_joined(path, value, key), item))

    def changed(self) -> str | None:
        """The first place that holds something else now, or None."""
        for path, value, held, now in self._exchanged():
            for key in {**held, **now}:
                if key not in held or key not in now or not _same(held[key], now[key], {}):
                    return _joined(path, value, key)
        return None

    def __exit__(self, *_: object) -> None:
        for _path, value, held, _now in self._exchanged():
            if isinstance(value, dict | list | set | deque):
                value.clear()
                value.extend(held.values()) if hasattr(value, "extend") else value.update(held)
            elif isinstance(value, np.ndarray):
                value.flat[:] = list(held.values())
            elif isinstance(value, _Globals):
                value.namespace.update(held)
            else:
                for key, item in held.items():
                    (type if isinstance(value, type) else object).__setattr__(value, key, item)

    def _exchanged(self) -> Iterator[tuple[str, Any, dict[Any, Any], dict[Any, Any]]]:
        """Places that do not hold the very objects that they held."""
        for path, value, held in self._places:
            now = _contents(value) or {}
            if held.keys() != now.keys() or any(held[key] is not now.get(key) for key in held):
                yield path, value, held, dict(now)


class _Globals:
    """What a function finds in a module under the names that it uses."""

    __slots__ = ("__name__", "names", "namespace")

    def __init__(self, namespace: dict[str, Any], names: set[str]) -> None:
        self.__name__, self.namespace = str(namespace.get("__name__")), namespace
        self.names = names & namespace.keys()


def _contents(value: Any) -> Mapping[Any, Any] | None:
    """What may be exchanged in a thing, by name or position; None if nothing can or counts."""
    if isinstance(value, np.ndarray) and value.flags.writeable and value.size <= _MOST:
        return dict(enumerate(value.ravel().tolist()))
    if isinstance(value, list | deque) and len(value) <= _MOST:
        return dict(enumerate(value))
    if isinstance(value, dict | set) and len(value) <= _MOST:
        return value if isinstance(value, dict) else dict.fromkeys(value)
    if isinstance(value, _Globals):
        return {name: value.namespace.get(name) for name in value.names}
    if isinstance(value, types.CellType):
        return {"cell_contents": value.cell_contents} if value != types.CellType() else {}
    if isinstance(value, type):
        own = {} if _is_installed(value.__module__) else vars(value)
        return {k: v for k, v in own.items() if k[:2] != "__" or callable(v)} or None
    slots = object.__getstate__(value)  # attributes and slots, by Python's own account
    return slots[1] if isinstance(slots, tuple) else None


def _links(value: Any) -> dict[Any, Any]:
    """What a thing refers to for good, by name."""
    if isinstance(value, type):
        return {} if _is_installed(value.__module__) else {"__bases__": value.__bases__}
    links: dict[Any, Any] = {"__class__": type(value)}
    if isinstance(value, types.FunctionType):
        links |= zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        links |= {"code": hash(value.__code__), **_named(value)}
        links["default"] = (value.__defaults__, value.__kwdefaults__)
    elif isinstance(value, tuple):
        links |= enumerate(value[:_MOST])
    elif isinstance(value, _STANDING):
        links |= {name: getattr(value, name, None) for name in _FOR}
    if getattr(value, "__dict__", None):
        links["__dict__"] = vars(value)
    return links


def _named(function: types.FunctionType) -> dict[str, _Globals]:
    """The globals of a function, and those of modules that it names."""
    codes, names = [function.__code__], set[str]()
    for code in codes:
        names.update(code.co_names)
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    here = function.__globals__
    others = [vars(m) for m in map(here.get, names) if isinstance(m, types.ModuleType)]
    found = [_Globals(namespace, names) for namespace in (here, *others)]
    return {one.__name__: one for one in found if not _is_installed(one.__name__)}


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether the code of a module is taken to keep the contract, by where it lies."""
    file = str(getattr(sys.modules.get(module), "__file__", None))
    is_own = module.partition(".")[0] in (__name__.partition(".")[0], *sys.builtin_module_names)
    in_packages = "site-packages" in file or "dist-packages" in file
    return is_own or in_packages or file.startswith(sysconfig.get_path("stdlib"))


def _same(held: Any, now: Any, met: dict[Any, Any]) -> bool:
    """Whether a step that reads ``now`` reads what it would have read in ``held``."""
    if held is now or (id(held), id(now)) in met:
        return True
    met[id(held), id(now)] = held, now  # held, as above
    if type(held) is not type(now):
        return False
    if isinstance(held, _PLAIN):
        return bool(held == now or (held != held and now != now))  # two NaN are the same
    if isinstance(held, Tensor):
        kinds = {(one.shape, one.dtype, one.device, one.layout) for one in (held, now)}
        is_dense = held.layout is torch.strided
        return len(kinds) == 1 and is_dense and torch.allclose(held, now, 0, 0, True)
    before, after = ({**_links(one), **(_contents(one) or {})} for one in (held, now))
    return before.keys() == after.keys() and all(_same(before[k], after[k], met) for k in before)


def _joined(path: str, value: Any, key: Any) -> str:
    """The name of a part, as a program would write it."""
    whole, _, last = path.rpartition(".")
    if isinstance(value, (types.CellType, *_STANDING)):
        return path
    if isinstance(value, types.FunctionType):
        return f"{path}: {key}"
    if isinstance(value, dict | list | tuple | deque | np.ndarray) and last not in _MEMBERS:
        return f"{path}[{key!r}]"
    path = whole if last in _MEMBERS else path
    return f"{value.__name__ if isinstance(value, _Globals | type) else path}.{key}"

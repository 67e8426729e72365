"""What a program keeps in Python between two calls: attributes, closures, globals, generators."""

import collections
import collections.abc
import dis
import functools
import io
import logging
import random
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aevb.inference.graphs.python_values import (
    Attributes,
    cell_contents,
    fill_cell,
    first_difference,
    is_library,
    may_hold_state,
    refill,
)

__all__ = ["PythonState"]

# Their objects hold handles of the system, or things that no step reads.
_CLOSED = (
    io.IOBase,
    logging.Logger,
    re.Pattern,
    types.CodeType,
    types.ModuleType,
    weakref.ReferenceType,
)
_LEAVES = (str, bytes, int, float, complex, type(None), torch.dtype, torch.device)
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
# Where an nn.Module keeps its tensors and children.
_MEMBERS = ("_parameters", "_buffers", "_modules")
# Where transforms keep what they computed last.
_CACHES = ("_cached_x_y", "_cached_log_det", "_cached_log_abs_det_jacobian")
# A list of this length is data rather than state; of a larger array some elements are compared.
_LARGEST = 10_000
_LARGEST_ARRAY = 100_000
# Objects followed in all; whoever holds more is not watched to the last.
_MOST = 10_000


@dataclass
class _Place:
    """Something that can be changed in place, what it held, and how to put that back."""

    path: str
    look: Callable[[], Any]
    restore: Callable[[Any], Any]
    held: Any


class PythonState:
    """A picture of all that is reachable from a program and that Python code may change.

    Followed are the attributes of objects, modules and their classes, containers, closures,
    arguments bound by ``functools.partial``, the globals that the program's own functions name,
    and random generators. Libraries are not looked into. Tensors are compared by value where they
    are exchanged; what is written into them in place is no matter of Python's.

    Args:
        roots: Named objects to start from.

    Example:
        >>> counter = {"calls": 0, "scales": [1.0]}
        >>> state = PythonState(counter=counter)
        >>> state.difference() is None
        True
        >>> counter["calls"] += 1
        >>> state.difference()
        "counter['calls']"
        >>> state.restore()
        >>> counter
        {'calls': 0, 'scales': [1.0]}
    """

    def __init__(self, **roots: Any) -> None:
        self.iterators: list[str] = []
        self._places: list[_Place] = []
        self._seen: dict[int, Any] = {}  # holding what was seen keeps identities unique
        waiting = collections.deque((name, root) for name, root in roots.items())
        while waiting and len(self._seen) < _MOST:
            path, value = waiting.popleft()
            if id(value) not in self._seen and not isinstance(value, _LEAVES):
                self._seen[id(value)] = value
                waiting.extend(self._visit(path, value))

    def difference(self) -> str | None:
        """The first place that holds something else now, or None."""
        for place in self._places:
            now = place.look()
            where = first_difference(place.held, now)
            if where is not None:
                return place.path + where
        return None

    def restore(self) -> None:
        """Put everything back, except iterators, which cannot be turned back."""
        for place in self._places:
            if place.look() is not place.held:
                place.restore(place.held)

    def _visit(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Note what may change in ``value``; yields what it refers to."""
        if isinstance(value, _CLOSED):
            return
        if isinstance(value, type):
            if not is_library(value):
                yield from self._visit_class(value.__name__, None, value)
        elif isinstance(value, nn.Module) and isinstance(value.__dict__.get("_modules"), dict):
            yield from self._visit_module(path, value)
        elif isinstance(value, Tensor):
            yield from self._visit_tensor(path, value)
        elif isinstance(value, dict | list | set | tuple | frozenset | collections.deque):
            yield from self._visit_container(path, value)
        elif isinstance(value, types.MethodType):
            yield path, value.__self__
            yield path, value.__func__
        elif isinstance(value, types.FunctionType):
            yield from self._visit_function(path, value)
        elif isinstance(value, functools.partial):
            yield path, value.func
            yield path, value.args
            yield path, value.keywords
        elif isinstance(value, types.CellType):
            self._note(path, lambda: cell_contents(value), lambda held: fill_cell(value, held))
            yield path, cell_contents(value)
        elif isinstance(value, np.ndarray):
            yield from self._visit_array(path, value)
        elif isinstance(value, _GENERATORS):
            look, restore = _generator_state(value)
            self._note(path, look, restore)
        elif isinstance(value, collections.abc.Iterator) and not hasattr(value, "__dict__"):
            self.iterators.append(path)
        elif may_hold_state(type(value)):
            yield from self._visit_attributes(path, value)

    def _visit_container(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if len(value) <= _LARGEST:
            pairs: Any = enumerate(value)
            if isinstance(value, dict):
                self._note_dict(path, value)
                pairs = value.items()
            elif isinstance(value, list | set | collections.deque):
                copy = set if isinstance(value, set) else list
                self._note(path, lambda: copy(value), lambda held: refill(value, held))
            yield from (
                (f"{path}[{key!r}]", item) for key, item in pairs if not isinstance(item, _LEAVES)
            )
        if getattr(value, "__dict__", None) and not is_library(type(value)):
            yield from self._visit_attributes(path, value)

    def _visit_array(self, path: str, array: Any) -> Iterator[tuple[str, Any]]:
        if array.dtype == object:
            if array.size <= _LARGEST:
                self._note(path, array.tolist, lambda held: _refill_array(array, held))
                yield path, array.tolist()
        elif array.size > _LARGEST_ARRAY:
            if array.flags.c_contiguous:
                some = array.reshape(-1)[:: array.size // 4096]
                self._note(path, some.copy, lambda held: None)
        elif array.flags.writeable:
            self._note(path, array.copy, lambda held: _refill_array(array, held))

    def _visit_module(self, path: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
        yield from self._visit_attributes(path, module)
        for kind in _MEMBERS:
            members: dict[str, Any] = module.__dict__[kind]
            self._note_dict(path, members)
            yield from ((f"{path}.{name}", member) for name, member in members.items())

    def _visit_tensor(self, path: str, tensor: Tensor) -> Iterator[tuple[str, Any]]:
        if tensor.layout is torch.strided and tensor.device.type != "meta":
            self._note(path, lambda: _Memory(tensor), lambda held: held.put_back(tensor))
        if tensor.__dict__:
            self._note_dict(path, tensor.__dict__)
            yield from ((f"{path}.{name}", item) for name, item in tensor.__dict__.items())
        if tensor._backward_hooks:
            yield f"{path}: hooks", tensor._backward_hooks

    def _visit_attributes(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        """The object's own dictionary and slots, and those of its classes."""
        own = getattr(value, "__dict__", None)
        if isinstance(own, dict):
            hidden = (*_MEMBERS, *_CACHES) if isinstance(value, nn.Module) else ()

            def look() -> dict[str, Any]:
                return {k: v for k, v in own.items() if k not in hidden}

            self._note(path, look, lambda held: refill(own, held, hidden), attributes=True)
            yield from ((f"{path}.{name}", item) for name, item in look().items())
        for cls in type(value).__mro__:
            if not is_library(cls):
                yield from self._visit_class(path, value, cls)

    def _visit_class(self, path: str, value: Any, cls: type) -> Iterator[tuple[str, Any]]:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{cls.__name__.lstrip('_')}{slot}" if private else slot
            if value is not None and hasattr(value, name):
                self._note_attribute(path, value, name)
                yield f"{path}.{name}", getattr(value, name)
        for name, item in list(vars(cls).items()):
            if isinstance(item, types.FunctionType):
                yield f"{path}.{name}", item
            elif isinstance(item, staticmethod | classmethod):
                yield f"{path}.{name}", item.__func__
            elif isinstance(item, property):
                yield from ((f"{path}.{name}", f) for f in (item.fget, item.fset) if f)
            elif not name.startswith("__") and not hasattr(type(item), "__get__"):
                if (id(cls), name) not in self._seen_attributes:
                    self._seen_attributes.add((id(cls), name))
                    self._note_attribute(f"{cls.__name__}", cls, name)
                yield f"{cls.__name__}.{name}", item

    @property
    def _seen_attributes(self) -> set[tuple[int, str]]:
        return self.__dict__.setdefault("_attributes", set())

    def _visit_function(
        self, path: str, function: types.FunctionType
    ) -> Iterator[tuple[str, Any]]:
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            yield path, wrapped
        if vars(function):
            yield path, vars(function)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            yield f"{path}: {name}", cell
        if is_library(function):
            return
        for name, default in (function.__kwdefaults__ or {}).items():
            yield f"{path}: {name}", default
        for default in function.__defaults__ or ():
            yield f"{path}: default argument", default
        names, attributes, imports = _names(function.__code__)
        for name in sorted(names & function.__globals__.keys()):
            yield from self._visit_global(
                function.__globals__, name, function.__module__, attributes
            )
        for name in sorted(imports & sys.modules.keys()):
            yield from self._visit_names_of(sys.modules[name], attributes | names)

    def _visit_names_of(
        self, module: types.ModuleType, names: set[str]
    ) -> Iterator[tuple[str, Any]]:
        """What a function may read of a module that it names."""
        if not is_library(module):
            for name in sorted(names & vars(module).keys()):
                yield from self._visit_global(vars(module), name, module.__name__, names)

    def _visit_global(
        self, namespace: dict[str, Any], name: str, module: str, attributes: set[str]
    ) -> Iterator[tuple[str, Any]]:
        value = namespace[name]
        if (id(namespace), name) in self._seen_attributes:
            return
        self._seen_attributes.add((id(namespace), name))
        if isinstance(value, types.ModuleType):
            yield from self._visit_names_of(value, attributes)
            return
        self._note(
            f"{module}.{name}",
            lambda: namespace.get(name),
            lambda held: namespace.__setitem__(name, held),
        )
        yield name, value

    def _note_dict(self, path: str, value: dict[Any, Any]) -> None:
        self._note(path, lambda: dict(value), lambda held: refill(value, held))

    def _note_attribute(self, path: str, owner: Any, name: str) -> None:
        self._note(
            f"{path}.{name}",
            lambda: getattr(owner, name, None),
            lambda held: setattr(owner, name, held),
        )

    def _note(
        self,
        path: str,
        look: Callable[[], Any],
        restore: Callable[[Any], Any],
        *,
        attributes: bool = False,
    ) -> None:
        held = Attributes(look()) if attributes else look()
        seen = look if not attributes else lambda: Attributes(look())
        self._places.append(_Place(path, seen, restore, held))


class _Memory:
    """Where a tensor lies; two are equal if they are the same place read in the same way."""

    __slots__ = ("alias",)

    def __init__(self, tensor: Tensor) -> None:
        self.alias = tensor.detach()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Memory):
            return NotImplemented
        a, b = self.alias, other.alias
        return (
            a.data_ptr() == b.data_ptr()
            and (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
            and a.stride() == b.stride()
        )

    __hash__ = None  # type: ignore[assignment]

    def put_back(self, tensor: Tensor) -> None:
        if self != _Memory(tensor):
            tensor.data = self.alias


def _names(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """What a function and those within it name: globals, attributes, and modules they import."""
    loads = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL")
    steps = list(dis.get_instructions(code))
    names = {step.argval for step in steps if step.opname in loads}
    imports = {step.argval for step in steps if step.opname == "IMPORT_NAME"}
    attributes = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _names(constant)
            names |= inner[0]
            attributes |= inner[1]
            imports |= inner[2]
    return names, attributes, imports


def _generator_state(value: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """How to look at a random generator's state and how to put it back."""
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return lambda: bits.state, lambda held: setattr(bits, "state", held)
    if isinstance(value, random.Random):
        return value.getstate, value.setstate
    return value.get_state, value.set_state


def _refill_array(array: Any, held: Any) -> None:
    if array.dtype == object or not np.array_equal(
        array, held, equal_nan=array.dtype.kind in "fc"
    ):
        array[...] = held

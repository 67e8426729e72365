"""Where tensors live."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["device_of", "modules_of", "moved", "pick_device"]

_DEEPEST = 6  # handlers around a program, each of which holds the one inside


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device named, or for ``"auto"`` CUDA where there is one and else the CPU.

    Raises:
        ValueError: If the name is unknown or the device is not there.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu or cuda; got {device!r}") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but this machine has no usable CUDA device; use cpu")
    return target


def device_of(*programs: Any, args: Any = ()) -> torch.device:
    """Where the first parameter of some programs is, or else their first argument.

    Args:
        programs: Modules, their methods, or functions and handlers around these; None counts for
            nothing.
        args: Their arguments; tensors in lists, tuples and dictionaries count too.

    Example:
        >>> device_of(nn.Linear(2, 2).forward)
        device(type='cpu')
    """
    for program in programs:
        for module in modules_of(program):
            for parameter in module.parameters():
                return parameter.device
    found = [value for value in tree_leaves(args) if isinstance(value, Tensor)]
    return found[0].device if found else torch.device("cpu")


def moved(args: Any, device: torch.device) -> Any:
    """The same arguments with every tensor on a device.

    Example:
        >>> moved(({"x": torch.ones(2)}, 3), torch.device("cpu"))
        ({'x': tensor([1., 1.])}, 3)
    """
    return tree_map(lambda a: a.to(device) if isinstance(a, Tensor) else a, args)


def modules_of(program: Any, deep: int = _DEEPEST) -> Iterator[nn.Module]:
    """The modules that a callable is, belongs to or holds, in functions one inside the other.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> next(modules_of(layer.forward)) is layer
        True
    """
    if isinstance(program, nn.Module):
        yield program
        return
    if not callable(program) or deep == 0:
        return
    inner = [getattr(program, "__self__", None), getattr(program, "__wrapped__", None)]
    if isinstance(program, functools.partial):
        inner += [program.func, *program.args, *program.keywords.values()]
    for cell in getattr(program, "__closure__", None) or ():
        try:
            inner.append(cell.cell_contents)
        except ValueError:  # a name that was never bound
            continue
    for value in inner:
        yield from modules_of(value, deep - 1)

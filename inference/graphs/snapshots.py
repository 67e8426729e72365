"""Trying a step out: whatever it changes is put back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aevb.inference.process import randomness

__all__ = ["everything_restored"]


@contextmanager
def everything_restored(
    tensors: Sequence[Tensor], device: torch.device, watch: bool = False
) -> Iterator[None]:
    """Run a real step inside without a trace of it afterwards.

    Args:
        tensors: What the step is known to change.
        device: Where it runs.
        watch: Also put back tensors that turn out to be changed in place, such as the statistics
            of a module that a program closes over. Compilers do not run under it.

    Example:
        >>> hidden = torch.zeros(2)
        >>> with everything_restored([], torch.device("cpu"), watch=True):
        ...     _ = hidden.add_(1)
        >>> hidden
        tensor([0., 0.])
    """
    copies = [(tensor, tensor.detach().clone()) for tensor in tensors]
    memory = [(tensor, tensor.data) for tensor in tensors]
    random = randomness.capture(device)
    journal = _Journal()
    try:
        with journal if watch else nullcontext():
            yield
    finally:
        with torch.no_grad():
            for tensor, alias in memory:
                if tensor.layout is torch.strided and tensor.data_ptr() != alias.data_ptr():
                    tensor.data = alias  # the program has moved it
            for tensor, copy in [*copies, *journal.copies.values()]:
                if not torch.equal(tensor, copy):
                    tensor.copy_(copy)
        randomness.restore(random, device)


class _Journal(TorchDispatchMode):
    """Keeps a copy of every tensor as it was before its first change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[Any, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for tensor in value if isinstance(value, list | tuple) else [value]:
                        self._note(tensor)
        return func(*args, **kwargs)

    def _note(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
            place = (tensor.data_ptr(), tensor.shape, tensor.stride())
            if place not in self.copies:
                # the alias keeps the memory from being given to another tensor meanwhile
                self.copies[place] = (tensor.detach(), tensor.detach().clone())

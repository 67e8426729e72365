"""Other libraries' insides, replaced for a while.

A replacement holds for the thread that asks for it; others go on with the original, and one that
asks meanwhile waits. ``tests/inference/process/test_patches.py`` fails where a library has
changed.
"""

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro.util
import torch
from pyro.infer.util import Dice
from pyro.ops.einsum import torch_log
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["losses_in_tensors", "samples_unchecked", "sums_of_operations", "updates_in_tensors"]

_LOCK = threading.RLock()


@contextmanager
def losses_in_tensors() -> Iterator[None]:
    """Keep Pyro's losses in tensors: no ``.item()``, no look for NaN, no shape by values.

    Written for Pyro 1.9.1 and 1.9.2, whose losses each import ``torch_item``, whose
    ``warn_if_nan`` asks ``pyro.util.torch_isnan``, and whose ``Dice`` selects the costs of
    positive probability from the rest, which are set to zero here.

    Example:
        >>> from pyro.infer.trace_elbo import torch_item
        >>> with losses_in_tensors():
        ...     pyro.infer.trace_elbo.torch_item(torch.tensor(2.0))
        tensor(2.)
    """

    def keep(value: Any) -> Any:
        return value.detach() if isinstance(value, Tensor) else value

    expectation = Dice.compute_expectation

    def of_all(self: Any, costs: Any) -> Any:
        with _ZeroInPlaceOfSelection():
            return expectation(self, costs)

    losses = [module for name, module in sys.modules.items() if name.startswith("pyro.infer")]
    with _LOCK, ExitStack() as stack:
        for loss in losses:
            if hasattr(loss, "torch_item"):
                stack.enter_context(_replaced(loss, "torch_item", keep))
        stack.enter_context(_replaced(pyro.util, "torch_isnan", lambda _: False))
        stack.enter_context(_replaced(Dice, "compute_expectation", of_all))
        yield


class _ZeroInPlaceOfSelection(TorchFunctionMode):
    """Inside the block ``masked_select`` keeps the shape, and nobody hears that a mask is full."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func is torch.Tensor.all:
            return False
        if func is torch.Tensor.masked_select:
            return torch.where(args[1], args[0], 0)
        return func(*args, **(kwargs or {}))


@contextmanager
def samples_unchecked() -> Iterator[None]:
    """Keep distributions from looking at values, whatever switch they were made with.

    Written for torch 2.11 to 2.15, where ``log_prob`` calls ``_validate_sample`` and drops what it
    returns.
    """
    with _replaced(torch.distributions.Distribution, "_validate_sample", lambda *_: None):
        yield


@contextmanager
def sums_of_operations() -> Iterator[None]:
    """Have Pyro's sums over values made of torch's own operations, which vmap knows.

    Written for Pyro 1.9.1 and 1.9.2, whose ``safe_log`` has a derivative of its own.

    Example:
        >>> from pyro.ops.einsum import torch_log
        >>> with sums_of_operations():
        ...     torch_log.safe_log(torch.tensor([0.0, 1.0]))
        tensor([-inf, 0.])
    """

    def log(x: Tensor) -> Tensor:
        tiny = torch.finfo(x.dtype).tiny
        return torch.where(x > 0, x.clamp(min=tiny).log(), -torch.inf)

    with _replaced(torch_log, "safe_log", log):
        yield


@contextmanager
def updates_in_tensors() -> Iterator[None]:
    """Have torch's optimizers read no scalars and accept ``capturable`` on every device.

    Written for torch 2.11 to 2.15, where they ask ``torch.compiler.is_compiling``.
    """
    with _replaced(torch.compiler, "is_compiling", lambda: True):
        yield


@contextmanager
def _replaced(owner: Any, name: str, substitute: Callable[..., Any]) -> Iterator[None]:
    """Another function in this thread, the same as before in the others."""
    here = threading.get_ident()
    with _LOCK:
        original = getattr(owner, name)

        @functools.wraps(original)
        def either(*args: Any, **kwargs: Any) -> Any:
            function = substitute if threading.get_ident() == here else original
            return function(*args, **kwargs)

        setattr(owner, name, either)
        try:
            yield
        finally:
            setattr(owner, name, original)

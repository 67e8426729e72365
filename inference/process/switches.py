"""Process-wide switches, put back as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch.overrides import TorchFunctionMode

__all__ = ["SingularAsNaN", "argument_checks", "onednn_off"]


class SingularAsNaN(TorchFunctionMode):
    """Inside the block a matrix without a Cholesky factor gives NaN and no error for its batch.

    Example:
        >>> with SingularAsNaN():
        ...     torch.linalg.cholesky(torch.stack([torch.eye(1), -torch.eye(1)])).flatten()
        tensor([1., nan])
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func is not torch.linalg.cholesky:
            return func(*args, **kwargs)
        kwargs.pop("out", None)
        factor, info = torch.linalg.cholesky_ex(*args, **kwargs)
        return torch.where((info == 0)[..., None, None], factor, torch.nan)


@contextmanager
def argument_checks(enabled: bool) -> Iterator[None]:
    """Turn the checks of Pyro and of torch's distributions on or off inside the block.

    Pyro's own context sets torch's switch afterwards to what Pyro believes it was.

    Example:
        >>> before = torch.distributions.Distribution._validate_args
        >>> with argument_checks(False):
        ...     _ = torch.distributions.Bernoulli(0.5).log_prob(torch.tensor(0.3))
        >>> torch.distributions.Distribution._validate_args == before
        True
    """
    before = torch.distributions.Distribution._validate_args
    try:
        with pyro.validation_enabled(enabled):
            yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


@contextmanager
def onednn_off() -> Iterator[None]:
    """Keep torch from choosing oneDNN's fused layers inside the block.

    torch's own context sets a switch for TF32 as well, and warns of it.
    """
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)

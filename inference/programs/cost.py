"""What a computation costs, counted and not timed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """What a computation does.

    Attributes:
        num_bytes: Sum over all tensors that its operations return: a bound on the peak memory,
            whatever is freed in between.
        num_flops: Multiplications and additions of its matrix products and convolutions.
    """

    num_bytes: int
    num_flops: int


def cost_of(computation: Callable[[], Any]) -> Cost:
    """Run it once, without gradients, and count.

    Example:
        >>> cost_of(lambda: torch.ones(2, 3) @ torch.ones(3, 4)).num_flops
        48
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports Triton

    with torch.no_grad(), FlopCounterMode(display=False) as flops, _BytesReturned() as made:
        computation()
    return Cost(max(1, made.total), flops.get_total_flops())


class _BytesReturned(TorchDispatchMode):
    """Adds up the sizes of all tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value._base is None:
                self.total += value.numel() * value.element_size()
        return result

"""Matrix products in fewer bits, with everything else in float32."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["PRECISIONS", "bf16_products", "tf32_products"]

PRECISIONS = ("float32", "tf32", "bf16")


@contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Let float32 matrix products run on NVIDIA's tensor cores with 10 bits of mantissa.

    A CPU takes no notice. The switch is process-wide and put back afterwards.

    Example:
        >>> with tf32_products(True):
        ...     torch.get_float32_matmul_precision()
        'high'
    """
    if not enabled:
        yield
        return
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def bf16_products(enabled: bool) -> Iterator[None]:
    """Round the float32 factors of products and convolutions to 8 bits of mantissa.

    The products are float32 again, so log-probabilities, sums and updates lose nothing more.

    Example:
        >>> with bf16_products(True):
        ...     product = torch.full((1, 1), 1.001) @ torch.ones(1, 1)
        >>> product, product.dtype
        (tensor([[1.]]), torch.float32)
    """
    with _BFloat16Products() if enabled else nullcontext():
        yield


class _BFloat16Products(TorchFunctionMode):
    """Rounds the factors of each product; autograd then does the same to its gradients."""

    products = frozenset(
        {
            torch.nn.functional.linear,
            torch.nn.functional.conv1d,
            torch.nn.functional.conv2d,
            torch.nn.functional.conv3d,
            torch.nn.functional.conv_transpose1d,
            torch.nn.functional.conv_transpose2d,
            torch.nn.functional.conv_transpose3d,
            torch.matmul,
            torch.mm,
            torch.bmm,
            torch.addmm,
            Tensor.matmul,
            Tensor.mm,
            Tensor.bmm,
            Tensor.addmm,
            Tensor.__matmul__,
            Tensor.__rmatmul__,
        }
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        if func not in self.products or any(t.dtype != torch.float32 for t in tensors):
            return func(*args, **kwargs)
        rounded = func(*map(_round, args), **{key: _round(v) for key, v in kwargs.items()})
        return rounded.float()


def _round(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) else value

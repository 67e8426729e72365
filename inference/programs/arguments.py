"""What the two programs of a pair are called with."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["Arguments", "num_rows"]


class Arguments(NamedTuple):
    """What the two programs are called with."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


def num_rows(arguments: Arguments) -> int:
    """Datapoints that some arguments hold; 1 if they hold no tensor with rows."""
    tensors = [leaf for leaf in tree_leaves(tuple(arguments)) if isinstance(leaf, Tensor)]
    return max((len(tensor) for tensor in tensors if tensor.ndim), default=1)

"""Small values of a graph, computed once and not again for every element that they meet."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

__all__ = ["keep_small_values"]

_ATEN = torch.ops.aten
# Operations that take more than a few cycles; cheaper ones may as well be repeated.
_COSTLY = frozenset(
    {
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "digamma",
        "div", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "lgamma", "log", "log10", "log1p",
        "log2", "log_sigmoid_forward", "logaddexp", "pow", "reciprocal", "rsqrt", "sigmoid", "sin",
        "sinh", "softplus", "sqrt", "tan", "tanh",
    }
)  # fmt: skip
# Elements of the user for each element of the value: one vector of the machine.
_TIMES = 16


def keep_small_values(graph: GraphModule, values: dict[Node, Any]) -> int:
    """Have a compiler store costly small values that are broadcast over large ones.

    Inductor writes the arithmetic of a scalar, such as Adam's bias correction with its two powers,
    into the loop over the elements that it multiplies, and the C++ compiler cannot move it out
    again, because the loop's stores might change its inputs. Half of a training step can go there.

    Returns:
        How many values are stored now.
    """
    costly: set[Node] = set()
    kept = 0
    for node in list(graph.graph.nodes):
        size = _size(values.get(node))
        if node.op != "call_function" or size is None:
            continue
        if _name(node) in _COSTLY or any(
            argument in costly and _size(values[argument]) == size
            for argument in node.all_input_nodes
        ):
            costly.add(node)
        if node not in costly or not _fills_its_memory(values[node]):
            continue
        larger = [
            user for user in node.users if (_size(values.get(user)) or 0) >= _TIMES * max(size, 1)
        ]
        if not larger:
            continue
        value = values[node]
        with graph.graph.inserting_after(node):
            # the compiler's rule: what is viewed by strides lies in memory
            stored = graph.graph.call_function(
                _ATEN.as_strided.default, (node, list(value.shape), list(value.stride()), 0)
            )
        for user in larger:
            user.replace_input_with(node, stored)
        kept += 1
    graph.recompile()
    return kept


def _fills_its_memory(value: Tensor) -> bool:
    """Whether strides from the start of its memory describe it: a view's may lie elsewhere."""
    return value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes


def _name(node: Node) -> str:
    return getattr(getattr(node.target, "overloadpacket", None), "__name__", "").rstrip("_")


def _size(value: Any) -> int | None:
    return math.prod(value.shape) if isinstance(value, Tensor) else None

"""Matrix products by whichever of the CPU's libraries is faster at them, as measured."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

__all__ = ["choose_matmul_kernels"]

_ATEN = torch.ops.aten
# Below this many multiply-adds the call costs more than the product.
_SMALLEST = 200_000
_LIBRARY: list[torch.library.Library] = []
_MEASURED: dict[Any, bool] = {}


def choose_matmul_kernels(graph: GraphModule, shapes: dict[Node, Any]) -> int:
    """Send each large float32 matrix product of a CPU graph to oneDNN where that is faster.

    PyTorch gives ``mm`` and ``addmm`` to MKL, which leaves the wide vector units of some
    processors unused. Each product of the graph is timed both ways on tensors of its own shape
    and strides.

    Args:
        graph: Changed in place.
        shapes: Example value of each node, as tensors.

    Returns:
        How many products were sent to oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        return 0
    changed = 0
    for node in list(graph.graph.nodes):
        if node.target not in (_ATEN.mm.default, _ATEN.addmm.default):
            continue
        if node.target is _ATEN.addmm.default and (len(node.args) != 3 or node.kwargs):
            continue
        *bias, left, right = (shapes.get(arg) for arg in node.args)
        if not _suitable(left, right, *bias):
            continue
        if _onednn_is_faster(left, right, bias[0] if bias else None):
            *bias_node, left_node, right_node = node.args
            with graph.graph.inserting_before(node):
                replacement = graph.graph.call_function(
                    _operator(), (left_node, right_node, bias_node[0] if bias_node else None)
                )
            replacement.meta = dict(node.meta)
            node.replace_all_uses_with(replacement)
            graph.graph.erase_node(node)
            changed += 1
    graph.recompile()
    return changed


def _suitable(*tensors: Any) -> bool:
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            return False
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            return False
    left, right, *bias = tensors
    if bias and bias[0].ndim != 1:
        return False
    return bool(left.shape[0] * left.shape[1] * right.shape[1] >= _SMALLEST)


def _operator() -> Any:
    """The product as an operator of its own, so that a compiler leaves it as it is."""
    if not _LIBRARY:
        library = torch.library.Library("aevb", "FRAGMENT")
        library.define("linear(Tensor x, Tensor w, Tensor? b) -> Tensor")
        library.impl("linear", _linear, "CPU")
        library.impl("linear", _shape_of_linear, "Meta")
        _LIBRARY.append(library)
    return torch.ops.aevb.linear.default


def _linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, w.t(), b, "none", [], "")
    return product


def _shape_of_linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    del b
    return x.new_empty((x.shape[0], w.shape[1]))


def _onednn_is_faster(left: Tensor, right: Tensor, bias: Tensor | None) -> bool:
    key = (left.shape, left.stride(), right.shape, right.stride(), bias is None)
    key = (*key, torch.get_num_threads())
    if key not in _MEASURED:
        a, b = (torch.empty_strided(t.shape, t.stride()).normal_() for t in (left, right))
        c = None if bias is None else torch.zeros(bias.shape)
        mkl = (lambda: torch.mm(a, b)) if c is None else (lambda: torch.addmm(c, a, b))
        _MEASURED[key] = _seconds(lambda: _linear(a, b, c)) < 0.95 * _seconds(mkl)
    return _MEASURED[key]


def _seconds(function: Callable[[], Any], repeats: int = 7) -> float:
    """Shortest of several runs after a warm-up: what the kernel takes undisturbed."""
    times = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return min(times[2:])

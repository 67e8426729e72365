"""Matrix products by whichever library is faster at them on this processor."""

import platform
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

__all__ = ["choose_matmul_kernels"]

_ATEN = torch.ops.aten
# Below this many multiply-adds the call of oneDNN, 12 microseconds, eats what its kernel saves; a
# transposed left factor is copied first.
_SMALLEST = 3_000_000
_SMALLEST_TRANSPOSED = 6_000_000
# Names of oneDNN's own; each is as exact as torch's, to a unit or two in the last place. Its relu
# turns NaN into 0, and is left out.
_ACTIVATIONS: dict[Any, str] = {
    _ATEN.tanh.default: "tanh",
    _ATEN.sigmoid.default: "sigmoid",
}
_LIBRARY: list[torch.library.Library] = []
# AMD's first family with vector units 512 bits wide, of which MKL fills half. oneDNN is about
# twice as fast there (201 against 104 GFLOP/s on one thread), and equal to within 10 % before it.
_WIDE_AMD = 26


def choose_matmul_kernels(graph: GraphModule, shapes: dict[Node, Any]) -> int:
    """Send each large float32 matrix product of a CPU graph to oneDNN where that is faster.

    PyTorch gives ``mm`` and ``addmm`` to MKL, which leaves the wide vector units of some
    processors unused. The graph is changed in place; ``shapes`` are example values of its nodes,
    as tensors, to which those of new nodes are added.

    Returns:
        How many products were sent to oneDNN.
    """
    if not torch.backends.mkldnn.is_available() or not _onednn_is_faster():
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
        *bias_node, left_node, right_node = node.args
        with graph.graph.inserting_before(node):
            if left is not None and not left.is_contiguous():
                # as a node of its own, so that a compiler writes it in passing
                left_node = graph.graph.call_function(
                    _ATEN.clone.default,
                    (left_node,),
                    {"memory_format": torch.contiguous_format},
                )
            replacement = graph.graph.call_function(
                _operator(),
                (left_node, right_node, bias_node[0] if bias_node else None, "none"),
            )
        replacement.meta = dict(node.meta)
        shapes[replacement] = shapes[node]
        node.replace_all_uses_with(replacement)
        graph.graph.erase_node(node)
        _take_activation_in(graph, replacement)
        changed += 1
    graph.recompile()
    return changed


def _take_activation_in(graph: GraphModule, product: Node) -> None:
    """Let oneDNN apply what follows while it has the product in registers."""
    if len(product.users) != 1:
        return
    (user,) = product.users
    activation = _ACTIVATIONS.get(user.target)
    if activation is not None:
        product.update_arg(3, activation)
        user.replace_all_uses_with(product)
        graph.graph.erase_node(user)


def _suitable(*tensors: Any) -> bool:
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            return False
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            return False
    left, right, *bias = tensors
    if bias and (bias[0].shape != right.shape[1:] or not bias[0].is_contiguous()):
        return False  # its memory is read as it lies
    smallest = _SMALLEST if left.is_contiguous() else _SMALLEST_TRANSPOSED
    return bool(left.shape[0] * left.shape[1] * right.shape[1] >= smallest)


def _operator() -> Any:
    """The product as an operator of its own, so that a compiler leaves it as it is."""
    if not _LIBRARY:
        library = torch.library.Library("aevb", "FRAGMENT")
        library.define("linear(Tensor x, Tensor w, Tensor? b, str activation) -> Tensor")
        library.impl("linear", _linear, "CPU")
        library.impl("linear", _shape_of_linear, "Meta")
        _LIBRARY.append(library)
    return torch.ops.aevb.linear.default


def _linear(x: Tensor, w: Tensor, b: Tensor | None, activation: str) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, w.t(), b, activation, [], "")
    return product


def _shape_of_linear(x: Tensor, w: Tensor, b: Tensor | None, activation: str) -> Tensor:
    del b, activation
    return x.new_empty((x.shape[0], w.shape[1]))


@cache
def _onednn_is_faster() -> bool:
    """Whether MKL leaves half of this processor's vector unit unused.

    By the processor's name and not by a stopwatch, because another answer is another rounding: a
    run that is made again, or resumed, has to give the same numbers.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return _has_unused_half(cpuinfo.read_text() if cpuinfo.exists() else platform.processor())


def _has_unused_half(processor: str) -> bool:
    """By ``/proc/cpuinfo``, or by Windows' name of the processor.

    Example:
        >>> _has_unused_half("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD")
        True
    """
    family = re.search(r"family\s*:?\s*(\d+)", processor, re.IGNORECASE)
    return "AuthenticAMD" in processor and family is not None and int(family[1]) >= _WIDE_AMD

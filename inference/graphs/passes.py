"""What is done to a traced graph before it runs: its inputs, its kernels, the compiler."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from aevb.inference.graphs.expanded_rows import multiply_rows_once
from aevb.inference.graphs.matmul import choose_matmul_kernels
from aevb.inference.graphs.scalars import keep_small_values
from aevb.inference.graphs.tracing import ancestors

__all__ = [
    "compile_graph",
    "constants_to_inputs",
    "keep_first_output",
    "keep_random_draws",
    "prepare_for_cpu",
]

# Which inductor leaves in the environment after loading what it compiled.
_INDUCTOR_ADDRESS = "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"

_log = logging.getLogger(__name__)


def compile_graph(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Compile a traced graph with inductor, leaving process-wide switches as they were.

    Returns:
        A function called like the graph. Its random draws are those of the graph, because they
        come from the same generators.
    """
    import torch._inductor.config as inductor
    from torch._inductor import compile as inductor_compile

    # Merely building a compiler switches argument validation off for the whole process.
    address = os.environ.get(_INDUCTOR_ADDRESS)
    validate = torch.distributions.Distribution._validate_args
    precision = None
    with suppress(RuntimeError):  # set by backend, of which this switch knows nothing
        precision = torch.get_float32_matmul_precision()
    try:
        # callers make one graph for each set of shapes and strides; to assert them again takes
        # longer than the arithmetic of a small program
        asserts: dict[str, Any] = {"size_asserts": False, "alignment_asserts": False}
        keep_random_draws(graph)
        with inductor.patch(fallback_random=True, **asserts), torch.no_grad():
            compiled = inductor_compile(graph, list(inputs))
    finally:
        torch.distributions.Distribution.set_default_validate_args(validate)
        if address is None:
            os.environ.pop(_INDUCTOR_ADDRESS, None)
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
    return compiled


def constants_to_inputs(graph: GraphModule, position: int) -> list[Tensor]:
    """Turn tensors that the program closes over into inputs, so that the graph follows them.

    They come after the first ``position`` inputs.
    """
    constants: list[Tensor] = []
    nodes = list(graph.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    body = next(node for node in nodes if node.op not in ("placeholder", "get_attr"))
    before = inputs[position] if position < len(inputs) else body
    for node in nodes:
        if node.op != "get_attr":
            continue
        constant = getattr(graph, str(node.target))
        with graph.graph.inserting_before(before):
            placeholder = graph.graph.placeholder(f"constant_{len(constants)}")
        node.replace_all_uses_with(placeholder)
        graph.graph.erase_node(node)
        constants.append(constant)
    graph.graph.lint()
    graph.recompile()
    return constants


def keep_first_output(graph: GraphModule) -> None:
    """Drop the other outputs, and what only they need."""
    for node in graph.graph.nodes:
        if node.op == "output":
            node.args = ((node.args[0][0],),)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def keep_random_draws(graph: GraphModule) -> None:
    """Make outputs of draws that nothing uses: without them all later draws would be others."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    used = ancestors(output)
    unused = [
        node
        for node in graph.graph.nodes
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        and node not in used
    ]
    output.args = ((*output.args[0], *unused),)
    graph.recompile()


def prepare_for_cpu(graph: GraphModule, inputs: list[Tensor], level: str) -> None:
    """Run the graph once to see shapes and strides, then choose its kernels."""
    values: dict[torch.fx.Node, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    with torch.no_grad():
        Recorder(graph, garbage_collect_values=False).run(*inputs)
    _log.debug("%d products of expanded rows", multiply_rows_once(graph, values))
    changed = choose_matmul_kernels(graph, values)
    _log.debug("%d matrix products sent to oneDNN", changed)
    if level == "compiled":
        _log.debug("%d small values stored", keep_small_values(graph, values))

"""Pyro programs recorded as graphs of tensor operations."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from aevb.inference.process.patches import losses_in_tensors, samples_unchecked
from aevb.inference.process.switches import argument_checks, onednn_off

__all__ = ["NotTraceableError", "ancestors", "trace_graph", "untraceable_site"]


class NotTraceableError(RuntimeError):
    """A program has no single graph of tensor operations; the message says which site and why."""


def trace_graph(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    """Record what ``function`` does to tensors, in-place changes of its inputs included.

    The recorder sits below Python, autograd and Pyro's handlers, so none of them is left in the
    graph. The function really runs once: the caller puts back what it changes.

    Args:
        function: Called as ``function(*inputs)``; may use the very tensors of ``inputs`` by other
            references, as a module uses its parameters.
        inputs: Tensors that become the arguments of the graph, by identity.

    Returns:
        A module called like the function.

    Raises:
        NotTraceableError: If Python needs the value of a tensor, as for data-dependent branches.

    Example:
        >>> import torch
        >>> a, b = torch.ones(2), torch.ones(2)
        >>> graph = trace_graph(lambda a, b: a.add_(b), [a, b])
        >>> graph(torch.zeros(2), torch.ones(2))
        tensor([1., 1.])
    """
    sites = _LastSite()
    try:
        # oneDNN's fused recurrent layers have no derivative in a graph, and a distribution made
        # outside the program brings its own switch of checks
        with sites, losses_in_tensors(), samples_unchecked(), argument_checks(False), onednn_off():
            graph = make_fx(function)(*inputs)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if "_local_scalar_dense" in reason:
            reason = "Python needs the value of a tensor, as for a branch or a loop's end"
        where = f"after site {sites.name!r}: " if sites.name else ""
        raise NotTraceableError(f"{where}{type(error).__name__}: {reason}") from error
    _refuse_shapes_of_values(graph)
    # an optimizer's profiler annotations are no tensor operations, and compilers refuse them
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "call_function" and str(node.target).startswith("profiler."):
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def untraceable_site(
    model_trace: poutine.Trace, guide_trace: poutine.Trace
) -> NotTraceableError | None:
    """What a site says whose gradient estimator is not a graph of the program's own operations.

    That are enumerated sites, and latents of the guide that cannot be reparameterized, whose
    score-function estimator Pyro builds differently.
    """
    for trace in (model_trace, guide_trace):
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or site["is_observed"]:
                continue
            if (site["infer"] or {}).get("enumerate"):
                return NotTraceableError(
                    f"site {name!r} is enumerated, which is for EnumeratedELBO()"
                )
            if trace is model_trace and name in guide_trace:
                continue  # its value is the guide's: a mixture prior is never drawn from
            if not site_is_subsample(site) and not getattr(site["fn"], "has_rsample", False):
                kind = type(site["fn"]).__name__
                return NotTraceableError(
                    f"site {name!r} ({kind}) needs a score-function estimator, because its draws "
                    "cannot be reparameterized"
                )
    return None


def _refuse_shapes_of_values(graph: GraphModule) -> None:
    """Operations whose results have as many elements as the values say."""
    for node in graph.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if node.target is torch.ops.aten.index.Tensor:
            deciding = [i for i in node.args[1] if isinstance(i, Node) and _is_mask(i)]
        else:
            deciding = node.all_input_nodes if torch.Tag.dynamic_output_shape in tags else []
        # a mask that the program makes of nothing, such as a triangle, is always the same
        if any(node.op == "placeholder" for index in deciding for node in ancestors(index)):
            raise NotTraceableError(
                f"{node.target}: the shape of its result depends on the values of tensors"
            )


def ancestors(node: Node) -> set[Node]:
    """What a node depends on, itself included."""
    waiting, found = [node], set[Node]()
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _is_mask(node: Node) -> bool:
    value = node.meta.get("tensor_meta") or node.meta.get("val")
    return getattr(value, "dtype", None) in (torch.bool, torch.uint8)


class _LastSite(Messenger):
    """Remembers the site that ran last, to say where a trace broke off."""

    def __init__(self) -> None:
        super().__init__()
        self.name: str | None = None

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not site_is_subsample(msg):
            self.name = msg["name"]

"""Products of rows that are copies of one another."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb.inference.graphs import expanded_rows
from aevb.inference.graphs.expanded_rows import multiply_rows_once
from aevb.inference.graphs.passes import compile_graph
from aevb.inference.graphs.tracing import trace_graph

from graph_programs import needs_compiler

K, B, D, E, H = 4, 6, 5, 3, 7
X, LABELS = (
    torch.randn(B, D, generator=torch.Generator().manual_seed(1)).double(),
    3.0 * torch.eye(K, E, dtype=torch.float64).unsqueeze(1),
)
Z = torch.randn(K, B, E, generator=torch.Generator().manual_seed(2)).double()
W = torch.randn(H, D + E, generator=torch.Generator().manual_seed(3)).double()
BIAS = torch.arange(H).double()


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expanded_rows, "_LEAST", 1)


def recorded(function: Callable[..., Any], *inputs: Tensor) -> tuple[Any, dict[Any, Any]]:
    graph = trace_graph(function, list(inputs))
    values: dict[Any, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    with torch.no_grad():
        Recorder(graph, garbage_collect_values=False).run(*inputs)
    return graph, values


def joined(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x.expand(K, B, D), y.expand(K, B, E)], -1)


def layer(x: Tensor, y: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, ...]:
    """A layer and its gradients."""
    w = w.detach().requires_grad_()
    out = torch.nn.functional.linear(joined(x, y), w, b)
    (grad,) = torch.autograd.grad(out.sin().sum(), w)
    return out, grad


def by_columns(x: Tensor, y: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, ...]:
    """The same with the weights the other way round, which changes the gradient's product."""
    turned = w.t().contiguous().detach().requires_grad_()
    out = joined(x, y) @ turned
    (grad,) = torch.autograd.grad(out.sin().sum(), turned)
    return out if b is None else out + b, grad


@pytest.mark.parametrize("program", [layer, by_columns])
@pytest.mark.parametrize("second", [LABELS, Z], ids=["both expanded", "one expanded"])
@pytest.mark.parametrize("bias", [BIAS, None], ids=["bias", "none"])
def test_products_and_gradients_stay_and_no_large_one_is_left(
    program: Any, second: Tensor, bias: Tensor | None
) -> None:
    inputs = (X, second, W) if bias is None else (X, second, W, bias)
    graph, values = recorded(lambda *all_: program(*all_, *([None] * (4 - len(all_)))), *inputs)
    assert multiply_rows_once(graph, values) == 2
    for found, wanted in zip(graph(*inputs), program(X, second, W, bias), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    rows = [
        values[node.args[-2]].shape
        for node in graph.graph.nodes
        if node.target in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
    ]
    assert (K * B, D + E) not in rows


def test_rows_that_are_all_expanded_alike() -> None:
    def alone(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        w = w.detach().requires_grad_()
        out = torch.nn.functional.linear(x.expand(K, B, D).reshape(-1, D), w)
        return out, *torch.autograd.grad(out.sin().sum(), w)

    def twice(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        w = w.detach().requires_grad_()
        out = torch.nn.functional.linear(joined(x, x[:, :E]), w)
        return out, *torch.autograd.grad(out.sin().sum(), w)

    for program, w in ((alone, W[:, :D].contiguous()), (twice, W)):
        graph, values = recorded(program, X, w)
        assert multiply_rows_once(graph, values) == 2
        for found, wanted in zip(graph(X, w), program(X, w), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


def expanded_columns(x: Tensor, w: Tensor) -> tuple[Tensor]:
    return (x[:, :1].expand(B, D) @ w,)


def joined_rows(x: Tensor, w: Tensor) -> tuple[Tensor]:
    return (torch.cat([x, x[:1].expand(B, D)], 0) @ w,)


def changed_in_between(x: Tensor, w: Tensor) -> tuple[Tensor]:
    copies = x.expand(K, B, D).reshape(-1, D)
    x.mul_(2)
    return (copies @ w,)


def never_expanded(x: Tensor, w: Tensor) -> tuple[Tensor]:
    return (torch.cat([x, x], -1)[:, :D] @ w,)


@pytest.mark.parametrize(
    "program", [expanded_columns, joined_rows, changed_in_between, never_expanded]
)
def test_other_products_are_left_alone(program: Any) -> None:
    w = W[:, :D].t().contiguous()
    graph, values = recorded(program, X.clone(), w)
    assert multiply_rows_once(graph, values) == 0
    assert torch.equal(graph(X.clone(), w)[0], program(X.clone(), w)[0])


def test_small_products_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    graph, values = recorded(layer, X, LABELS, W, BIAS)
    assert multiply_rows_once(graph, values) == 0


@pytest.mark.slow
@needs_compiler
def test_compiled_products_stay() -> None:
    graph, values = recorded(layer, X, LABELS, W, BIAS)
    assert multiply_rows_once(graph, values) == 2
    inputs = [X, LABELS, W, BIAS]
    found = compile_graph(graph, inputs)(*inputs)
    for value, wanted in zip(found, layer(X, LABELS, W, BIAS), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-13, atol=1e-13)

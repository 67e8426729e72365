"""Passes over graphs change no number."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb.inference.graphs import matmul as kernels
from aevb.inference.graphs.compile import graph_function
from aevb.inference.graphs.matmul import choose_matmul_kernels
from aevb.inference.graphs.passes import compile_graph
from aevb.inference.graphs.scalars import keep_small_values
from aevb.inference.graphs.tracing import NotTraceableError, trace_graph

from graph_programs import needs_compiler


def recorded(function: Callable[..., Any], *inputs: Tensor) -> tuple[Any, dict[Any, Any]]:
    """A graph, and the value of each of its nodes."""
    graph = trace_graph(function, list(inputs))
    values: dict[Any, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    Recorder(graph, garbage_collect_values=False).run(*inputs)
    return graph, values


@pytest.mark.parametrize("activation", [torch.tanh, torch.sigmoid, torch.relu])
def test_large_products_are_the_same_by_either_library(
    activation: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    x, w, b = torch.randn(128, 784), torch.randn(512, 784) / 28, torch.randn(512)

    def layers(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor]:
        hidden = activation(torch.addmm(b, x, w.t()))
        return (hidden @ w + (hidden.t() @ x).sum(),)

    graph, values = recorded(layers, x, w, b)
    changed = choose_matmul_kernels(graph, values)
    assert changed == (3 if torch.backends.mkldnn.is_available() else 0)
    left = [node for node in graph.graph.nodes if activation.__name__ in str(node.target)]
    assert len(left) == (activation is torch.relu or changed == 0)
    exact = layers(x.double(), w.double(), b.double())[0]
    # sums of 784 + 128 * 512 products
    error = (graph(x, w, b)[0] - exact).abs().max()
    assert float(error / exact.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("vendor", "family", "unused"),
    [("AuthenticAMD", 26, True), ("AuthenticAMD", 25, False), ("GenuineIntel", 26, False)],
)
def test_library_of_products_goes_by_the_processor(vendor: str, family: int, unused: bool) -> None:
    linux = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\n"
    windows = f"AMD64 Family {family} Model 17 Stepping 1, {vendor}"
    assert kernels._has_unused_half(linux) is kernels._has_unused_half(windows) is unused
    assert not kernels._has_unused_half("arm")


def test_activation_of_a_product_with_two_uses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    x, w = torch.randn(128, 784), torch.randn(784, 512) / 28

    def both(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        product = x @ w
        return product, torch.tanh(product)

    graph, values = recorded(both, x, w)
    choose_matmul_kernels(graph, values)
    for result, exact in zip(graph(x, w), both(x.double(), w.double()), strict=True):
        torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=1e-5)


def scaled(x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """As an optimizer: costly scalars for every element, and a cheap one."""
    step.add_(1)
    correction = (1 - torch.pow(0.9, step)).sqrt()
    shifted = x / correction + (step + 1)
    correction.mul_(2)
    return shifted, x * correction


def test_costly_scalar_is_stored_before_it_is_broadcast() -> None:
    x, step = torch.linspace(0, 1, 64), torch.tensor(3.0)
    graph, values = recorded(scaled, x, step)
    assert keep_small_values(graph, values) == 2
    names = [str(node.target) for node in graph.graph.nodes]
    stored = [number for number, name in enumerate(names) if "as_strided" in name]
    assert len(stored) == 2
    assert "sqrt" in names[stored[0] - 1]
    for result, expected in zip(graph(x, step.fill_(3)), scaled(x, step.fill_(3)), strict=True):
        torch.testing.assert_close(result, expected)
    graph, values = recorded(scaled, x[:8], step)
    assert keep_small_values(graph, values) == 0  # not worth it


@needs_compiler
def test_stored_scalars_survive_the_compiler() -> None:
    x, step = torch.linspace(0, 1, 64), torch.tensor(3.0)
    graph, values = recorded(scaled, x, step)
    keep_small_values(graph, values)
    compiled = compile_graph(graph, [x, step])
    results = compiled(x, step.fill_(3))
    for result, expected in zip(results, scaled(x, step.fill_(3)), strict=True):
        torch.testing.assert_close(result, expected)


def test_views_of_memory_are_not_stored_from_its_start() -> None:
    def pair(x: Tensor, temps: Tensor) -> tuple[Tensor]:
        temps = temps.exp()
        return (x * temps[1].div_(2.0),)

    x, temps = torch.ones(64), torch.tensor([0.0, 2.0])
    graph, values = recorded(pair, x, temps)
    keep_small_values(graph, values)
    torch.testing.assert_close(graph(x, temps)[0], pair(x, temps)[0])


@pytest.mark.parametrize("bias", [torch.randn(512, 2)[:, 0], torch.randn(1).expand(512)])
def test_bias_of_any_layout_is_added(bias: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_onednn_is_faster", lambda: True)
    x, w = torch.randn(128, 784), torch.randn(512, 784)
    graph, values = recorded(lambda x, w, b: (torch.addmm(b, x, w.t()),), x, w, bias)
    choose_matmul_kernels(graph, values)
    expected = torch.addmm(bias.double(), x.double(), w.t().double())
    torch.testing.assert_close(graph(x, w, bias)[0].double(), expected, rtol=1e-4, atol=1e-3)


def test_function_that_freezes_a_value_is_refused() -> None:
    with pytest.raises(NotTraceableError, match="differs for other inputs"):
        graph_function(lambda x: x * float(x.numpy()[0]), torch.tensor([2.0, 3.0]))


@pytest.mark.parametrize("level", ["traced", "compiled"])
def test_a_graph_reads_inputs_that_lie_otherwise_in_memory(level: str) -> None:
    """Compiled code reads memory as it lay in the example."""

    def function(u: Tensor, temperature: Tensor) -> Tensor:
        return (u * temperature.unsqueeze(-1)).sum(-1)

    u, contiguous, columns = torch.randn(4, 3, 2), torch.rand(3), torch.rand(3, 7).T
    for example in (contiguous, columns[0], torch.rand(1).expand(3)):
        graph = graph_function(function, u, example, level=level)
        for other in (contiguous, columns[3], torch.rand(1).expand(3)):
            torch.testing.assert_close(graph(u, other), function(u, other))

"""Matrix products of rows that are copies of one another."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

__all__ = ["multiply_rows_once"]

_ATEN = torch.ops.aten
# Multiply-adds to be saved, below which the additional operations cost more.
_LEAST = 3_000_000
_RESHAPED = (_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.clone.default)
_TRANSPOSED = (_ATEN.t.default, _ATEN.transpose.int, _ATEN.permute.default)


class _Part(NamedTuple):
    """Columns of a matrix whose rows are those of ``source``, repeated along ``repeated``."""

    source: Node
    shape: tuple[int, ...]
    repeated: list[int]


class _Matrix(NamedTuple):
    """Parts side by side, whose rows have the shape ``lead`` once they are expanded."""

    lead: tuple[int, ...]
    parts: list[_Part]


def multiply_rows_once(graph: GraphModule, values: dict[Node, Any]) -> int:
    r"""Multiply what is expanded before it is expanded, and not each copy of it.

    Programs join data to all values of a label in front of a network, as Pyro's semi-supervised
    VAE does, by ``torch.cat([x.expand(...), y.expand(...)], -1)``. With :math:`W = (W_x, W_y)`,

    .. math:: (x, y) W^\top = x W_x^\top + y W_y^\top, \qquad
        \textstyle\sum_k g_k^\top x = (\sum_k g_k)^\top x

    for products and weights' gradients. The graph is changed in place.

    Args:
        graph: Of ATen operations.
        values: Example values of its nodes, to which those of new nodes are added.

    Returns:
        How many products were changed.
    """
    written = _written(graph, values)
    changed = 0
    for node in list(graph.graph.nodes):
        if node.target not in (_ATEN.mm.default, _ATEN.addmm.default) or node.kwargs:
            continue
        *bias, left, right = node.args
        if len(bias) > 1 or any(values[term].ndim != 1 for term in bias):
            continue
        new = _Builder(graph.graph, node, values)
        if matrix := _matrix(left, values, written, values[right].shape[1]):
            result = _product(new, matrix, right, *bias)
        elif bias:
            continue
        elif matrix := _matrix(right, values, written, values[left].shape[0]):
            result = _gradient(new, matrix, new(_ATEN.t.default, left), columns=True)
        elif left.target in _TRANSPOSED and (
            matrix := _matrix(left.args[0], values, written, values[right].shape[1])
        ):
            result = _gradient(new, matrix, right, columns=False)
        else:
            continue
        node.replace_all_uses_with(result)
        graph.graph.erase_node(node)
        changed += 1
    if changed:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return changed


class _Builder:
    """Puts operations in front of a node, and does them to the example values."""

    def __init__(self, graph: Graph, place: Node, values: dict[Node, Any]) -> None:
        self._graph, self._place, self._values = graph, place, values

    def __call__(self, operation: Any, *args: Any) -> Node:
        with self._graph.inserting_before(self._place):
            node = self._graph.call_function(operation, args)
        with torch.no_grad():
            self._values[node] = operation(*map_arg(args, self._values.__getitem__))
        return node

    def size(self, node: Node, dim: int) -> int:
        return int(self._values[node].shape[dim])

    def rows(self, part: _Part) -> Node:
        return self(_ATEN.reshape.default, part.source, [-1, part.shape[-1]])


def _product(new: _Builder, matrix: _Matrix, right: Node, *bias: Node) -> Node:
    """The parts' products with their own rows of the right factor."""
    width = new.size(right, 1)
    terms: list[tuple[int, Node]] = []
    start = 0
    for part in matrix.parts:
        end = start + part.shape[-1]
        factors = new.rows(part), new(_ATEN.slice.Tensor, right, 0, start, end)
        term = new(_ATEN.mm.default, *factors)
        term = new(_ATEN.reshape.default, term, [*part.shape[:-1], width])
        terms.append((math.prod(part.shape[:-1]), term))
        start = end
    terms.sort(key=lambda term: term[0])  # few rows are added up first
    total = terms[0][1]
    for addend in (*bias, *(term for _, term in terms[1:])):
        total = new(_ATEN.add.Tensor, total, addend)
    total = new(_ATEN.expand.default, total, [*matrix.lead, width])
    return new(_ATEN.reshape.default, total, [-1, width])


def _gradient(new: _Builder, matrix: _Matrix, grad: Node, columns: bool) -> Node:
    """Products of the parts, transposed, with the rows' gradients, ``(rows, width)``."""
    width = new.size(grad, 1)
    shaped = new(_ATEN.reshape.default, grad, [*matrix.lead, width])
    found = []
    for part in matrix.parts:
        total = new(_ATEN.sum.dim_IntList, shaped, part.repeated) if part.repeated else shaped
        total = new(_ATEN.reshape.default, total, [-1, width])
        first, second = (total, new.rows(part)) if columns else (new.rows(part), total)
        found.append(new(_ATEN.mm.default, new(_ATEN.t.default, first), second))
    return new(_ATEN.cat.default, found, int(columns))


def _matrix(node: Node, values: dict[Node, Any], written: set[int], width: int) -> _Matrix | None:
    """What a matrix of expanded rows is made of; None if rows are not expanded, or few."""
    last = values[node].shape[-1]
    while node.target in _RESHAPED and values[node.args[0]].shape[-1:] == (last,):
        node = node.args[0]  # type: ignore[assignment]
    whole = values[node].shape
    pieces = [node]
    if node.target is _ATEN.cat.default:
        if len(node.args) < 2 or node.args[1] not in (-1, len(whole) - 1):
            return None
        pieces = list(node.args[0])  # type: ignore[arg-type]
    parts, saved = [], 0
    for piece in pieces:
        source = piece.args[0] if piece.target is _ATEN.expand.default else piece
        value = values[source]
        shape = (1,) * (len(whole) - value.ndim) + tuple(value.shape)
        if shape[-1] != values[piece].shape[-1]:
            source, shape = piece, tuple(values[piece].shape)
        if _address(values[source]) in written:
            return None  # the copy may be of what it was before
        repeated = [i for i, size in enumerate(shape[:-1]) if size != whole[i]]
        parts.append(_Part(source, shape, repeated))  # type: ignore[arg-type]
        saved += (math.prod(whole[:-1]) - math.prod(shape[:-1])) * shape[-1] * width
    return _Matrix(tuple(whole[:-1]), parts) if saved >= _LEAST else None


def _written(graph: GraphModule, values: dict[Node, Any]) -> set[int]:
    """Addresses of what is changed in place, by any view of it."""
    found: set[int] = set()
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        named = {a.name: value for a, value in zip(schema.arguments, node.args, strict=False)}
        named.update(node.kwargs)
        for argument in schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = named.get(argument.name)
                given = given if isinstance(given, (list, tuple)) else [given]
                found |= {_address(values[one]) for one in given if isinstance(one, Node)}
    return found


def _address(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()

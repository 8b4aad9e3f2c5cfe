"""Slices as near to the leaves as they go, so that what is computed of some columns reads these columns alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from unrolled.kernels.build import Graph
from unrolled.kernels.graph import POINTWISE, Kind, Node, Operand, ordered

MOST_PASSES = 8
"""What is cut may cut what it is made of in turn; nothing seen so far took more than three rounds."""


class Piece(NamedTuple):
    """Columns of one of several values."""

    whole: int
    """Which value."""
    start: int
    width: int


def segmented(graph: Graph, results: Sequence[Node], leaves: Collection[Node]) -> list[Node]:
    """The same rows, with functions of single elements computed piece by piece where their results are cut, or their operands put together.

    Slices then are of leaves, products and reductions, and concatenations stand only where whole rows are needed. A function of which only
    some columns are picked out beside its whole stays whole.

    Args:
        graph: where nodes are made.
        results: rows.
        leaves: what is not looked into.

    Returns:
        The rows, in the same order.
    """
    for _ in range(MOST_PASSES):
        order = [node for node in ordered(results, leaves) if node.kind is Kind.ROWS]
        cuts = _cuts(order, set(results))
        parts: Parts = {}
        for node in order:
            parts[node] = _parts(graph, node, cuts.get(node, (0, node.width)), parts)
        new = [graph.concatenate(parts[node]) if node in parts else node for node in results]
        if new == list(results):
            break
        results = new
    return list(results)


def pieces_of(values: Sequence[Node]) -> tuple[list[Node], list[Piece]]:
    """Drop what is a stretch of columns of another value.

    Args:
        values: rows.

    Returns:
        The values that are left, and for each of `values` where it is.
    """
    left = sorted(dict.fromkeys(values), key=lambda node: -node.width)
    kept: list[Node] = []
    for node in left:
        if not any(_within(whole, node) is not None for whole in kept):
            kept.append(node)
    kept = [node for node in dict.fromkeys(values) if node in kept]
    places = []
    for node in values:
        found = ((place, _within(whole, node)) for place, whole in enumerate(kept))
        places.append(next(Piece(place, start, node.width) for place, start in found if start is not None))
    return kept, places


def _within(whole: Node, node: Node) -> int | None:
    """The column of `whole` at which `node` begins, where it is a stretch of it."""
    if node is whole:
        return 0
    if node.operation == "slice" and node.operands[0] is whole:
        return node.option
    parts = whole.nodes if whole.operation == "concatenate" else (whole,)
    wanted = node.nodes if node.operation == "concatenate" else (node,)
    start = 0
    for place, part in enumerate(parts):
        if parts[place : place + len(wanted)] == wanted:
            return start
        start += part.width
    return None


def _cuts(order: Sequence[Node], results: Collection[Node]) -> dict[Node, Sequence[int]]:
    """The columns at which each function of single elements is cut: the same for all that are computed of each other."""
    families = _families(order)
    asked: dict[Node, set[tuple[int, int]]] = {}
    whole: set[Node] = set()
    for node in order:
        for operand in node.nodes:
            family = families.get(operand)
            if node.operation == "slice" and family is not None:
                asked.setdefault(family, set()).add((node.option, node.option + node.width))
            elif family is not None and families.get(node) is not family:
                whole.add(family)
    for node in order:
        if node.operation == "concatenate" and node in families:
            ends = list(accumulate(part.width for part in node.nodes))
            asked.setdefault(families[node], set()).update(zip([0, *ends], ends, strict=False))
    whole |= {families[node] for node in results if node in families}
    cuts: dict[Node, Sequence[int]] = {}
    for node, family in families.items():
        places = sorted({0, node.width} | {place for stretch in asked.get(family, ()) for place in stretch})
        if family not in whole or asked.get(family, set()).issuperset(pairwise(places)):
            cuts[node] = places
    return cuts


def _families(order: Sequence[Node]) -> dict[Node, Node]:
    """For each function of single elements, and what is put together for one, the first of all those that are computed of each other."""
    above: dict[Node, Node] = {}
    for node in order:
        if node.operation in POINTWISE or node.operation == "concatenate":
            above[node] = node
        if node.operation in POINTWISE:
            for operand in node.nodes:
                if operand in above and operand.width == node.width:
                    above[_first(above, node)] = _first(above, operand)
    return {node: _first(above, node) for node in above}


def _first(above: dict[Node, Node], node: Node) -> Node:
    while above[node] is not node:
        node = above[node]
    return node


Parts = dict[Node, list[Node]]
"""What each value is put together from."""


def _parts(graph: Graph, node: Node, places: Sequence[int], parts: Parts) -> list[Node]:
    if node.operation == "slice":
        source = node.nodes[0]
        return [_range(graph, parts.get(source, [source]), node.option, node.option + node.width)]
    if node.operation == "concatenate":
        return [part for operand in node.nodes for part in parts.get(operand, [operand])]
    if node.operation in POINTWISE:
        return [
            graph.pointwise(node.operation, _cut(graph, node, (begin, end), parts), end - begin, node.dtype)
            for begin, end in pairwise(places)
        ]
    return [graph.rebuilt(node, [graph.concatenate(parts[operand]) if operand in parts else operand for operand in node.operands])]


def _cut(graph: Graph, node: Node, columns: tuple[int, int], parts: Parts) -> list[Operand]:
    """The operands of a function of single elements, as far as some columns of it need them."""
    begin, end = columns
    operands: list[Operand] = []
    for operand in node.operands:
        if not isinstance(operand, Node) or operand.shape == (1,):
            operands.append(graph.concatenate(parts[operand]) if operand in parts else operand)
        elif operand.kind is Kind.SHARED:
            operands.append(graph.columns(operand, 0, begin, end - begin))
        else:
            operands.append(_range(graph, parts.get(operand, [operand]), begin, end))
    return operands


def _range(graph: Graph, parts: Sequence[Node], begin: int, end: int) -> Node:
    found, place = [], 0
    for part in parts:
        low, high = max(begin, place), min(end, place + part.width)
        if low < high:
            found.append(graph.slice(part, low - place, high - low))
        place += part.width
    return graph.concatenate(found)

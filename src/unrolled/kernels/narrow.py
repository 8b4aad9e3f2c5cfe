"""Products of which the loop needs some columns only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unrolled.kernels.build import Graph
from unrolled.kernels.graph import PRODUCT, Carried, Node, ordered


def narrow(
    graph: Graph, results: Sequence[Node], carried: Sequence[Carried], given: Iterable[Node]
) -> tuple[tuple[Node, ...], tuple[Carried, ...]]:
    """Take apart each product whose columns are used by slices alone, where the state needs some of them and the rest is for later or nobody.

    Args:
        graph: where nodes are made.
        results: nodes wanted.
        carried: the state of the loop.
        given: what is not looked into.

    Returns:
        The results and the state, computed with narrower products.
    """
    known = set(given)
    nodes = ordered([*results, *[state.after for state in carried]], known)
    core = set(ordered([state.after for state in carried], known))
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        for operand in node.nodes:
            users.setdefault(operand, []).append(node)
    wanted = {*results, *[state.after for state in carried]}
    new: dict[Node, Node] = {}
    for node in nodes:
        if node in new:
            continue
        operands = [new.get(operand, operand) if isinstance(operand, Node) else operand for operand in node.operands]
        new[node] = graph.rebuilt(node, operands)
        if node.operation == PRODUCT and node in core and node not in wanted and all(user.operation == "slice" for user in users[node]):
            groups = [[user for user in users[node] if (user in core) is inside] for inside in (True, False)]
            _narrow(graph, new[node], groups, new)
    states = tuple(Carried(state.before, new.get(state.after, state.after)) for state in carried)
    return tuple(new.get(node, node) for node in results), states


def _narrow(graph: Graph, product: Node, groups: Sequence[Sequence[Node]], new: dict[Node, Node]) -> None:
    """Replace the slices of a product, each group by products of its own."""
    stretches = [_stretches(group) for group in groups]
    if stretches[0] == [(0, product.width)]:
        return
    rows, matrix = product.operands
    for group, places in zip(groups, stretches, strict=True):
        for begin, end in places:
            part = graph.columns(matrix, 0 if product.option else 1, begin, end - begin)
            narrower = graph.rows(PRODUCT, (rows, part), end - begin, product.dtype, product.option)
            for node in group:
                if begin <= node.option < end:
                    new[node] = graph.slice(narrower, node.option - begin, node.width)


def _stretches(slices: Iterable[Node]) -> list[tuple[int, int]]:
    """The columns that slices cover, as few stretches without gaps."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted((node.option, node.option + node.width) for node in slices):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found

"""Which values to hand over from one part of a graph to another: the cheapest ones from which the rest can be computed again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from unrolled.kernels.graph import Node

End = tuple[Node, bool] | str
"""A place of the flow: the near (false) or far (true) side of a node, or one of the two ends."""

Residual = dict[End, dict[End, float]]
"""What each edge can still take, by its ends."""

SOURCE, SINK = "source", "sink"


def cheapest_cut(
    uses: Iterable[Node],
    *,
    cost: Callable[[Node], int],
    given: Callable[[Node], bool],
    anywhere: Callable[[Node], bool],
    late: bool = False,
) -> list[Node]:
    """The cheapest values from which all of `uses` can be computed.

    A smallest cut by the largest flow (Ford & Fulkerson 1956; shortest paths first, Edmonds & Karp 1972): each node is an edge whose
    capacity is its cost.

    Args:
        uses: what is needed.
        cost: of handing a value over.
        given: whether a value cannot be computed here and has to be handed over, or something between it and its uses.
        anywhere: whether a value is there anyway, and what it is made of does not matter.
        late: of equally cheap values take those nearest to their uses, not those nearest to what is given.

    Returns:
        The values, in the order in which they were met.
    """
    residual: Residual = {SOURCE: {}, SINK: {}}
    order: list[Node] = []
    pending = [node for node in uses if not anywhere(node)]
    for node in pending:
        _connect(residual, (node, True), SINK, math.inf)
    seen: set[Node] = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        order.append(node)
        _connect(residual, (node, False), (node, True), cost(node))
        if given(node):
            _connect(residual, SOURCE, (node, False), math.inf)
            continue
        for operand in node.nodes:
            if not anywhere(operand):
                _connect(residual, (operand, True), (node, False), math.inf)
                pending.append(operand)
    _saturate(residual)
    if late:
        reaching = _reached({head: {tail: residual[tail][head] for tail in residual[head]} for head in residual}, SINK)
        return [node for node in order if (node, True) in reaching and (node, False) not in reaching]
    reached = _reached(residual, SOURCE)
    return [node for node in order if (node, False) in reached and (node, True) not in reached]


def _connect(residual: Residual, tail: End, head: End, capacity: float) -> None:
    residual.setdefault(tail, {})[head] = capacity
    residual.setdefault(head, {}).setdefault(tail, 0)


def _saturate(residual: Residual) -> None:
    """Send as much flow as the edges take."""
    while SINK in (before := _reached(residual, SOURCE)):
        path: list[End] = [SINK]
        while path[-1] != SOURCE:
            path.append(before[path[-1]])
        edges = list(zip(path[1:], path, strict=False))
        flow = min(residual[tail][head] for tail, head in edges)
        for tail, head in edges:
            residual[tail][head] -= flow
            residual[head][tail] += flow


def _reached(residual: Residual, start: End) -> dict[End, End]:
    """What can still be reached, each with the end that it was reached from first."""
    before: dict[End, End] = {start: start}
    queue: deque[End] = deque([start])
    while queue:
        tail = queue.popleft()
        for head, capacity in residual[tail].items():
            if capacity > 0 and head not in before:
                before[head] = tail
                queue.append(head)
    return before

"""What of a direction happens before the loop, over all steps at once, what in it, and what after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from unrolled.kernels.build import Graph
from unrolled.kernels.cut import cheapest_cut
from unrolled.kernels.graph import MOVES, POINTWISE, REDUCTIONS, SUMS, Carried, Kind, LoopProgram, Node, ordered
from unrolled.kernels.narrow import narrow
from unrolled.kernels.segments import Piece, pieces_of, segmented


class Task(NamedTuple):
    """What one direction has to compute."""

    results: tuple[Node, ...]
    """Wanted outside: rows of all steps, or shared values."""
    carried: tuple[Carried, ...]
    kept: tuple[bool, ...]
    """For each part of the state, whether it is wanted after every step."""
    given: tuple[Node, ...]
    """Rows of all steps that are there from the start."""
    reverse: bool = False


class Parts(NamedTuple):
    """One direction, taken apart. Each part gives tensors to the next by node."""

    results: tuple[Node, ...]
    """Those of the task, as they are computed here."""
    before: tuple[Node, ...]
    """Computed before the loop, beside what is given: what the loop and the part after it read."""
    program: LoopProgram
    """Its streams in, constants and shared values are nodes of `before`, or given."""
    kept: tuple[Piece | None, ...]
    """For each part of the state, the stream in which its value after every step is written."""
    writes: tuple[tuple[Node, Piece], ...]
    """What the part after the loop finds in the streams that the loop wrote."""
    sums: tuple[Node, ...]
    """What the loop summed up over time, in its last states; `SUMS` says what is still to be done."""


def take_apart(graph: Graph, task: Task) -> Parts:
    """Divide a direction into its parts.

    Args:
        graph: where new nodes are made.
        task: what has to be computed.

    Returns:
        The parts.
    """
    results, carried = narrow(graph, task.results, task.carried, task.given)
    parting = _Parting(task._replace(results=results, carried=carried))
    sums = parting.sums()
    keeps = parting.kept(sums)
    states = (*carried, *[_running_sum(graph, place, total) for place, total in enumerate(sums)])
    afters = [state.after for state in states]
    outs = list(dict.fromkeys([*[after for after, keep in zip(afters, keeps, strict=False) if keep], *parting.outs(sums)]))
    leaves = [*parting.streams, *[state.before for state in states]]
    with graph.closed(leaves):
        new = segmented(graph, [*outs, *afters], leaves)
    written, pieces = pieces_of(new[: len(outs)])
    places = dict(zip(outs, pieces, strict=True))
    states = tuple(Carried(state.before, after) for state, after in zip(states, new[len(outs) :], strict=True))
    program = loop_program(parting.streams, written, states, task.reverse)
    return Parts(
        results=results,
        before=parting.before([*program.streams_in, *program.constants, *program.shared], [*outs, *sums]),
        program=program,
        kept=tuple(places[after] if keep else None for after, keep in zip(afters, keeps, strict=False)),
        writes=tuple(places.items()),
        sums=tuple(sums),
    )


class _Parting:
    """Sorts the nodes of a task."""

    def __init__(self, task: Task) -> None:
        self.task = task
        befores, afters = zip(*task.carried, strict=True) if task.carried else ((), ())
        self.nodes = ordered([*task.results, *afters], task.given)
        self.looping = dependents(self.nodes, befores)
        self.varying = dependents(self.nodes, [*befores, *task.given])
        self.inside = self.looping & {*befores, *ordered(afters, task.given)}
        for node in self.nodes:
            if self._is_light(node):
                self.inside.add(node)
        self.streams = self._streams(afters)
        self._draw_in()

    def _is_light(self, node: Node) -> bool:
        """Whether it costs less to compute a value in the loop than to bring what it is made of out of it."""
        if node not in self.looping or not _is_simple(node):
            return False
        # Columns that come from outside are better put beside those of the loop outside.
        bound = self.varying if node.operation == "concatenate" else self.looping
        return all(operand in self.inside for operand in node.nodes if operand in bound)

    def _streams(self, afters: Sequence[Node]) -> tuple[Node, ...]:
        read = [operand for node in self.nodes if node in self.inside for operand in node.nodes]
        uses = [node for node in [*read, *afters] if node in self.varying and node not in self.looping]
        given = set(self.task.given)

        def is_there(node: Node) -> bool:
            return node in given or not _is_simple(node)

        return tuple(
            cheapest_cut(
                dict.fromkeys(uses),
                # What is computed over all steps at once is written to memory before it is read.
                cost=lambda node: node.width * (1 if is_there(node) else 2),
                given=is_there,
                anywhere=lambda node: node not in self.varying,
            )
        )

    def _draw_in(self) -> None:
        """Compute in the loop what follows from its streams: they are read there anyway."""
        following = set(self.streams)
        for node in self.nodes:
            if node not in self.varying or node in self.looping or node in following or not _is_simple(node):
                continue
            if all(operand in following for operand in node.nodes if operand in self.varying):
                following.add(node)
        self.inside |= {node for node in following if node.operation not in MOVES} - set(self.streams)

    def _outside(self, there: Iterable[Node]) -> list[Node]:
        return ordered(self.task.results, {*self.task.given, *self.inside, *there})

    def sums(self) -> list[Node]:
        """Sums over time that the loop makes as it goes: those of values that nothing else outside of it reads.

        Returns:
            The sums.
        """
        outside = self._outside(())
        elsewhere = {operand for node in outside if node.operation not in SUMS for operand in node.nodes} | set(self.task.results)
        return [node for node in outside if node.operation in SUMS and node.nodes[0] in self.inside - elsewhere]

    def outs(self, sums: Iterable[Node]) -> list[Node]:
        """What the loop hands to the part after it.

        Args:
            sums: what the loop sums up.

        Returns:
            The nodes.
        """
        read = {operand for node in self._outside(sums) for operand in node.nodes} | set(self.task.results)
        befores = {state.before for state in self.task.carried}
        return [node for node in self.nodes if node in read and node in self.inside and node not in befores]

    def before(self, reads: Iterable[Node], there: Iterable[Node]) -> tuple[Node, ...]:
        """What has to be computed before the loop.

        Args:
            reads: what the loop reads.
            there: what the loop gives.

        Returns:
            The nodes; with them what the part after the loop needs too and comes along.
        """
        made = ordered(reads, self.task.given)
        outside = self._outside(there)
        read = {operand for node in outside for operand in node.nodes} | {*reads, *self.task.results}
        return tuple(node for node in made if node in read)

    def kept(self, sums: Iterable[Node]) -> list[bool]:
        """Which parts of the state are wanted at every step, after it or before it.

        Args:
            sums: what the loop sums up.

        Returns:
            A mark for each part.
        """
        read = {operand for node in self._outside(sums) for operand in node.nodes} | set(self.task.results)
        return [keep or state.before in read for state, keep in zip(self.task.carried, self.task.kept, strict=True)]


def dependents(nodes: Iterable[Node], roots: Iterable[Node]) -> set[Node]:
    """What depends on some nodes.

    Args:
        nodes: operands before what uses them.
        roots: what it depends on.

    Returns:
        Those of `nodes` that do, and the roots.
    """
    found = set(roots)
    for node in nodes:
        if any(operand in found for operand in node.nodes):
            found.add(node)
    return found


def _is_simple(node: Node) -> bool:
    """Whether a value is cheaper made of what is at hand than brought from elsewhere: all but products."""
    return node.kind is Kind.ROWS and (node.operation in POINTWISE or node.operation in MOVES or node.operation in REDUCTIONS)


def _running_sum(graph: Graph, place: int, total: Node) -> Carried:
    value = total.nodes[0]
    dtype = torch.promote_types(value.dtype, torch.float32)
    before = graph.leaf(f"sum {place}", Kind.ROWS, value.shape, dtype)
    added = graph.pointwise("convert", (value,), value.width, dtype)
    return Carried(before, graph.pointwise("add", (before, added), value.width, dtype))


def loop_program(streams: Sequence[Node], outs: Sequence[Node], states: tuple[Carried, ...], reverse: bool = False) -> LoopProgram:
    """The program of a loop; what changes neither with a stream nor with the state is constant, or shared.

    Args:
        streams: rows that it reads at each step.
        outs: rows that it writes at each step.
        states: what it carries.
        reverse: steps are taken from the last to the first.

    Returns:
        The program.
    """
    results = [*outs, *[state.after for state in states]]
    leaves = [*streams, *[state.before for state in states]]
    changing = ordered(results, leaves)
    moving = dependents(changing, leaves)
    constants: dict[Node, None] = {}
    shared: dict[Node, None] = {}
    read = [operand for node in changing if node in moving for operand in node.nodes] + results
    for node in read:
        if node in moving:
            continue
        if node.operation in ("fill", "expand"):
            shared.update(dict.fromkeys(node.nodes))
        else:
            (shared if node.kind is Kind.SHARED else constants)[node] = None
    nodes = ordered(results, [*leaves, *constants, *shared])
    return LoopProgram(tuple(streams), tuple(outs), tuple(constants), tuple(shared), states, tuple(nodes), reverse)

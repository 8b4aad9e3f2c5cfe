"""Which part of a step is done when, and where each value is kept: the plan that C++ is written from.

A step is a row of *phases*. Within a phase each thread works on its own features (or rows) and reads nothing that another thread makes in the same
phase; before each phase all threads wait for each other. What reads features of others is a product, a reduction, or a slice or concatenation of
what the loop computes: its result belongs to a later phase than its operand. Within a phase, values of the same width are one *stage*: one pass over
the features, tile by tile, first the products of a tile, then everything on single elements. Values 1 wide are numbers of a row; every thread
computes them for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from unrolled.kernels.graph import INPUT, POINTWISE, PRODUCT, REDUCTIONS, Carried, Kind, LoopProgram, Node, ordered


class Place(NamedTuple):
    """Where rows lie in memory."""

    pointer: str
    """The name in C++ of the first element of the first row."""
    stride: int
    """Elements from one row to the next; 0 for a shared vector, which all rows read."""
    offset: int
    """Of the first column."""
    boolean: bool

    def part(self, start: int) -> Place:
        """The place of some columns.

        Args:
            start: the first of them.

        Returns:
            A place in the same memory.
        """
        return self._replace(offset=self.offset + start)


class Factors(NamedTuple):
    """Rows that products multiply, copied side by side at the beginning of a phase by each thread that needs them."""

    name: str
    parts: tuple[tuple[Place, int], ...]
    """Where each part comes from, and its width."""
    width: int


class Segment(NamedTuple):
    """One product of a tile: columns of a matrix."""

    node: Node
    """Whose value it is: the product, or a slice of it."""
    matrix: str
    transposed: bool
    start: int
    """The first column."""
    columns: int
    """Of the whole matrix."""


@dataclass
class Group:
    """Products of the same rows, made at once by one run over these rows."""

    name: str
    factors: Factors
    segments: list[Segment] = field(default_factory=list)


@dataclass
class Stage:
    """One pass over the features."""

    phase: int
    width: int
    groups: list[Group] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    """In order; no products."""
    reduced: list[tuple[Node, Node]] = field(default_factory=list)
    """Reductions, with what they see here."""

    @property
    def name(self) -> str:
        """What the stage is called in C++."""
        return f"{self.phase}_{self.width}"

    @property
    def segments(self) -> list[Segment]:
        """The products of all groups."""
        return [segment for group in self.groups for segment in group.segments]


@dataclass
class Phase:
    """What is done between two waits."""

    factors: list[Factors] = field(default_factory=list)
    combined: list[Node] = field(default_factory=list)
    """Reductions whose parts, one of each thread, are put together first."""
    begun: list[Node] = field(default_factory=list)
    """Reductions that see the first of their operands here."""
    stages: list[Stage] = field(default_factory=list)


COLUMNS_AT_ONCE = 3
"""How many products of the same rows are made at once: more do not fit into registers beside eight rows."""


class Plan:
    """The phases of a program and the places of its values."""

    def __init__(self, program: LoopProgram) -> None:
        """Plan a program.

        Args:
            program: any.
        """
        self.program = program = _plain(program)
        self.leaves = dict(self._leaves())
        self.segments = dict(self._segments())
        self.skipped = {segment.node.nodes[0] for segment in self.segments.values() if segment.node.operation == "slice"}
        self.multiplied = {node.nodes[0] for node in program.nodes if node.operation == PRODUCT}
        self.phase: dict[Node, int] = {}
        self.homes: dict[Node, list[Place]] = {node: [] for node in program.nodes}
        self.spare: list[tuple[str, Node]] = []
        """Memory for values that a later phase reads: rows of a number, or of one element that every thread keeps for itself."""
        self.carried: dict[int, Place] = {}
        """For each state: where `after` is written, which is where the next step finds `before`."""
        self.phases: list[Phase] = []
        self._factors: dict[tuple[int, tuple[tuple[Place, int], ...]], Factors] = {}
        for node in program.nodes:
            if node not in self.skipped:
                self.phase[node] = self._phase_of(node)
        self.light: set[Node] = set()
        """Cheap values of what lies in memory: computed wherever they are used."""
        self._find_light()
        self._find_homes()
        for node in program.nodes:
            if node not in self.skipped:
                self._schedule(node)
        self._order()

    def ready(self, node: Node) -> int:
        """The first phase in which a thread may use a value in the features that are its own.

        Args:
            node: rows.

        Returns:
            The number of the phase.
        """
        if node.operation == INPUT:
            return 0
        return self.phase[node] + (node.operation == "concatenate")

    def place(self, node: Node) -> Place:
        """Where a value is read that was not computed in the same stage.

        Args:
            node: a leaf, or a value with a home.

        Returns:
            The place.
        """
        if node in self.leaves:
            return self.leaves[node]
        return self.homes[node][0]

    def _leaves(self) -> Iterator[tuple[Node, Place]]:
        groups = {"in": self.program.streams_in, "constant": self.program.constants, "shared": self.program.shared}
        groups["before"] = tuple(state.before for state in self.program.states)
        for name, nodes in groups.items():
            for index, node in enumerate(nodes):
                stride = node.width if node.kind is Kind.ROWS else 0
                yield node, Place(f"{name}{index}", stride, 0, node.dtype == torch.bool)

    def _segments(self) -> Iterator[tuple[Node, Segment]]:
        """The products, in the columns in which they are used."""
        whole = set(self.program.streams_out) | {state.after for state in self.program.states}
        for node in self.program.nodes:
            whole.update(operand for operand in node.nodes if node.operation != "slice")
        for node in self.program.nodes:
            below = node.nodes[0] if node.operation == "slice" else node
            if below.operation == PRODUCT and (node.operation == "slice") != (below in whole):
                matrix = self.leaves[below.nodes[1]].pointer
                yield node, Segment(node, matrix, bool(below.option), node.option if node is not below else 0, below.width)

    def _phase_of(self, node: Node) -> int:
        if node in self.segments:
            product = node if node.operation == PRODUCT else node.nodes[0]
            return max((self._heard(part) for part in _parts(product.nodes[0])), default=0)
        if node.operation in REDUCTIONS:
            return max(self.ready(part) for part in _reduced(node)) + 1
        if node.operation == "slice":
            return self._heard(node.nodes[0])
        return max((self.ready(operand) for operand in node.nodes if operand.kind is Kind.ROWS), default=0)

    def _heard(self, node: Node) -> int:
        """The first phase in which every thread may use all features of a value."""
        return 0 if node.operation == INPUT else self.phase[node] + 1

    def _find_light(self) -> None:
        results = {*self.program.streams_out, *[state.after for state in self.program.states]}
        for node in self.program.nodes:
            cheap = node.operation in POINTWISE and not POINTWISE[node.operation].costly
            if node.width == 1 or not (cheap or node.operation in ("fill", "expand") or _is_cut_leaf(node)):
                continue
            rows = [operand for operand in node.nodes if operand.kind is Kind.ROWS and operand.operation != INPUT and operand.width > 1]
            stored = (operand in results or self._is_read(operand) for operand in rows)
            if all(operand in self.light or there for operand, there in zip(rows, stored, strict=True)):
                self.light.add(node)

    # --- Places -----------------------------------------------------------------------------------------------------

    def _find_homes(self) -> None:
        for index, node in enumerate(self.program.streams_out):
            self.homes[node].append(Place(f"out{index}", node.width, 0, node.dtype == torch.bool))
        streams = dict(zip(self.program.streams_out, (f"out{index}" for index in range(len(self.program.streams_out))), strict=True))
        for index, state in enumerate(self.program.states):
            if state.after not in streams:
                self.homes[state.after].append(Place(f"after{index}", state.after.width, 0, state.after.dtype == torch.bool))
            self.carried[index] = Place(streams.get(state.after, f"after{index}"), state.after.width, 0, state.after.dtype == torch.bool)
        for node in reversed(self.program.nodes):
            if node in self.skipped:
                continue
            if self._is_read(node) and (node.width == 1 or not self.homes[node]):
                self._give_spare(node)
            start = 0
            for part in node.nodes if node.operation == "concatenate" else ():
                if part.operation != INPUT:
                    self.homes[part] += [home.part(start) for home in self.homes[node]]
                start += part.width

    def _give_spare(self, node: Node) -> None:
        name = f"{'number' if node.width == 1 else 'spare'}{len(self.spare)}"
        self.spare.append((name, node))
        self.homes[node].insert(0, Place(name, node.width, 0, node.dtype == torch.bool))

    def _is_read(self, node: Node) -> bool:
        """Whether anything reads a value from memory."""
        joins = node.operation == "concatenate"
        if node.width == 1 and not joins:
            return True
        for user in self.program.nodes:
            if node not in user.nodes:
                continue
            if user.operation in REDUCTIONS:
                reads = joins and node in _reduced(user)
            elif user.operation == PRODUCT:
                reads = not joins  # else part by part
            elif user.operation == "concatenate":
                reads = user in self.multiplied
            else:
                reads = joins or user.operation == "slice" or (self.phase[user] != self.phase[node] and node not in self.light)
            if reads:
                return True
        return False

    # --- Phases -----------------------------------------------------------------------------------------------------

    def _schedule(self, node: Node) -> None:
        if node.operation == "concatenate" or (node in self.light and not self.homes[node]):
            return
        phase = self._at(self.phase[node])
        if node.operation in REDUCTIONS:
            phase.combined.append(node)
            self._reduce(node)
        elif node in self.segments:
            self._add_segment(self._stage(self.phase[node], node.width), self.segments[node])
        else:
            self._stage(self.phase[node], node.width).nodes.append(node)

    def _reduce(self, node: Node) -> None:
        """Each part of what is reduced is seen where it is computed."""
        parts = _reduced(node)
        self._at(min(self.ready(part) for part in parts)).begun.append(node)
        for part in parts:
            self._stage(self.ready(part), part.width).reduced.append((node, part))

    def _at(self, phase: int) -> Phase:
        while len(self.phases) <= phase:
            self.phases.append(Phase())
        return self.phases[phase]

    def _stage(self, phase: int, width: int) -> Stage:
        stages = self._at(phase).stages
        for stage in stages:
            if stage.width == width:
                return stage
        stages.append(Stage(phase, width))
        return stages[-1]

    def _add_segment(self, stage: Stage, segment: Segment) -> None:
        product = segment.node if segment.node.operation == PRODUCT else segment.node.nodes[0]
        factors = self._factors_of(stage.phase, product.nodes[0])
        for group in stage.groups:
            if group.factors == factors and len(group.segments) < COLUMNS_AT_ONCE:
                group.segments.append(segment)
                return
        stage.groups.append(Group(f"{stage.name}_{len(stage.groups)}", factors, [segment]))

    def _factors_of(self, phase: int, rows: Node) -> Factors:
        """What a product multiplies; products of the same rows in one phase share the copy."""
        parts = tuple((self.place(part), part.width) for part in _parts(rows))
        for key, factors in self._factors.items():
            if key == (phase, parts):
                return factors
        made = Factors(f"factors{len(self._factors)}", parts, rows.width)
        self._factors[phase, parts] = made
        self._at(phase).factors.append(made)
        return made

    def _order(self) -> None:
        for phase in self.phases:
            phase.stages.sort(key=lambda stage: (stage.width != 1, stage.width))


def _is_cut_leaf(node: Node) -> bool:
    return node.operation == "slice" and node.nodes[0].operation == INPUT


def _parts(rows: Node) -> Iterator[Node]:
    """What a product's rows are put together from."""
    if rows.operation == "concatenate":
        for part in rows.nodes:
            yield from _parts(part)
    else:
        yield rows


def _reduced(reduction: Node) -> list[Node]:
    """What a reduction sees: the parts of a concatenation, where each has a stage of its own."""
    parts = list(_parts(reduction.nodes[0]))
    return parts if all(part.width > 1 for part in parts) else [reduction.nodes[0]]


def _plain(program: LoopProgram) -> LoopProgram:
    """The same program, in which leaves are nothing but leaves, and what is written is computed.

    A leaf that is also a result, or a part of a concatenation, is copied.
    """
    befores = [state.before for state in program.states]
    leaves = [*program.streams_in, *program.constants, *program.shared, *befores]
    new = {node: Node(INPUT, (), node.kind, node.shape, node.dtype, f"leaf {place}") for place, node in enumerate(leaves)}
    results = [*program.streams_out, *[state.after for state in program.states]]
    multiplied = {node.nodes[0] for node in program.nodes if node.operation == PRODUCT}
    only_multiplied = multiplied - {operand for node in program.nodes if node.operation != PRODUCT for operand in node.nodes} - {*results}
    for node in program.nodes:
        operands = tuple(new[operand] if isinstance(operand, Node) else operand for operand in node.operands)
        if node.operation == "concatenate" and node not in only_multiplied:
            operands = tuple(_copy(part) if part.operation == INPUT or operands.count(part) > 1 else part for part in operands)
        alone = node.operation in REDUCTIONS and operands[0].width == 1
        new[node] = replace(node, operation="convert" if alone else node.operation, operands=operands)
    made = [_copy(new[node]) if new[node].operation == INPUT else new[node] for node in results]
    streams_in, constants, shared, before = (
        tuple(new[node] for node in group) for group in (program.streams_in, program.constants, program.shared, befores)
    )
    count = len(program.streams_out)
    states = tuple(Carried(*pair) for pair in zip(before, made[count:], strict=True))
    return LoopProgram(streams_in, tuple(made[:count]), constants, shared, states, tuple(ordered(made)), program.reverse)


def _copy(node: Node) -> Node:
    return Node("convert", (node,), Kind.ROWS, node.shape, node.dtype)

"""From a structure to what runs: the directions of an unrolling, taken apart and made ready once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.compiler import NoCompiler
from unrolled.kernels.cut import cheapest_cut
from unrolled.kernels.direction import Direction
from unrolled.kernels.evaluate import Multiply
from unrolled.kernels.graph import MOVES, POINTWISE, Carried, Kind, LoopMaker, Node, Unsupported, ordered
from unrolled.kernels.split import Task, dependents, take_apart
from unrolled.kernels.structure import Role, Step, Structure, Unrolling
from unrolled.kernels.trace import Backward, Tracer

Marks = tuple[bool, ...]
"""Which of several are meant."""


class Back(NamedTuple):
    """A backward direction."""

    direction: Direction
    trace: Backward
    places: tuple[int, ...]
    """The leaves whose gradients are its results."""


class Plan:
    """All that is made of a step once for a structure."""

    def __init__(self, step: Step, given: Unrolling, structure: Structure, make: LoopMaker, multiply: Multiply = torch.matmul) -> None:
        """Trace and take apart, with a backward direction for gradients that come in for all outputs.

        Args:
            step: a pure function.
            given: an example of the structure.
            structure: what the trace depends on.
            make: makes loops of programs.
            multiply: how matrices are multiplied outside of loops.
        """
        self.step, self.structure, self._make, self._multiply = step, structure, make, multiply
        self._tracer = Tracer(step, given, structure)
        self.forward = self._tracer.forward()
        self.train = self._tracer.train
        self.inputs = tuple(node for node, leaf in zip(self.forward.leaves, structure.leaves, strict=True) if leaf.role is Role.INPUT)
        self._traces: dict[Marks, Backward] = {}
        self._backwards: dict[Marks, Back | None] = {}
        self._lock = threading.Lock()
        everywhere = tuple(node.dtype.is_floating_point for node in self.forward.outputs)
        self.read = self._to_read(self._trace(everywhere)) if self.train else ()
        """Rows of all steps that the backward direction takes from the forward one; some are leaves, or parts of the state after each step."""
        there = {*self.forward.leaves, *self.forward.after}
        self.stored = tuple(node for node in self.read if node not in there)
        """Those that are neither."""
        self.ahead = self._made(self._forward_task())
        if self.train:
            self._backwards[everywhere] = self._back(everywhere)

    def backward(self, present: Marks) -> Back | None:
        """The backward direction.

        Args:
            present: for each output, whether a gradient comes in.

        Returns:
            The direction; gradients of the state are its last state. `None` where there is none for these gradients, though there is one for
            those of all outputs: a forward pass that has been made must not end in an error.
        """
        with self._lock:
            if present not in self._backwards:
                try:
                    self._backwards[present] = self._back(present)
                except (Unsupported, NoCompiler):
                    self._backwards[present] = None
        return self._backwards[present]

    def _back(self, present: Marks) -> Back:
        trace = self._trace(present)
        task, places = self._backward_task(trace)
        return Back(self._made(task), trace, places)

    def state(self, nodes: Sequence[Any]) -> list[Any]:
        """What belongs to the leaves that are the state.

        Args:
            nodes: one for each leaf.

        Returns:
            A part of them.
        """
        return [node for node, leaf in zip(nodes, self.structure.leaves, strict=True) if leaf.role is Role.STATE]

    def plain(self, tensors: Sequence[Tensor], time: int) -> list[Tensor]:
        """All steps by the step itself, which torch can differentiate as often as one likes.

        Args:
            tensors: of all leaves.
            time: how many steps.

        Returns:
            Outputs and the last state, leaf by leaf.
        """
        leaves, count = self.structure.leaves, len(self.forward.outputs)
        state, steps = self.state(tensors), []
        for t in range(time):
            rest = iter(state)
            at = {Role.INPUT: lambda tensor, t=t: tensor[:, t], Role.STATE: lambda _, rest=rest: next(rest)}
            results = self._tracer.take_step([at.get(leaf.role, _same)(tensor) for leaf, tensor in zip(leaves, tensors, strict=True)])[0]
            state = results[count:]
            steps.append(results[:count])
        return [*[torch.stack(parts, 1) for parts in zip(*steps, strict=True)], *state]

    def _trace(self, present: Marks) -> Backward:
        if present not in self._traces:
            self._traces[present] = self._tracer.backward(self.forward, present)
        return self._traces[present]

    def _made(self, task: Task) -> Direction:
        return Direction(task, take_apart(self._tracer.graph, task), self._make, self._multiply)

    def _forward_task(self) -> Task:
        leaves, after = self.forward.leaves, self.forward.after
        state = self.state(leaves)
        return Task(
            results=(*self.forward.outputs, *self.stored),
            carried=tuple(Carried(*pair) for pair in zip(state, after, strict=True)),
            kept=tuple(before in self.read or new in self.read for before, new in zip(state, after, strict=True)),
            given=self.inputs,
        )

    def _to_read(self, backward: Backward) -> tuple[Node, ...]:
        """The fewest rows from which the gradients can be computed; what is there anyway costs nothing.

        Products and reductions are not computed again; functions of single elements are, dear ones too, as nothing costs more than memory.
        """
        state = self.state(self.forward.leaves)
        there = {*state, *self.inputs, *self.forward.after, *self.forward.outputs}
        nodes = ordered([node for node in backward.gradients if node is not None])
        incoming = [node for node in (*backward.of_outputs, *backward.of_after) if node is not None]
        varying, looping = dependents(nodes, [*state, *self.inputs]), dependents(nodes, state)
        # A sum over the batch is for the backward direction, even where no gradient that comes in has a part in it (it is zero then).
        made = dependents(nodes, [*incoming, *[node for node in nodes if node in varying and node.kind is Kind.SHARED]])

        def given(node: Node) -> bool:
            return node in there or not (node.operation in POINTWISE or node.operation in MOVES)

        return tuple(
            cheapest_cut(
                [operand for node in nodes if node in made for operand in node.nodes if operand in varying - made],
                # A product that is made before the loop is in memory already: it is not written for this, though not freed either.
                cost=lambda node: (
                    0 if node in there else node.width * node.dtype.itemsize * (4 if given(node) and node not in looping else 5)
                ),
                given=given,
                anywhere=lambda node: node not in varying,
                late=True,
            )
        )

    def _backward_task(self, trace: Backward) -> tuple[Task, tuple[int, ...]]:
        graph = self._tracer.graph
        results: dict[int, Node] = {}
        for place, (leaf, gradient) in enumerate(zip(self.structure.leaves, trace.gradients, strict=True)):
            if leaf.gradient and gradient is not None and leaf.role is not Role.STATE:
                results[place] = graph.time_sum(gradient) if leaf.role is Role.FIXED else gradient
        carried = [
            Carried(incoming, gradient or graph.fill(0, incoming.width, incoming.dtype))
            for incoming, gradient in zip(trace.of_after, self.state(trace.gradients), strict=True)
            if incoming is not None
        ]
        given = dict.fromkeys([*self.read, *[node for node in trace.of_outputs if node is not None]])
        task = Task(tuple(results.values()), tuple(carried), (False,) * len(carried), tuple(given), reverse=True)
        return task, tuple(results)


def _same(tensor: Tensor) -> Tensor:
    return tensor

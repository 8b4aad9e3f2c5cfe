"""Single steps of time by a compiled kernel, for streaming: a call allocates what it returns, and reads weights where they lie."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.state import State, map_state
from unrolled.kernels.build import Graph
from unrolled.kernels.compiler import Compiler, system_compiler
from unrolled.kernels.evaluate import Evaluation, Size
from unrolled.kernels.forms import Form
from unrolled.kernels.generate_stream import stream_source
from unrolled.kernels.graph import INPUT, Carried, LoopProgram, Node, ordered
from unrolled.kernels.segments import segmented
from unrolled.kernels.split import loop_program
from unrolled.kernels.structure import Leaf, Role, Step, Unrolling, describe
from unrolled.kernels.trace import Tracer

CPU = torch.device("cpu")
KINDS = frozenset({Tensor, torch.nn.Parameter})
"""Of tensors whose memory may be read; a subclass may mean something else by it."""

LOOK = attrgetter("shape", "dtype", "is_cpu", "layout")
"""What decides whether a step was made for a tensor, in one call: a step of one row takes no longer than a hundred lines of Python."""


SIZES = 64
"""So many numbers of rows are remembered, to know at once how what arrives should look."""

ADDRESS = Tensor.data_ptr


class Lying(NamedTuple):
    """A shared array of the program inside the memory of a parameter."""

    parameter: int
    offset: int
    """In bytes."""


class SingleStep:
    """One step for inputs and states of one form. Nothing of a call is kept, so that any number of threads may call at once."""

    def __init__(self, step: Step, x: State, state: State, parameters: Mapping[str, Tensor], compiler: Compiler | None = None) -> None:
        """Trace and build the step, or find it built.

        Args:
            step: a pure function; it is called with `None` as what is fixed.
            x: an example of the input, a tree of `[batch, …]`.
            state: an example of the state.
            parameters: examples, contiguous, without a batch axis, by name.
            compiler: the system's when `None`.
        """
        with torch.no_grad():
            given = Unrolling(map_state(lambda leaf: leaf.unsqueeze(1), x), state, None, parameters)
            structure, tensors = describe(given)
            tracer = Tracer(step, given, structure, changing=(Role.INPUT, Role.STATE))
            forward = tracer.forward()
        places = {role: [place for place, leaf in enumerate(structure.leaves) if leaf.role is role] for role in Role}
        leaves = {role: [structure.leaves[place] for place in places[role]] for role in Role}
        nodes = {role: [forward.leaves[place] for place in places[role]] for role in Role}
        self._inputs = len(leaves[Role.INPUT])
        self._looks = functools.lru_cache(SIZES)(partial(_looks, leaves[Role.INPUT] + leaves[Role.STATE]))
        self._parameters = [(leaf.shape, leaf.dtype, True, torch.strided) for leaf in leaves[Role.PARAMETER]]
        self._form_x, self._form_state, self._form_output = Form.of(x), Form.of(state), Form.of(forward.form)
        outs = [node for node in dict.fromkeys(forward.outputs) if node not in forward.after]
        made = [*outs, *forward.after]
        self._places = tuple(made.index(node) for node in forward.outputs)
        """Of each output among the arrays that are written: one that is a part of the new state is the same tensor."""
        self._outs = [(forward.shapes[forward.outputs.index(node)], node.dtype) for node in outs]
        states = [Carried(*pair) for pair in zip(nodes[Role.STATE], forward.after, strict=True)]
        program = _program(tracer.graph, nodes[Role.INPUT], outs, states)
        self._shared = _Shared(program, nodes[Role.PARAMETER], [tensors[place] for place in places[Role.PARAMETER]])
        library = (compiler or system_compiler()).load(stream_source(program))
        self._step: Callable[[bytes, int, int], None] = library.step
        library.step.argtypes, library.step.restype = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int], None
        self._pack = struct.Struct(f"{len(program.arrays)}P").pack

    def __call__(self, x: State, state: State, parameters: Sequence[Tensor]) -> tuple[State, State] | None:
        """Take a step.

        Args:
            x: the input.
            state: the state after the step before; it is not changed.
            parameters: in the order of the examples.

        Returns:
            The output and the new state, or `None` where the step is not made for what is given, or its gradient is wanted.
        """
        arrived: list[Tensor] = []
        if not (self._form_x.gather(x, arrived) and self._form_state.gather(state, arrived) and KINDS.issuperset(map(type, arrived))):
            return None
        looks = [*map(LOOK, arrived)]
        batch = looks[0][0][0] if looks[0][0] else 0
        if not batch or looks != self._looks(batch) or not self._lie(parameters):
            return None
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arrived):
            return None
        arrived = [*map(_contiguous, arrived)]
        inputs, states = arrived[: self._inputs], arrived[self._inputs :]
        after = [*map(torch.empty_like, states)]
        outs = [torch.empty((batch, *shape), dtype=dtype) for shape, dtype in self._outs]
        shared, _kept = self._shared.pointers(parameters, batch)
        addresses = self._pack(*map(ADDRESS, inputs), *map(ADDRESS, outs), *shared, *map(ADDRESS, states), *map(ADDRESS, after))
        self._step(addresses, batch, torch.get_num_threads())
        made = [*outs, *after]
        return self._form_output.put(iter([made[place] for place in self._places])), self._form_state.put(iter(after))

    def _lie(self, parameters: Sequence[Tensor]) -> bool:
        """Whether parameters are as those were that this was made for; they may lie elsewhere."""
        alike = KINDS.issuperset(map(type, parameters)) and [*map(LOOK, parameters)] == self._parameters
        return alike and all(map(Tensor.is_contiguous, parameters))


class _Shared:
    """The arrays of a program that are made of parameters alone."""

    def __init__(self, program: LoopProgram, nodes: Sequence[Node], tensors: Sequence[Tensor]) -> None:
        """Find what lies in the memory of a parameter, and make ready to compute what does not.

        Args:
            program: of one step.
            nodes: the parameters.
            tensors: examples of them.
        """
        arrays = (*program.constants, *program.shared)
        lying = {node: _within(node, nodes, tensors) for node in program.shared}
        self._lying = tuple(lying.get(node) for node in arrays)
        self._evaluation = Evaluation(nodes, [node for node in arrays if lying.get(node) is None])
        self._read = tuple(nodes.index(node) for node in self._evaluation.given)
        self._all_lie = None not in self._lying

    def pointers(self, parameters: Sequence[Tensor], batch: int) -> tuple[list[int], list[Tensor]]:
        """Where the arrays lie now.

        Args:
            parameters: all of them.
            batch: rows.

        Returns:
            An address each, and what must be kept as long as these are read.
        """
        if self._all_lie:
            return [parameters[place].data_ptr() + offset for place, offset in self._lying], []  # type: ignore[misc]
        given = [parameters[place] for place in self._read]
        kept = [_contiguous(tensor) for tensor in self._evaluation(given, Size(1, batch, CPU))]
        rest = iter(kept)
        return [next(rest).data_ptr() if at is None else parameters[at.parameter].data_ptr() + at.offset for at in self._lying], kept


def _program(graph: Graph, inputs: Sequence[Node], outs: Sequence[Node], states: Sequence[Carried]) -> LoopProgram:
    """All that a step does, in one: nothing is known before it."""
    arrived = [*inputs, *[state.before for state in states]]
    results = segmented(graph, [*outs, *[state.after for state in states]], arrived)
    after = results[len(outs) :]
    return loop_program(inputs, results[: len(outs)], tuple(Carried(old.before, new) for old, new in zip(states, after, strict=True)))


def _within(node: Node, nodes: Sequence[Node], tensors: Sequence[Tensor]) -> Lying | None:
    """Where a shared array lies in a parameter, of which it may be a view."""
    leaves = {leaf for part in (node, *ordered([node])) for leaf in (part, *part.nodes) if leaf.operation == INPUT}
    if len(leaves) != 1:
        return None
    place = nodes.index(leaves.pop())
    parameter = tensors[place].detach()
    (array,) = Evaluation(nodes, [node])([parameter], Size(1, 1, CPU))
    shares = array.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()
    return Lying(place, array.data_ptr() - parameter.data_ptr()) if shares and array.is_contiguous() else None


def _looks(leaves: Sequence[Leaf], batch: int) -> list[tuple[Any, ...]]:
    return [((batch, *leaf.shape), leaf.dtype, True, torch.strided) for leaf in leaves]


def _contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_contiguous() else tensor.contiguous()

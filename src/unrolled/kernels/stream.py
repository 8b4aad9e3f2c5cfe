"""Single steps of time by a compiled kernel, for streaming: a call allocates what it returns, and reads weights where they lie."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

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
KINDS = (Tensor, torch.nn.Parameter)
"""Of tensors whose memory may be read; a subclass may mean something else by it."""


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
        self._leaves, self._inputs, self._parameters = (
            leaves[Role.INPUT] + leaves[Role.STATE],
            len(leaves[Role.INPUT]),
            leaves[Role.PARAMETER],
        )
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
        if not (self._form_x.gather(x, arrived) and self._form_state.gather(state, arrived)):
            return None
        batch = _rows(arrived[0])
        arrived = self._fitting(arrived, batch) if batch and _lie(parameters, self._parameters) else []
        if not arrived:
            return None
        after = [torch.empty_like(leaf) for leaf in arrived[self._inputs :]]
        outs = [torch.empty((batch, *shape), dtype=dtype) for shape, dtype in self._outs]
        shared, _kept = self._shared.pointers(parameters, batch)
        addresses = [tensor.data_ptr() for tensor in arrived]
        addresses[self._inputs : self._inputs] = [*[tensor.data_ptr() for tensor in outs], *shared]
        addresses += [tensor.data_ptr() for tensor in after]
        self._step(self._pack(*addresses), batch, torch.get_num_threads())
        made = [*outs, *after]
        return self._form_output.put(iter([made[place] for place in self._places])), self._form_state.put(iter(after))

    def _fitting(self, tensors: Sequence[Tensor], batch: int) -> list[Tensor]:
        """Input and state as they can be read; nothing where they are not what this was made for, or a gradient is wanted."""
        gradients = torch.is_grad_enabled()
        found = []
        for tensor, (_, shape, dtype, _) in zip(tensors, self._leaves, strict=True):
            if type(tensor) not in KINDS or tensor.dtype is not dtype or tensor.shape != (batch, *shape) or not tensor.is_cpu:
                return []
            if (gradients and tensor.requires_grad) or tensor.layout is not torch.strided:
                return []
            found.append(tensor if tensor.is_contiguous() else tensor.contiguous())
        return found


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


def _rows(tensor: object) -> int:
    return tensor.shape[0] if isinstance(tensor, Tensor) and tensor.shape else 0


def _lie(parameters: Sequence[Tensor], leaves: Sequence[Leaf]) -> bool:
    for tensor, leaf in zip(parameters, leaves, strict=True):
        if type(tensor) not in KINDS or tensor.shape != leaf.shape or tensor.dtype is not leaf.dtype or not tensor.is_cpu:
            return False
        if not tensor.is_contiguous():
            return False
    return True


def _contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_contiguous() else tensor.contiguous()

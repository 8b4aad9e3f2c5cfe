"""One direction of an unrolling: its parts made ready, and run on arrays that are allocated here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unrolled.kernels.evaluate import Evaluation, Multiply, Size, over_time
from unrolled.kernels.graph import INPUT, Kind, LoopMaker, Node, ordered
from unrolled.kernels.segments import Piece
from unrolled.kernels.split import Parts, Task, dependents

Values = dict[Node, Tensor]
"""Tensors by node: `[time, batch, width]` for what changes from step to step, `[batch, width]` for other rows, shared values as they are."""


AHEAD_BYTES = 30 << 20
"""At most so much is computed ahead of a loop at once: C libraries take arrays of 32 MB and more from the system at every call, page by page."""
AHEAD_ROWS = 512
"""But of not fewer rows, over which the packing of a matrix is spread."""


class Direction:
    """What is done before the loop, the loop, and what is done after it."""

    def __init__(self, task: Task, parts: Parts, make: LoopMaker, multiply: Multiply = torch.matmul) -> None:
        """Make ready.

        Args:
            task: what has to be computed.
            parts: the same, taken apart.
            make: makes a loop of a program.
            multiply: how matrices are multiplied before and after the loop.
        """
        self.task, self.parts = task, parts
        # Where nothing is carried, all is done before the loop and after it.
        self.loop = make(parts.program) if parts.program.streams_out or parts.program.states else None
        there = [*task.given, *parts.before, *[state.before for state in task.carried], *[node for node, _ in parts.writes], *parts.sums]
        self.after = Evaluation(there, parts.results, multiply)
        varying = dependents(ordered(parts.before, task.given), task.given)
        ahead = [node for node in parts.before if node in varying and node not in self.after.given]
        self.before = Evaluation(task.given, [node for node in parts.before if node not in ahead], multiply)
        self.ahead = Evaluation([*task.given, *self.before.results], ahead, multiply)
        """What the loop alone reads, which is done just ahead of it, stretch by stretch: less memory, which stays in the cache."""
        self._step_bytes = sum(node.width * node.dtype.itemsize for node in ahead)
        read = [*self.before.given, *self.ahead.given, *self.after.given, *parts.program.arrays]
        self.leaves = tuple(dict.fromkeys(node for node in read if node.operation == INPUT))
        """Leaves that are needed, and others."""
        self._later = {*parts.program.arrays, *self.ahead.given, *self.after.given}
        # A stream that is a part of the state after each step begins, or in reverse ends, with that part before the first step.
        self._homes: dict[int, int] = {}
        for place, piece in enumerate(parts.kept):
            if piece is not None and piece.start == 0 and piece.width == parts.program.streams_out[piece.whole].width:
                self._homes.setdefault(piece.whole, place)

    def run(self, values: Values, initial: Sequence[Tensor], size: Size) -> tuple[list[Tensor], list[Tensor]]:
        """Compute all results.

        Args:
            values: what is given, of which nothing is kept; the parts of the state that are kept, before and after each step, are added.
            initial: the state before the first step taken, `[batch, width]` each.
            size: steps and rows.

        Returns:
            The results, and the state after the last step taken.
        """
        values.update(zip(self.before.results, self.before([values[node] for node in self.before.given], size), strict=True))
        _drop(values, self._later)
        buffers, streams, finals = self._run_loop(values, initial, size)
        _drop(values, self.after.given)
        for node, piece in self.parts.writes:
            values[node] = _columns(streams[piece.whole], piece)
        self._keep(values, buffers, streams, initial)
        for node, total in zip(self.parts.sums, finals[len(initial) :], strict=True):
            values[node] = (total.sum(0) if node.operation == "row_sum" else total).to(node.dtype)
        return self.after([values[node] for node in self.after.given], size), finals[: len(initial)]

    def _run_loop(self, values: Values, initial: Sequence[Tensor], size: Size) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The streams that the loop writes, with the memory that they lie in, and the last state."""
        program = self.parts.program
        for node in program.streams_in:
            if node in values:
                values[node] = over_time(values[node], size).contiguous()
        buffers = [
            torch.empty(size.time + (place in self._homes), size.batch, node.width, dtype=node.dtype, device=size.device)
            for place, node in enumerate(program.streams_out)
        ]
        streams = [self._stream(place, buffer, initial) for place, buffer in enumerate(buffers)]
        held = [values[node].contiguous() for node in (*program.constants, *program.shared)]
        state = [part.contiguous() for part in initial]
        sums = [part.before for part in program.states[len(initial) :]]
        state += [torch.zeros(size.batch, node.width, dtype=node.dtype, device=size.device) for node in sums]
        if self.loop is None:
            return buffers, streams, state
        for begin, end in self._stretches(size):
            now = size._replace(time=end - begin)
            ahead = dict(
                zip(self.ahead.results, self.ahead([_at(node, values[node], begin, end) for node in self.ahead.given], now), strict=True)
            )
            ins = [(ahead[node] if node in ahead else _steps(values[node], begin, end)).contiguous() for node in program.streams_in]
            before, state = state, [torch.empty_like(part) for part in state]
            arrays = [*ins, *[_steps(stream, begin, end) for stream in streams], *held, *before, *state]
            self.loop(arrays, now.time, size.batch)
        return buffers, streams, state

    def _stretches(self, size: Size) -> list[tuple[int, int]]:
        """The steps of time in as many parts, all but equal, as what is computed ahead of the loop is to have."""
        step = max(1, self._step_bytes * size.batch)
        longest = max(AHEAD_BYTES // step, -(-AHEAD_ROWS // size.batch))
        count = -(-size.time // longest)
        places = [size.time * place // count for place in range(count + 1)]
        parts = list(pairwise(places))
        return parts[::-1] if self.task.reverse else parts

    def _stream(self, place: int, buffer: Tensor, initial: Sequence[Tensor]) -> Tensor:
        """Where the loop writes; what keeps a part of the state has the first state beside it, which is known now."""
        if place not in self._homes:
            return buffer
        buffer[-1 if self.task.reverse else 0] = initial[self._homes[place]]
        return buffer[:-1] if self.task.reverse else buffer[1:]

    def _keep(self, values: Values, buffers: Sequence[Tensor], streams: Sequence[Tensor], initial: Sequence[Tensor]) -> None:
        """The parts of the state before and after every step."""
        for place, (state, piece) in enumerate(zip(self.task.carried, self.parts.kept, strict=True)):
            if piece is None:
                continue
            values[state.after] = after = _columns(streams[piece.whole], piece)
            if self._homes.get(piece.whole) == place:
                buffer = buffers[piece.whole]
                values[state.before] = buffer[1:] if self.task.reverse else buffer[:-1]
            else:
                first = initial[place].unsqueeze(0)
                values[state.before] = torch.cat([after[1:], first] if self.task.reverse else [first, after[:-1]])


def _columns(stream: Tensor, piece: Piece) -> Tensor:
    return stream if stream.shape[2] == piece.width else stream.narrow(2, piece.start, piece.width)


def _steps(tensor: Tensor, begin: int, end: int) -> Tensor:
    return tensor if end - begin == len(tensor) else tensor[begin:end]


def _at(node: Node, tensor: Tensor, begin: int, end: int) -> Tensor:
    """Some steps of what changes from step to step."""
    return _steps(tensor, begin, end) if node.kind is Kind.ROWS and tensor.dim() == 3 else tensor


def _drop(values: Values, needed: Collection[Node]) -> None:
    """Let go of what nobody needs any more, which may be most of the memory."""
    for node in values.keys() - needed:
        del values[node]

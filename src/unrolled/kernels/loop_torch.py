"""Loop programs by torch, step by step: slow, for any type; the oracle of the other back ends."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unrolled.kernels.evaluate import Evaluation, Size
from unrolled.kernels.graph import LoopProgram, Node


class TorchLoop:
    """A loop program, run by torch; a `Loop`."""

    def __init__(self, program: LoopProgram) -> None:
        """Make ready.

        Args:
            program: what is done at each step.
        """
        self.program = program
        self._first_state = len(program.arrays) - 2 * len(program.states)
        leaves = [*program.streams_in, *program.constants, *program.shared, *[state.before for state in program.states]]
        results = [*program.streams_out, *[state.after for state in program.states]]
        self._step = Evaluation(leaves, results)

    def __call__(self, arrays: Sequence[Tensor], time: int, batch: int) -> None:
        """Take all steps.

        Args:
            arrays: in the order that `LoopProgram` states.
            time: steps.
            batch: rows.
        """
        program, ins = self.program, len(self.program.streams_in)
        outs = ins + len(program.streams_out)
        size = Size(1, batch, arrays[0].device)
        states = list(arrays[self._first_state : self._first_state + len(program.states)])
        for t in reversed(range(time)) if program.reverse else range(time):
            at: dict[Node, Tensor] = dict(zip(program.arrays[outs : self._first_state], arrays[outs:], strict=False))
            at.update(zip(program.streams_in, (stream[t] for stream in arrays[:ins]), strict=True))
            at.update(zip((state.before for state in program.states), states, strict=True))
            results = self._step([at[node] for node in self._step.given], size)
            for stream, rows in zip(arrays[ins:outs], results, strict=False):
                stream[t] = rows
            states = results[outs - ins :]
        for final, rows in zip(arrays[self._first_state + len(program.states) :], states, strict=True):
            final.copy_(rows)

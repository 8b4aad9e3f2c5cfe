"""Unrolling a cell: the plain loop that defines a recurrence, and the same by a cell's faster way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unrolled.core.padded import length_mask
from unrolled.core.state import State, map_state, select_state, stack_time, where_state
from unrolled.nn.cell import Cell
from unrolled.nn.step_check import checked_result


class Sequences:
    """What one unrolling reads: data `[batch, time, …]`, where each row ends, where it restarts."""

    def __init__(self, data: Tensor, lengths: Int[Tensor, " batch"] | None, resets: Bool[Tensor, "batch time"] | None) -> None:
        self.data, self.lengths, self.resets = data, lengths, resets


def run_steps(cell: Cell, inputs: Any, sequences: Sequences, state: State, restart: State, fixed: State) -> tuple[Any, State]:
    """The plain loop: the definition of a recurrence.

    Args:
        cell: takes the steps.
        inputs: a tree of `[batch, time, …]`, at least one step.
        sequences: where rows end and restart.
        state: the state before the first step.
        restart: the state at a reset, or `None` when there are none.
        fixed: what holds for the whole sequence, or `None`.

    Returns:
        Outputs (a tree of `[batch, time, …]`, zero past a length) and the state after each row's last step.
    """
    data, lengths, resets = sequences.data, sequences.lengths, sequences.resets
    mask = None if lengths is None else length_mask(lengths, data.shape[1])
    if mask is not None:
        # Zero times NaN is NaN: what the padding holds would reach the gradient of the weights, though no output shows it.
        inputs = map_state(lambda leaf: torch.where(mask.view(*mask.shape, *[1] * (leaf.dim() - 2)), leaf, torch.zeros_like(leaf)), inputs)
    rest = () if fixed is None else (fixed,)
    # The gradient of one slice is as large as the whole: of all of them at once it is no larger.
    columns = map_state(lambda leaf: leaf.unbind(1), inputs)
    outputs = []
    for t in range(data.shape[1]):
        x = map_state(lambda _, steps, t=t: steps[t], inputs, columns)
        if resets is not None:
            state = where_state(resets[:, t], restart, state)
        result = cell.step(x, state, *rest)
        output, after = result if t else checked_result(cell, state, result)  # what one step gives, all do
        if mask is None:
            state = after
        else:
            state = where_state(mask[:, t], after, state)
            output = where_state(mask[:, t], output, map_state(torch.zeros_like, output))
        outputs.append(output)
    return stack_time(outputs), state


def run_whole(cell: Cell, sequences: Sequences, state: State, restart: State) -> tuple[Tensor, State] | None:
    """The same as `run_steps` by the cell's faster way, in runs between the steps at which some row ends or restarts.

    Args:
        cell: may offer `whole`.
        sequences: data and where rows end and restart.
        state: the state before the first step.
        restart: the state at a reset, or `None` when there are none.

    Returns:
        Outputs and the last state, or `None` where the cell has no faster way.
    """
    data, lengths, resets = sequences.data, sequences.lengths, sequences.resets
    if lengths is None and resets is None:
        return cell.whole(data, state)
    outputs = []
    for begin, end in pairwise(boundaries(sequences)):
        if resets is not None:
            state = where_state(resets[:, begin], restart, state)
        chunk = data[:, begin:end]
        alive = None if lengths is None else (lengths >= end).nonzero()[:, 0]
        result = cell.whole(chunk, state) if alive is None or len(alive) == len(data) else run_rows(cell, chunk, state, alive)
        if result is None:
            return None
        output, state = result
        outputs.append(output)
    return torch.cat(outputs, 1), state


def run_rows(cell: Cell, chunk: Tensor, state: State, rows: Int[Tensor, " chosen"]) -> tuple[Tensor, State] | None:
    """A part of the batch by the cell's faster way; the other rows keep their state and put out zeros.

    Args:
        cell: may offer `whole`.
        chunk: `[batch, time, input]`.
        state: of the whole batch.
        rows: those that go on.

    Returns:
        Outputs and states of the whole batch, or `None` where the cell has no faster way.
    """
    if len(rows) == 0:
        return cell.zeros(len(chunk), chunk.shape[1], cell.output_size), state
    result = cell.whole(chunk[rows], select_state(state, rows))
    if result is None:
        return None
    output, after = result
    everyone = output.new_zeros(len(chunk), *output.shape[1:]).index_copy(0, rows, output)
    return everyone, map_state(lambda old, new: old.to(new.dtype).index_copy(0, rows, new), state, after)


def boundaries(sequences: Sequences) -> list[int]:
    """The steps at which some row ends or restarts, with 0 and the end of time.

    Args:
        sequences: lengths and resets.

    Returns:
        Ascending, without repetition.
    """
    time = sequences.data.shape[1]
    marks = {0, time}
    if sequences.lengths is not None:
        marks.update(sequences.lengths.tolist())
    if sequences.resets is not None:
        marks.update(sequences.resets.any(0).nonzero()[:, 0].tolist())
    return sorted(marks)


def flip(xs: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row back to front within its own length; what lies past it stays.

    Args:
        xs: `[batch, time, …]`.
        lengths: `[batch]`, or `None` for full rows.

    Returns:
        A tensor of the same shape.
    """
    if lengths is None:
        return xs.flip(1)
    places = torch.arange(xs.shape[1], device=xs.device)
    back = lengths.unsqueeze(1) - 1 - places
    index = torch.where(back >= 0, back, places)
    return xs.gather(1, index.view(*index.shape, *[1] * (xs.dim() - 2)).expand_as(xs))


def flip_resets(resets: Tensor | None, lengths: Tensor | None) -> Tensor | None:
    """Where a reader from the end starts afresh: at the last step of each document.

    Args:
        resets: true at the first step of each document, or `None`.
        lengths: `[batch]`, or `None` for full rows.

    Returns:
        Marks in the order of reading.
    """
    if resets is None:
        return None
    last = torch.cat([resets[:, 1:], torch.zeros_like(resets[:, :1])], 1)
    return flip(last, lengths)

"""Sequences of unequal length behind one another in fewer rows: a kernel that reads whole rows then computes little that nobody wants.

Between two sequences of a row lies one step of which a cell knows that its state begins anew there. Long sequences are followed by short ones, so
that rows are about as long as the longest sequence, and full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.core.state import State, map_state
from unrolled.nn.compiled import is_transformed

Read = Callable[[Float[Tensor, "batch time input"], Bool[Tensor, "batch time"]], State]
"""Outputs over sequences behind one another, a tree of `[batch, time, …]`, or nothing: given the inputs, and where no sequence lies."""

GAIN = 0.85
"""The share of the time, as estimated, above which rows are left as they are."""


class Packing(NamedTuple):
    """Where everything lies."""

    take: Int[Tensor, "steps rows"]
    """Which step of the padded batch, flattened, is read at each place; between sequences any that is there."""
    between: Bool[Tensor, "steps rows"]
    """True where no sequence lies."""
    put: Int[Tensor, " places"]
    """At which place each step of the padded batch is read; behind the last one for padding."""


def overhead(hidden_size: int) -> float:
    """What a step of a kernel costs besides its rows, in rows.

    Args:
        hidden_size: of the cell.

    Returns:
        As measured for the LSTM of oneDNN, forward and backward.
    """
    return 16 + 1500 / hidden_size


def lay_out(lengths: list[int], steps: int) -> tuple[list[int], list[int]]:
    """Give every sequence a row and a first step; the longest one left begins a row, the shortest ones left follow it.

    Args:
        lengths: falling, none of them 0.
        steps: of a row.

    Returns:
        Rows and first steps.
    """
    rows, starts = [0] * len(lengths), [0] * len(lengths)
    row, long, short = -1, 0, len(lengths) - 1
    while long <= short:
        row, used = row + 1, lengths[long]
        rows[long] = row
        long += 1
        while long <= short and used + 1 + lengths[short] <= steps:
            rows[short], starts[short] = row, used + 1
            used += 1 + lengths[short]
            short -= 1
    return rows, starts


def pack(lengths: Int[Tensor, " batch"], time: int, *, reverse: bool, hidden_size: int) -> Packing | None:
    """Lay a batch out.

    Args:
        lengths: of the sequences.
        time: columns of the padded batch.
        reverse: each sequence is read from its end.
        hidden_size: of the cell that reads.

    Returns:
        The places, or nothing where it would not be worth it.
    """
    counts = lengths.numpy()
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    counts, before = counts[order], len(counts)
    if not len(counts):
        return None
    steps, aside = int(counts[0]), overhead(hidden_size)
    most = GAIN * (before * time / steps + aside) - aside
    if (int(counts.sum()) + len(counts)) / (steps + 1) > most:
        return None
    in_row, start = (np.array(found) for found in lay_out(counts.tolist(), steps))
    rows = int(in_row[-1] if len(in_row) == 1 else in_row.max()) + 1
    if rows > most:
        return None
    owner = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    source = order[owner] * time + (counts[owner] - 1 - step if reverse else step)
    target = (start[owner] + step) * rows + in_row[owner]
    take, between = np.full(steps * rows, source[0]), np.ones(steps * rows, dtype=bool)
    take[target], between[target] = source, False
    put = np.full(before * time, steps * rows)
    put[source] = target
    return Packing(torch.from_numpy(take.reshape(steps, rows)), torch.from_numpy(between.reshape(steps, rows)), torch.from_numpy(put))


def unroll_packed(
    read: Read, data: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"], *, reverse: bool, hidden_size: int
) -> State:
    """The outputs of a cell over sequences that begin with its initial state, in fewer rows than there are sequences.

    Args:
        read: gives the outputs of the cell over sequences behind one another, if it can.
        data: may hold anything past a length.
        lengths: of the rows.
        reverse: read each sequence from its end; outputs stay at the place of their input.
        hidden_size: of the cell.

    Returns:
        Outputs, a tree, zero past a length; nothing where the cell cannot do it, or it would not be worth it.
    """
    # Rows cost a GPU nothing; and the layout depends on the lengths, which nobody may trace.
    if not data.is_cpu or not lengths.is_cpu or is_transformed():
        return None
    packing = pack(lengths, data.shape[1], reverse=reverse, hidden_size=hidden_size)
    if packing is None:
        return None
    xs = data.flatten(0, 1).index_select(0, packing.take.flatten()).unflatten(0, packing.take.shape)
    # Steps are the first axis in memory, as kernels want them.
    found = read(xs.transpose(0, 1), packing.between.t())
    if found is None:
        return None

    def in_rows_of_their_own(leaf: Tensor) -> Tensor:
        places = leaf.transpose(0, 1).flatten(0, 1)
        places = torch.cat([places, places.new_zeros(1, *places.shape[1:])])
        return places.index_select(0, packing.put).unflatten(0, data.shape[:2])

    return map_state(in_rows_of_their_own, found)

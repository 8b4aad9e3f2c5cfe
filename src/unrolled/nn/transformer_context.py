"""What a causal Transformer of bounded memory reads again, and which columns it keeps: pure functions of whole numbers.

A row that remembers `context` columns and reads one more keeps the last `context // 2`, reads them again from their inputs as the
beginning of a text, and goes on. So every symbol belongs to one *stretch* of at most `context` symbols: the one that goes on from the
state, or one that is read again. The rule looks at a row alone: what else is in its batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Plan(NamedTuple):
    """In which stretch each new symbol is read, and where in it."""

    place: Int[Tensor, "batch time"]
    """Counted from the beginning of what the symbol may see."""
    stretch: Int[Tensor, "batch time"]
    """-1 for what goes on from the state, else a number below `len(rows)`."""
    rows: Int[Tensor, " stretches"]
    """The row of each stretch that is read again."""
    turns: Int[Tensor, " stretches"]
    """How many stretches of the same row were read again before it."""
    begins: Int[Tensor, " stretches"]
    """Its first column, counted from the first column of the state."""


def find_starts(
    begin: Int[Tensor, " batch"], columns: int, resets: Bool[Tensor, "batch time"] | None, time: int
) -> Int[Tensor, "batch time"]:
    """The first column of the document of each new symbol.

    Args:
        begin: the first column of each row that is remembered.
        columns: how many columns there are before the new ones.
        resets: true where a document begins.
        time: how many symbols are new.

    Returns:
        Columns, counted from the first column of the state.
    """
    if resets is None:
        return begin.unsqueeze(1).expand(-1, time)
    here = columns + torch.arange(time, device=begin.device)
    return torch.where(resets, here, begin.unsqueeze(1)).cummax(1).values


def make_plan(starts: Int[Tensor, "batch time"], columns: int, valid: Bool[Tensor, "batch time"] | None, context: int | None) -> Plan:
    """Divide new symbols into stretches.

    Args:
        starts: the first column of the document of each symbol.
        columns: how many columns there are before the new ones.
        valid: true where a symbol belongs to its row.
        context: the most columns a row remembers, or `None` for no bound.

    Returns:
        The plan.
    """
    age = columns + torch.arange(starts.shape[1], device=starts.device) - starts
    if valid is not None:
        age = torch.where(valid, age, 0)
    if context is None:
        nothing = age.new_zeros(0)
        return Plan(age, torch.full_like(age, -1), nothing, nothing, nothing)
    kept = context // 2
    freed = context - kept
    forgets = (age >= context) & ((age - context) % freed == 0)
    cuts = ((age - kept) // freed).clamp(min=0)
    number = forgets.flatten().cumsum(0).view_as(age) - 1
    rows, times = forgets.nonzero(as_tuple=True)
    turns = forgets.cumsum(1)[rows, times] - 1
    return Plan(age - cuts * freed, torch.where(cuts > 0, number, -1), rows, turns, columns + times - kept)


class Kept(NamedTuple):
    """Which columns the state keeps, each row's last one at the right end."""

    begin: Int[Tensor, " batch"]
    columns: Int[Tensor, "batch kept"]
    """Into the columns of the state and the new ones, rows one after another, and then those of the stretches."""
    inputs: Int[Tensor, "batch kept"]
    """Into the inputs of the state and the new ones, rows one after another."""


def keep_columns(plan: Plan, begin: Int[Tensor, " batch"], lengths: Int[Tensor, " batch"], columns: int, widths: tuple[int, int]) -> Kept:
    """Choose the columns that each row's last symbol sees.

    Args:
        plan: where symbols were read.
        begin: the first column of each row that was remembered.
        lengths: how many symbols of each row are new.
        columns: how many columns there were before the new ones.
        widths: how many new columns went on from the state, and how many each stretch has.

    Returns:
        The choice, no wider than the row that remembers most.
    """
    (batch, time), device = plan.place.shape, begin.device
    last = (lengths - 1).clamp(min=0).unsqueeze(1)
    some = lengths > 0
    count = torch.where(some, plan.place.gather(1, last)[:, 0] + 1, columns - begin)
    stretch = torch.where(some, plan.stretch.gather(1, last)[:, 0], -1)
    width = int(count.max())
    places = count.unsqueeze(1) - width + torch.arange(width, device=device)  # below zero: not seen, whatever is there
    here = ((columns + lengths - count).unsqueeze(1) + places).clamp(min=0)
    row = torch.arange(batch, device=device).unsqueeze(1)
    in_state = row * (columns + widths[0]) + here
    in_stretch = batch * (columns + widths[0]) + stretch.unsqueeze(1) * widths[1] + places.clamp(min=0)
    chosen = torch.where(stretch.unsqueeze(1) < 0, in_state, in_stretch)
    return Kept(width - count, chosen, row * (columns + time) + here)


def place_outputs(plan: Plan, widths: tuple[int, int]) -> Int[Tensor, "batch time"]:
    """Where the output of each new symbol is found.

    Args:
        plan: where symbols were read.
        widths: how many new columns went on from the state, and how many each stretch has.

    Returns:
        Into the outputs that went on from the state, rows one after another, and then those of the stretches.
    """
    (batch, time), device = plan.place.shape, plan.place.device
    row, column = torch.arange(batch, device=device).unsqueeze(1), torch.arange(time, device=device)
    went_on = row * widths[0] + column.clamp(max=max(widths[0] - 1, 0))
    return torch.where(plan.stretch < 0, went_on, batch * widths[0] + plan.stretch * widths[1] + plan.place)


def pick(parts: Sequence[Float[Tensor, "_rows _columns dim"]], index: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
    """Vectors out of several tensors, their rows one after another.

    Args:
        parts: at least one.
        index: which vectors.

    Returns:
        The vectors, of the type of the last part.
    """
    flat = torch.cat([part.to(parts[-1].dtype).flatten(0, 1) for part in parts])
    return flat.index_select(0, index.flatten()).unflatten(0, index.shape)

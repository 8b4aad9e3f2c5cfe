"""Unrolling a cell that is linear in its state: all steps at once, by a scan."""

from __future__ import annotations

from inspect import unwrap

import torch
from torch import Tensor

from unrolled.core.padded import length_mask
from unrolled.core.scan import linear_scan
from unrolled.core.state import State, map_state
from unrolled.nn.cell import Cell
from unrolled.nn.compiled import is_transformed, is_watched
from unrolled.nn.linear_cell import ComplexState, LinearCell, Numbers, multiply
from unrolled.nn.unroll import Sequences


def run_parallel(cell: Cell, sequences: Sequences, state: State, restart: State) -> tuple[Tensor, State] | None:
    """The same as `run_steps` for a cell that is linear in its state, all steps at once.

    A row that has ended keeps what it has, and one that restarts keeps nothing: both are steps of the same form. A state that is not finite is not
    forgotten so, since zero times it is not zero: on a processor such a batch goes step by step.

    Args:
        cell: any.
        sequences: data and where rows end and restart.
        state: the state before the first step.
        restart: the state at a reset, or `None` when there are none.

    Returns:
        Outputs and the last state, or `None` where the cell is another one or has a step of its own, or somebody looks into its steps.
    """
    if not isinstance(cell, LinearCell) or unwrap(type(cell).step) is not unwrap(LinearCell.step) or is_watched([*cell.named_modules()]):
        return None
    data, lengths, resets = sequences.data, sequences.lengths, sequences.resets
    inside = None if lengths is None else length_mask(lengths, data.shape[1]).unsqueeze(-1)
    if inside is not None:
        data = torch.where(inside, data, 0)
    keep, add = (
        map_state(lambda part, leaf: part.expand(*data.shape[:2], *leaf.shape[1:]), parts, state) for parts in cell.coefficients(data)
    )
    if resets is not None:
        begins = resets.unsqueeze(-1)
        begun = map_state(torch.add, multiply(keep, map_state(lambda leaf: leaf.unsqueeze(1), restart)), add)
        add = map_state(lambda new, old: torch.where(begins, new, old), begun, add)
        keep = map_state(lambda part: torch.where(begins, 0, part), keep)
    if inside is not None:
        ones = (1, 0) if isinstance(keep, ComplexState) else (1,) * len(keep)
        keep = type(keep)(*[torch.where(inside, part, one) for part, one in zip(keep, ones, strict=True)])
        add = map_state(lambda part: torch.where(inside, part, 0), add)
    states = scan_states(keep, add, state)
    outputs = cell.read(map_state(lambda leaf: leaf[:, 1:], states), data)
    if resets is not None and outputs.is_cpu and not is_transformed() and not bool(outputs.detach().isfinite().all()):
        return None
    return (outputs if inside is None else torch.where(inside, outputs, 0)), map_state(lambda leaf: leaf[:, -1], states)


def scan_states(keep: Numbers, add: Numbers, state: Numbers) -> Numbers:
    """`linear_scan` of numbers in the form of a state, carried in float32 at least.

    Args:
        keep: `[batch, time, hidden]`.
        add: of the same shape.
        state: before the first step, `[batch, hidden]`.

    Returns:
        States `[batch, time + 1, hidden]`, of the type of `state`.
    """
    wide = torch.promote_types(state[0].dtype, torch.float32)
    given = [[part.to(wide) for part in parts] for parts in (keep, add, state)]
    if isinstance(state, ComplexState):
        states = linear_scan(*[torch.complex(*pair) for pair in given])
        parts: tuple[Tensor, ...] = (states.real, states.imag)
    else:
        parts = tuple(linear_scan(*three) for three in zip(*given, strict=True))
    return type(state)(*[part.to(old.dtype) for part, old in zip(parts, state, strict=True)])

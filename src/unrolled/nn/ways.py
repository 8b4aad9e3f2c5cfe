"""Which way cells were unrolled, for whoever wants to know."""

from __future__ import annotations

import weakref

import torch
from torch import nn

from unrolled.nn.cell import Cell

WAYS = {
    "compiled": "a compiled loop",
    "whole": "its own form for all steps",
    "parallel": "a parallel scan",
    "steps": "one step after the other",
}
"""In words."""

_taken: weakref.WeakKeyDictionary[Cell, dict[bool, str]] = weakref.WeakKeyDictionary()


def note_way(cell: Cell, way: str) -> None:
    """Remember which way a cell was unrolled.

    Args:
        cell: in training mode or not, each is remembered.
        way: a key of `WAYS`.
    """
    if not torch.compiler.is_compiling():
        _taken.setdefault(cell, {})[cell.training] = way


def way_of(cell: Cell, *, training: bool = True) -> str | None:
    """Which way a cell was unrolled last.

    Args:
        cell: any.
        training: in training mode, or not.

    Returns:
        A key of `WAYS`, or `None` where it was not unrolled.
    """
    return _taken.get(cell, {}).get(training)


def ways_in_words(module: nn.Module) -> str:
    """How the cells of a model are unrolled in training.

    Args:
        module: has been trained for a step.

    Returns:
        Such as `GRU: a compiled loop`; nothing where all have a form of their own, or there is no cell.
    """
    taken = {cell: way_of(cell) for cell in module.modules() if isinstance(cell, Cell)}
    found = dict.fromkeys((name, way) for cell, way in taken.items() if way is not None for name in _kinds(cell))
    return "; ".join(f"{name}: {WAYS[way]}" for name, way in found) if any(way != "whole" for _, way in found) else ""


def _kinds(cell: Cell) -> list[str]:
    """Of the cells within one that is made of others, as a decoder's is; else its own."""
    within = [part for part in cell.modules() if isinstance(part, Cell)]
    return [type(part).__name__ for part in within if sum(isinstance(inner, Cell) for inner in part.modules()) == 1]

"""What a cell owes: its sizes, and a step that gives back an output and a state."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.core.state import State, named_leaves
from unrolled.nn.cell import Cell

_checked: weakref.WeakSet[Cell] = weakref.WeakSet()
"""Cells whose step has been seen to be right."""


def checked_output_size(cell: Any) -> int:
    """How wide the outputs of a cell are.

    Args:
        cell: whatever was given as one.

    Returns:
        Its output size.

    Raises:
        ConfigurationError: it is no cell, or has no size.
    """
    if not (hasattr(cell, "step") and hasattr(cell, "initial_state")):
        raise ConfigurationError(f"`cell` must be derived from `unrolled.nn.Cell`, got {type(cell).__name__}")
    try:
        size: int = cell.output_size
    except AttributeError as error:
        raise ConfigurationError(
            f"the cell `{type(cell).__name__}` must say how wide it is, found no size; set `self.hidden_size` in `__init__`"
        ) from error
    return size


def checked_once(cell: Cell, state: State, result: Any) -> tuple[Any, State]:
    """As `checked_result`, for the first step of a cell alone: what one step gives, all do.

    Args:
        cell: took the step.
        state: before the step.
        result: of `step`.

    Returns:
        Output and new state.
    """
    if not torch.compiler.is_compiling() and cell not in _checked:
        checked_result(cell, state, result)
        _checked.add(cell)
    output, after = result
    return output, after


def checked_result(cell: Cell, state: State, result: Any) -> tuple[Any, State]:
    """What a step gave, if it is what a step must give.

    Args:
        cell: took the step.
        state: before the step.
        result: of `step`.

    Returns:
        Output and new state.

    Raises:
        ConfigurationError: no such pair, an output of another shape than `[batch, output_size]`, or a state of other parts.
        UserError: the state before the step was of other parts.
    """
    of = f"`step` of the cell `{type(cell).__name__}` must give back"
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ConfigurationError(f"{of} a pair, the output and the new state, got {_described(result)}")
    output, after = result
    if isinstance(output, Tensor) and (output.dim() < 2 or output.shape[-1] != cell.output_size):
        size = "output_size" if type(cell).output_size is not Cell.output_size else "hidden_size"
        raise ConfigurationError(
            f"{of} an output [batch, {cell.output_size}], as its `{size}` says, got {list(output.shape)}; say another width as `output_size`"
        )
    if _names(after) != _names(state):
        first, found = cell.initial_state(1), _names(after)
        if _names(first) != _names(state):
            raise UserError(
                f"`state` must have the parts that `initial_state` of `{type(cell).__name__}` gives, {_listed(_names(first))}, "
                f"got {_listed(_names(state))}"
            )
        parts = _described(after) if found is None else _listed(found)
        raise ConfigurationError(f"{of} a state of the same parts as `initial_state` does, {_listed(_names(state))}, got {parts}")
    return output, after


def _names(state: State) -> list[str] | None:
    """The parts of a state in order, or `None` for what is no state."""
    try:
        return sorted(name for name, _ in named_leaves(state))
    except (TypeError, ValueError):
        return None


def _listed(names: list[str] | None) -> str:
    return ", ".join(f"`{name}`" if name else "one tensor" for name in names or []) or "nothing"


def _described(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"a tensor {list(result.shape)}"
    return f"{len(result)} things" if isinstance(result, tuple | list) else f"`{type(result).__name__}`"

"""What a cell owes: its sizes, and a step that gives back an output and a state."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.core.state import State, named_leaves
from unrolled.nn.cell import Cell


def checked_output_size(cell: Any) -> int:
    """How wide the outputs of a cell are.

    Args:
        cell: whatever was given as one.

    Returns:
        Its output size.

    Raises:
        ConfigurationError: it is no cell, or has no size.
    """
    if not isinstance(cell, Cell):
        raise ConfigurationError(f"`cell` must be derived from `unrolled.nn.Cell`, got {type(cell).__name__}")
    try:
        size: int = cell.output_size
    except AttributeError:
        raise ConfigurationError(
            f"the cell `{type(cell).__name__}` must say how wide it is, found no size; set `self.hidden_size` in `__init__`"
        ) from None
    return size


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
    before, now = sorted(name for name, _ in named_leaves(state)), _names(after)
    if before != now:
        raise ConfigurationError(
            f"{of} a state of the same parts as `initial_state` does, {_listed(before)}, got {_described(after) if now is None else _listed(now)}"
        )
    return output, after


def _names(state: State) -> list[str] | None:
    """The parts of a state in order, or `None` for what is no state."""
    try:
        return sorted(name for name, _ in named_leaves(state))
    except (TypeError, ValueError):
        return None


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" if name else "one tensor" for name in names) or "nothing"


def _described(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"a tensor {list(result.shape)}"
    return f"{len(result)} things" if isinstance(result, tuple | list) else f"`{type(result).__name__}`"

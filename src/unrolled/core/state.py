"""State trees: tensors nested in named tuples, dictionaries and tuples, with the batch as axis 0 of every leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

State = Any
"""A tensor, `None`, or a named tuple, tuple or dictionary of states."""


def map_state(function: Callable[..., Any], state: State, *others: State) -> State:
    """Apply `function` to every leaf (and the leaves of `others` at the same place); the tree keeps its form.

    Args:
        function: takes as many tensors as there are trees.
        state: the tree whose form is kept.
        others: trees of the same form.

    Returns:
        The tree of results.

    Raises:
        TypeError: something in the tree is neither a tensor nor a container of them.
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return function(state, *others)
    if isinstance(state, Mapping):
        return {name: map_state(function, part, *(other[name] for other in others)) for name, part in state.items()}
    if isinstance(state, tuple):
        parts = [map_state(function, part, *(other[i] for other in others)) for i, part in enumerate(state)]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    raise TypeError(f"a state is made of tensors, named tuples, tuples and dictionaries, got {type(state).__name__}")


def select_state(state: State, rows: Tensor) -> State:
    """The state of some rows of the batch, in the order given (a beam that is re-ordered, a batch that shrinks).

    Args:
        state: a tree with batch as axis 0.
        rows: indices into the batch, integer `[chosen]`.

    Returns:
        The tree with `chosen` rows.
    """
    return map_state(lambda leaf: leaf.index_select(0, rows), state)


def where_state(rows: Tensor, chosen: State, otherwise: State) -> State:
    """Row by row: `chosen` where `rows` is true, else `otherwise`.

    Args:
        rows: boolean `[batch]`.
        chosen: a tree with batch as axis 0.
        otherwise: a tree of the same form.

    Returns:
        A tree of the same form.
    """
    return map_state(lambda a, b: torch.where(rows.view(-1, *[1] * (a.dim() - 1)), a, b), chosen, otherwise)


def detach_state(state: State) -> State:
    """The same values, cut from the graph (where truncated back-propagation cuts).

    Args:
        state: any tree.

    Returns:
        The tree of detached leaves.
    """
    return map_state(Tensor.detach, state)


def named_leaves(state: State, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the tree with its path, `layer.h`.

    Args:
        state: any tree.
        prefix: put before every path.

    Yields:
        Pairs of path and tensor.
    """
    if state is None:
        return
    if isinstance(state, Tensor):
        yield prefix.rstrip("."), state
        return
    if isinstance(state, Mapping):
        named: Any = state.items()
    else:
        named = zip(getattr(state, "_fields", range(len(state))), state, strict=True)
    for name, part in named:
        yield from named_leaves(part, f"{prefix}{name}.")


def restore_state(like: State, leaves: Mapping[str, Tensor], prefix: str = "") -> State:
    """The inverse of `named_leaves`: a tree of the form of `like` with the tensors of `leaves`.

    Args:
        like: a tree of the wanted form.
        leaves: tensors by path.
        prefix: the one given to `named_leaves`.

    Returns:
        The tree.
    """
    names = iter([name for name, _ in named_leaves(like, prefix)])
    return map_state(lambda _: leaves[next(names)], like)


def stack_time(steps: list[State]) -> State:
    """Outputs of single steps, `[batch, …]` each, as one tree of `[batch, time, …]`.

    Args:
        steps: at least one tree, all of one form.

    Returns:
        The tree with time as axis 1.
    """
    return map_state(lambda *leaves: torch.stack(leaves, 1), steps[0], *steps[1:])

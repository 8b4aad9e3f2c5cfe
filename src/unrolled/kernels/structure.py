"""What one unrolling is given, and all of it that a trace depends on: the forms of the trees, sizes behind the batch, types."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.state import State

Step = Callable[[Any, State, State, Mapping[str, Tensor]], tuple[State, State]]
"""A step of time as a pure function: `step(x, state, fixed, parameters)` gives the output and the new state."""


class Unrolling(NamedTuple):
    """What a step is unrolled over."""

    inputs: State
    """A tree of `[batch, time, …]`."""
    state: State
    """Before the first step, a tree of `[batch, …]`."""
    fixed: State = None
    """What holds for the whole sequence, a tree of `[batch, …]`."""
    parameters: Mapping[str, Tensor] = MappingProxyType({})
    """Tensors without a batch axis, buffers included, by name."""
    lengths: Tensor | None = None
    """`[batch]`: steps of each row; all where it is `None`."""
    resets: Tensor | None = None
    """Boolean `[batch, time]`: true where the state becomes `restart` before the step."""
    restart: State = None
    """The state at a reset, of the form of `state`; needed where there are `resets`."""


class Role(enum.Enum):
    """What a leaf is in the loop."""

    INPUT = "input"
    STATE = "state"
    FIXED = "fixed"
    PARAMETER = "parameter"

    def __init__(self, name: str) -> None:
        """Make a role.

        Args:
            name: its value.
        """
        self.axes = {"input": 2, "parameter": 0}.get(name, 1)
        """How many axes lie before those that a trace depends on."""

    __hash__ = object.__hash__  # that of enumerations is written in Python, and asked for at every call


class Leaf(NamedTuple):
    """One tensor of those given, as far as a trace depends on it."""

    role: Role
    shape: tuple[int, ...]
    """Behind the batch; the whole shape of a parameter."""
    dtype: torch.dtype
    gradient: bool
    """Whether its gradient is wanted."""


class Structure(NamedTuple):
    """All that a trace depends on; equal ones share a trace."""

    forms: Any
    leaves: tuple[Leaf, ...]
    """In the order inputs, state, fixed, restart, parameters, `alive`, `reset`."""
    lengths: bool
    resets: bool
    device: torch.device


def describe(given: Unrolling) -> tuple[Structure, list[Tensor]]:
    """Take apart what an unrolling is given.

    Args:
        given: trees of tensors.

    Returns:
        The structure, and the tensors of its leaves but the last ones, `alive` and `reset`.
    """
    tensors: list[Tensor] = []
    leaves: list[Leaf] = []
    trees = (
        (given.inputs, Role.INPUT),
        (given.state, Role.STATE),
        (given.fixed, Role.FIXED),
        (None if given.resets is None else given.restart, Role.FIXED),
        (given.parameters, Role.PARAMETER),
    )
    forms = tuple(_visit(tree, role, tensors, leaves) for tree, role in trees)
    has_lengths, has_resets = given.lengths is not None, given.resets is not None
    leaves += [Leaf(Role.INPUT, (), torch.bool, False)] * (has_lengths + has_resets)
    return Structure(forms, tuple(leaves), has_lengths, has_resets, tensors[0].device), tensors


def _visit(tree: State, role: Role, tensors: list[Tensor], leaves: list[Leaf]) -> Any:
    """Collect the leaves of a tree, and say what form it has."""
    if isinstance(tree, Tensor):
        tensors.append(tree)
        leaves.append(Leaf(role, tuple(tree.shape)[role.axes :], tree.dtype, tree.requires_grad and torch.is_grad_enabled()))
        return Tensor
    if isinstance(tree, Mapping):
        return tuple((name, _visit(part, role, tensors, leaves)) for name, part in tree.items())
    return None if tree is None else (type(tree), *[_visit(part, role, tensors, leaves) for part in tree])

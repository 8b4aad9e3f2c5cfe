"""What a cell is beside its parameters: all that a traced step may have read and baked in, and a copy of the cell without weights."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.nn.cell import Cell

OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}
"""Attributes that torch itself keeps: parameters, parts, hooks."""

LARGE = 1000
"""Collections of more entries are the same as long as they are the same object: to look at each at every call would take too long."""

NOTHING: frozenset[int] = frozenset()

Parts = Sequence[tuple[str, nn.Module]]
"""A cell and its parts, by name."""

THEMSELVES = frozenset({type(None), bool, int, str, bytes, type, torch.dtype, torch.device})
"""Types of values that are equal where they do the same: not so numbers of a floating type, of which zero is equal to minus zero."""

Settings = tuple[tuple[str, type, Hashable], ...]
"""The name, class and attributes of each part of a cell."""


def settings(cell: Cell, parts: Parts | None = None) -> Settings:
    """All attributes of a cell and its parts, parameters and buffers left out.

    Args:
        cell: any.
        parts: its parts by name, where they are known.

    Returns:
        Equal for cells whose steps do the same, as far as attributes tell.
    """
    return tuple([(name, type(part), _attributes(part, NOTHING)) for name, part in parts or cell.named_modules()])


def changed(first: Settings, second: Settings) -> list[str]:
    """Which attributes differ.

    Args:
        first: settings of a cell.
        second: those at another time.

    Returns:
        Their names, with the part they belong to.
    """
    pairs = [{(name, *attribute) for name, _, attributes in each for attribute in attributes} for each in (first, second)]  # type: ignore[attr-defined]
    return sorted({f"{name}.{attribute}".lstrip(".") for name, attribute, _ in pairs[0] ^ pairs[1]})


def without_weights(cell: Cell) -> Cell:
    """A copy to trace: what its step does to its attributes does not reach the cell, and it keeps no memory of parameters.

    Args:
        cell: any.

    Returns:
        A cell with tensors without elements in the place of parameters and buffers.

    Raises:
        Exception: whatever copying may raise.
    """
    known: dict[int, Any] = {}
    for part in cell.modules():
        for tensor in [*part._parameters.values(), *part._buffers.values()]:
            if tensor is not None:
                empty = torch.empty_like(tensor, device="meta")
                known[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        known.update({id(value): value for value in vars(part).values() if isinstance(value, Tensor)})
    return copy.deepcopy(cell, known)


def _attributes(thing: Any, above: frozenset[int]) -> Hashable:
    # This is done at every call of a layer.
    mine = vars(thing)
    return frozenset([(name, _frozen(mine[name], above)) for name in mine.keys() - OF_EVERY_MODULE])


def _frozen(value: Any, above: frozenset[int]) -> Hashable:
    """The same for values that do the same; what cannot be looked into is the same only as long as it is the same object."""
    kind = type(value)
    if kind in THEMSELVES:
        return kind, value
    if isinstance(value, bool | int | float | str | bytes | complex | type):
        return kind, repr(value) if isinstance(value, float | complex) else value
    if id(value) in above:
        return "itself"
    above = above | {id(value)}
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return type(value), _entries(value, above)
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        return value.__code__, _frozen([value.__defaults__, value.__kwdefaults__, held], above)
    return type(value), _frozen_object(value, above)


def _entries(value: Any, above: frozenset[int]) -> Hashable:
    if len(value) > LARGE:
        return len(value), id(value)
    entries = (_frozen(entry, above) for entry in (value.items() if isinstance(value, Mapping) else value))
    return frozenset(entries) if isinstance(value, set | frozenset) else tuple(entries)


def _frozen_object(value: Any, above: frozenset[int]) -> Hashable:
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, MethodType):
        return value.__func__.__code__, _frozen(value.__self__, above)
    if isinstance(value, Tensor | BuiltinFunctionType | ModuleType) or not hasattr(value, "__dict__"):
        return id(value)
    return _attributes(value, above)

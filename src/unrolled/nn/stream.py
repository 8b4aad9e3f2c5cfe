"""Single steps of a cell by a compiled kernel: for streams, where each call is one step of time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unrolled.core.state import State, named_leaves
from unrolled.kernels import NoCompiler, SingleStep, Step, Unsupported
from unrolled.nn.cell import Cell
from unrolled.nn.compiled import LEAST, TYPES, in_words, is_transformed, leave_word, tell, tell_why
from unrolled.nn.step_check import checked_once, checked_result

HOOKS = itemgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_streams: weakref.WeakKeyDictionary[Cell, Stream] = weakref.WeakKeyDictionary()


def take_step(cell: Cell, x: Any, state: State) -> tuple[Any, State]:
    """`cell.step(x, state)`, by a compiled kernel where there is one; else the step is checked, and told why it is slow.

    Args:
        cell: takes the step.
        x: a tree of `[batch, …]`.
        state: the state after the step before.

    Returns:
        The output and the new state.
    """
    taken = run_step(cell, x, state)
    if taken is None:
        taken = checked_once(cell, state, cell.step(x, state))
        tell_why(cell)
    return taken


def run_step(cell: Cell, x: Any, state: State) -> tuple[Any, State] | None:
    """The same as `cell.step(x, state)` by a compiled kernel.

    Weights are read where they lie at every call, so that a change of them, in whatever way, is seen.

    Args:
        cell: takes the step.
        x: a tree of `[batch, …]`.
        state: the state after the step before.

    Returns:
        The output and the new state, or `None` where the cell has to take the step itself: for a small cell, silently where a gradient is
        wanted, where torch itself traces or transforms the step or somebody looks into the cell, and where the compiler cannot do it, with a
        word left for `tell_why`.
    """
    if is_transformed() or torch.is_autocast_enabled("cpu"):
        return None
    stream = _streams.get(cell)
    tensors = None if stream is None else stream.tensors(cell)
    if stream is None or tensors is None:
        stream = _streams[cell] = Stream(cell)
        tensors = stream.tensors(cell)
    if stream.refused or not tensors or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return None
    return stream.take(cell, tensors, x, state)


def pure_step(cell: weakref.ref[Cell]) -> Step:
    """The step as a function of all it depends on. What is compiled must not keep the cell alive, by which it is found.

    Args:
        cell: takes the step.

    Returns:
        The function.
    """

    def step(x: Any, state: State, fixed: State, parameters: Mapping[str, Tensor]) -> tuple[State, State]:
        held = cell()
        assert held is not None
        return checked_result(held, state, functional_call(held, dict(parameters), (x, state, fixed), tie_weights=False))

    return step


class Part(NamedTuple):
    """A module of a cell, as far as its step depends on it beside its tensors."""

    above: int
    """Which part it belongs to."""
    name: str
    first: int
    """The first place of the same module, which may have several."""
    kind: type[nn.Module]
    sizes: tuple[int, int]
    """How many attributes and modules it has."""
    words: Callable[[dict[str, Any]], Any]
    """Takes its numbers and words from its attributes."""
    values: Any
    """What they are."""


class Stream:
    """What is made for a cell in one form of it; nothing of the cell is kept alive."""

    def __init__(self, cell: Cell) -> None:
        """Look at a cell; nothing is compiled yet.

        Args:
            cell: as it is now.
        """
        places: dict[str, int] = {}
        firsts: dict[nn.Module, int] = {}
        self._parts: list[Part] = []
        self._names: list[str] = []
        """Of parameters and buffers, those that are `None` too."""
        for path, part in cell.named_modules(remove_duplicate=False):
            above, _, name = path.rpartition(".")
            mine = vars(part)
            words = [key for key, value in mine.items() if isinstance(value, bool | int | float | str)]
            read = itemgetter(*words)
            first = firsts.setdefault(part, len(places))
            sizes = len(mine), len(part._modules)
            self._parts.append(Part(places.get(above, 0), name, first, type(part), sizes, read, read(mine)))
            if first == len(places):
                self._names += [f"{path}.{key}".lstrip(".") for key in (*part._parameters, *part._buffers)]
            places[path] = len(places)
        tensors = self._read(cell) or []
        self._present = [tensor is not None for tensor in tensors]
        self._steps: list[SingleStep] = []
        self.refused = sum(tensor.numel() for tensor in tensors if tensor is not None) < LEAST
        """Whether the cell takes its steps itself."""

    def tensors(self, cell: Cell) -> list[Tensor] | None:
        """The parameters and buffers of the cell, as they are now.

        Args:
            cell: the one that this was made for.

        Returns:
            Tensors; none where somebody looks into the cell, and `None` where something else of it has changed.
        """
        tensors = self._read(cell)
        if not tensors:
            return tensors  # type: ignore[return-value]
        if [tensor is not None for tensor in tensors] != self._present:
            return None
        return [tensor for tensor in tensors if tensor is not None]

    def take(self, cell: Cell, tensors: list[Tensor], x: Any, state: State) -> tuple[Any, State] | None:
        """Take a step by what was made for such an input and state, or is made now.

        Args:
            cell: the one that this was made for.
            tensors: its parameters and buffers.
            x: the input.
            state: the state.

        Returns:
            The output and the new state, or `None`.
        """
        for step in self._steps:
            taken = step(x, state, tensors)
            if taken is not None:
                return taken
        if not _is_usual(tensors, x, state):
            return None
        names = [name for name, there in zip(self._names, self._present, strict=True) if there]
        try:
            step = SingleStep(pure_step(weakref.ref(cell)), x, state, dict(zip(names, tensors, strict=True)))
        except Unsupported as reason:
            leave_word(cell, f"single steps of `{type(cell).__name__}` are not compiled: no compiled form of {in_words(reason)}")
        except NoCompiler as reason:
            tell(f"single steps of cells are not compiled: {reason}")
        else:
            self._steps.append(step)
            return step(x, state, tensors)
        self.refused = True
        return None

    def _read(self, cell: Cell) -> list[Tensor | None] | None:
        attributes: list[dict[str, Any]] = []
        tensors: list[Tensor | None] = []
        for above, name, first, kind, sizes, words, values in self._parts:
            module = attributes[above]["_modules"].get(name) if attributes else cell
            if type(module) is not kind:
                return None
            mine = module.__dict__
            if (len(mine), len(mine["_modules"])) != sizes or words(mine) != values:
                return None
            if any(HOOKS(mine)):
                return []
            if first == len(attributes):
                tensors += mine["_parameters"].values()
                tensors += mine["_buffers"].values()
            elif mine is not attributes[first]:
                return None
            attributes.append(mine)
        return tensors


def _is_usual(tensors: list[Tensor], x: Any, state: State) -> bool:
    """Whether a step may be made for what is given."""
    leaves = [leaf for tree in (x, state) for _, leaf in named_leaves(tree)]
    every = [*tensors, *leaves]
    floats = {tensor.dtype for tensor in every if tensor.is_floating_point()}
    return (
        all(tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided for tensor in every)
        and all(tensor.is_contiguous() for tensor in tensors)
        and all(leaf.dim() > 0 and len(leaf) == len(leaves[0]) > 0 for leaf in leaves)
        and not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves))
        and len(floats) == 1
        and floats <= set(TYPES)
    )

"""Unrolling a cell by a compiled loop: when that is done, and what a cell hands to the compiler."""

from __future__ import annotations

import re
import threading
import warnings
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode

from unrolled.core.state import State, map_state, named_leaves
from unrolled.kernels import CompiledStep, NoCompiler, Step, Unrolling, Unsupported, has_bfloat16_products, make_loop, multiply
from unrolled.nn.cell import Cell, Workload
from unrolled.nn.frozen import Parts, Settings, changed, settings, without_weights
from unrolled.nn.step_check import checked_result
from unrolled.nn.unroll import Sequences, boundaries

LEAST = 64 * 64
"""Parameters below which a cell is not compiled: a small one gains less than a second of compiling costs."""

TYPES = (torch.float32, torch.float64)

MOST_SETTINGS = 8
"""So many ways to set its attributes a cell is compiled for: one more, and they change faster than compiling pays."""


class _Known:
    """What is known of a cell, as long as it lives."""

    def __init__(self) -> None:
        self.steps: dict[tuple[Settings, bool], CompiledStep] = {}
        """One for each way the cell may be set: its attributes are part of what is traced; with products of bfloat16, or without."""
        self.reason: str | None = None
        """Why it is not compiled, whatever its attributes."""
        self.refused = False
        """Whether the compiler could not do it, at least once."""
        self.untold: str | None = None
        """Why, until somebody has been told: if the cell itself is wrong, the plain loop has better words."""


_known: weakref.WeakKeyDictionary[Cell, _Known] = weakref.WeakKeyDictionary()
_told: set[str] = set()
_lock = threading.RLock()
"""For what is kept here, and for the copies of cells, whose parameters are put in their places while a step is taken."""


def run_compiled(cell: Cell, inputs: Any, sequences: Sequences, state: State, restart: State, fixed: State) -> tuple[Any, State] | None:
    """The same as `run_steps` by a compiled loop.

    Args:
        cell: takes the steps.
        inputs: a tree of `[batch, time, …]`, at least one row and one step.
        sequences: where rows end and restart.
        state: the state before the first step.
        restart: the state at a reset, or `None` when there are none.
        fixed: what holds for the whole sequence, or `None`.

    Returns:
        Outputs and the state after each row's last step, or `None` where the plain loop has to be taken: for a small cell, where torch itself
        traces or transforms the loop or somebody looks into the cell, and where the compiler cannot do it, with a word left for `tell_why`.
    """
    parts = [*cell.named_modules()]
    parameters = _tensors(parts)
    if not _may_compile(parts, parameters):
        return None
    own, brief = _own_type(parameters), False
    if torch.is_autocast_enabled("cpu"):
        # What surrounds the cell may be of half precision; the loop is of the precision of its weights, but for what products multiply.
        inputs, state, restart, fixed = (_cast(tree, own) for tree in (inputs, state, restart, fixed))
        brief = own == torch.float32 and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if own == torch.bfloat16 and _all_brief(inputs, state, restart, fixed, parameters):
        # The loop computes in float32 and multiplies in bfloat16, and carries a state that is not rounded from step to step.
        inputs, state, restart, fixed = (_cast(tree, torch.float32) for tree in (inputs, state, restart, fixed))
        parameters = {name: _long(parameter) for name, parameter in parameters.items()}
        brief = True
    if not _plain_tensors(inputs, state, restart, fixed, parameters):
        return None
    given = Unrolling(inputs, state, fixed, parameters, sequences.lengths, sequences.resets, restart)
    try:
        with torch.autocast("cpu", enabled=False):
            outputs, after = _compiled_step(cell, parts, brief and has_bfloat16_products()).unroll(given)
            return (_cast(outputs, own), _cast(after, own)) if own == torch.bfloat16 else (outputs, after)
    except Unsupported as reason:
        _refuse(cell, f"`{type(cell).__name__}` is unrolled step by step, which is slow: no compiled form of {in_words(reason)}")
    except NoCompiler as reason:
        _refuse(cell, None)
        tell(f"cells are not compiled, and slower than they could be: {reason}")
    return None


def workload_of(cell: Cell, data: Tensor, sequences: Sequences) -> Workload | None:
    """What is to be unrolled, if `run_compiled` may be expected to do it; nothing is traced to find out.

    Args:
        cell: takes the steps.
        data: the inputs, `[batch, time, …]`.
        sequences: where rows end and restart.

    Returns:
        Nothing for a small cell, where torch traces or transforms it, while somebody looks into it, where the compiler could not do it before, and
        elsewhere than on a CPU.
    """
    parts, known = [*cell.named_modules()], _known.get(cell)
    parameters = _tensors(parts)
    if (known and known.refused) or not data.is_cpu or not _may_compile(parts, parameters):
        return None
    own = _own_type(parameters)
    brief = own == torch.bfloat16 or (own == torch.float32 and torch.is_autocast_enabled("cpu"))
    gradients = torch.is_grad_enabled() and (data.requires_grad or any(tensor.requires_grad for tensor in parameters.values()))
    runs = len(boundaries(sequences)) - 1
    return Workload(len(data), runs, gradients, gradients and data.requires_grad, brief and has_bfloat16_products())


def _refuse(cell: Cell, why: str | None) -> None:
    leave_word(cell, why)
    _known[cell].refused = True


def leave_word(cell: Cell, why: str | None) -> None:
    """Keep for `tell_why` why a cell is not compiled.

    Args:
        cell: takes its steps itself.
        why: a sentence, or nothing where it has been told.
    """
    with _lock:
        _known.setdefault(cell, _Known()).untold = why


def tell_why(cell: Cell) -> None:
    """Warn, once in a process, of why a cell is not compiled; called when it has taken a step itself.

    Args:
        cell: any.
    """
    known = None if torch.compiler.is_compiling() else _known.get(cell)
    if known is not None and known.untold is not None:
        why, known.untold = known.untold, None
        tell(why)


def tell(sentence: str) -> None:
    """Warn, once in a process.

    Args:
        sentence: what is warned of.
    """
    if sentence not in _told:
        _told.add(sentence)
        warnings.warn(sentence, stacklevel=2)


def _tensors(parts: Parts) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once; torch's own lists walk over the parts of the cell twice."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, part in parts:
        for key, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), (f"{name}.{key}" if name else key, tensor))
    return dict(found.values())


def _own_type(parameters: Mapping[str, Tensor]) -> torch.dtype:
    """That of the zeros of the cell."""
    return next((tensor.dtype for tensor in parameters.values() if isinstance(tensor, torch.nn.Parameter)), torch.get_default_dtype())


def _cast(tree: State, dtype: torch.dtype) -> State:
    return map_state(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, tree)


def _long(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _all_brief(*trees: Any) -> bool:
    leaves = [leaf for tree in trees for _, leaf in named_leaves(tree)]
    return all(leaf.dtype == torch.bfloat16 and leaf.is_cpu for leaf in leaves if leaf.is_floating_point())


def _may_compile(parts: Parts, parameters: Mapping[str, Tensor]) -> bool:
    if sum(parameter.numel() for parameter in parameters.values()) < LEAST:
        return False
    return not is_transformed() and not is_watched(parts)


def is_watched(parts: Parts) -> bool:
    """Whether somebody looks into the steps of a cell.

    Args:
        parts: its modules.

    Returns:
        True where one of them, or all modules, have hooks.
    """
    return _has_any_global_hook() or any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks for _, part in parts
    )


def is_transformed() -> bool:
    """Whether torch traces or transforms what is called now, so that it has to see every operation.

    Returns:
        True under `torch.compile`, `torch.export`, `torch.jit.trace`, `torch.func`, forward-mode derivatives and dispatch modes.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
        or _get_current_dispatch_mode() is not None
    )


def in_words(reason: Unsupported) -> str:
    """Why something is not compiled, with operations as a person writes them.

    Args:
        reason: from the compiler.

    Returns:
        Such as `` `torch.sort` ``.
    """
    return re.sub(r"\baten\.(\w+)", r"`torch.\1`", str(reason))


def _plain_tensors(*trees: Any) -> bool:
    leaves = [leaf for tree in trees for _, leaf in named_leaves(tree)]
    floats = {leaf.dtype for leaf in leaves if leaf.is_floating_point()}
    return all(leaf.is_cpu and type(leaf) in (Tensor, torch.nn.Parameter) for leaf in leaves) and len(floats) == 1 and floats <= set(TYPES)


def _compiled_step(cell: Cell, parts: Parts, brief: bool = False) -> CompiledStep:
    """One for each way the cell may be set (its attributes are part of what is traced), and for products of bfloat16 or not."""
    now = settings(cell, parts)
    with _lock:
        known = _known.setdefault(cell, _Known())
        if known.reason is None and (now, brief) not in known.steps:
            if len(known.steps) == MOST_SETTINGS:
                names = ", ".join(f"`{name}`" for name in changed([*known.steps][-1][0], now))
                known.reason = f"a cell whose attributes change from call to call ({names}; see `register_buffer` for numbers that do)"
            else:
                made = partial(make_loop, bfloat16_products=True) if brief else make_loop
                known.steps[now, brief] = CompiledStep(_pure(cell, known), made, partial(multiply, bfloat16=True) if brief else multiply)
        if known.reason is not None:
            raise Unsupported(known.reason)
        return known.steps[now, brief]


def _pure(cell: Cell, known: _Known) -> Step:
    """The step as a function of all it depends on. What is compiled must not keep the cell alive, by which it is found."""
    try:
        held = without_weights(cell)
    except Exception as error:  # whatever an attribute may raise that cannot be copied
        raise Unsupported(f"a cell that cannot be copied ({error})") from error
    before = settings(held)

    def step(x: Any, state: State, fixed: State, parameters: Mapping[str, Tensor]) -> tuple[State, State]:
        with _lock:
            result = checked_result(held, state, functional_call(held, dict(parameters), (x, state, fixed)))
            names = changed(before, settings(held))
        if names:
            known.reason = f"a step that changes attributes of its cell ({', '.join(f'`{name}`' for name in names)})"
            raise Unsupported(known.reason)
        return result

    return step

"""Unrolling a cell by a compiled loop: when that is done, and what a cell hands to the compiler."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils._python_dispatch import _get_current_dispatch_mode

from unrolled.core.state import State, map_state, named_leaves
from unrolled.kernels import CompiledStep, NoCompiler, Step, Unrolling, Unsupported, has_bfloat16_products, make_loop, multiply
from unrolled.nn.cell import Cell
from unrolled.nn.unroll import Sequences

LEAST = 64 * 64
"""Parameters below which a cell is not compiled: a small one gains less than a second of compiling costs."""

TYPES = (torch.float32, torch.float64)

_steps: weakref.WeakKeyDictionary[Cell, dict[Any, CompiledStep]] = weakref.WeakKeyDictionary()
_told: set[str] = set()


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
        Outputs and the state after each row's last step, or `None` where the plain loop has to be taken: for a small cell, silently where torch
        itself traces or transforms the loop or somebody looks into the cell, and with a word, once, where the compiler cannot do it.
    """
    parameters = _tensors(cell)
    if not _may_compile(cell, parameters):
        return None
    own, brief = cell.zeros().dtype, False
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
            outputs, after = _compiled_step(cell, brief and has_bfloat16_products()).unroll(given)
            return (_cast(outputs, own), _cast(after, own)) if own == torch.bfloat16 else (outputs, after)
    except Unsupported as reason:
        _tell(f"`{type(cell).__name__}` is unrolled step by step, which is slow: no compiled form of {reason}")
    except NoCompiler as reason:
        _tell(f"cells are unrolled step by step, which is slow: {reason}")
    return None


def _tensors(cell: Cell) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once; torch's own lists walk over the parts of the cell twice."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, part in cell.named_modules():
        for key, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), (f"{name}.{key}" if name else key, tensor))
    return dict(found.values())


def _cast(tree: State, dtype: torch.dtype) -> State:
    return map_state(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, tree)


def _long(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _all_brief(*trees: Any) -> bool:
    leaves = [leaf for tree in trees for _, leaf in named_leaves(tree)]
    return all(leaf.dtype == torch.bfloat16 and leaf.is_cpu for leaf in leaves if leaf.is_floating_point())


def _may_compile(cell: Cell, parameters: Mapping[str, Tensor]) -> bool:
    if sum(parameter.numel() for parameter in parameters.values()) < LEAST:
        return False
    transformed = (
        torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    )
    watched = any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in cell.modules())
    return not transformed and _get_current_dispatch_mode() is None and not watched


def _plain_tensors(*trees: Any) -> bool:
    leaves = [leaf for tree in trees for _, leaf in named_leaves(tree)]
    floats = {leaf.dtype for leaf in leaves if leaf.is_floating_point()}
    return all(leaf.is_cpu and type(leaf) in (Tensor, torch.nn.Parameter) for leaf in leaves) and len(floats) == 1 and floats <= set(TYPES)


def _compiled_step(cell: Cell, brief: bool = False) -> CompiledStep:
    """One for each way the cell may be set (its numbers and words are part of what is traced), and for products of bfloat16 or not."""
    # Collected in a list, with a tuple of types: this is done at every call, and generators and unions are slower.
    words = (
        brief,
        *[
            (name, key, value)
            for name, part in cell.named_modules()
            for key, value in vars(part).items()
            if isinstance(value, (bool, int, float, str))
        ],
    )
    mine = _steps.setdefault(cell, {})
    if words not in mine and brief:
        mine[words] = CompiledStep(_pure(weakref.ref(cell)), partial(make_loop, bfloat16_products=True), partial(multiply, bfloat16=True))
    elif words not in mine:
        mine[words] = CompiledStep(_pure(weakref.ref(cell)), make_loop, multiply)
    return mine[words]


def _pure(cell: weakref.ref[Cell]) -> Step:
    """The step as a function of all it depends on. What is compiled must not keep the cell alive, by which it is found."""

    def step(x: Any, state: State, fixed: State, parameters: Mapping[str, Tensor]) -> tuple[State, State]:
        held = cell()
        assert held is not None
        result: tuple[State, State] = functional_call(held, dict(parameters), (x, state, fixed))
        return result

    return step


def _tell(sentence: str) -> None:
    if sentence not in _told:
        _told.add(sentence)
        warnings.warn(sentence, stacklevel=2)

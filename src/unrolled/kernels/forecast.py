"""The shape and type of what torch's operations give, for those that most steps are made of.

Torch knows it of every operation. But for many its rules are written in Python, and the first of them loads torch's compiler, which takes over
a second; the functions of single elements, products and sums need no more than is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.graph import POINTWISE


def forecast(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    """What a call gives, without elements.

    Args:
        name: of the operation, without the overload: `aten.mm`.
        arguments: tensors without elements, and what else is given.
        keywords: arguments by name.

    Returns:
        A tensor without elements, or `None` where torch itself has to say (an error, too).
    """
    rule = RULES.get(name)
    return None if rule is None else rule(arguments, keywords)


def _empty(shape: Sequence[int], dtype: torch.dtype, like: Sequence[Tensor] = ()) -> Tensor:
    """Lying in memory as the first tensor of that shape does, if it fills its memory, and else in order."""
    in_order = tuple(torch.Size(shape[axis + 1 :]).numel() for axis in range(len(shape)))
    strides = next((one.stride() for one in like if one.shape == torch.Size(shape) and _fills_memory(one)), in_order)
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")


def _fills_memory(tensor: Tensor) -> bool:
    size = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length != 1:
            if stride != size:
                return False
            size *= length
    return True


def _broadcast(shapes: Sequence[Sequence[int]]) -> list[int] | None:
    """The common shape; `None` where there is none."""
    axes = max(map(len, shapes))
    common = [1] * axes
    for shape in shapes:
        for axis, length in enumerate(shape, axes - len(shape)):
            if length != 1 and common[axis] not in (1, length):
                return None
            common[axis] = length if length != 1 else common[axis]
    return common


def _of_elements(operands: Sequence[Any], dtype: torch.dtype | None) -> Tensor | None:
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    shape = _broadcast([tensor.shape for tensor in tensors]) if tensors else None
    return None if shape is None or dtype is None else _empty(shape, dtype, tensors)


def _floating(operands: Sequence[Any]) -> torch.dtype | None:
    """The type of a function of numbers; `None` where one is not of a floating type, for which each function has its own rule."""
    given = [operand for operand in operands if operand is not None]
    if not all(isinstance(operand, Tensor | int | float) for operand in given):
        return None
    if len(given) == 1:
        dtype = given[0].dtype
    elif len(given) == 2:
        dtype = torch.result_type(*given)
    else:
        types = {operand.dtype for operand in given if isinstance(operand, Tensor)}
        dtype = types.pop() if len(types) == 1 else torch.bool
    return dtype if dtype.is_floating_point else None


def _function(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    operands = [*arguments, *[keywords[name] for name in ("min", "max") if name in keywords]]
    return _of_elements(operands, _floating(operands))


def _question(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    return _of_elements(arguments, torch.bool)


def _of_bits(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    marks = all(isinstance(operand, bool) or (isinstance(operand, Tensor) and operand.dtype == torch.bool) for operand in arguments)
    return _of_elements(arguments, torch.bool) if marks else None


def _where(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    if len(arguments) != 3 or arguments[0].dtype != torch.bool:
        return None
    return _of_elements(arguments, _floating(arguments[1:]))


def _product(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    """The last two arguments are multiplied; one before them is added."""
    *added, left, right = arguments
    types = {tensor.dtype for tensor in arguments}
    if left.shape[-1] != right.shape[-2] or left.shape[:-2] != right.shape[:-2] or len(types) > 1 or keywords:
        return None
    shape = [*left.shape[:-1], right.shape[-1]]
    fits = not added or _broadcast([added[0].shape, shape]) == shape
    return _empty(shape, left.dtype) if fits else None


def _reduction(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    given = dict(zip(("self", "dim", "keepdim"), arguments, strict=False), **keywords)
    tensor, axes = given.pop("self"), given.pop("dim", None)
    kept = given.pop("keepdim", False)
    axes = [axes] if isinstance(axes, int) else axes or range(tensor.dim())
    if given or not tensor.dtype.is_floating_point or not all(-tensor.dim() <= axis < tensor.dim() for axis in axes):
        return None
    over = {axis % tensor.dim() for axis in axes}
    shape = [1 if axis in over else length for axis, length in enumerate(tensor.shape) if kept or axis not in over]
    return _empty(shape, tensor.dtype)


def _concatenation(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    parts = arguments[0]
    axes, types = parts[0].dim(), {part.dtype for part in parts}
    axis = (arguments[1] if len(arguments) > 1 else keywords.get("dim", 0)) % max(axes, 1)
    others = {(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}
    if len(types) > 1 or len(others) > 1 or {part.dim() for part in parts} != {axes} or axes == 0:
        return None
    return _empty([*parts[0].shape[:axis], sum(part.shape[axis] for part in parts), *parts[0].shape[axis + 1 :]], parts[0].dtype)


def _same(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor:
    return _empty(arguments[0].shape, arguments[0].dtype)


def _filled_like(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    tensor = arguments[0]
    plain = keywords.get("memory_format") in (None, torch.preserve_format) and keywords.get("layout") in (None, torch.strided)
    return _empty(tensor.shape, keywords.get("dtype") or tensor.dtype, [tensor]) if plain else None


def _filled(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    shape, dtype = arguments[0], keywords.get("dtype") or (torch.get_default_dtype() if len(arguments) == 1 else None)
    return _empty(shape, dtype) if dtype is not None and min(shape, default=0) >= 0 else None


def _stack(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    parts = arguments[0]
    shape, axis = parts[0].shape, arguments[1] if len(arguments) > 1 else keywords.get("dim", 0)
    if any(part.shape != shape or part.dtype != parts[0].dtype for part in parts) or not -len(shape) <= axis + 1 <= len(shape) + 1:
        return None
    axis %= len(shape) + 1
    return _empty([*shape[:axis], len(parts), *shape[axis:]], parts[0].dtype)


def _repeated(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    tensor, times = arguments
    if len(times) < tensor.dim() or min(times, default=0) < 0:
        return None
    lengths = [1] * (len(times) - tensor.dim()) + list(tensor.shape)
    return _empty([length * time for length, time in zip(lengths, times, strict=True)], tensor.dtype)


def _padded(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor | None:
    tensor, pad = arguments[:2]
    shape = list(tensor.shape)
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        return None
    for place in range(len(pad) // 2):
        shape[-1 - place] += pad[2 * place] + pad[2 * place + 1]
    return _empty(shape, tensor.dtype) if min(shape) >= 0 else None


Rule = Callable[[Sequence[Any], Mapping[str, Any]], Tensor | None]

RULES: dict[str, Rule] = {
    **{f"aten.{name}": _question if facts.boolean else _function for name, facts in POINTWISE.items()},
    **dict.fromkeys(("aten.isnan", "aten.isinf", "aten.logical_xor"), _question),
    **dict.fromkeys(("aten.bitwise_not", "aten.bitwise_and", "aten.bitwise_or", "aten.bitwise_xor"), _of_bits),
    **dict.fromkeys(("aten.sum", "aten.amax", "aten.amin", "aten.mean"), _reduction),
    **dict.fromkeys(("aten.mm", "aten.bmm", "aten.addmm"), _product),
    "aten.clamp": _function,
    "aten.where": _where,
    "aten.cat": _concatenation,
    **dict.fromkeys(("aten.flip", "aten.slice_scatter", "aten.select_scatter", "aten.roll"), _same),
    **dict.fromkeys(("aten.empty_like", "aten.full_like", "aten.zeros_like", "aten.ones_like"), _filled_like),
    **dict.fromkeys(("aten.full", "aten.zeros", "aten.ones"), _filled),
    "aten.constant_pad_nd": _padded,
    "aten.stack": _stack,
    "aten.repeat": _repeated,
}
"""By the name of the operation."""

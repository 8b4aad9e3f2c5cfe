"""Nodes by torch, for any number of rows: `[batch, width]`, or `[time, batch, width]` for what changes from step to step."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.build import Call, Place
from unrolled.kernels.graph import CALL, POINTWISE, PRODUCT, Node, ordered

Multiply = Callable[[Tensor, Tensor], Tensor]
"""The product of two matrices, without gradient."""


class Size(NamedTuple):
    """What a graph leaves open."""

    time: int
    batch: int
    device: torch.device


class _Do(NamedTuple):
    """One node, made ready."""

    function: Callable[..., Tensor]
    operands: tuple[int, ...]
    result: int
    finished: tuple[int, ...]
    """What nobody needs after this."""


class Evaluation:
    """Computes some nodes from others."""

    given: tuple[Node, ...]
    """Those whose tensors are really needed."""

    def __init__(self, given: Iterable[Node], results: Sequence[Node], multiply: Multiply = torch.matmul) -> None:
        """Make ready.

        Args:
            given: nodes whose tensors will be there, beside leaves.
            results: nodes wanted.
            multiply: how matrices are multiplied.
        """
        nodes = ordered(results, given)
        needed = dict.fromkeys([operand for node in nodes for operand in node.nodes] + list(results))
        self.given = tuple(node for node in needed if node not in set(nodes))
        self.results = tuple(results)
        place = {node: index for index, node in enumerate([*self.given, *nodes])}
        last = {operand: node for node in nodes for operand in node.nodes}
        kept = set(results)
        self._size = len(place)
        self._work = [
            _Do(
                _function(node, multiply),
                tuple(place[operand] for operand in node.nodes),
                place[node],
                tuple({place[operand] for operand in node.nodes if last[operand] is node and operand not in kept}),
            )
            for node in nodes
        ]
        self._places = tuple(place[node] for node in self.results)

    def __call__(self, tensors: Sequence[Tensor], size: Size) -> list[Tensor]:
        """Compute.

        Args:
            tensors: of `self.given`, in that order.
            size: steps and rows.

        Returns:
            The tensors of `results`.
        """
        values: list[Any] = [*tensors, *[None] * (self._size - len(tensors))]
        for function, operands, result, finished in self._work:
            values[result] = function(size, *[values[place] for place in operands])
            for place in finished:
                values[place] = None
        return [values[place] for place in self._places]


def _function(node: Node, multiply: Multiply) -> Callable[..., Tensor]:
    """What computes a node: called with steps and rows, then the operands that are nodes."""
    if node.operation == CALL:
        return _plain_call(node.option) or partial(_call, node.option)
    if node.operation in POINTWISE:
        return partial(_pointwise, _torch_function(node), tuple(None if isinstance(part, Node) else (part,) for part in node.operands))
    if node.operation in PRODUCTS:
        return partial(PRODUCTS[node.operation], multiply, node)
    return partial(OTHERS[node.operation], node)


def _torch_function(node: Node) -> Callable[..., Tensor]:
    if node.operation == "convert":
        return lambda value: value.to(node.dtype)
    if node.operation == "where" and len(node.nodes) == 1:
        return lambda condition, first, second: torch.where(condition, first, second).to(node.dtype)
    return POINTWISE_BY_TORCH.get(node.operation) or getattr(torch, node.operation)


def _pointwise(function: Callable[..., Tensor], numbers: tuple[tuple[Any] | None, ...], size: Size, *operands: Tensor) -> Tensor:
    if len(operands) == len(numbers):
        return function(*operands)
    given = iter(operands)
    return function(*[next(given) if number is None else number[0] for number in numbers])


def _extreme(of_tensors: Callable[..., Tensor], of_number: Callable[..., Tensor], first: Any, second: Any) -> Tensor:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return of_tensors(first, second)
    return of_number(first, second) if isinstance(first, Tensor) else of_number(second, first)


POINTWISE_BY_TORCH: dict[str, Callable[..., Any]] = {
    # By operators, since either side may be a number.
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "eq", "ne", "lt", "le", "gt", "ge", "pow")},
    "div": operator.truediv,
    "maximum": partial(_extreme, torch.maximum, torch.clamp_min),
    "minimum": partial(_extreme, torch.minimum, torch.clamp_max),
}
"""The functions of single elements that are not called by their name."""


def _plain_call(call: Call) -> Callable[..., Tensor] | None:
    """What nearly all calls are, as a method of the tensor: those of `torch.ops` take several times as long to be called."""
    function, arguments = call.function, call.arguments
    if call.keywords or arguments[:1] != (Place(0),):
        return None
    if function is torch.ops.aten.slice.Tensor and len(arguments) == 4 and arguments[1] == 0:
        rows = slice(*arguments[2:])
        return lambda size, whole: whole[rows]
    if function is torch.ops.aten.reshape.default:
        return lambda size, value: value.reshape(arguments[1])
    return None


def _call(call: Call, size: Size, *operands: Tensor) -> Tensor:
    keywords = {name: _put(value, operands) for name, value in call.keywords}
    return call.function(*[_put(argument, operands) for argument in call.arguments], **keywords)


def _put(argument: Any, operands: Sequence[Tensor]) -> Any:
    if isinstance(argument, Place):
        return operands[argument.operand]
    return [_put(part, operands) for part in argument] if isinstance(argument, tuple) else argument


def _slice(node: Node, size: Size, rows: Tensor) -> Tensor:
    return rows.narrow(-1, node.option, node.width)


def _concatenate(node: Node, size: Size, *rows: Tensor) -> Tensor:
    alike = len({part.dim() for part in rows}) == 1
    return torch.cat(rows if alike else [over_time(part, size) for part in rows], -1)


def _expand(node: Node, size: Size, source: Tensor) -> Tensor:
    return source.expand(*(source.shape[:-1] or (size.batch,)), node.width)


def _fill(node: Node, size: Size) -> Tensor:
    return torch.full((1, 1), node.option, dtype=node.dtype, device=size.device).expand(size.batch, node.width)


def _product(multiply: Multiply, node: Node, size: Size, rows: Tensor, matrix: Tensor) -> Tensor:
    return multiply(_flat(rows), matrix.t() if node.option else matrix).view(*rows.shape[:-1], node.width)


def _flat(rows: Tensor) -> Tensor:
    return rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])


def _sum(node: Node, size: Size, rows: Tensor) -> Tensor:
    return rows.sum(-1, keepdim=True)


def _extreme_of_row(function: Callable[..., Tensor], node: Node, size: Size, rows: Tensor) -> Tensor:
    return function(rows, -1, keepdim=True)


def over_time(rows: Tensor, size: Size) -> Tensor:
    """Rows with an axis of time, also where they are the same at every step.

    Args:
        rows: `[batch, width]` or `[time, batch, width]`.
        size: steps and rows.

    Returns:
        `[time, batch, width]`.
    """
    return rows if rows.dim() == 3 else rows.expand(size.time, *rows.shape)


def _outer(multiply: Multiply, node: Node, size: Size, left: Tensor, right: Tensor) -> Tensor:
    # What is the same at every step is multiplied once, by the sum over time.
    if left.dim() < right.dim():
        right = right.sum(0)
    elif right.dim() < left.dim():
        left = left.sum(0)
    elif left.dim() == 2:
        right = right * size.time
    return multiply(_flat(left).t(), _flat(right))


def _row_sum(node: Node, size: Size, rows: Tensor) -> Tensor:
    return _flat(over_time(rows, size)).sum(0)


def _time_sum(node: Node, size: Size, rows: Tensor) -> Tensor:
    return over_time(rows, size).sum(0)


OTHERS: dict[str, Callable[..., Tensor]] = {
    "slice": _slice,
    "concatenate": _concatenate,
    "expand": _expand,
    "fill": _fill,
    "sum": _sum,
    "amax": partial(_extreme_of_row, torch.amax),
    "amin": partial(_extreme_of_row, torch.amin),
    "row_sum": _row_sum,
    "time_sum": _time_sum,
}
"""The operations that are neither products, nor on single elements, nor on shared values."""

PRODUCTS: dict[str, Callable[..., Tensor]] = {PRODUCT: _product, "outer": _outer}

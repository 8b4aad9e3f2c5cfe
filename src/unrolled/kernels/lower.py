"""From torch's operations to the nodes of a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.arithmetic import Arithmetic, Traced, compute, result_tensors
from unrolled.kernels.build import Call, Graph, Place
from unrolled.kernels.graph import Node, Unsupported
from unrolled.kernels.terms import Term

aten = torch.ops.aten

UNCHANGED = {"aten.alias", "aten.clone", "aten.detach", "aten.lift_fresh_copy"}
"""Operations of torch that give what they get."""

MOVES = {
    *(
        "aten.view",
        "aten.reshape",
        "aten._unsafe_view",
        "aten.unsqueeze",
        "aten.squeeze",
        "aten.expand",
        "aten.permute",
        "aten.transpose",
        "aten.t",
    ),
    *("aten.slice", "aten.select", "aten.split", "aten.split_with_sizes", "aten.unbind", "aten.flip", "aten.repeat", "aten.roll"),
    *("aten.cat", "aten.stack", "aten.slice_scatter", "aten.select_scatter", "aten.constant_pad_nd"),
}
"""Operations of torch that only move columns."""

FILLED = {
    *("aten.full", "aten.zeros", "aten.ones", "aten.full_like", "aten.zeros_like", "aten.ones_like"),
    *("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.scalar_tensor"),
    *("aten.empty", "aten.empty_like", "aten.empty_permuted", "aten.new_empty"),
}
"""Operations of torch that fill a new tensor with one number, any number where it is called empty."""


class Lowering:
    """Translates the calls of one trace."""

    def __init__(self, graph: Graph, batch: int, number: torch.dtype) -> None:
        """Translate into a graph.

        Args:
            graph: where nodes are made.
            batch: the size that stands for the batch in traced shapes.
            number: the type in which rows of integers are kept.
        """
        self.graph, self.batch, self.arithmetic = graph, batch, Arithmetic(graph, batch, number)
        self.moves = self.arithmetic.moves

    def written(self, call: Traced) -> Term:
        """Translate an operation in place.

        Args:
            call: as traced; its value is the tensor that is written to.

        Returns:
            What that holds afterwards.

        Raises:
            Unsupported: the operation has no equivalent.
        """
        if call.name == "aten.copy_":
            source = self.call(
                call._replace(target=aten.expand.default, name="aten.expand", arguments=[call.arguments[1], list(call.value.shape)])
            )
            return Term(self.arithmetic.convert(source.node, self.arithmetic.type_of(call.value)), source.shape)
        packet = getattr(aten, call.name.removeprefix("aten.").removesuffix("_"), None)
        target = getattr(packet, call.target._overloadname, None)
        if target is None:
            raise Unsupported(call.name)
        result: Term = self.call(call._replace(target=target, name=operation_name(target)))
        return result

    def call(self, call: Traced) -> Any:
        """Translate one call.

        Args:
            call: as traced.

        Returns:
            A term, or a list of them.

        Raises:
            Unsupported: the operation has no equivalent.
        """
        for value in result_tensors(call.value):
            if self.batch in value.shape and value.dtype.is_complex:
                raise Unsupported(f"{call.name} (elements of type {value.dtype})")
        if call.name in FILLED and self.batch in call.value.shape:
            return self._filled(call)
        if not any(term.is_rows for term in _terms([*call.arguments, *call.keywords.values()])):
            return self._shared(call)
        if call.name in UNCHANGED:
            return call.arguments[0]
        if call.name in MOVES:
            return self._move(call)
        result = compute(self.arithmetic, call)
        if result is None:
            raise Unsupported(call.name)
        return result

    def constant(self, value: Tensor) -> Term:
        """A tensor whose elements are known.

        Args:
            value: not changed by anybody afterwards.

        Returns:
            The term.
        """
        shape = tuple(value.shape)
        return Term(self.graph.shared(Call(_Constant(value), ()), (), shape, value.dtype), shape)

    def _filled(self, call: Traced) -> Term:
        numbers = [argument for argument in call.arguments if isinstance(argument, bool | int | float)]
        number = numbers[-1] if "full" in call.name else int("ones" in call.name)
        shape = tuple(call.value.shape)
        return Term(self.graph.fill(number, math.prod(self.moves.features(shape, call.name)), self.arithmetic.type_of(call.value)), shape)

    def _shared(self, call: Traced) -> Any:
        if not isinstance(call.value, Tensor):
            parts = [call._replace(target=_Item(call.target, place), value=part) for place, part in enumerate(call.value)]
            return [self._shared(part) for part in parts]
        shape = tuple(call.value.shape)
        if self.batch in shape:
            if call.name != "aten.expand":
                raise Unsupported(f"{call.name} (the same values in every row)")
            source = self.moves.spread(call.arguments[0], shape, call.name)
            return Term(self.graph.expand(source, math.prod(self.moves.features(shape, call.name))), shape)
        if call.name in UNCHANGED:
            return call.arguments[0]
        operands: list[Node] = []
        arguments = tuple(_placed(argument, operands) for argument in call.arguments)
        keywords = tuple((key, _placed(argument, operands)) for key, argument in call.keywords.items())
        # What a trace sees as contiguous may lie otherwise in a real tensor.
        function = aten.reshape.default if call.name in ("aten.view", "aten._unsafe_view") else call.target
        return Term(self.graph.shared(Call(function, arguments, keywords), operands, shape, call.value.dtype), shape)

    def _move(self, call: Traced) -> Any:
        values = result_tensors(call.value)
        shapes = [tuple(value.shape) for value in values]
        if call.name == "aten.constant_pad_nd" and call.argument(2, "value", 0) == 0:
            call = call._replace(target=_padded, arguments=call.arguments[:2])
        if any(not term.is_rows for term in _terms(call.arguments)):
            raise Unsupported(f"{call.name} (of values with and without a batch)")
        terms = self.moves.move(call.target, call.name, call.arguments, call.keywords, shapes)
        return terms[0] if isinstance(call.value, Tensor) else terms


class _Constant:
    """A tensor that a step makes of numbers; the same numbers are the same tensor."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self) -> Tensor:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and self.value.dtype == other.value.dtype and torch.equal(self.value, other.value)

    def __hash__(self) -> int:
        return hash((tuple(self.value.shape), self.value.dtype))


class _Item:
    """One of the results of a call on shared values."""

    def __init__(self, function: Callable[..., Any], place: int) -> None:
        self.function, self.place = function, place

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        return self.function(*arguments, **keywords)[self.place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Item) and (self.function, self.place) == (other.function, other.place)

    def __hash__(self) -> int:
        return hash((self.function, self.place))


def operation_name(target: Any) -> str:
    """How an operation is called in errors and tables.

    Args:
        target: of torch, with its overload.

    Returns:
        Such as `aten.mm`.
    """
    return str(getattr(target, "overloadpacket", target))


def _padded(places: Tensor, pad: list[int]) -> Tensor:
    """Zeros around: their place is -1."""
    return aten.constant_pad_nd(places, pad, -1)


def _placed(argument: Any, operands: list[Node]) -> Any:
    if isinstance(argument, Term):
        operands.append(argument.node)
        return Place(len(operands) - 1)
    return tuple(_placed(part, operands) for part in argument) if isinstance(argument, list | tuple) else argument


def _terms(arguments: Any) -> list[Term]:
    if isinstance(arguments, Term):
        return [arguments]
    return [term for part in arguments for term in _terms(part)] if isinstance(arguments, list | tuple) else []

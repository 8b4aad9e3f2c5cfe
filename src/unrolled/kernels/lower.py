"""From a trace of torch's operations to the nodes of a graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

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

    def __init__(self, graph: Graph, batch: int, number: torch.dtype, lines: Mapping[str, str]) -> None:
        """Translate into a graph.

        Args:
            graph: where nodes are made.
            batch: the size that stands for the batch in traced shapes.
            number: the type in which rows of integers are kept.
            lines: where a person's code calls an operation, by the name of its node.
        """
        self.graph, self.batch, self.arithmetic, self.lines = graph, batch, Arithmetic(graph, batch, number), lines
        self.moves = self.arithmetic.moves

    def run(self, module: fx.GraphModule, leaves: Sequence[Term]) -> list[Any]:
        """Translate a whole trace.

        Args:
            module: as `make_fx` gives it, returning one flat list.
            leaves: what stands for its inputs, in order.

        Returns:
            What the trace returns, terms in the place of tensors.
        """
        known: dict[fx.Node, Any] = {}
        given = iter(leaves)
        result: list[Any] = []
        for node in module.graph.nodes:
            arguments = fx.node.map_arg(node.args, known.__getitem__)
            keywords = fx.node.map_arg(node.kwargs, known.__getitem__)
            if node.op == "placeholder":
                known[node] = next(given)
            elif node.op == "get_attr":
                known[node] = self._constant(getattr(module, str(node.target)))
            elif node.op == "output":
                result = list(arguments[0])
            elif node.target is operator.getitem:
                known[node] = arguments[0][arguments[1]]
            else:
                call = Traced(node.target, _name(node.target), list(arguments), dict(keywords), node.meta.get("val"))
                known[node] = self._checked(node, call)
                if node.target._schema.is_mutable:
                    known[node.args[0]] = known[node]
        return result

    def _checked(self, node: fx.Node, call: Traced) -> Any:
        line = self.lines.get(node.name, "")
        try:
            if torch.Tag.nondeterministic_seeded in getattr(call.target, "tags", ()):
                raise Unsupported(f"{call.name} (random numbers inside the step)")
            if not call.target._schema.is_mutable:
                return self.call(call)
            _check_alone(node, call.name)
            return self._in_place(call)
        except Unsupported as reason:
            raise Unsupported(f"{reason}{line}") from None
        # A way to call an operation that was not thought of must not end the work of a caller who has a plain loop.
        except Exception as error:
            raise Unsupported(f"{call.name} ({type(error).__name__}: {error}){line}") from error

    def _in_place(self, call: Traced) -> Any:
        """What the tensor that is written to holds afterwards."""
        if call.name == "aten.copy_":
            source = self.call(
                call._replace(target=aten.expand.default, name="aten.expand", arguments=[call.arguments[1], list(call.value.shape)])
            )
            return Term(self.arithmetic.convert(source.node, self.arithmetic.type_of(call.value)), source.shape)
        packet = getattr(aten, call.name.removeprefix("aten.").removesuffix("_"), None)
        target = getattr(packet, call.target._overloadname, None)
        if target is None:
            raise Unsupported(call.name)
        return self.call(call._replace(target=target, name=_name(target)))

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

    def _constant(self, value: Tensor) -> Term:
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


def _name(target: Any) -> str:
    return str(getattr(target, "overloadpacket", target))


def _check_alone(node: fx.Node, name: str) -> None:
    """Nobody sees what is written to under another name."""
    written = node.args[0]
    assert isinstance(written, fx.Node)
    later = {other for other in node.graph.nodes if other > node}
    seen = [view for view in written.users if _name(view.target) in MOVES | UNCHANGED and later & set(view.users)]
    if written.op != "call_function" or _name(written.target) in MOVES | UNCHANGED - {"aten.clone"} or seen:
        raise Unsupported(f"{name} (in place, on a tensor that is known by another name)")


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

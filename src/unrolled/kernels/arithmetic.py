"""The arithmetic of torch on traced rows: single elements with broadcasting, reductions of features, products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.build import Call, Graph, Place
from unrolled.kernels.graph import POINTWISE, Kind, Node, Unsupported
from unrolled.kernels.terms import MOST_PIECES, Moves, Term


class Traced(NamedTuple):
    """One call as torch made it."""

    target: Any
    name: str
    """Of the operation, without the overload: `aten.mm`."""
    arguments: list[Any]
    """Terms and what else was given."""
    keywords: dict[str, Any]
    value: Any
    """The result, without elements."""

    def argument(self, place: int, keyword: str, otherwise: Any = None) -> Any:
        """What was given for a parameter.

        Args:
            place: among the positional arguments.
            keyword: the name of the parameter.
            otherwise: when nothing was given.

        Returns:
            The argument.
        """
        return self.arguments[place] if place < len(self.arguments) else self.keywords.get(keyword, otherwise)


class Arithmetic:
    """Translates what computes; `Moves` what only moves."""

    def __init__(self, graph: Graph, batch: int, number: torch.dtype) -> None:
        """Translate into a graph.

        Args:
            graph: where nodes are made.
            batch: the size that stands for the batch in traced shapes.
            number: the type in which rows of integers are kept.
        """
        self.graph, self.batch, self.moves, self._number = graph, batch, Moves(graph, batch), number

    def type_of(self, value: Tensor) -> torch.dtype:
        """The type in which rows are kept: integers come up between the steps of torch's own formulas, as numbers that a float holds.

        Args:
            value: without elements.

        Returns:
            A floating type or boolean.
        """
        return value.dtype if value.dtype.is_floating_point or value.dtype == torch.bool else self._number

    def pointwise(self, name: str, call: Traced, operands: Sequence[Any], dtype: torch.dtype | None = None) -> Term:
        """A function of single elements, with torch's broadcasting and conversion of types.

        Args:
            name: a key of `POINTWISE`.
            call: gives the shape of the result.
            operands: terms and numbers.
            dtype: of the result; that of the call where it is `None`.

        Returns:
            The result.
        """
        terms = [operand for operand in operands if isinstance(operand, Term)]
        shape, dtype = tuple(call.value.shape), dtype or self.type_of(call.value)
        name = OF_BOOLEANS.get(name, name) if dtype == torch.bool else name
        width = math.prod(self.moves.features(shape, call.name))
        inside = _common_type(terms) if POINTWISE[name].boolean or name == "convert" else dtype
        nodes: list[Any] = []
        for place, operand in enumerate(operands):
            if isinstance(operand, Term):
                condition = name == "where" and place == 0
                nodes.append(self.convert(self.moves.spread(operand, shape, call.name), torch.bool if condition else inside))
            else:
                nodes.append(operand)
        return Term(self.graph.pointwise(name, nodes, width, dtype), shape)

    def convert(self, node: Node, dtype: torch.dtype) -> Node:
        """The same elements in another type.

        Args:
            node: rows or shared.
            dtype: the type.

        Returns:
            The node.
        """
        if node.dtype == dtype:
            return node
        if node.kind is Kind.SHARED:
            return self.graph.shared(Call(torch.ops.aten.to.dtype, (Place(0), dtype)), (node,), node.shape, dtype)
        return self.graph.pointwise("convert", (node,), node.width, dtype)

    def reduce(self, operation: str, call: Traced, term: Term, axes: Sequence[int]) -> Term:
        """A reduction over features, over the batch, or over both.

        Args:
            operation: one of `REDUCTIONS`.
            call: gives shape and type of the result.
            term: rows.
            axes: as torch counts them; none means all.

        Returns:
            Rows, or a shared value where the batch was summed.

        Raises:
            Unsupported: axes that lie among others, or anything but a sum over the batch.
        """
        batch_axis = self.moves.axis(term.shape, call.name)
        over = {axis % len(term.shape) for axis in axes} or set(range(len(term.shape)))
        shape, dtype = tuple(call.value.shape), self.type_of(call.value)
        features = self.moves.features(term.shape, call.name)
        inner = {axis - (axis > batch_axis) for axis in over if axis != batch_axis}
        rows = self._reduce_features(operation, call, self.convert(term.node, dtype), features, inner)
        if batch_axis not in over:
            return Term(rows, shape)
        if operation != "sum":
            raise Unsupported(f"{call.name} (over the batch)")
        return Term(self.graph.reshape(self.graph.reduce_batch("row_sum", (rows,), (rows.width,), dtype), shape), shape)

    def _reduce_features(self, operation: str, call: Traced, node: Node, shape: tuple[int, ...], over: set[int]) -> Node:
        # Axes of size one are no matter.
        axes = [axis for axis in range(len(shape)) if shape[axis] > 1]
        over = over & set(axes)
        kept = [axis for axis in axes if axis not in over]
        if not over:
            return node
        size = math.prod(shape[axis] for axis in over)
        groups = node.width // size
        if min(size, groups) > MOST_PIECES:
            raise Unsupported(f"{call.name} (more than {MOST_PIECES} pieces)")
        if not kept or max(kept) < min(over):
            parts = [self.graph.slice(node, group * size, size) for group in range(groups)]
            return self.graph.concatenate([self.graph.rows(operation, (part,), 1, node.dtype) for part in parts])
        if max(over) > min(kept):
            raise Unsupported(f"{call.name} (over features between others)")
        result, *others = [self.graph.slice(node, place * groups, groups) for place in range(size)]
        for other in others:
            result = self.graph.pointwise(PAIRWISE[operation], (result, other), groups, node.dtype)
        return result

    def product(self, call: Traced, left: Term, right: Term) -> Term:
        """A product of matrices.

        Args:
            call: the operation, for its error.
            left: of two axes.
            right: of two axes.

        Returns:
            Rows where one side is rows and the other shared; shared where the product sums over the batch.

        Raises:
            Unsupported: any other product.
        """
        left_axis, right_axis = (self.moves.axis(term.shape, call.name) if term.is_rows else None for term in (left, right))
        if left_axis == 0 and right_axis is None:
            return Term(self.graph.product(left.node, right.node), (self.batch, right.shape[1]))
        if left_axis == 1 and right_axis == 0:
            shape = left.node.width, right.node.width
            return Term(self.graph.reduce_batch("outer", (left.node, right.node), shape, left.node.dtype), shape)
        if left_axis is None and right_axis == 1:
            swap = Call(torch.ops.aten.permute.default, (Place(0), (1, 0)))
            matrix = self.graph.shared(swap, (left.node,), left.shape[::-1], left.node.dtype)
            return Term(self.graph.product(right.node, matrix), (left.shape[0], self.batch))
        raise Unsupported(f"{call.name} (of two values with a batch)")

    def products(self, call: Traced, left: Term, right: Term) -> Term:
        """A batch of products in torch's sense, which is not ours: of blocks, such as the heads of a block-diagonal matrix.

        Args:
            call: the operation, for its error.
            left: of three axes.
            right: of three axes.

        Returns:
            As many products.

        Raises:
            Unsupported: a product for each row of our batch, or too many.
        """
        count = left.shape[0]
        if count > MOST_PIECES:
            raise Unsupported(f"{call.name} (more than {MOST_PIECES} pieces)")
        results = [self.product(call, self._block(left, place), self._block(right, place)) for place in range(count)]
        nodes = [result.node for result in results]
        if results[0].is_rows:
            return Term(self.graph.concatenate(nodes), (count, *results[0].shape))
        stack = Call(torch.ops.aten.stack.default, (tuple(Place(place) for place in range(count)),))
        shape = (count, *results[0].shape)
        return Term(self.graph.shared(stack, nodes, shape, nodes[0].dtype), shape)

    def _block(self, term: Term, place: int) -> Term:
        if not term.is_rows:
            call = Call(torch.ops.aten.select.int, (Place(0), 0, place))
            return Term(self.graph.shared(call, (term.node,), term.shape[1:], term.node.dtype), term.shape[1:])
        if term.shape[0] == self.batch:
            raise Unsupported("aten.bmm (a product for each row)")
        width = term.node.width // term.shape[0]
        return Term(self.graph.slice(term.node, place * width, width), term.shape[1:])


OF_BOOLEANS = {"mul": "logical_and", "add": "logical_or", "maximum": "logical_or", "minimum": "logical_and"}
"""What some functions are where the result is boolean."""

PAIRWISE = {"sum": "add", "amax": "maximum", "amin": "minimum"}
"""What each reduction does with two elements."""


def _common_type(terms: Sequence[Term]) -> torch.dtype:
    dtype = terms[0].node.dtype
    for term in terms[1:]:
        dtype = torch.promote_types(dtype, term.node.dtype)
    return dtype


# --- Torch's operations, one by one ---------------------------------------------------------------------------------


def _scaled(arithmetic: Arithmetic, call: Traced) -> Term:
    """Sum and difference, where torch may scale the second operand."""
    first, second = call.arguments[:2]
    scale = call.keywords.get("alpha", 1)
    if scale != 1:
        second = arithmetic.pointwise("mul", call, [second, scale]) if isinstance(second, Term) else second * scale
    return arithmetic.pointwise(call.name.removeprefix("aten."), call, [first, second])


def _divided(arithmetic: Arithmetic, call: Traced) -> Term:
    if call.keywords.get("rounding_mode") is not None:
        raise Unsupported(f"{call.name} (rounded)")
    return arithmetic.pointwise("div", call, call.arguments)


POWERS = {-2: ("square", "reciprocal"), -1: ("reciprocal",), -0.5: ("rsqrt",), 0.5: ("sqrt",), 2: ("square",), 4: ("square", "square")}
"""Powers that are less work than a power."""


def _power(arithmetic: Arithmetic, call: Traced) -> Term:
    base, exponent = call.arguments
    if isinstance(exponent, Term) or exponent not in (1, 3, *POWERS):
        return arithmetic.pointwise("pow", call, call.arguments)
    if exponent == 3:
        return arithmetic.pointwise("mul", call, [arithmetic.pointwise("square", call, [base]), base])
    for step in POWERS.get(exponent, ()):
        base = arithmetic.pointwise(step, call, [base])
    return base


def _where(arithmetic: Arithmetic, call: Traced) -> Term:
    return arithmetic.pointwise("where", call, call.arguments)


def _converted(arithmetic: Arithmetic, call: Traced) -> Term:
    return Term(arithmetic.convert(call.arguments[0].node, arithmetic.type_of(call.value)), call.arguments[0].shape)


def _clamped(arithmetic: Arithmetic, call: Traced) -> Term:
    result, low, high = call.arguments[0], call.argument(1, "min"), call.argument(2, "max")
    if low is not None:
        result = arithmetic.pointwise("maximum", call, [result, low])
    return result if high is None else arithmetic.pointwise("minimum", call, [result, high])


def _is_nan(arithmetic: Arithmetic, call: Traced) -> Term:
    return arithmetic.pointwise("ne", call, [call.arguments[0], call.arguments[0]])


def _is_infinite(arithmetic: Arithmetic, call: Traced) -> Term:
    size = arithmetic.pointwise("abs", call, call.arguments, call.arguments[0].node.dtype)
    return arithmetic.pointwise("eq", call, [size, math.inf])


def _bitwise(arithmetic: Arithmetic, call: Traced) -> Term:
    return arithmetic.pointwise(BITWISE[call.name], call, call.arguments)


def _reduced(arithmetic: Arithmetic, call: Traced) -> Term:
    axes = call.argument(1, "dim") or ()
    return arithmetic.reduce(call.name.removeprefix("aten."), call, call.arguments[0], [axes] if isinstance(axes, int) else axes)


def _mean(arithmetic: Arithmetic, call: Traced) -> Term:
    term, axes = call.arguments[0], call.argument(1, "dim") or ()
    over = {axis % len(term.shape) for axis in ([axes] if isinstance(axes, int) else axes)}
    if not over or arithmetic.moves.axis(term.shape, call.name) in over:
        raise Unsupported(f"{call.name} (over the batch)")
    total = arithmetic.reduce("sum", call, term, [*over])
    return arithmetic.pointwise("mul", call, [total, 1 / math.prod(term.shape[axis] for axis in over)])


def _multiplied(arithmetic: Arithmetic, call: Traced) -> Term:
    return arithmetic.product(call, *call.arguments)


def _multiplied_blocks(arithmetic: Arithmetic, call: Traced) -> Term:
    return arithmetic.products(call, *call.arguments)


def _multiplied_and_added(arithmetic: Arithmetic, call: Traced) -> Term:
    if call.keywords.get("beta", 1) != 1 or call.keywords.get("alpha", 1) != 1:
        raise Unsupported(f"{call.name} (scaled)")
    added, left, right = call.arguments
    return arithmetic.pointwise("add", call, [arithmetic.product(call, left, right), added])


BITWISE = {
    "aten.bitwise_not": "logical_not",
    "aten.bitwise_and": "logical_and",
    "aten.bitwise_or": "logical_or",
    "aten.bitwise_xor": "ne",
    "aten.logical_xor": "ne",
}
"""Operations bit by bit; elements are booleans, integers are not supported."""

OPERATIONS: dict[str, Callable[[Arithmetic, Traced], Term]] = {
    "aten.add": _scaled,
    "aten.sub": _scaled,
    "aten.div": _divided,
    "aten.pow": _power,
    "aten.where": _where,
    "aten._to_copy": _converted,
    "aten.to": _converted,
    "prims.convert_element_type": _converted,
    "aten.clamp": _clamped,
    "aten.isnan": _is_nan,
    "aten.isinf": _is_infinite,
    **dict.fromkeys(BITWISE, _bitwise),
    "aten.sum": _reduced,
    "aten.amax": _reduced,
    "aten.amin": _reduced,
    "aten.mean": _mean,
    "aten.mm": _multiplied,
    "aten.bmm": _multiplied_blocks,
    "aten.addmm": _multiplied_and_added,
}
"""Operations of torch that need more than their name."""

SAME = {f"aten.{name}": name for name in POINTWISE if f"aten.{name}" not in OPERATIONS and name not in ("square", "convert")}
"""Operations of torch that are ours by the same name."""


def compute(arithmetic: Arithmetic, call: Traced) -> Term | None:
    """Translate a call that computes.

    Args:
        arithmetic: where it is translated to.
        call: on at least one value that is rows.

    Returns:
        The result, or `None` for an operation that is not known.
    """
    if call.name in SAME:
        return arithmetic.pointwise(SAME[call.name], call, call.arguments)
    handler = OPERATIONS.get(call.name)
    return None if handler is None else handler(arithmetic, call)


def result_tensors(value: Any) -> list[Tensor]:
    """The tensors of a result.

    Args:
        value: a tensor or several.

    Returns:
        Those.
    """
    return [part for part in (value if isinstance(value, list | tuple) else [value]) if isinstance(part, Tensor)]

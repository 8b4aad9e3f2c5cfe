"""Making the nodes of a graph: equal ones once, and the plainest form of each."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from unrolled.kernels.graph import CALL, INPUT, POINTWISE, PRODUCT, Kind, Node, Operand, Unsupported


class Place(NamedTuple):
    """Where an operand stands among the arguments of a call."""

    operand: int


class Call(NamedTuple):
    """A call of torch on shared values; sequences are tuples, so that equal calls are equal."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()


class Graph:
    """Makes nodes; what is made twice from the same operands is one node."""

    def __init__(self) -> None:
        """A graph without nodes."""
        self._made: dict[Any, Node] = {}
        self._looping: set[Node] = set()
        self._closed: frozenset[Node] = frozenset()

    @contextmanager
    def closed(self, nodes: Iterable[Node]) -> Iterator[None]:
        """Nodes that are not looked into: columns of them are taken of themselves, whatever they were made of.

        Args:
            nodes: rows.

        Yields:
            While it is so.
        """
        before, self._closed = self._closed, self._closed.union(nodes)
        try:
            yield
        finally:
            self._closed = before

    def leaf(self, name: str, kind: Kind, shape: tuple[int, ...], dtype: torch.dtype, *, carried: bool = False) -> Node:
        """What is given from outside.

        Args:
            name: different for each leaf.
            kind: rows or shared.
            shape: behind the batch for rows.
            dtype: type of the elements.
            carried: whether a loop carries it from step to step.

        Returns:
            The leaf.
        """
        leaf = self._node(INPUT, (), kind, shape, dtype, name)
        if carried:
            self._looping.add(leaf)
        return leaf

    def rows(self, operation: str, operands: Sequence[Operand], width: int, dtype: torch.dtype, option: Any = None) -> Node:
        """Rows by any operation, as given.

        Args:
            operation: its name.
            operands: nodes and numbers.
            width: features of the result.
            dtype: of the result.
            option: what the operation knows beside its operands.

        Returns:
            The node.

        Raises:
            Unsupported: no features, but to be put beside others.
        """
        if width == 0 and operation != "fill":
            raise Unsupported("values without features")
        return self._node(operation, tuple(operands), Kind.ROWS, (width,), dtype, option)

    def pointwise(self, name: str, operands: Sequence[Operand], width: int, dtype: torch.dtype) -> Node:
        """A function of single elements.

        Args:
            name: a key of `POINTWISE`.
            operands: of the widths and types that `POINTWISE` allows; at least one is rows.
            width: of the result.
            dtype: of the result.

        Returns:
            A node of the same values, in the plainest form known.
        """
        if name == "convert" and operands[0].dtype == dtype:
            return operands[0]
        plainer = self._plainer(name, operands[0], operands[-1], width)
        if isinstance(plainer, Node):
            return plainer if plainer.dtype == dtype else self.rows("convert", (plainer,), width, dtype)
        name, operands = plainer or (name, operands)
        assert len(operands) == POINTWISE[name].operands
        return self.rows(name, operands, width, dtype)

    def _plainer(self, name: str, first: Operand, last: Operand, width: int) -> Node | tuple[str, tuple[Operand, ...]] | None:
        """An operand that is the result already, or another function of other operands, or `None`."""
        if name == "add" and _is_number(first, 0) and _fills(last, width):
            return last
        if ((name in ("add", "sub") and _is_number(last, 0)) or (name == "mul" and _is_number(last, 1))) and _fills(first, width):
            return first
        if name == "add" and _is(last, "neg") and last.kind is Kind.ROWS:
            return "sub", (first, last.operands[0])
        if name == "div" and not isinstance(last, Node) and last and math.isfinite(1 / last):
            return "mul", (first, 1 / last)
        return ("square", (first,)) if name == "mul" and first is last else None

    def slice(self, rows: Node, start: int, width: int) -> Node:
        """Some columns of rows.

        Args:
            rows: where they come from.
            start: the first column.
            width: how many.

        Returns:
            The rows of these columns; where `rows` only moves columns itself, and is not closed, of the rows below it.
        """
        if (start, width) == (0, rows.width):
            return rows
        below = rows.operation if rows not in self._closed else None
        if below == "slice":
            return self.slice(rows.operands[0], rows.option + start, width)
        if below == "fill":
            return self.fill(rows.option, width, rows.dtype)
        if below == "concatenate":
            pieces, place = [], 0
            for piece in rows.nodes:
                begin, end = max(start, place), min(start + width, place + piece.width)
                if begin < end:
                    pieces.append(self.slice(piece, begin - place, end - begin))
                place += piece.width
            return self.concatenate(pieces)
        if below == "expand":
            source = rows.nodes[0]
            return self.expand(source if source.shape == (1,) else self.columns(source, 0, start, width), width)
        return self.rows("slice", (rows,), width, rows.dtype, start)

    def concatenate(self, pieces: Sequence[Node]) -> Node:
        """Columns side by side.

        Args:
            pieces: rows of one type.

        Returns:
            Rows as wide as all pieces; neighbours that were cut from each other are joined again.
        """
        flat: list[Node] = []
        for piece in [piece for piece in pieces if piece.width > 0] or pieces[:1]:
            for part in piece.nodes if piece.operation == "concatenate" else (piece,):
                joined = self._joined(flat[-1], part) if flat else None
                flat[-1:] = [joined] if joined is not None else [*flat[-1:], part]
        if len(flat) == 1:
            return flat[0]
        return self.rows("concatenate", flat, sum(part.width for part in flat), flat[0].dtype)

    def _groups(self, rows: Node) -> list[Node]:
        """Columns side by side, divided where those that depend on what a loop carries meet those that do not."""
        if rows.operation != "concatenate":
            return [rows]
        groups = [list(group) for _, group in itertools.groupby(rows.nodes, self._looping.__contains__)]
        return [self.concatenate(group) for group in groups]

    def _joined(self, left: Node, right: Node) -> Node | None:
        if left.operation == right.operation == "slice" and left.operands == right.operands and left.option + left.width == right.option:
            return self.slice(left.nodes[0], left.option, left.width + right.width)
        if left.operation == right.operation == "fill" and left.option == right.option:
            return self.fill(left.option, left.width + right.width, left.dtype)
        return None

    def expand(self, source: Node, width: int) -> Node:
        """One column, or a shared vector, as rows of the full width.

        Args:
            source: rows 1 wide, or shared `[width]` or `[1]`.
            width: of the result.

        Returns:
            The rows.
        """
        if source.kind is Kind.ROWS and source.width == width:
            return source
        if source.operation == "fill":
            return self.fill(source.option, width, source.dtype)
        return self.rows("expand", (source,), width, source.dtype)

    def fill(self, value: float, width: int, dtype: torch.dtype) -> Node:
        """A number everywhere.

        Args:
            value: the number.
            width: of the result.
            dtype: of the result.

        Returns:
            The rows.
        """
        return self.rows("fill", (), width, dtype, value)

    def product(self, rows: Node, matrix: Node) -> Node:
        """Rows times a shared matrix.

        Args:
            rows: `[batch, k]`.
            matrix: `[k, n]`; where it is the transposition of another, that one is used as it lies.

        Returns:
            Rows `[batch, n]`; where only some columns of `rows` depend on what a loop carries, a sum of products, so that the others can be
            multiplied outside of the loop.
        """
        width = matrix.shape[1]
        groups = self._groups(rows)
        if len(groups) > 1:
            parts, place = [], 0
            for group in groups:
                parts.append(self.product(group, self.columns(matrix, 0, place, group.width)))
                place += group.width
            return functools.reduce(lambda first, second: self.pointwise("add", (first, second), width, rows.dtype), parts)
        below = transposed(matrix)
        if below is not None:
            return self.rows(PRODUCT, (rows, below), width, rows.dtype, True)
        return self.rows(PRODUCT, (rows, matrix), width, rows.dtype, False)

    def shared(self, call: Call, operands: Sequence[Node], shape: tuple[int, ...], dtype: torch.dtype) -> Node:
        """A shared value from shared values.

        Args:
            call: what is called; `Place` stands for an operand.
            operands: shared values.
            shape: of the result.
            dtype: of the result.

        Returns:
            The node.
        """
        if call.function in TRANSPOSITIONS and transposed(operands[0]) is not None:
            return operands[0].nodes[0]
        return self._node(CALL, tuple(operands), Kind.SHARED, shape, dtype, call)

    def reshape(self, value: Node, shape: tuple[int, ...]) -> Node:
        """A shared value in another shape.

        Args:
            value: shared.
            shape: of as many elements.

        Returns:
            The node.
        """
        if value.shape == shape:
            return value
        if value.operation == CALL and value.option.function is torch.ops.aten.reshape.default:
            return self.reshape(value.nodes[0], shape)
        return self.shared(Call(torch.ops.aten.reshape.default, (Place(0), shape)), (value,), shape, value.dtype)

    def columns(self, value: Node, axis: int, start: int, length: int) -> Node:
        """A part of a shared value along one axis.

        Args:
            value: shared.
            axis: which one is cut.
            start: the first.
            length: how many.

        Returns:
            The node.
        """
        if (start, length) == (0, value.shape[axis]):
            return value
        shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
        below = transposed(value)
        if below is not None:
            return self.shared(value.option, (self.columns(below, 1 - axis, start, length),), shape, value.dtype)
        call = Call(torch.ops.aten.slice.Tensor, (Place(0), axis, start, start + length))
        return self.shared(call, (value,), shape, value.dtype)

    def reduce_batch(self, operation: str, operands: Sequence[Node], shape: tuple[int, ...], dtype: torch.dtype) -> Node:
        """A shared value from rows: the sum over the batch.

        Args:
            operation: one of `BATCH_REDUCTIONS`.
            operands: rows.
            shape: of the result.
            dtype: of the result.

        Returns:
            The node.
        """
        for axis, rows in enumerate(operands if operation == "outer" else ()):
            groups = self._groups(rows)
            if len(groups) > 1:
                sums = []
                for group in groups:
                    pair = [group if place == axis else other for place, other in enumerate(operands)]
                    sums.append(self.reduce_batch(operation, pair, (pair[0].width, pair[1].width), dtype))
                join = Call(torch.ops.aten.cat.default, (tuple(Place(place) for place in range(len(sums))), axis))
                return self.shared(join, sums, shape, dtype)
        return self._node(operation, tuple(operands), Kind.SHARED, shape, dtype, None)

    def rebuilt(self, node: Node, operands: Sequence[Operand]) -> Node:
        """The same operation of other operands.

        Args:
            node: any but a leaf.
            operands: in the place of its own.

        Returns:
            A node.
        """
        if tuple(operands) == node.operands:
            return node
        return self._node(node.operation, tuple(operands), node.kind, node.shape, node.dtype, node.option)

    def time_sum(self, rows: Node) -> Node:
        """The sum over all steps of each row.

        Args:
            rows: of each step.

        Returns:
            Rows; a product is done after the sum.
        """
        if rows.operation == PRODUCT:
            return self.rebuilt(rows, (self.time_sum(rows.nodes[0]), rows.operands[1]))
        return self.rows("time_sum", (rows,), rows.width, rows.dtype)

    def _node(
        self, operation: str, operands: tuple[Operand, ...], kind: Kind, shape: tuple[int, ...], dtype: torch.dtype, option: Any
    ) -> Node:
        parts = tuple(id(operand) if isinstance(operand, Node) else (type(operand), repr(operand)) for operand in operands)
        key = operation, parts, kind, shape, dtype, repr(option) if isinstance(option, float) else option
        if key not in self._made:
            node = self._made[key] = Node(operation, operands, kind, shape, dtype, option)
            if not self._looping.isdisjoint(node.nodes):
                self._looping.add(node)
        return self._made[key]


TRANSPOSITIONS = (torch.ops.aten.t.default, torch.ops.aten.permute.default)


def transposed(matrix: Node) -> Node | None:
    """The matrix that this one is the transposition of.

    Args:
        matrix: shared.

    Returns:
        The other matrix, or `None`.
    """
    if matrix.operation != CALL or matrix.option.function not in TRANSPOSITIONS or len(matrix.shape) != 2:
        return None
    swaps = matrix.option.function is torch.ops.aten.t.default or tuple(axis % 2 for axis in matrix.option.arguments[1]) == (1, 0)
    return matrix.nodes[0] if swaps else None


def _is(operand: Operand, operation: str) -> bool:
    return isinstance(operand, Node) and operand.operation == operation


def _is_number(operand: Operand, number: float) -> bool:
    value = operand.option if _is(operand, "fill") else operand
    return not isinstance(value, Node) and type(value) is not bool and value == number


def _fills(operand: Operand, width: int) -> bool:
    return isinstance(operand, Node) and operand.kind is Kind.ROWS and operand.width == width

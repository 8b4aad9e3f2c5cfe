"""Functions of single elements as C++ on vectors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from unrolled.kernels.generate_plan import Place, Plan, Stage
from unrolled.kernels.graph import Kind, Node, Operand, Unsupported


class Function(NamedTuple):
    """One operation on vectors."""

    text: str
    """C++, with `{0}`, `{1}`, … for its operands."""
    takes: str = "Vector"
    gives: str = "Vector"


def _logical(text: str) -> Function:
    return Function(text, "Mask", "Mask")


def _comparison(sign: str) -> Function:
    return Function(f"{{0}} {sign} {{1}}", "Vector", "Mask")


FUNCTIONS = {
    "neg": Function("-{0}"),
    "abs": Function("absolute({0})"),
    "sign": Function("sign({0})"),
    "square": Function("{0} * {0}"),
    "relu": Function("rectified({0})"),
    "reciprocal": Function("1 / {0}"),
    "sqrt": Function("square_root({0})"),
    "rsqrt": Function("1 / square_root({0})"),
    "exp": Function("exponential({0})"),
    "expm1": Function("exponential_m1({0})"),
    "log": Function("logarithm({0})"),
    "log1p": Function("logarithm_1p({0})"),
    "sigmoid": Function("sigmoid({0})"),
    "tanh": Function("hyperbolic_tangent({0})"),
    "erf": Function("error_function({0})"),
    "sin": Function("sine({0})"),
    "cos": Function("cosine({0})"),
    "add": Function("{0} + {1}"),
    "sub": Function("{0} - {1}"),
    "mul": Function("{0} * {1}"),
    "div": Function("{0} / {1}"),
    "pow": Function("power({0}, {1})"),
    "maximum": Function("greater({0}, {1})"),
    "minimum": Function("lesser({0}, {1})"),
    "eq": _comparison("=="),
    "ne": _comparison("!="),
    "lt": _comparison("<"),
    "le": _comparison("<="),
    "gt": _comparison(">"),
    "ge": _comparison(">="),
    "logical_not": _logical("~{0}"),
    "logical_and": _logical("{0} & {1}"),
    "logical_or": _logical("{0} | {1}"),
}
"""All of `POINTWISE`, but `where` and `convert`, which take what their result is."""

REDUCTIONS = {
    "sum": ("added", 0.0),
    "amax": ("greater", -math.inf),
    "amin": ("lesser", math.inf),
}
"""How parts of a reduction are put together, and what changes nothing."""


class Values:
    """Writes what a stage does to the single elements of one vector of features."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        """Write for a stage.

        Args:
            plan: it belongs to.
            stage: which one.
        """
        self.plan, self.stage = plan, stage
        self.names: dict[Node, str] = {}
        """Of what is there in a vector."""
        self.lines: list[str] = []
        self.streamed: dict[str, bool] = {}
        """Where what changes from step to step is read, or written (true): what the caches do not hold yet."""
        self.sums = {segment.node: place for place, segment in enumerate(stage.segments)}

    def write(self) -> list[str]:
        """All statements.

        Returns:
            Lines of C++.
        """
        for node in self.sums:
            self._keep(node, self._load_sum(self.sums[node]))
            self._store(node)
        for node in self.stage.nodes:
            self._keep(node, self._expression(node))
            self._store(node)
        for node, part in self.stage.reduced:
            self._reduce(node, part)
        return self.lines

    def _keep(self, node: Node, text: str) -> None:
        name = f"v{len(self.names)}"
        self.lines.append(f"const {_type(node)} {name} = {text};")
        self.names[node] = name

    def _expression(self, node: Node) -> str:
        gives = _type(node)
        if node.operation == "slice":
            return self._load_place(self.plan.place(node.nodes[0]).part(node.option), node.width)
        if node.operation in ("convert", "expand"):
            return self.operand(node.operands[0], gives)
        if node.operation == "fill":
            return _number(node.option, gives)
        if node.operation == "where":
            condition, *choices = node.operands
            chosen, other = (self.operand(choice, gives) for choice in choices)
            condition = self.operand(condition, "Mask")
            return f"({condition} & {chosen}) | (~{condition} & {other})" if gives == "Mask" else f"{condition} ? {chosen} : {other}"
        if node.operation not in FUNCTIONS:
            raise Unsupported(node.operation)
        function = FUNCTIONS[node.operation]
        text = function.text.format(*(self.operand(operand, function.takes) for operand in node.operands))
        return text if function.gives == gives else _cast(text, gives)

    def operand(self, operand: Operand, takes: str) -> str:
        """An operand as a vector; loaded where it is used first.

        Args:
            operand: of an operation of this stage.
            takes: the type in C++ that is wanted.

        Returns:
            C++ that may be written several times.
        """
        if not isinstance(operand, Node):
            return _number(operand, takes)
        if operand not in self.names:
            light = operand in self.plan.light and operand.width == self.stage.width
            self._keep(operand, self._expression(operand) if light else self._load(operand))
        return self.names[operand] if _type(operand) == takes else _cast(self.names[operand], takes)

    def _load(self, node: Node) -> str:
        if node.kind is Kind.SHARED and node.shape == (1,):
            place = self.plan.place(node)
            return f"{_splat(place)}(s.{place.pointer}[{place.offset}])"
        return self._load_place(self.plan.place(node), node.shape[0])

    # --- What differs where lanes are features ----------------------------------------------------------------------

    def _load_sum(self, place: int) -> str:
        return f"*(const Vector*)(sums + {place} * apart)"

    def _load_place(self, place: Place, width: int) -> str:
        address = f"s.{place.pointer} + row * {place.stride}L + {place.offset}"
        if width == 1:
            return f"{_splat(place)}(*({address}))"
        if place.pointer.startswith("in"):
            self.streamed.setdefault(f"{address} + unit", False)
        return f"{'load_mask' if place.boolean else 'load'}<used>({address} + unit)"

    def _store(self, node: Node) -> None:
        for place in self.plan.homes[node]:
            function = "store_mask" if place.boolean else "store"
            address = f"s.{place.pointer} + row * {place.stride}L + {place.offset} + unit"
            if place.pointer.startswith("out"):
                self.streamed[address] = True
            self.lines.append(f"{function}<used>({address}, {self.names[node]});")

    def _reduce(self, node: Node, part: Node) -> None:
        function, neutral = REDUCTIONS[node.operation]
        value = self.operand(part, "Vector")
        seen = f"s.seen_{self.plan.homes[node][0].pointer}[s.part * s.batch + row]"
        self.lines.append(f"{seen} = {function}({seen}, only<used>({value}, {literal(neutral)}));")


class NumberValues(Values):
    """The same for numbers of rows: the lanes are rows."""

    def _load_sum(self, place: int) -> str:
        return f"gather(sums + {place} * lanes, stride, used)"

    def _load_place(self, place: Place, width: int) -> str:
        function = "gather_mask" if place.boolean else "gather"
        return f"{function}(s.{place.pointer} + row * {place.stride}L + {place.offset}, {place.stride}, used)"

    def _store(self, node: Node) -> None:
        for place in self.plan.homes[node]:
            # Every thread computes the numbers; what all see is written by one.
            condition = "" if place.pointer.startswith("number") else "if (s.part == 0) "
            function = "scatter_mask" if place.boolean else "scatter"
            target = f"s.{place.pointer} + row * {place.stride}L + {place.offset}"
            self.lines.append(f"{condition}{function}({target}, {place.stride}, used, {self.names[node]});")


def literal(number: float) -> str:
    """A number in C++.

    Args:
        number: NaN and infinity too.

    Returns:
        An expression of type `real`.
    """
    if math.isnan(number):
        return '(real)__builtin_nan("")'
    if math.isinf(number):
        return f"(real){'-' if number < 0 else ''}__builtin_inf()"
    return f"(real){float(number)!r}"


def _number(number: float, takes: str) -> str:
    return f"splat({literal(number)})" if takes == "Vector" else f"splat_mask({int(bool(number))})"


def _type(node: Node) -> str:
    return "Mask" if node.dtype == torch.bool else "Vector"


def _splat(place: Place) -> str:
    return "splat_mask" if place.boolean else "splat"


def _cast(text: str, takes: str) -> str:
    return f"{'to_mask' if takes == 'Mask' else 'to_real'}({text})"

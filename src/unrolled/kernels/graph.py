"""The small language into which a step and its vector–Jacobian product are traced, and the contract between front end and back end."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Unsupported(Exception):
    """An operation, named as torch names it, that the compiler has no equivalent for; the caller takes the plain loop."""


class Kind(enum.Enum):
    """What the axes of a value are."""

    ROWS = "rows"
    """`[batch, width]`: one row for each sequence. Features of more axes are flattened when they are traced."""
    SHARED = "shared"
    """Made of parameters and constants alone, without a batch axis, of any shape."""


class Pointwise(NamedTuple):
    """What the compiler has to know of a function of single elements."""

    operands: int
    costly: bool = False
    """Dearer than reading its result from memory, so that the result is stored for the backward pass and not computed again."""
    boolean: bool = False
    """The result is boolean."""


POINTWISE: dict[str, Pointwise] = {
    # Each is torch's function of this name, NaN and infinity included.
    "neg": Pointwise(1),
    "abs": Pointwise(1),
    "sign": Pointwise(1),
    "square": Pointwise(1),
    "relu": Pointwise(1),
    "reciprocal": Pointwise(1),
    "sqrt": Pointwise(1),
    "rsqrt": Pointwise(1),
    "exp": Pointwise(1, costly=True),
    "expm1": Pointwise(1, costly=True),
    "log": Pointwise(1, costly=True),
    "log1p": Pointwise(1, costly=True),
    "sigmoid": Pointwise(1, costly=True),
    "tanh": Pointwise(1, costly=True),
    "erf": Pointwise(1, costly=True),
    "sin": Pointwise(1, costly=True),
    "cos": Pointwise(1, costly=True),
    "add": Pointwise(2),
    "sub": Pointwise(2),
    "mul": Pointwise(2),
    "div": Pointwise(2),
    "pow": Pointwise(2, costly=True),
    "maximum": Pointwise(2),
    "minimum": Pointwise(2),
    "eq": Pointwise(2, boolean=True),
    "ne": Pointwise(2, boolean=True),
    "lt": Pointwise(2, boolean=True),
    "le": Pointwise(2, boolean=True),
    "gt": Pointwise(2, boolean=True),
    "ge": Pointwise(2, boolean=True),
    "logical_not": Pointwise(1, boolean=True),
    "logical_and": Pointwise(2, boolean=True),
    "logical_or": Pointwise(2, boolean=True),
    "where": Pointwise(3),
    # The element in the type of the node; from boolean 0 or 1, to boolean `!= 0`.
    "convert": Pointwise(1),
}
"""Functions of single elements. An operand is rows as wide as the result or 1 wide, shared `[width]` or `[1]`, or a number."""

REDUCTIONS = ("sum", "amax", "amin")
"""Of rows over all their features; the result is 1 wide. NaN propagates."""

MOVES = ("slice", "concatenate", "expand", "fill")
"""Rows from rows without arithmetic.

- `slice`: `width` columns from column `option`.
- `concatenate`: columns side by side; all operands are rows.
- `expand`: one operand, rows 1 wide or shared `[width]` or `[1]`, as rows of the full width.
- `fill`: no operand; the number `option` everywhere.
"""

PRODUCT = "product"
"""Rows `[batch, k]` times a shared matrix: `[k, n]`, or where `option` is true `[n, k]`, which is then transposed."""

BATCH_REDUCTIONS = ("outer", "row_sum")
"""Over the batch, never inside a loop: `outer` is rows `[batch, k]`, transposed, times rows `[batch, n]`; `row_sum` of rows is `[n]`.
Where rows of all steps stand for rows, they go over time as well."""

SUMS = ("row_sum", "time_sum")
"""Of one operand, over time, which a loop may do as it goes. `time_sum`, never inside a loop, is of all steps of each row."""

CALL = "call"
"""On shared values only, never inside a loop: `option` is the function of torch to call with the operands."""

INPUT = "input"
"""A leaf; `option` is its name."""

Operand = Any
"""A `Node`, or a number (a bool, int or float) in an operation on single elements."""


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One value of a graph and how it is made. Two nodes are the same only when they are the same object.

    Every loop is made of these operations: `input`, `product`, `POINTWISE`, `REDUCTIONS` and `MOVES`.
    """

    operation: str
    operands: tuple[Operand, ...]
    kind: Kind
    shape: tuple[int, ...]
    """Rows: `(width,)`, what lies behind the batch. Shared: the whole shape."""
    dtype: torch.dtype
    """A floating type or `torch.bool`."""
    option: Any = None

    @property
    def width(self) -> int:
        """Features of rows."""
        assert self.kind is Kind.ROWS
        return self.shape[0]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The operands that are nodes, in order."""
        return tuple(operand for operand in self.operands if isinstance(operand, Node))

    def __repr__(self) -> str:
        of = ", ".join(operand.operation if isinstance(operand, Node) else repr(operand) for operand in self.operands)
        return f"<{self.operation}({of}) {self.kind.value} {list(self.shape)} {self.dtype} {self.option!r}>"


class Carried(NamedTuple):
    """A part of the state inside a loop."""

    before: Node
    """A leaf: what the part holds before a step."""
    after: Node
    """What it holds after the step: any node of the same width and type, even a leaf (a stream, or what another part held before)."""


@dataclass(frozen=True)
class LoopProgram:
    """What is done at each step of a loop over time, and on which arrays: the contract between front end and back end.

    Arrays are contiguous, of the types of their nodes (`torch.bool` is one byte, 0 or 1), and come in one flat list in this order:

    1. for each of `streams_in`: `[time, batch, width]`; step `t` reads `[t]`;
    2. for each of `streams_out`: `[time, batch, width]`; step `t` writes `[t]`;
    3. for each of `constants`: `[batch, width]`, the same at every step;
    4. for each of `shared`: its shape, which is a matrix where a product uses it, else a vector `[width]` or `[1]`;
    5. for each of `states`: `[batch, width]`, `before` at the first step taken;
    6. for each of `states`: `[batch, width]`, to be written: `after` of the last step taken.

    No two arrays overlap where one is written, except that the initial array of a state may be the very memory before the first step of a stream out
    (rows are stored as `[time + 1, batch, width]` with the initial state in row 0): the loop only reads it. Where `after` of a state is among
    `streams_out`, what a step wrote there may be read as `before` by the next one.
    """

    streams_in: tuple[Node, ...]
    """Leaves."""
    streams_out: tuple[Node, ...]
    """Any nodes, each once."""
    constants: tuple[Node, ...]
    """Leaves."""
    shared: tuple[Node, ...]
    """Leaves."""
    states: tuple[Carried, ...]
    nodes: tuple[Node, ...]
    """What is computed, operands before what uses them; no leaves."""
    reverse: bool = False
    """Steps are taken from the last to the first (a backward pass)."""

    @property
    def arrays(self) -> tuple[Node, ...]:
        """The node of each array, in the order of the list of arrays."""
        before, after = tuple(state.before for state in self.states), tuple(state.after for state in self.states)
        return self.streams_in + self.streams_out + self.constants + self.shared + before + after

    def __str__(self) -> str:
        """The program as text: equal for programs that do the same in the same order, whatever the names of their leaves."""
        names: dict[Node, str] = {}
        leaves = (("in", self.streams_in), ("constant", self.constants), ("shared", self.shared))
        lines = ["reverse" if self.reverse else "forward"]
        for prefix, group in (*leaves, ("state", [state.before for state in self.states])):
            for place, node in enumerate(group):
                names[node] = f"{prefix}{place}"
                lines.append(f"{names[node]} = {node.dtype} {list(node.shape)}")
        for place, node in enumerate(self.nodes):
            names[node] = f"v{place}"
            operands = ", ".join(names[operand] if isinstance(operand, Node) else repr(operand) for operand in node.operands)
            option = "" if node.option is None else f" {node.option!r}"
            lines.append(f"{names[node]} = {node.operation}{option}({operands}) {node.dtype} {list(node.shape)}")
        lines += [f"out{place} = {names[node]}" for place, node in enumerate(self.streams_out)]
        lines += [f"state{place}' = {names[state.after]}" for place, state in enumerate(self.states)]
        return "\n".join(lines)


@runtime_checkable
class Loop(Protocol):
    """A loop program made ready to run."""

    def __call__(self, arrays: Sequence[Tensor], time: int, batch: int) -> None:
        """Take all steps.

        Args:
            arrays: in the order that `LoopProgram` states; those written to are allocated.
            time: steps, at least 1.
            batch: rows, at least 1.
        """


LoopMaker = Callable[[LoopProgram], Loop]
"""A back end: makes a program ready (compiles it, or finds it compiled); raises `Unsupported` for what it cannot do."""


def ordered(results: Iterable[Node], known: Iterable[Node] = ()) -> list[Node]:
    """What has to be computed for `results`, operands before what uses them; leaves and what is `known` are left out.

    Args:
        results: the nodes wanted.
        known: nodes that are there already; what only they need is left out too.

    Returns:
        Each node once, in an order that depends on nothing but the graph.
    """
    done, order = set(known), []
    for result in results:
        pending: list[tuple[Node, Iterator[Node]]] = [(result, iter(result.nodes))] if result not in done else []
        while pending:
            node, operands = pending[-1]
            following = next((operand for operand in operands if operand not in done), None)
            if following is not None:
                pending.append((following, iter(following.nodes)))
                continue
            pending.pop()
            if node not in done:
                done.add(node)
                if node.operation != INPUT:
                    order.append(node)
    return order

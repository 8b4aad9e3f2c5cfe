"""What a traced tensor is while torch's operations are translated, and how its features are moved about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.build import Call, Graph, Place
from unrolled.kernels.graph import Kind, Node, Unsupported

MOST_PIECES = 64
"""What takes more pieces than this to put together is not supported."""

ROWS, ROW = 5, 1 << 24
"""How many rows are moved about to see what becomes of their columns, and by how much the numbers of each differ from those of the next."""


class Term(NamedTuple):
    """A traced tensor: the node that holds its elements, and the shape that torch sees."""

    node: Node
    """For rows, the elements of one row in the order of the other axes."""
    shape: tuple[int, ...]
    """Of rows, with the batch on one axis, whichever it is."""

    @property
    def is_rows(self) -> bool:
        """Whether there is a batch axis."""
        return self.node.kind is Kind.ROWS


class Moves:
    """Views, copies and concatenations of features, whatever torch calls them.

    Each is run once on the *numbers* of the columns of a few rows; what comes out says which columns lie where.
    """

    def __init__(self, graph: Graph, batch: int) -> None:
        """Move features in a graph.

        Args:
            graph: where nodes are made.
            batch: the size that stands for the batch in traced shapes.
        """
        self.graph, self.batch = graph, batch

    def axis(self, shape: Sequence[int], name: str) -> int:
        """Which axis is the batch.

        Args:
            shape: of traced rows.
            name: the operation, for the error.

        Returns:
            The axis.

        Raises:
            Unsupported: none is, or several.
        """
        if list(shape).count(self.batch) != 1:
            raise Unsupported(f"{name} (the rows of the batch do not stay apart)")
        return list(shape).index(self.batch)

    def features(self, shape: Sequence[int], name: str) -> tuple[int, ...]:
        """The axes beside the batch.

        Args:
            shape: of traced rows.
            name: the operation, for the error.

        Returns:
            Their lengths.
        """
        axis = self.axis(shape, name)
        return (*shape[:axis], *shape[axis + 1 :])

    def move(
        self,
        function: Callable[..., Any],
        name: str,
        arguments: Sequence[Any],
        keywords: Mapping[str, Any],
        shapes: Sequence[Sequence[int]],
    ) -> list[Term]:
        """Rows whose columns are those of other rows.

        Args:
            function: of torch, moves elements only.
            name: the operation, for errors.
            arguments: as traced; terms in lists too.
            keywords: as traced.
            shapes: of the results.

        Returns:
            A term for each result.

        Raises:
            Unsupported: the rows of the batch do not stay apart, or there are too many pieces.
        """
        sources: list[Node] = []
        try:
            given = {key: self._numbered(value, sources) for key, value in keywords.items()}
            results = function(*self._numbered(list(arguments), sources), **given)
        except RuntimeError as error:
            raise Unsupported(f"{name} (the rows of the batch do not stay apart)") from error
        moved = zip([results] if isinstance(results, Tensor) else results, shapes, strict=True)
        return [Term(self._gather(sources, places.movedim(self.axis(shape, name), 0), name), tuple(shape)) for places, shape in moved]

    def _numbered(self, argument: Any, sources: list[Node]) -> Any:
        """The numbers of the columns in the place of each term, which is put to the sources; each row counts from elsewhere."""
        if isinstance(argument, Term):
            begin = sum(source.width for source in sources)
            sources.append(argument.node)
            columns = torch.arange(begin, begin + argument.node.width) + ROW * torch.arange(ROWS).unsqueeze(1)
            axis = argument.shape.index(self.batch)
            return columns.view(ROWS, *argument.shape[:axis], *argument.shape[axis + 1 :]).movedim(0, axis)
        if isinstance(argument, list | tuple):
            return [self._numbered(part, sources) for part in argument]
        return ROWS if type(argument) is int and argument == self.batch else argument

    def _gather(self, sources: list[Node], places: Tensor, name: str) -> Node:
        rows = places.reshape(ROWS, -1)
        if not torch.equal(rows, torch.where(rows[0] < 0, rows[0], rows[0] + ROW * torch.arange(ROWS).unsqueeze(1))):
            raise Unsupported(f"{name} (the rows of the batch do not stay apart)")
        if rows.numel() == 0:
            return self.graph.fill(0, 0, sources[0].dtype)
        pieces: list[Node] = []
        for first, length, repeated in _runs(rows[0].tolist()):
            if first < 0:
                pieces.append(self.graph.fill(0, length, sources[0].dtype))
            elif repeated:
                pieces += [self.graph.expand(column, length) for column in self._columns(sources, first, 1)]
            else:
                pieces += self._columns(sources, first, length)
            if len(pieces) > MOST_PIECES:
                raise Unsupported(f"{name} (more than {MOST_PIECES} pieces)")
        return self.graph.concatenate(pieces)

    def _columns(self, sources: list[Node], first: int, length: int) -> Iterator[Node]:
        begin = 0
        for source in sources:
            low, high = max(first, begin), min(first + length, begin + source.width)
            if low < high:
                yield self.graph.slice(source, low - begin, high - low)
            begin += source.width

    def spread(self, term: Term, shape: tuple[int, ...], name: str) -> Node:
        """What an operation on single elements reads of an operand that torch broadcasts.

        Args:
            term: rows or shared.
            shape: that of the result.
            name: the operation, for errors.

        Returns:
            Rows of the full width or 1 wide, or a shared vector `[width]` or `[1]`.

        Raises:
            Unsupported: the batch meets another axis.
        """
        features, axis = self.features(shape, name), self.axis(shape, name)
        width = _size(features)
        if term.is_rows:
            if len(shape) - axis != len(term.shape) - self.axis(term.shape, name):
                raise Unsupported(f"{name} (the rows of the batch do not stay apart)")
            if term.node.width in (1, width):
                return term.node
            return self.move(torch.Tensor.expand, name, [term, list(shape)], {}, [shape])[0].node
        if _size(term.shape) == 1:
            return self.graph.reshape(term.node, (1,))
        # Without the axis that would be the batch, which is of length one where it is there.
        own = [1] * (len(shape) - len(term.shape)) + list(term.shape)
        del own[axis]
        node = self.graph.reshape(term.node, tuple(own))
        if _size(own) != width:
            node = self.graph.shared(Call(torch.ops.aten.expand.default, (Place(0), features)), (node,), features, node.dtype)
        return self.graph.reshape(node, (width,))


def _size(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _runs(places: list[int]) -> Iterator[tuple[int, int, bool]]:
    """Stretches of columns that lie side by side, or of one column (or of zeros, -1) again and again: the first, how many, whether repeated."""
    start = 0
    while start < len(places):
        end, step = start + 1, None
        while end < len(places) and (step is None or places[end] - places[end - 1] == step):
            if step is None:
                step = places[end] - places[start]
                if step not in (0, 1) or (places[start] < 0 and step != 0):
                    break
            end += 1
        yield places[start], end - start, step == 0 and end - start > 1
        start = end

"""Rows that look at the same memory: the hypotheses of one source as the queries of one row, so that nothing of the source is copied."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from unrolled.core.state import named_leaves, select_state


class Sharing(NamedTuple):
    """Which memory each row of a batch looks at, where there are fewer memories than rows.

    Folded, the rows of one memory stand side by side on axis 1, and attention reads each memory once for all of them.
    """

    owner: Int[Tensor, " rows"]
    """The memory of each row."""
    rows: Int[Tensor, "memories most"]
    """The rows of each memory; where it has fewer than `most`, some row repeated."""
    places: Int[Tensor, " rows"]
    """Where each row stands in `rows`, flattened."""

    @classmethod
    def of(cls, owner: Int[Tensor, " rows"], memories: int) -> Sharing:
        """Share memories.

        Args:
            owner: the memory of each row, in any order.
            memories: how many there are.

        Returns:
            Who stands where.
        """
        counts = torch.bincount(owner, minlength=memories)
        most = int(counts.max()) if len(owner) else 0
        order = owner.argsort(stable=True)
        begins = counts.cumsum(0) - counts
        every = torch.arange(len(owner), device=owner.device)
        places = torch.empty_like(owner).index_copy_(0, order, owner[order] * most + every - begins[owner[order]])
        rows = owner.new_zeros(memories * most).index_copy_(0, places, every)
        return cls(owner, rows.view(memories, most), places)

    def fold(self, xs: Tensor) -> Tensor:
        """Rows side by side.

        Args:
            xs: `[rows, time, …]`.

        Returns:
            `[memories, most · time, …]`.
        """
        return xs.index_select(0, self.rows.flatten()).unflatten(0, self.rows.shape).flatten(1, 2)

    def unfold(self, xs: Tensor) -> Tensor:
        """The inverse of `fold`.

        Args:
            xs: `[memories, most · time, …]`.

        Returns:
            `[rows, time, …]`.
        """
        return xs.unflatten(1, (self.rows.shape[1], -1)).flatten(0, 1).index_select(0, self.places)

    def unfold_weights(self, weights: Tensor) -> Tensor:
        """What each row's queries look at, where `fold` put them side by side.

        Args:
            weights: `[memories, heads, most · time, source]`.

        Returns:
            `[rows, heads, time, source]`.
        """
        return self.unfold(weights.transpose(1, 2)).transpose(1, 2)


def select_shared(fixed: Any, rows: Int[Tensor, " chosen"]) -> Any:
    """Some rows of what holds for a source, where several may be of one: memories nobody looks at any more go, none is copied.

    Args:
        fixed: a named tuple with a field `sharing`; all others have a row a memory.
        rows: indices into the batch.

    Returns:
        The same for those rows.
    """
    owner = rows if fixed.sharing is None else fixed.sharing.owner[rows]
    memories = fixed._replace(sharing=None)
    kept, owner = owner.unique(return_inverse=True)
    if len(kept) < len(next(named_leaves(memories))[1]):
        memories = select_state(memories, kept)
    alone = len(kept) == len(rows) and torch.equal(owner, torch.arange(len(rows), device=rows.device))
    return memories if alone else memories._replace(sharing=Sharing.of(owner, len(kept)))

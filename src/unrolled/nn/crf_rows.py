"""The steps of a padded batch without its padding: what a recursion over time runs on when sequences have unequal lengths."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


class Rows(NamedTuple):
    """Every step that belongs to a sequence, step by step, the longest sequence first: step `t + 1` has the first rows of step `t`.

    Sequences of length 0 have no row, so no recursion ever sees them, nor anything else past a length.
    """

    sizes: list[int]
    """How many rows each step has; never rises."""
    order: Int[Tensor, " sequences"]
    """The sequences that have a step, the longest first, as rows of the batch; results for `sequences` are in this order."""
    lengths: Int[Tensor, " sequences"]
    """Of those."""
    owner: Int[Tensor, " rows"]
    """Where in `order` the sequence of each step stands."""
    place: Int[Tensor, " rows"]
    """Where each step lies in the padded batch, flattened."""
    mirror: Int[Tensor, " rows"]
    """The step of the same sequence that is as far from the end as this one is from the beginning."""
    before: Int[Tensor, " later"]
    """The step before, for all steps but the first ones."""
    last: Int[Tensor, " sequences"]
    """The last step of each sequence, in the order of `order`."""

    @classmethod
    def of(cls, lengths: Int[Tensor, " batch"], time: int) -> Rows:
        """Lay a batch out.

        Args:
            lengths: of the sequences.
            time: columns of the padded batch.

        Returns:
            Where everything stands.
        """
        by_length, order = lengths.sort(descending=True, stable=True)
        steps = torch.arange(int(by_length[0]) if len(lengths) else 0, device=lengths.device)
        present = steps.unsqueeze(1) < by_length
        sizes = present.sum(1)
        begins = sizes.cumsum(0) - sizes
        step, column = present.nonzero(as_tuple=True)
        place = order[column] * time + step
        sequences = int(sizes[0]) if len(steps) else 0
        by_length, order = by_length[:sequences], order[:sequences]
        mirror = begins[by_length[column] - 1 - step] + column
        before = (begins[step - 1] + column)[sequences:]
        last = begins[by_length - 1] + torch.arange(sequences, device=lengths.device)
        return cls(sizes.tolist(), order, by_length, column, place, mirror, before, last)

    def take(self, data: Shaped[Tensor, "batch time ..."]) -> Shaped[Tensor, "rows ..."]:
        """The steps of a padded batch.

        Args:
            data: the batch.

        Returns:
            Its steps, in the order of the rows.
        """
        return data.flatten(0, 1).index_select(0, self.place)

    def put(self, steps: Shaped[Tensor, "rows ..."], like: Tensor, rest: float = 0) -> Shaped[Tensor, "batch time ..."]:
        """The inverse of `take`.

        Args:
            steps: in the order of the rows.
            like: a padded batch, which gives the size.
            rest: what stands past the lengths.

        Returns:
            The padded batch.
        """
        batch, time = like.shape[:2]
        padded = steps.new_full((batch * time, *steps.shape[1:]), rest)
        padded[self.place] = steps
        return padded.unflatten(0, (batch, time))

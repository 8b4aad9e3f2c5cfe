"""The source of every random mask in training, keyed by the rows of the global batch so that several processes draw what one would."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 1 << 16
"""On a CPU a probability is met to the nearest of so many steps."""


@dataclass(frozen=True)
class Noise:
    """Where dropout, zoneout and weight drop take their masks from.

    With several processes every one holds a generator of the same seed, draws for the whole global batch and keeps its
    own rows: the masks do not depend on how many processes share the work.
    """

    generator: torch.Generator | None = None
    """`None` is torch's own global generator."""
    first_row: int = 0
    """Where this process's rows begin in the global batch."""
    total_rows: int | None = None
    """Rows of the global batch; `None` when this process has them all."""

    def rows(self, shape: tuple[int, ...], keep: float, like: Tensor) -> Tensor:
        """A mask of 0 and 1 whose first axis is the batch.

        Args:
            shape: `[batch, …]`, this process's rows.
            keep: probability of a 1.
            like: gives dtype and device.

        Returns:
            The mask for this process's rows.
        """
        total = shape[0] if self.total_rows is None else self.total_rows
        drawn = self.shared((total, *shape[1:]), keep, like)
        return drawn[self.first_row : self.first_row + shape[0]]

    def shared(self, shape: tuple[int, ...], keep: float, like: Tensor) -> Tensor:
        """A mask of 0 and 1 without a batch axis (weights), the same in every process.

        Args:
            shape: any.
            keep: probability of a 1.
            like: gives dtype and device.

        Returns:
            The mask.
        """
        kept = round(keep * STEPS)
        if like.is_cuda or kept == 0:
            return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(keep, generator=self.generator)
        # A CPU draws one number at a time; a mask needs a quarter of one.
        count = math.prod(shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=like.device).random_(-(1 << 63), None, generator=self.generator)
        return (words.view(torch.int16)[:count] <= kept - 1 - STEPS // 2).to(like.dtype).view(shape)

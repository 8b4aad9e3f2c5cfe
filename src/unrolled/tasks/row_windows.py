"""Batches of rows that each stand for themselves (sentences, pairs, texts) as a training reads them: this process's share of every batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from torch import Tensor, nn

from unrolled.core.state import State
from unrolled.data.batches import Lengths, TokenBatches
from unrolled.train.group import Group
from unrolled.train.optimizers import Thawing

Collate = Callable[[np.ndarray, int, np.ndarray | None], Any]
"""Makes a batch of some rows, as an epoch reads them, and as wide as the whole batch of which they are one process's share."""


class RowWindow(NamedTuple):
    """This process's share of a batch."""

    batch: Any
    first_row: int
    """Where the share begins in the whole batch."""
    total_rows: int
    """Rows of the whole batch."""
    counts: bool = True
    """False where the share is a stand-in, because the batch has fewer rows than there are processes."""
    fresh: bool = True
    """Every batch stands for itself."""


class RowWindows:
    """Gives batches for ever: every row once an epoch, with others of its length."""

    def __init__(
        self,
        lengths: Lengths | Callable[[int], Lengths],
        collate: Collate,
        *,
        batch_tokens: int,
        seed: int,
        group: Group,
    ) -> None:
        """Prepare the batches.

        Args:
            lengths: tokens of every row, an array a side; or what gives them for an epoch.
            collate: makes a batch.
            batch_tokens: what a batch may cost, padding counted.
            seed: of the order.
            group: the processes that share every batch.
        """
        self.collate, self.group = collate, group
        self.batches = TokenBatches(lengths, batch_tokens, seed=seed)

    def take(self) -> RowWindow:
        """The next batch.

        Returns:
            This process's rows; a stand-in that counts nothing where the batch has fewer rows than there are processes.
        """
        batch = self.batches.take()
        share = batch.share(self.group.rank, self.group.size)
        rows = batch.rows[share]
        counts = len(rows) > 0
        return RowWindow(self.collate(rows if counts else batch.rows[:1], batch.epoch, batch.rows), share.start, len(batch.rows), counts)

    @property
    def epochs_done(self) -> float:
        """Passes over the rows so far."""
        return self.batches.epochs_done

    def state_dict(self) -> dict[str, int]:
        """Where the reading stands.

        Returns:
            What `load_state_dict` takes.
        """
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another reading stood.

        Args:
            state: from `state_dict`.
        """
        self.batches.load_state_dict(state)


class RowObjective(nn.Module):
    """An objective of rows that each stand for themselves."""

    thawing: Thawing | None = None
    """Layers with rates of their own."""

    def initial_state(self, batch_size: int) -> State:
        """Nothing is carried from batch to batch.

        Args:
            batch_size: ignored.

        Returns:
            `None`.
        """
        return None

    def restart(self, state: State, rows: Bool[Tensor, " batch"]) -> State:
        """Nothing is carried from batch to batch.

        Args:
            state: ignored.
            rows: ignored.

        Returns:
            `None`.
        """
        return None

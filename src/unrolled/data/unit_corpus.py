"""Texts as ids of units, and batches of them: what several texts share is there once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int32, Integer
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.data.batches import TokenLists, token_lists


class UnitBatch(NamedTuple):
    """Some texts as tensors; what the texts share is there once."""

    places: Padded
    """Which of the batch's different units stands where, `[batch, time]`."""
    ids: Int[Tensor, " different"]
    """The vocabulary id of each of them."""
    spelling: Padded | None
    """The characters of each, `[different, longest]`; `None` where units have none."""
    firsts: Padded
    """Where each word begins, `[batch, words]`."""

    def to(self, device: torch.device) -> UnitBatch:
        """The same on a device.

        Args:
            device: where a model computes.

        Returns:
            The batch there.
        """
        spelling = None if self.spelling is None else _move(self.spelling, device)
        return UnitBatch(_move(self.places, device), self.ids.to(device), spelling, _move(self.firsts, device))


def _move(padded: Padded, device: torch.device) -> Padded:
    return Padded(padded.data.to(device), padded.lengths.to(device))


@dataclass(frozen=True)
class UnitCorpus:
    """The units of many texts; each different one is there once, with its id and its characters."""

    units: TokenLists
    """Which of the different units stands where."""
    firsts: TokenLists
    """Where in its text each word begins."""
    ids: Int32[np.ndarray, " different"]
    spelling: TokenLists | None

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def lengths(self) -> Int32[np.ndarray, " texts"]:
        """Units of every text."""
        return self.units.lengths

    def cut(self, longest: int) -> UnitCorpus:
        """The texts without what lies behind a number of units.

        Args:
            longest: units that are kept of each.

        Returns:
            The shorter texts.
        """
        if self.lengths.max(initial=0) <= longest:
            return self
        units = token_lists([self.units[i][:longest] for i in range(len(self))], len(self.ids))
        firsts = [self.firsts[i] for i in range(len(self))]
        return UnitCorpus(units, token_lists([one[one < longest] for one in firsts], 1 << 32), self.ids, self.spelling)

    def collate(self, rows: Integer[np.ndarray, " rows"], among: Integer[np.ndarray, " all"] | None = None) -> UnitBatch:
        """Some of the texts as tensors.

        Args:
            rows: their places here.
            among: the batch of which they are one process's share: all shares have its width, so that their dropout is drawn alike.

        Returns:
            The batch, on the CPU.
        """
        padded = self.units.padded(rows, among)
        different, places = np.unique(padded.data.numpy(), return_inverse=True)
        spelling = None if self.spelling is None else self.spelling.padded(different)
        ids = torch.from_numpy(self.ids[different].astype(np.int64)) if len(self.ids) else torch.zeros(len(different), dtype=torch.int64)
        return UnitBatch(
            Padded(torch.from_numpy(places.reshape(padded.data.shape)), padded.lengths), ids, spelling, self.firsts.padded(rows, among)
        )

    def ids_of(self, rows: Integer[np.ndarray, " rows"]) -> Padded:
        """The vocabulary ids of some texts.

        Args:
            rows: their places here.

        Returns:
            int64 ids `[batch, time]`, zero-padded.
        """
        padded = self.units.padded(rows)
        return Padded(torch.from_numpy(self.ids[padded.data.numpy()].astype(np.int64)), padded.lengths)

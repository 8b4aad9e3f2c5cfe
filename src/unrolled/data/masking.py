"""Which units of a text are hidden from a masked language model, whole words at a time (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer
from torch import Tensor
from torch.nn.functional import pad

from unrolled.core.padded import Padded
from unrolled.data.batches import TokenLists, token_lists
from unrolled.data.unit_corpus import UnitBatch, UnitCorpus
from unrolled.data.units import Units

HIDDEN, REPLACED = 0.8, 0.1
"""Of the units that are asked for so many are hidden, and so many others stand in their place; the rest is as it was."""


class MaskedBatch(NamedTuple):
    """Texts of which some units are asked for."""

    units: UnitBatch
    asked: Bool[Tensor, "batch time"]
    """True where a unit is asked for."""
    wanted: Int[Tensor, " asked"]
    """The ids that stood there, row by row."""


@dataclass(frozen=True)
class Masking:
    """Hides units of a corpus; what is hidden depends on the seed, the epoch and the text alone."""

    corpus: UnitCorpus
    units: Units
    share: float
    """Of the words that are asked for."""
    seed: int

    def collate(self, rows: Integer[np.ndarray, " rows"], epoch: int, among: Integer[np.ndarray, " all"] | None = None) -> MaskedBatch:
        """Some of the texts, with hidden units.

        Args:
            rows: their places in the corpus.
            epoch: in another one other units are hidden.
            among: the batch of which they are one process's share.

        Returns:
            The batch, on the CPU.
        """
        hiding = self.hiding
        drawn = [self._hide(int(row), epoch) for row in rows]
        shown = UnitCorpus(
            token_lists([units for units, _ in drawn], len(hiding.ids)), self.corpus.firsts.select(rows), hiding.ids, hiding.spelling
        )
        batch = shown.collate(np.arange(len(rows)))
        asked = token_lists([chosen.astype(np.uint8) for _, chosen in drawn], 2).padded(np.arange(len(rows))).data.bool()
        wanted = self.corpus.ids_of(rows).data[asked]
        wider = 0 if among is None else int(self.corpus.lengths[among].max()) - asked.shape[1]
        places = Padded(pad(batch.places.data, (0, wider)), batch.places.lengths)
        return MaskedBatch(batch._replace(places=places), pad(asked, (0, wider)), wanted)

    @cached_property
    def hiding(self) -> UnitCorpus:
        """The corpus with one more different unit behind the others: the hidden one, which has no character."""
        corpus = self.corpus
        spelling = corpus.spelling
        if spelling is not None:
            spelling = TokenLists(spelling.tokens, np.append(spelling.offsets, spelling.offsets[-1]))
        return UnitCorpus(corpus.units, corpus.firsts, np.append(corpus.ids, np.int32(self.units.mask)), spelling)

    def _hide(self, row: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The units of a text as they are shown, and which of them are asked for."""
        generator = np.random.default_rng([self.seed, epoch, row])
        units = self.corpus.units[row].astype(np.int64)
        begins = self.corpus.firsts[row].astype(np.int64)
        if not len(begins):
            begins = np.arange(len(units))
        word = np.searchsorted(begins, np.arange(len(units)), side="right") - 1
        asked = generator.random(len(begins)) < self.share
        if len(begins) and not asked.any():
            asked[generator.integers(len(begins))] = True
        fate = generator.random(len(begins))
        chosen, fate = asked[word] & (word >= 0), fate[word]
        if self.units.unknown is not None:
            chosen &= self.corpus.ids[units] != self.units.unknown
        others = generator.integers(0, len(self.corpus.ids), len(units))
        shown = np.where(chosen & (fate < HIDDEN), len(self.corpus.ids), units)
        shown = np.where(chosen & (fate >= HIDDEN) & (fate < HIDDEN + REPLACED), others, shown)
        return shown, chosen

"""Texts with what is to be learnt of them, and the batches that are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unrolled.data.batches import evaluation_batches
from unrolled.data.labels import LabelSet, load_labels
from unrolled.data.unit_corpus import UnitCorpus
from unrolled.data.units import Text, Units, load_units
from unrolled.tasks.row_windows import Collate
from unrolled.tasks.run_folder import RunFolder

MANY = 0.5
"""A larger share of validation texts that are trained on as well is told; some stand in every large collection ("Thank you!")."""


class Samples(NamedTuple):
    """Texts with what is to be learnt of them."""

    texts: Sequence[Text]
    labels: Sequence[Any]
    """One a text: a label, several, one a word; `None` where there is nothing to learn but the text."""
    groups: Sequence[int] | None = None
    """Texts of one number, such as the phrases of a sentence, go together; each is its own group where nothing is said."""
    whole: Sequence[bool] | None = None
    """Which texts may validate; all of them where nothing is said."""
    several: bool = False
    """Whether a text may have several labels, or none."""

    def select(self, rows: Sequence[int]) -> Samples:
        """Some of them.

        Args:
            rows: their places.

        Returns:
            Those samples.
        """
        groups = None if self.groups is None else [self.groups[i] for i in rows]
        whole = None if self.whole is None else [self.whole[i] for i in rows]
        return Samples([self.texts[i] for i in rows], [self.labels[i] for i in rows], groups, whole, self.several)


class Parts(NamedTuple):
    """The samples of a run."""

    train: Samples
    valid: Samples
    notes: tuple[str, ...] = ()
    """What a person should know of them."""


class RowCorpus(NamedTuple):
    """Samples as batches are made from them."""

    units: UnitCorpus
    lengths: np.ndarray
    """Units of each text."""
    collate: Collate
    """A batch of some rows, as an epoch reads them."""
    known: np.ndarray
    """Places of the samples of which all labels were seen in training."""


class Judged(NamedTuple):
    """What a model made of a batch."""

    nats: float
    """The negative log-likelihood, summed; 0 where some labels were never seen."""
    scored: int
    """Over how many it was summed."""
    answers: list[Any]
    """One a row, in the form the task gives them."""


class Held(NamedTuple):
    """What a run is besides its settings."""

    units: Units
    labels: LabelSet | None


def standing_twice(train: Samples, valid: Samples) -> list[str]:
    """What is said of texts that are trained on and validate as well.

    Args:
        train: what is trained on.
        valid: what validates.

    Returns:
        A sentence where they are many, else nothing.
    """
    seen = {_key(text) for text in train.texts}
    count = sum(_key(text) in seen for text in valid.texts)
    if count <= MANY * len(valid.texts):
        return []
    return [
        f"{count:,} of {len(valid.texts):,} texts to validate on are trained on as well, so that scores will be too good; was the right file named?"
    ]


def _key(text: Text) -> str | tuple[str, ...]:
    return text if isinstance(text, str) else tuple(text)


def unseen(held: Held, rows: RowCorpus) -> list[str]:
    """What is said of validation samples with labels that were never seen.

    Args:
        held: vocabulary and labels.
        rows: what validates.

    Returns:
        A sentence, or nothing.
    """
    count = len(rows.lengths) - len(rows.known)
    if not count:
        return []
    return [
        f"{count:,} of {len(rows.lengths):,} texts to validate on have labels that no text to train on has: they count as wrong, and not for the loss"
    ]


def load_held(folder: RunFolder) -> Held:
    """Read vocabulary and labels of a run.

    Args:
        folder: the run.

    Returns:
        Them.
    """
    return Held(load_units(folder.units), load_labels(folder.labels) if folder.labels.exists() else None)


def batches_of(rows: RowCorpus, places: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Some samples in batches of similar lengths, the shortest first.

    Args:
        rows: all samples.
        places: which of them.
        batch_tokens: units of a batch.

    Returns:
        Places in the samples, batch by batch.
    """
    return [places[batch] for batch in evaluation_batches([rows.lengths[places]], batch_tokens).batches]

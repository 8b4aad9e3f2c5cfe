"""Gives every word of a text a label (Huang et al. 2015; Ma & Hovy 2016): an encoder from both sides, then a CRF or a soft-max."""

from __future__ import annotations

from torch import nn

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.data.label_transitions import AllowedTransitions
from unrolled.data.unit_corpus import UnitBatch
from unrolled.models.text_encoder import TextEncoder, gather_firsts
from unrolled.models.text_encoder_settings import TaggerSettings
from unrolled.nn.crf import CRF
from unrolled.nn.dropout import LockedDropout


class Tagger(nn.Module):
    """Scores the labels of every word; with a CRF, whole sequences of labels."""

    def __init__(
        self,
        settings: TaggerSettings,
        vocabulary: int,
        characters: int | None,
        labels: int,
        *,
        allowed: AllowedTransitions | None = None,
        trust: bool = False,
    ) -> None:
        """Build the model.

        Args:
            settings: kinds, sizes and dropout.
            vocabulary: ids of units.
            characters: ids of characters; `None` where units are not spelled.
            labels: how many there are.
            allowed: with a CRF, which labels may follow each other, begin and end.
            trust: allow the settings to import a class of the user's own.
        """
        super().__init__()
        self.settings = settings
        self.text = TextEncoder(settings, vocabulary, characters, trust=trust)
        self.output_dropout = LockedDropout(settings.output_dropout)
        self.readout = nn.Linear(settings.hidden_size, labels)
        masks = {} if allowed is None else {f"allowed_{name}": mask for name, mask in allowed._asdict().items()}
        self.crf = CRF(labels, **masks) if settings.crf else None

    def forward(self, batch: UnitBatch, noise: Noise | None = None) -> Padded:
        """Score the labels of words.

        Args:
            batch: on the model's device.
            noise: where dropout takes its masks from in training.

        Returns:
            Logits `[batch, words, labels]`.
        """
        return self.score(self.text.embed(batch, noise), batch.firsts, noise)

    def score(self, vectors: Padded, firsts: Padded, noise: Noise | None = None) -> Padded:
        """Score labels from the vectors of units.

        Args:
            vectors: from `text.embed`.
            firsts: where each word begins.
            noise: where dropout takes its masks from in training.

        Returns:
            Logits `[batch, words, labels]`.
        """
        words = gather_firsts(self.text(vectors, noise).memory, firsts)
        masked, _ = self.output_dropout(words, noise=noise)
        return Padded(self.readout(masked.data), words.lengths)

"""Gives a text a label, or several."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.data.unit_corpus import UnitBatch
from unrolled.models.pooling import POOLING, Pooled
from unrolled.models.text_encoder import TextEncoder
from unrolled.models.text_encoder_settings import ClassifierSettings
from unrolled.nn.dropout import LockedDropout


class Classifier(nn.Module):
    """Reads a text from both sides, makes one vector of it, and scores every label."""

    def __init__(self, settings: ClassifierSettings, vocabulary: int, characters: int | None, labels: int, *, trust: bool = False) -> None:
        """Build the model.

        Args:
            settings: kinds, sizes and dropout.
            vocabulary: ids of units.
            characters: ids of characters; `None` where units are not spelled.
            labels: how many there are.
            trust: allow the settings to import a class of the user's own.
        """
        super().__init__()
        self.settings = settings
        self.text = TextEncoder(settings, vocabulary, characters, trust=trust)
        self.pooling = POOLING[settings.pooling](settings.hidden_size)
        self.output_dropout = LockedDropout(settings.output_dropout)
        self.readout = nn.Linear(settings.hidden_size, labels)

    def forward(self, batch: UnitBatch, noise: Noise | None = None) -> Float[Tensor, "batch labels"]:
        """Score the labels of texts.

        Args:
            batch: on the model's device.
            noise: where dropout takes its masks from in training.

        Returns:
            Logits.
        """
        return self.score(self.text.embed(batch, noise), noise)

    def score(self, vectors: Padded, noise: Noise | None = None) -> Float[Tensor, "batch labels"]:
        """Score labels from the vectors of units.

        Args:
            vectors: from `text.embed`.
            noise: where dropout takes its masks from in training.

        Returns:
            Logits.
        """
        pooled = self.pool(vectors, noise).vector
        masked, _ = self.output_dropout(pooled.unsqueeze(1), noise=noise)
        logits: Tensor = self.readout(masked.squeeze(1))
        return logits

    def pool(self, vectors: Padded, noise: Noise | None = None) -> Pooled:
        """One vector a text.

        Args:
            vectors: from `text.embed`.
            noise: where dropout takes its masks from in training.

        Returns:
            It, and how much each unit counts.
        """
        pooled: Pooled = self.pooling(self.text(vectors, noise))
        return pooled

"""Says which units were hidden in a text, from both sides of them (Devlin et al. 2019): what a tagger or a classifier can begin from."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.data.unit_corpus import UnitBatch
from unrolled.models.text_encoder import TextEncoder
from unrolled.models.text_encoder_settings import TextEncoderSettings
from unrolled.nn.dropout import LockedDropout


class MaskedLanguageModel(nn.Module):
    """The encoder that taggers and classifiers share, read out by the units' own vectors."""

    def __init__(self, settings: TextEncoderSettings, vocabulary: int, characters: int | None, *, trust: bool = False) -> None:
        """Build the model.

        Args:
            settings: kinds, sizes and dropout.
            vocabulary: ids of units.
            characters: ids of characters; `None` where units are not spelled.
            trust: allow the settings to import a class of the user's own.
        """
        super().__init__()
        self.settings = settings
        self.text = TextEncoder(settings, vocabulary, characters, trust=trust)
        self.output_dropout = LockedDropout(settings.output_dropout)
        self.narrow = nn.Linear(settings.hidden_size, settings.embedding_size)
        self.norm = nn.LayerNorm(settings.embedding_size)
        self.readout = nn.Linear(settings.embedding_size, vocabulary)
        nn.init.zeros_(self.readout.bias)
        self.readout.weight = self.text.embedding.weight

    def forward(self, batch: UnitBatch, asked: Bool[Tensor, "batch time"], noise: Noise | None = None) -> Float[Tensor, "asked vocab"]:
        """Score the units that may stand at some places.

        Args:
            batch: texts with hidden units, on the model's device.
            asked: true at the places.
            noise: where dropout takes its masks from in training.

        Returns:
            Logits, row by row.
        """
        return self.score(self.text.embed(batch, noise), asked, noise)

    def score(self, vectors: Padded, asked: Bool[Tensor, "batch time"], noise: Noise | None = None) -> Float[Tensor, "asked vocab"]:
        """Score the units that may stand at some places, from the vectors of units.

        Args:
            vectors: from `text.embed`.
            asked: true at the places.
            noise: where dropout takes its masks from in training.

        Returns:
            Logits, row by row.
        """
        encoded = self.text(vectors, noise)
        masked, _ = self.output_dropout(encoded.memory.data, noise=noise)
        hidden = self.norm(torch.nn.functional.gelu(self.narrow(masked[asked])))
        logits: Tensor = self.readout(hidden)
        return logits

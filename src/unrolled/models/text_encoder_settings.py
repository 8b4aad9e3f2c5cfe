"""What reads a text as a whole, from both sides: the part that taggers, classifiers and masked language models share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unrolled.core.settings import Settings
from unrolled.models.block_settings import BlockSettings
from unrolled.models.encoder_decoder_settings import EncoderSettings


class ContextSettings(EncoderSettings):
    """What sees a unit among the others."""

    kind: Literal["recurrent", "transformer", "convolutional"] = "recurrent"
    """Recurrent layers, a Transformer, or gated convolutions."""


class SpellingSettings(Settings):
    """How the characters of a word become a vector, where units are words."""

    kind: Literal["convolution", "recurrent", "none"] = "convolution"
    """Convolutions and the largest value of each (Ma & Hovy 2016), an LSTM from both ends (Lample et al. 2016), or nothing."""
    embedding_size: int = Field(32, ge=1)
    """Features of a character."""
    size: int = Field(96, ge=2)
    """Features of a spelled word."""
    width: int = Field(3, ge=1)
    """Characters that a convolution sees at once, an odd number."""


class TextEncoderSettings(Settings):
    """What reads a text as a whole."""

    hidden_size: int = Field(256, ge=1)
    """Features of what is read out at each unit."""
    embedding_size: int = Field(128, ge=1)
    """Features of a unit's own vector."""
    spelling: SpellingSettings = SpellingSettings()
    encoder: ContextSettings = ContextSettings()
    transformer: BlockSettings = BlockSettings()
    chunk: int = Field(512, ge=2)
    """A longer text is read in pieces of so many units, each by itself, and looked at as a whole only behind the encoder."""
    word_dropout: float = Field(0.05, ge=0, lt=1)
    """Probability that a unit's own vector is zero throughout a batch, so that its spelling and its neighbours must do."""
    input_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on the vectors of units, the same mask for a whole text."""
    hidden_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout between recurrent layers, and within Transformer layers."""
    output_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout before the read-out."""
    recurrent_dropout: float = Field(0.0, ge=0, lt=1)
    """One mask a text on the hidden state that a step's products see (Gal & Ghahramani 2016)."""

    @model_validator(mode="after")
    def _parts_fit(self) -> TextEncoderSettings:
        encoder = self.encoder
        if encoder.kind == "recurrent" and encoder.bidirectional and self.hidden_size % 2:
            raise ValueError(f"`hidden_size` must be even for an encoder that reads from both ends, got {self.hidden_size}")
        if encoder.kind == "transformer" and self.hidden_size % self.transformer.heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `transformer.heads`, got {self.hidden_size} and {self.transformer.heads}"
            )
        for name, width, used in (
            ("encoder.width", encoder.width, encoder.kind == "convolutional"),
            ("spelling.width", self.spelling.width, self.spelling.kind == "convolution"),
        ):
            if used and width % 2 == 0:
                raise ValueError(f"`{name}` must be odd, so that a symbol stands in the middle, got {width}")
        if self.spelling.kind == "recurrent" and self.spelling.size % 2:
            raise ValueError(f"`spelling.size` must be even for characters that are read from both ends, got {self.spelling.size}")
        if encoder.kind == "transformer" and self.transformer.positions == "learned" and self.transformer.longest < self.chunk:
            raise ValueError(
                f"learned positions must reach as far as `chunk`, {self.chunk}, got `transformer.longest={self.transformer.longest}`"
            )
        return self


class TaggerSettings(TextEncoderSettings):
    """What a tagger is made of."""

    crf: bool = True
    """Score whole sequences of labels (a linear-chain conditional random field; Lafferty et al. 2001), not each label by itself."""
    constrain: bool = True
    """With `crf`: never give labels that the scheme of spans does not allow behind each other."""


class ClassifierSettings(TextEncoderSettings):
    """What a classifier is made of."""

    pooling: Literal["attention", "mean", "max", "last"] = "attention"
    """How the vectors of a text become one: weighed by attention, their mean, their largest values, or the last state of each direction."""

"""What a forecaster is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unrolled.core.settings import Settings
from unrolled.models.block_settings import BlockSettings
from unrolled.models.encoder_decoder_settings import EncoderSettings


class HistorySettings(EncoderSettings):
    """What reads the past."""

    kind: Literal["recurrent", "transformer", "convolutional"] = "recurrent"
    """Recurrent layers, a Transformer, or gated convolutions."""
    cell: str = Field("gru", examples=EncoderSettings.model_fields["cell"].examples)
    """The recurrent cell: a name of the package, or `module:Class` for your own (asks for `--trust`)."""
    bidirectional: bool = False
    """Read from both ends; each direction then has half of the hidden size."""


class OutputSettings(Settings):
    """What is said of every future value."""

    kind: Literal["gaussian", "quantiles", "point"] = "gaussian"
    """Mean and standard deviation, several quantiles, or the mean alone."""
    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    """With `quantiles`: which, rising; the middle one is the forecast."""

    @model_validator(mode="after")
    def _quantiles_rise(self) -> OutputSettings:
        wanted = self.quantiles
        if not wanted or list(wanted) != sorted(set(wanted)) or wanted[0] <= 0 or wanted[-1] >= 1 or len(wanted) % 2 == 0:
            raise ValueError(
                f"`quantiles` must be an odd number of rising values between 0 and 1, got {', '.join(map(str, wanted)) or 'none'}"
            )
        return self


class ForecasterSettings(Settings):
    """What a forecaster is made of."""

    hidden_size: int = Field(128, ge=1)
    """Features of what is known of the past."""
    encoder: HistorySettings = HistorySettings()
    transformer: BlockSettings = BlockSettings()
    patch: int | None = Field(None, ge=1)
    """Points that are read, and written, at once (Lin et al. 2023); a season, or a part of one, when not given."""
    channels: Literal["independent", "joint"] = "independent"
    """Forecast every target from its own past, with the same weights for all, or all from all."""
    centre: Literal["last", "mean", "none"] = "last"
    """What is subtracted from every window and added again: its last value; its mean, and its spread divides (Kim et al. 2022); nothing."""
    shortcut: bool = False
    """Add a linear map from the centred past of each column to its future (Zeng et al. 2023), the same for all columns."""
    calendar: bool = True
    """See where in the day, the week and the year a point lies, where times are dates."""
    input_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on what is read, the same mask for a whole window."""
    hidden_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout between recurrent layers, and within Transformer layers."""
    recurrent_dropout: float = Field(0.0, ge=0, lt=1)
    """One mask a window on the hidden state that a step's products see (Gal & Ghahramani 2016)."""
    output_dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout before the read-out."""
    output: OutputSettings = OutputSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> ForecasterSettings:
        encoder = self.encoder
        if encoder.kind == "recurrent" and encoder.bidirectional and self.hidden_size % 2:
            raise ValueError(f"`hidden_size` must be even for an encoder that reads from both ends, got {self.hidden_size}")
        if encoder.kind == "transformer" and self.hidden_size % self.transformer.heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `transformer.heads`, got {self.hidden_size} and {self.transformer.heads}"
            )
        if encoder.kind == "convolutional" and encoder.width % 2 == 0:
            raise ValueError(f"`encoder.width` must be odd, so that a point stands in the middle, got {encoder.width}")
        return self

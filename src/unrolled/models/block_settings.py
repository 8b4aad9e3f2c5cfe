"""The parts of Transformer layers, whatever they are part of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unrolled.core.settings import Settings
from unrolled.nn.transformer_layers import TransformerSettings


class BlockSettings(Settings):
    """The parts of Transformer layers."""

    heads: int = Field(4, ge=1)
    """Attention heads, which share the hidden size evenly."""
    inner_size: int | None = Field(None, ge=1)
    """Units of each layer's two-layer network; four times the hidden size when not given."""
    norm: Literal["pre", "post"] = "pre"
    """Normalise before each part (steadier; Xiong et al. 2020) or after it, as first published (Vaswani et al. 2017)."""
    activation: Literal["relu", "gelu"] = "relu"
    """Of the two-layer network."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """Computed vectors for any length, or learned ones up to `longest`."""
    longest: int = Field(1024, ge=1)
    """How many places learned positions have."""

    def stack(self, dim: int, layers: int, dropout: float) -> TransformerSettings:
        """The settings of one stack of such layers.

        Args:
            dim: features of every symbol.
            layers: on top of each other.
            dropout: on what each part adds.

        Returns:
            What `Transformer` takes.
        """
        return TransformerSettings(dim=dim, layers=layers, dropout=dropout, **self.model_dump())

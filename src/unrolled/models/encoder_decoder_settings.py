"""What an encoder–decoder is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unrolled.core.settings import Settings
from unrolled.models.block_settings import BlockSettings
from unrolled.nn.cells import CELLS


class EncoderSettings(Settings):
    """What reads the source."""

    kind: Literal["recurrent", "transformer", "convolutional", "none"] = "recurrent"
    """`none` is the separator form: the decoder itself reads the source, then a start symbol, then writes."""
    layers: int = Field(1, ge=1)
    """Layers on top of each other."""
    cell: str = Field("lstm", examples=[*CELLS, "module:Class"])
    """The recurrent cell: a name of the package, or `module:Class` for your own (asks for `--trust`)."""
    bidirectional: bool = True
    """Read from both ends; each direction then has half of the hidden size."""
    width: int = Field(3, ge=1)
    """Symbols that a convolution sees at once, an odd number."""


class DecoderSettings(Settings):
    """What writes the target."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """How the target is written."""
    layers: int = Field(1, ge=1)
    """Layers on top of each other."""
    cell: str = Field("lstm", examples=[*CELLS, "module:Class"])
    """The recurrent cell: a name of the package, or `module:Class` for your own (asks for `--trust`)."""


class AttentionSettings(Settings):
    """How a recurrent decoder looks at the source; a Transformer decoder attends in every layer, by `transformer.heads`."""

    kind: Literal["additive", "dot", "scaled_dot", "bilinear", "multi_head", "none"] = "additive"
    """The score; `none` leaves the decoder with what `context` gives it."""
    when: Literal["before", "after"] = "after"
    """Attend with the state before the step (Bahdanau et al. 2015) or with that after it (Luong et al. 2015)."""
    readout: Literal["tanh", "direct"] = "tanh"
    """What is read out: `tanh(W_c [s ; c])` (Luong et al. 2015), or state and context as they are."""
    input_feeding: bool = False
    """Each step also reads the attentional vector of the step before (Luong et al. 2015, section 3.3)."""
    coverage: bool = False
    """The score also sees how much each source position was attended to so far (See et al. 2017, section 2.3); additive only."""
    coverage_loss: float = Field(1.0, ge=0)
    """Weight of the penalty for attending to the same position again, where there is coverage."""
    copies: bool = False
    """A gate mixes the vocabulary's distribution with copying what is attended to (See et al. 2017, section 2.2)."""
    heads: int = Field(4, ge=1)
    """Heads of multi-head attention."""


class EncoderDecoderSettings(Settings):
    """What an encoder–decoder is made of."""

    hidden_size: int = Field(512, ge=1)
    """Features of encoder outputs and decoder states."""
    embedding_size: int | None = Field(None, ge=1)
    """Features of each symbol's vector; half the hidden size of recurrent models, the hidden size of Transformers, when not given."""
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    attention: AttentionSettings = AttentionSettings()
    transformer: BlockSettings = BlockSettings()
    context: Literal["initial", "every"] = "initial"
    """Whether the summary of the source only starts a recurrent decoder (Sutskever et al. 2014) or is read at every step as well (Cho et al. 2014)."""
    tie_embeddings: bool = False
    """One table of vectors for source and target; needs a joint vocabulary."""
    tie_weights: bool = True
    """Read out with the target embedding's own weights (Press & Wolf 2017)."""
    input_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on embedded symbols, the same mask for a whole sentence."""
    hidden_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout between recurrent layers, and within Transformer layers."""
    output_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout before the read-out."""
    recurrent_dropout: float = Field(0.0, ge=0, lt=1)
    """One mask a sentence on the hidden state that a step's products see (Gal & Ghahramani 2016)."""

    @model_validator(mode="after")
    def _parts_fit(self) -> EncoderDecoderSettings:
        attention, decoder = self.attention, self.decoder.kind
        attends = attention.kind != "none"
        if self.encoder.kind == "recurrent" and self.encoder.bidirectional and self.hidden_size % 2:
            raise ValueError(f"`hidden_size` must be even for an encoder that reads from both ends, got {self.hidden_size}")
        if "transformer" in (self.encoder.kind, decoder) and self.hidden_size % self.transformer.heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `transformer.heads`, got {self.hidden_size} and {self.transformer.heads}"
            )
        if self.encoder.kind == "convolutional" and self.encoder.width % 2 == 0:
            raise ValueError(f"`encoder.width` must be odd, so that a symbol stands in the middle, got {self.encoder.width}")
        if self.encoder.kind == "none" and decoder == "recurrent" and attends:
            raise ValueError("an encoder of the kind `none` leaves nothing to attend to; set `attention.kind=none` as well")
        if attention.coverage and attention.kind != "additive":
            raise ValueError(f"`attention.coverage` needs `attention.kind=additive`, got `{attention.kind}`")
        if not attends and (attention.input_feeding or attention.copies):
            raise ValueError("`attention.input_feeding` and `attention.copies` need an attention, and `attention.kind` is `none`")
        if decoder == "transformer" and (attention.input_feeding or attention.coverage or attention.copies):
            raise ValueError(
                "`attention.input_feeding`, `attention.coverage` and `attention.copies` are of recurrent decoders; leave them out"
            )
        return self

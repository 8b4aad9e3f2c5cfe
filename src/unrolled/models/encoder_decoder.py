"""An encoder reads the source, a decoder writes the target: recurrent with any attention, Transformer, or one of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import State
from unrolled.models.copying import Copying
from unrolled.models.encoder_decoder_settings import EncoderDecoderSettings
from unrolled.models.encoders import ConvolutionalEncoder, Encoded, Encoder, Look, RecurrentEncoder
from unrolled.models.recurrent_decoder import Decoded, RecurrentDecoder
from unrolled.models.transformer_parts import TransformerDecoder, TransformerEncoder
from unrolled.nn.dropout import LockedDropout

ENCODERS: dict[str, Any] = {"recurrent": RecurrentEncoder, "transformer": TransformerEncoder, "convolutional": ConvolutionalEncoder}
"""What reads a source, by the kind that a configuration names; `none` has no encoder."""
DECODERS: dict[str, Any] = {"recurrent": RecurrentDecoder, "transformer": TransformerDecoder}
"""What writes a target."""


class Sizes(NamedTuple):
    """What the vocabularies decide."""

    source: int
    """Source symbols, special ones included."""
    target: int
    """Target symbols, special ones included."""
    joint: bool = False
    """Whether both are one vocabulary."""


class Translating(NamedTuple):
    """The state of a translation: what holds for the whole source, and what changes with every symbol."""

    fixed: State
    state: State
    source: Int[Tensor, "batch source"] | None
    """The source's symbols where the model may copy them."""
    weights: Float[Tensor, "batch source"] | None
    """What the last step attended to, the mean over heads."""


class EncoderDecoder(nn.Module):
    """Gives the probability of each target symbol after the source and the symbols before it."""

    def __init__(self, settings: EncoderDecoderSettings, sizes: Sizes, *, copy_ids: Tensor | None = None, trust: bool = False) -> None:
        """Build the model.

        Args:
            settings: kinds, sizes and dropout.
            sizes: of the vocabularies.
            copy_ids: the target symbol of each source symbol, -1 where there is none, `[source]`; needed where the model copies.
            trust: allow the settings to import a class of the user's own.

        Raises:
            ConfigurationError: one table of vectors for two vocabularies.
        """
        super().__init__()
        if settings.tie_embeddings and not sizes.joint:
            raise ConfigurationError("`model.tie_embeddings` needs one vocabulary for both sides; set `data.joint=true` or leave it out")
        self.settings, self.sizes = settings, sizes
        kinds = {settings.encoder.kind, settings.decoder.kind}
        size = settings.embedding_size or (settings.hidden_size // (1 if "transformer" in kinds else 2))
        self.source_embedding = nn.Embedding(sizes.source, size)
        self.target_embedding = self.source_embedding if settings.tie_embeddings else nn.Embedding(sizes.target, size)
        self.input_dropout = LockedDropout(settings.input_dropout)
        separate = settings.encoder.kind == "none"
        self.encoder: Encoder | None = None if separate else ENCODERS[settings.encoder.kind](settings, size, trust=trust)
        self.decoder: Any = DECODERS[settings.decoder.kind](settings, size, 0 if separate else settings.hidden_size, trust=trust)
        self.output_dropout = LockedDropout(settings.output_dropout)
        # A tied read-out looks at vectors of the embedding's size.
        fits = self.decoder.output_size == size
        self.narrow = nn.Linear(self.decoder.output_size, size, bias=False) if settings.tie_weights and not fits else nn.Identity()
        self.readout = nn.Linear(size if settings.tie_weights else self.decoder.output_size, sizes.target)
        self._start(size)
        self.copying = Copying(self.decoder.output_size, copy_ids) if settings.attention.copies and copy_ids is not None else None

    def _start(self, size: int) -> None:
        nn.init.zeros_(self.readout.bias)
        for table in (self.source_embedding, self.target_embedding):
            nn.init.normal_(table.weight, std=size**-0.5)
        if self.settings.tie_weights:
            self.readout.weight = self.target_embedding.weight

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.source_embedding.weight.device

    @property
    def reads(self) -> int | None:
        """The most symbols of a source; `None` where nothing limits them."""
        if self.encoder is not None:
            return self.encoder.reach
        return None if self.decoder.reach is None else self.decoder.reach - 1

    def room(self, source: int) -> int | None:
        """The most symbols of a target, its end included.

        Args:
            source: how many symbols the source has, at most `reads`.

        Returns:
            Their number; `None` where nothing limits them.
        """
        reach: int | None = self.decoder.reach
        return reach if reach is None or self.encoder is not None else reach - source

    def encode(self, source: Padded, noise: Noise | None = None) -> Translating:
        """Read sources: the state before the first target symbol.

        Args:
            source: ids `[batch, time]` with their lengths, none of them 0.
            noise: where dropout takes its masks from in training.

        Returns:
            A tree with batch as axis 0.
        """
        vectors, _ = self.input_dropout(Padded(self.source_embedding(source.data), source.lengths), noise=noise)
        copied = source.data if self.copying is not None else None
        if self.encoder is None:
            none = vectors.data.new_zeros(len(vectors.data), 0)
            fixed = self.decoder.prepare(Encoded(vectors, none), noise)
            return Translating(fixed, self.decoder.absorb(vectors, fixed, noise), copied, None)
        encoded = self.encoder(vectors, noise)
        return Translating(self.decoder.prepare(encoded, noise), self.decoder.start(encoded), copied, None)

    def read(self, translating: Translating, targets: Int[Tensor, "batch time"], noise: Noise | None = None) -> Decoded:
        """Read whole targets (teacher forcing), without the read-out.

        Args:
            translating: from `encode`.
            targets: the symbol before each one that is predicted, the start symbol first.
            noise: where dropout takes its masks from in training.

        Returns:
            One vector a predicted symbol, and what was attended to.
        """
        vectors, _ = self.input_dropout(self.target_embedding(targets), noise=noise)
        decoded, _ = self.decoder.read(vectors, translating.state, translating.fixed, noise)
        hidden, _ = self.output_dropout(decoded.hidden, noise=noise)
        return Decoded(hidden, decoded.weights)

    @torch.no_grad()
    def looks(self, source: Padded, targets: Int[Tensor, "batch time"]) -> tuple[dict[str, Look], dict[str, Look]]:
        """What every layer attends to over a source and a whole target.

        Args:
            source: ids with their lengths.
            targets: the symbol before each one that is predicted.

        Returns:
            By layer of the encoder, and by layer of the decoder.
        """
        translating = self.encode(source)
        vectors = Padded(self.source_embedding(source.data), source.lengths)
        of_encoder = {} if self.encoder is None else self.encoder.looks(vectors)
        return of_encoder, self.decoder.looks(self.target_embedding(targets), translating.state, translating.fixed)

    def step(self, tokens: Int[Tensor, " batch"], state: Translating) -> tuple[Float[Tensor, "batch vocab"], Translating]:
        """One target symbol.

        Args:
            tokens: the symbol before.
            state: from `encode` or the step before.

        Returns:
            Logits of the next symbol, and the new state.
        """
        decoded, after = self.decoder.step(self.target_embedding(tokens), state.state, state.fixed)
        weights = None if decoded.weights is None else decoded.weights.mean(1)
        logits = self.predict(decoded.hidden, weights, state.source)
        return logits, Translating(state.fixed, after, state.source, weights)

    def predict(
        self, hidden: Float[Tensor, "rows dim"], weights: Float[Tensor, "rows source"] | None, source: Int[Tensor, "rows source"] | None
    ) -> Float[Tensor, "rows vocab"]:
        """Read out.

        Args:
            hidden: what the decoder made of each row.
            weights: what it attended to, the mean over heads.
            source: the source's symbols, where the model copies.

        Returns:
            Logits; where the model copies they are log-probabilities.
        """
        logits: Tensor = self.readout(self.narrow(hidden))
        if self.copying is None:
            return logits
        assert weights is not None
        assert source is not None
        mixed: Tensor = self.copying(logits, hidden, weights, source)
        return mixed

"""Transformer encoder and decoder in the form that an encoder–decoder takes (Vaswani et al. 2017)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.models.encoder_decoder_settings import EncoderDecoderSettings
from unrolled.models.encoders import Encoded, Encoder, EncoderNeeds, Look, fit, mean_over_time
from unrolled.models.recurrent_decoder import Decoded
from unrolled.nn.sharing import select_shared
from unrolled.nn.transformer import DecoderMemory, Transformer, TransformerState
from unrolled.nn.transformer_layers import LayerWeights


class TransformerEncoder(Encoder):
    """Every symbol sees every other; the summary is the mean."""

    def __init__(self, settings: EncoderNeeds, input_size: int, *, trust: bool = False) -> None:
        super().__init__()
        self.output_size = settings.hidden_size
        self.reach = _reach(settings)
        self.fit = fit(input_size, settings.hidden_size)
        self.stack = Transformer(
            settings.transformer.stack(settings.hidden_size, settings.encoder.layers, settings.hidden_dropout), scale_input=True
        )

    def blocks(self) -> list[tuple[nn.Module, ...]]:
        """The layers from below; see `Encoder.blocks`.

        Returns:
            The parts of each; the last normalisation belongs to the uppermost.
        """
        *below, last = self.stack.blocks
        return [*((layer,) for layer in below), (last, self.stack.norm)]

    def forward(self, vectors: Padded, noise: Noise | None = None) -> Encoded:
        """Read sources; see `Encoder.forward`.

        Args:
            vectors: embedded symbols.
            noise: where dropout takes its masks from in training.

        Returns:
            The outputs of the last layer, and their mean.
        """
        memory, _ = self.stack(Padded(self.fit(vectors.data), vectors.lengths), noise=noise)
        return Encoded(memory, mean_over_time(memory))

    def looks(self, vectors: Padded) -> dict[str, Look]:
        """What every head of every layer attends to.

        Args:
            vectors: embedded symbols.

        Returns:
            Weights by layer from below.
        """
        return _by_layer(self.stack.attention_weights(Padded(self.fit(vectors.data), vectors.lengths))[1])


class TransformerDecoder(nn.Module):
    """Every symbol sees those before it and the whole source; without a memory, the source is read before the target (separator form)."""

    aligns = False
    """A step does not say what it attended to; `looks` does, for a whole target."""

    def __init__(self, settings: EncoderDecoderSettings, input_size: int, memory_size: int, *, trust: bool = False) -> None:
        super().__init__()
        self.output_size = settings.hidden_size
        self.reach = _reach(settings)
        """The most symbols that positions exist for."""
        self.fit = fit(input_size, settings.hidden_size)
        stack = settings.transformer.stack(settings.hidden_size, settings.decoder.layers, settings.hidden_dropout)
        self.stack = Transformer(stack, causal=True, memory_size=memory_size or None, scale_input=True)

    def start(self, encoded: Encoded) -> TransformerState | None:
        """The state before the first symbol: nothing was read.

        Args:
            encoded: the source.

        Returns:
            The state.
        """
        return self.stack.initial_state(len(encoded.summary))

    def prepare(self, encoded: Encoded, noise: Noise | None = None) -> DecoderMemory | None:
        """Project the source once for all steps.

        Args:
            encoded: the source.
            noise: not needed.

        Returns:
            Keys and values by layer.
        """
        return None if self.stack.memory_size is None else self.stack.prepare(encoded.memory)

    def select(self, fixed: DecoderMemory | None, rows: Int[Tensor, " chosen"]) -> DecoderMemory | None:
        """What holds for the sources of some rows; several rows may be of one.

        Args:
            fixed: from `prepare`.
            rows: indices into the batch.

        Returns:
            The same for those rows; for single steps only.
        """
        chosen: DecoderMemory | None = None if fixed is None else select_shared(fixed, rows)
        return chosen

    def absorb(self, vectors: Padded, fixed: None = None, noise: Noise | None = None) -> Any:
        """Read a source with the decoder's own layers (separator form).

        Args:
            vectors: the embedded source.
            fixed: not needed.
            noise: where masks come from in training.

        Returns:
            The state after each row's last symbol.
        """
        return self.stack(Padded(self.fit(vectors.data), vectors.lengths), noise=noise)[1]

    def step(self, x: Float[Tensor, "batch input"], state: Any, fixed: DecoderMemory | None) -> tuple[Decoded, Any]:
        """One symbol.

        Args:
            x: the embedded symbol before.
            state: the state after the step before.
            fixed: from `prepare`.

        Returns:
            The vector to read out, and the new state.
        """
        hidden, after = self.stack.step(self.fit(x), state, fixed)
        return Decoded(hidden, None), after

    def read(
        self, xs: Float[Tensor, "batch time input"], state: Any, fixed: DecoderMemory | None, noise: Noise | None = None
    ) -> tuple[Decoded, Any]:
        """A whole target at once.

        Args:
            xs: the embedded symbols before each step.
            state: from `start` or `absorb`.
            fixed: from `prepare`.
            noise: where masks come from in training.

        Returns:
            One vector a step, and the state after the last.
        """
        hidden, after = self.stack(self.fit(xs), state, noise=noise, fixed=fixed)
        return Decoded(hidden, None), after

    def looks(self, xs: Float[Tensor, "batch time input"], state: Any, fixed: DecoderMemory | None) -> dict[str, Look]:
        """What every head of every layer attends to over a whole target.

        Args:
            xs: the embedded symbols before each step.
            state: from `start` or `absorb`.
            fixed: from `prepare`.

        Returns:
            Weights by layer from below.
        """
        return _by_layer(self.stack.attention_weights(self.fit(xs), state, fixed=fixed)[1])


def _reach(settings: EncoderNeeds) -> int | None:
    return settings.transformer.longest if settings.transformer.positions == "learned" else None


def _by_layer(weights: dict[str, LayerWeights]) -> dict[str, Look]:
    return {str(place): Look(one.own, one.memory) for place, one in enumerate(weights.values(), 1)}

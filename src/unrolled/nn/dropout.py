"""Dropout as layers: the same mask at every step (locked), words of the embedding, recurrent weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import State
from unrolled.nn.recurrence import Layer


def check_probability(value: float, name: str) -> float:
    """Refuse what is not a probability below 1.

    Args:
        value: what was given.
        name: the word for it in the message.

    Returns:
        `value`.

    Raises:
        ConfigurationError: outside 0 ≤ value < 1.
    """
    if not 0 <= value < 1:
        raise ConfigurationError(f"`{name}` must be at least 0 and below 1, got {value}")
    return float(value)


class LockedDropout(Layer):
    """Dropout with one mask for all time steps of a sequence (Gal & Ghahramani 2016; "locked" in Merity et al. 2018)."""

    def __init__(self, probability: float) -> None:
        """Drop features.

        Args:
            probability: of a zero.
        """
        super().__init__()
        self.probability = check_probability(probability, "probability")
        self.input_size, self.output_size = None, 0  # any size passes through

    def initial_state(self, batch_size: int) -> State:
        """Nothing is remembered.

        Args:
            batch_size: rows of the batch.

        Returns:
            `None`.
        """
        return None

    def forward(self, xs: Any, state: State = None, *, resets: Tensor | None = None, noise: Noise | None = None) -> tuple[Any, State]:
        """Mask in training, pass through in evaluation.

        Args:
            xs: `[batch, time, feature]`, or `Padded`.
            state: ignored.
            resets: ignored.
            noise: where the mask comes from.

        Returns:
            The masked input and `None`.
        """
        if not self.training or self.probability == 0:
            return xs, None
        if isinstance(xs, Padded):
            return Padded(self._mask(xs.data, noise or Noise()), xs.lengths), None
        return self._mask(xs, noise or Noise()), None

    def _mask(self, xs: Float[Tensor, "batch time feature"], noise: Noise) -> Float[Tensor, "batch time feature"]:
        keep = 1 - self.probability
        return xs * (noise.rows((xs.shape[0], 1, xs.shape[2]), keep, xs) / keep)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Pass through.

        Args:
            x: `[batch, feature]`.
            state: ignored.

        Returns:
            `x` and `None`.
        """
        return x, None


class WeightDrop(Layer):
    """DropConnect on named weights of a layer: one mask a sequence, shared by all rows (Wan et al. 2013; Merity et al. 2018, section 2).

    As the weights are replaced for the whole sequence, the layer may still take its fast way.
    """

    def __init__(self, layer: Layer, probability: float, parameters: Sequence[str] = ("cell.from_hidden.weight",)) -> None:
        """Drop weights of `layer`.

        Args:
            layer: usually a `Recurrence`.
            probability: of a weight being zero during a sequence.
            parameters: names as in `layer.named_parameters()`; the recurrent weight of the package's cells by default.

        Raises:
            ConfigurationError: no name at all, or one that no parameter of the layer has.
        """
        super().__init__()
        self.layer, self.probability, self.parameters_dropped = layer, check_probability(probability, "probability"), tuple(parameters)
        self.input_size, self.output_size = layer.input_size, layer.output_size
        known = dict(layer.named_parameters())
        if not parameters:
            raise ConfigurationError(
                f"weight drop needs recurrent weights to drop, and `{type(layer).__name__}` has none by that name; name them `…from_hidden…`"
            )
        for name in self.parameters_dropped:
            if name not in known:
                raise ConfigurationError(f"`{type(layer).__name__}` has no parameter `{name}` to drop; {nearest(name, known)}")

    def initial_state(self, batch_size: int) -> State:
        """The layer's own.

        Args:
            batch_size: rows of the batch.

        Returns:
            The layer's initial state.
        """
        return self.layer.initial_state(batch_size)

    def forward(self, xs: Any, state: State = None, *, resets: Tensor | None = None, noise: Noise | None = None) -> tuple[Any, State]:
        """Read whole sequences with dropped weights in training; see `Layer.forward`.

        Args:
            xs: `[batch, time, input]`, or `Padded`.
            state: the layer's state.
            resets: true where a new document begins.
            noise: where masks come from.

        Returns:
            What the layer returns.
        """
        if not self.training or self.probability == 0:
            return self.layer(xs, state, resets=resets, noise=noise)
        noise, keep = noise or Noise(), 1 - self.probability
        weights = dict(self.layer.named_parameters())
        dropped = {
            name: weights[name] * (noise.shared(tuple(weights[name].shape), keep, weights[name]) / keep) for name in self.parameters_dropped
        }
        return functional_call(self.layer, dropped, (xs, state), {"resets": resets, "noise": noise})

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step with all weights.

        Args:
            x: `[batch, input]`.
            state: the layer's state.

        Returns:
            What the layer returns.
        """
        return self.layer.step(x, state)


class WordEmbedding(nn.Embedding):
    """An embedding that forgets whole words in training: one draw a word type and batch (Gal & Ghahramani 2016; Merity et al. 2018)."""

    def __init__(self, vocabulary: int, size: int, dropout: float = 0.0) -> None:
        """Embed words.

        Args:
            vocabulary: how many symbols.
            size: features of each.
            dropout: probability that a word is zero throughout a batch.
        """
        super().__init__(vocabulary, size)
        self.dropout = check_probability(dropout, "dropout")

    def embed(self, tokens: Int[Tensor, "*tokens"], noise: Noise | None = None) -> Float[Tensor, "*tokens feature"]:
        """Look words up, dropping some in training.

        Args:
            tokens: ids.
            noise: where the mask comes from.

        Returns:
            The vectors.
        """
        vectors = self(tokens)
        if not self.training or self.dropout == 0:
            return vectors
        keep = 1 - self.dropout
        kept = (noise or Noise()).shared((self.num_embeddings, 1), keep, self.weight) / keep
        return vectors * torch.nn.functional.embedding(tokens, kept)

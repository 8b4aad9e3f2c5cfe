"""A language model: embedding, layers that remember, and a read-out over the vocabulary.

The layers are recurrent (Mikolov et al. 2010) or a causal Transformer (Radford et al. 2018); both keep the step contract.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.settings import Settings
from unrolled.core.state import State
from unrolled.models.block_settings import BlockSettings
from unrolled.models.cell_choice import CellFactory, find_cell
from unrolled.nn.cells import CELLS, RecurrentDropout, Zoneout
from unrolled.nn.dropout import LockedDropout, WeightDrop, WordEmbedding
from unrolled.nn.recurrence import Layer, Recurrence, Stacked
from unrolled.nn.transformer import Transformer


class LanguageModelSettings(Settings):
    """What the language model is made of."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """Recurrent layers, or a causal Transformer."""
    cell: str = Field("lstm", examples=[*CELLS, "module:Class"])
    """The recurrent cell: a name of the package, or `module:Class` for your own (asks for `--trust`)."""
    hidden_size: int = Field(512, ge=1)
    """Units of each layer."""
    layers: int = Field(1, ge=1)
    """Layers on top of each other."""
    embedding_size: int | None = Field(None, ge=1)
    """Features of each symbol's vector; 64 for up to 1,000 symbols, else the hidden size, when not given."""
    tie_weights: bool = False
    """Read out with the embedding's own weights (Press & Wolf 2017; Inan et al. 2017); the last layer then has the embedding's size."""
    word_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the vocabulary that is zero throughout a batch."""
    input_dropout: float = Field(0.0, ge=0, lt=1)
    """Locked dropout on the embedded input."""
    hidden_dropout: float = Field(0.0, ge=0, lt=1)
    """Locked dropout between layers."""
    output_dropout: float = Field(0.2, ge=0, lt=1)
    """Locked dropout before the read-out."""
    recurrent_dropout: float = Field(0.0, ge=0, lt=1)
    """One mask a sequence on the hidden state that a step's products see (Gal & Ghahramani 2016)."""
    weight_drop: float = Field(0.0, ge=0, lt=1)
    """DropConnect on the recurrent weights (Merity et al. 2018)."""
    zoneout: dict[str, float] | None = None
    """Probability of keeping an old value, by field of the state, such as `{h = 0.05, c = 0.5}` (Krueger et al. 2017)."""
    context: int = Field(256, ge=2)
    """Symbols that a Transformer looks back on at most; a full context is halved and read again."""
    transformer: BlockSettings = BlockSettings()
    bidirectional: bool = False
    """Refused: a language model that reads backwards would see the future."""

    @field_validator("bidirectional")
    @classmethod
    def _one_direction(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "must be false: a bidirectional language model would see the symbols it has to predict; "
                "leave it out, or train a tagger or classifier, which may read both ways"
            )
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> LanguageModelSettings:
        if self.kind == "recurrent":
            return self
        if self.embedding_size not in (None, self.hidden_size):
            raise ValueError(f"`embedding_size` of a Transformer must be its `hidden_size`, {self.hidden_size}, got {self.embedding_size}")
        if self.hidden_size % self.transformer.heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `transformer.heads`, got {self.hidden_size} and {self.transformer.heads}"
            )
        named = [name for name in ("recurrent_dropout", "weight_drop", "zoneout") if getattr(self, name)]
        if named:
            raise ValueError(f"`{named[0]}` is for recurrent layers, and `kind` is `transformer`; leave it out")
        return self


class Reading(NamedTuple):
    """What the model makes of a window of text."""

    hidden: Float[Tensor, "batch time dim"]
    """What the read-out sees (after dropout)."""
    raw: Float[Tensor, "batch time dim"]
    """The outputs of the last layer (before dropout)."""
    state: State
    """The state after the last symbol."""


class LanguageModel(nn.Module):
    """Predicts the next symbol from all symbols before it, through a state of fixed size."""

    def __init__(self, settings: LanguageModelSettings, vocabulary: int, *, trust: bool = False) -> None:
        """Build the model.

        Args:
            settings: sizes, cell and dropout.
            vocabulary: how many symbols there are.
            trust: allow `settings.cell` to import a class of the user's own.
        """
        super().__init__()
        self.settings, self.vocabulary = settings, vocabulary
        hidden = settings.hidden_size
        recurrent = settings.kind == "recurrent"
        size = settings.embedding_size or (64 if recurrent and vocabulary <= 1000 else hidden)
        self.embedding = WordEmbedding(vocabulary, size, settings.word_dropout)
        self.recurrence: Stacked = LAYERS[settings.kind](settings, size, trust)
        self.output_dropout = LockedDropout(settings.output_dropout)
        self.readout = nn.Linear(self.recurrence.output_size, vocabulary)
        nn.init.zeros_(self.readout.bias)
        if settings.tie_weights:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
            self.readout.weight = self.embedding.weight

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.embedding.weight.device

    def initial_state(self, batch_size: int) -> State:
        """The state before the first symbol.

        Args:
            batch_size: rows of the batch.

        Returns:
            A tree with batch as axis 0.
        """
        return self.recurrence.initial_state(batch_size)

    def restart(self, state: State, rows: Bool[Tensor, " batch"]) -> State:
        """The initial state for some rows.

        Args:
            state: of this model.
            rows: true where a row starts afresh.

        Returns:
            The state.
        """
        return self.recurrence.restart(state, rows)

    def step(self, tokens: Int[Tensor, " batch"], state: State) -> tuple[Float[Tensor, "batch vocab"], State]:
        """Read one symbol.

        Args:
            tokens: an id for each row.
            state: the state after the symbol before.

        Returns:
            Logits of the next symbol, and the new state.
        """
        hidden, state = self.recurrence.step(self.embedding(tokens), state)
        return self.readout(hidden), state

    def read(
        self,
        tokens: Int[Tensor, "batch time"],
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        noise: Noise | None = None,
    ) -> Reading:
        """Read a window of text without the read-out.

        Args:
            tokens: ids.
            state: the state before the window; the initial state when `None`.
            resets: true where a document begins.
            noise: where dropout takes its masks from in training.

        Returns:
            Hidden vectors and the state after the window.
        """
        vectors = self.embedding.embed(tokens, noise)
        raw, state = self.recurrence(vectors, state, resets=resets, noise=noise)
        hidden, _ = self.output_dropout(raw, noise=noise)
        return Reading(hidden, raw, state)

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        noise: Noise | None = None,
    ) -> tuple[Float[Tensor, "batch time vocab"], State]:
        """Read a window of text.

        Args:
            tokens: ids.
            state: the state before the window; the initial state when `None`.
            resets: true where a document begins.
            noise: where dropout takes its masks from in training.

        Returns:
            Logits of the symbol after each, and the state after the window.
        """
        reading = self.read(tokens, state, resets=resets, noise=noise)
        return self.readout(reading.hidden), reading.state


def build_recurrent(settings: LanguageModelSettings, size: int, trust: bool) -> Stacked:
    """Recurrent layers.

    Args:
        settings: cell and sizes.
        size: features of the embedding.
        trust: allow `settings.cell` to import a class of the user's own.

    Returns:
        The stack; where weights are tied its last layer has the embedding's size.
    """
    hidden = settings.hidden_size
    last = size if settings.tie_weights else hidden
    return build_stack(settings, [size, *[hidden] * (settings.layers - 1), last], find_cell(settings.cell, trust=trust))


def build_transformer(settings: LanguageModelSettings, size: int, trust: bool) -> Stacked:
    """A causal Transformer.

    Args:
        settings: sizes and parts.
        size: features of the embedding.
        trust: not needed.

    Returns:
        The stack.
    """
    parts = settings.transformer.stack(size, settings.layers, settings.hidden_dropout)
    stack = Transformer(parts, causal=True, scale_input=settings.tie_weights, context=settings.context)
    return Stacked(LockedDropout(settings.input_dropout), stack)


LAYERS: dict[str, Callable[[LanguageModelSettings, int, bool], Stacked]] = {"recurrent": build_recurrent, "transformer": build_transformer}
"""What remembers, by the kind that a configuration names."""


def build_stack(settings: LanguageModelSettings, sizes: list[int], cell: CellFactory) -> Stacked:
    """The recurrent layers with their dropout.

    Args:
        settings: cell and dropout.
        sizes: features below the first layer, then of each layer.
        cell: makes a cell from input and hidden size.

    Returns:
        The stack.
    """
    layers: list[Layer] = [LockedDropout(settings.input_dropout)]
    for place, (below, size) in enumerate(pairwise(sizes)):
        if place:
            layers.append(LockedDropout(settings.hidden_dropout))
        layers.append(build_layer(settings, cell, below, size))
    return Stacked(*layers)


def build_layer(settings: LanguageModelSettings, cell: CellFactory, input_size: int, hidden_size: int) -> Layer:
    """One recurrent layer with the wrappers that the settings ask for.

    Args:
        settings: dropout, zoneout, weight drop.
        cell: makes a cell from input and hidden size.
        input_size: features below.
        hidden_size: features of this layer.

    Returns:
        The layer.
    """
    made = cell(input_size, hidden_size)
    recurrent = [name for name, weight in made.named_parameters() if "from_hidden" in name and weight.dim() == 2]
    depth = "cell."
    if settings.recurrent_dropout:
        made, depth = RecurrentDropout(made, settings.recurrent_dropout), depth + "cell."
    if settings.zoneout:
        made, depth = Zoneout(made, settings.zoneout), depth + "cell."
    layer: Layer = Recurrence(made)
    if settings.weight_drop:
        layer = WeightDrop(layer, settings.weight_drop, [depth + name for name in recurrent])
    return layer

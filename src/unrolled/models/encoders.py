"""What reads a source sentence: recurrent layers or a Transformer, giving one vector a symbol and one for the whole."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import glu

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded, length_mask
from unrolled.models.block_settings import BlockSettings
from unrolled.models.cell_choice import CellFactory, find_cell
from unrolled.models.encoder_decoder_settings import EncoderSettings
from unrolled.nn.cells import RecurrentDropout
from unrolled.nn.dropout import LockedDropout
from unrolled.nn.positions import SinusoidalPositions
from unrolled.nn.recurrence import Bidirectional, Layer, Recurrence, Stacked


@runtime_checkable
class EncoderNeeds(Protocol):
    """What an encoder wants to know of the model that it is part of."""

    @property
    def hidden_size(self) -> int:
        """Features of its outputs."""

    @property
    def hidden_dropout(self) -> float:
        """Dropout between its layers."""

    @property
    def recurrent_dropout(self) -> float:
        """Dropout on the hidden state that a step's products see."""

    @property
    def encoder(self) -> EncoderSettings:
        """Its own settings."""

    @property
    def transformer(self) -> BlockSettings:
        """The parts of Transformer layers."""


class Look(NamedTuple):
    """What one layer attends to."""

    own: Float[Tensor, "batch heads time columns"] | None
    """Over the layer's own symbols."""
    memory: Float[Tensor, "batch heads time source"] | None
    """Over the source, in a decoder."""


class Encoded(NamedTuple):
    """A source as its encoder left it."""

    memory: Padded
    """One vector a symbol, `[batch, source, hidden]`."""
    summary: Float[Tensor, "batch hidden"]
    """One vector for the whole."""


class Encoder(nn.Module, ABC):
    """Reads embedded sources."""

    output_size: int
    reach: int | None = None
    """The most symbols that positions exist for."""

    @abstractmethod
    def forward(self, vectors: Padded, noise: Noise | None = None) -> Encoded:
        """Read sources.

        Args:
            vectors: embedded symbols.
            noise: where dropout takes its masks from in training.

        Returns:
            One vector a symbol, and one for each source.
        """

    @abstractmethod
    def blocks(self) -> list[tuple[nn.Module, ...]]:
        """The layers from below, for rates of their own.

        Returns:
            The parts of each; what belongs to none of them lies below all.
        """

    def looks(self, vectors: Padded) -> dict[str, Look]:
        """What the layers attend to, for those that look on.

        Args:
            vectors: embedded symbols.

        Returns:
            By layer from below; nothing where no layer attends.
        """
        return {}


class RecurrentEncoder(Encoder):
    """Stacked recurrent layers, in both directions unless told otherwise; the summary is the last output of each direction (Sutskever et al. 2014)."""

    def __init__(self, settings: EncoderNeeds, input_size: int, *, trust: bool = False) -> None:
        super().__init__()
        wanted, hidden = settings.encoder, settings.hidden_size
        self.bidirectional, self.output_size = wanted.bidirectional, hidden
        cell = with_recurrent_dropout(find_cell(wanted.cell, trust=trust), settings.recurrent_dropout)
        layers: list[Layer] = []
        for place in range(wanted.layers):
            size = hidden if place else input_size
            if place:
                layers.append(LockedDropout(settings.hidden_dropout))
            half = hidden // 2
            layers.append(
                Bidirectional(cell(size, half), cell(size, half), outputs_only=True)
                if wanted.bidirectional
                else Recurrence(cell(size, hidden), outputs_only=True)
            )
        self.layers = Stacked(*layers)

    def blocks(self) -> list[tuple[nn.Module, ...]]:
        """The layers from below; see `Encoder.blocks`.

        Returns:
            The parts of each.
        """
        return [(layer,) for _, layer in self.layers.named_layers() if not isinstance(layer, LockedDropout)]

    def forward(self, vectors: Padded, noise: Noise | None = None) -> Encoded:
        """Read sources; see `Encoder.forward`.

        Args:
            vectors: embedded symbols.
            noise: where dropout takes its masks from in training.

        Returns:
            The outputs of the last layer, and its last output of each direction.
        """
        memory, _ = self.layers(vectors, noise=noise)
        last = at_last(memory)
        if self.bidirectional:
            half = self.output_size // 2
            last = torch.cat([last[:, :half], memory.data[:, 0, half:]], -1)
        return Encoded(memory, last)


class ConvolutionalEncoder(Encoder):
    """Every symbol sees its neighbours, in each layer some further away (Gehring et al. 2017); the summary is the mean.

    ::

        y = a ∘ σ(b)          [a ; b] = convolution of the layer's input over `width` symbols
        x' = (x + y) √½
    """

    def __init__(self, settings: EncoderNeeds, input_size: int, *, trust: bool = False) -> None:
        super().__init__()
        hidden, width = settings.hidden_size, settings.encoder.width
        self.output_size = hidden
        self.fit = fit(input_size, hidden)
        self.positions = SinusoidalPositions(hidden)
        self.dropout = LockedDropout(settings.hidden_dropout)
        self.layers = nn.ModuleList(nn.Conv1d(hidden, 2 * hidden, width, padding=width // 2) for _ in range(settings.encoder.layers))

    def blocks(self) -> list[tuple[nn.Module, ...]]:
        """The layers from below; see `Encoder.blocks`.

        Returns:
            The parts of each.
        """
        return [(layer,) for layer in self.layers]

    def forward(self, vectors: Padded, noise: Noise | None = None) -> Encoded:
        """Read sources; see `Encoder.forward`.

        Args:
            vectors: embedded symbols.
            noise: where dropout takes its masks from in training.

        Returns:
            The outputs of the last layer, and their mean.
        """
        data, lengths = vectors.data, vectors.lengths.to(vectors.data.device)
        inside = length_mask(lengths, data.shape[1]).unsqueeze(-1)
        places = torch.arange(data.shape[1], device=data.device).expand(data.shape[:2])
        x = self.fit(data) * math.sqrt(self.output_size)
        x = torch.where(inside, x + self.positions(places, x.dtype), 0)
        for layer in self.layers:
            seen, _ = self.dropout(x, noise=noise)
            y = glu(layer(seen.transpose(1, 2)), 1).transpose(1, 2)
            # What lies past a length must stay zero, or it would reach the symbols beside it in the next layer.
            x = torch.where(inside, (x + y) * math.sqrt(0.5), 0)
        memory = Padded(x, lengths)
        return Encoded(memory, mean_over_time(memory))


def fit(size: int, wanted: int) -> nn.Module:
    """What brings vectors to another size, or leaves them.

    Args:
        size: features of what comes.
        wanted: features of what is needed.

    Returns:
        A linear map, or nothing.
    """
    return nn.Identity() if size == wanted else nn.Linear(size, wanted, bias=False)


def mean_over_time(sequences: Padded) -> Float[Tensor, "batch dim"]:
    """The mean of each row's vectors.

    Args:
        sequences: `[batch, time, dim]`, zero past a length.

    Returns:
        One vector a row.
    """
    return sequences.data.sum(1) / sequences.lengths.to(sequences.data.device).clamp(min=1).unsqueeze(1)


def at_last(sequences: Padded) -> Float[Tensor, "batch dim"]:
    """The vector at each row's last step; zero for rows of length 0.

    Args:
        sequences: `[batch, time, dim]`, at least one column.

    Returns:
        One vector a row.
    """
    rows = torch.arange(len(sequences.data), device=sequences.data.device)
    lengths = sequences.lengths.to(sequences.data.device)
    return sequences.data[rows, (lengths - 1).clamp(min=0)] * (lengths > 0).unsqueeze(1)


def with_recurrent_dropout(cell: CellFactory, probability: float) -> CellFactory:
    """Cells of this kind under recurrent dropout.

    Args:
        cell: makes a cell.
        probability: of a zero; the cell as it is at 0.

    Returns:
        What makes the cells.
    """
    if probability == 0:
        return cell
    return lambda input_size, hidden_size: RecurrentDropout(cell(input_size, hidden_size), probability)

"""What reads a source sentence: recurrent layers or a Transformer, giving one vector a symbol and one for the whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.models.cell_choice import CellFactory, find_cell
from unrolled.models.encoder_decoder_settings import EncoderDecoderSettings
from unrolled.nn.cells import RecurrentDropout
from unrolled.nn.dropout import LockedDropout
from unrolled.nn.recurrence import Bidirectional, Layer, Recurrence, Stacked


class Encoded(NamedTuple):
    """A source as its encoder left it."""

    memory: Padded
    """One vector a symbol, `[batch, source, hidden]`."""
    summary: Float[Tensor, "batch hidden"]
    """One vector for the whole."""


class Encoder(nn.Module, ABC):
    """Reads embedded sources."""

    output_size: int

    @abstractmethod
    def forward(self, vectors: Padded, noise: Noise | None = None) -> Encoded:
        """Read sources.

        Args:
            vectors: embedded symbols.
            noise: where dropout takes its masks from in training.

        Returns:
            One vector a symbol, and one for each source.
        """


class RecurrentEncoder(Encoder):
    """Stacked recurrent layers, in both directions unless told otherwise; the summary is the last output of each direction (Sutskever et al. 2014)."""

    def __init__(self, settings: EncoderDecoderSettings, input_size: int, *, trust: bool = False) -> None:
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
            layers.append(Bidirectional(cell(size, half), cell(size, half)) if wanted.bidirectional else Recurrence(cell(size, hidden)))
        self.layers = Stacked(*layers)

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

"""What reads a text as a whole: vectors of units and their spelling, then an encoder that sees both sides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded, length_mask
from unrolled.data.unit_corpus import UnitBatch
from unrolled.models.encoder_decoder import ENCODERS
from unrolled.models.encoders import Encoded, at_last
from unrolled.models.text_encoder_settings import SpellingSettings, TextEncoderSettings
from unrolled.nn.cells import LSTM
from unrolled.nn.dropout import LockedDropout, WordEmbedding
from unrolled.nn.recurrence import Bidirectional
from unrolled.nn.transformer_dropout import branch


class SpellingReader(nn.Module, ABC):
    """Makes one vector of the characters of a word."""

    def __init__(self, characters: int, settings: SpellingSettings) -> None:
        super().__init__()
        self.output_size = settings.size
        self.embedding = nn.Embedding(characters, settings.embedding_size)
        nn.init.uniform_(self.embedding.weight, -((3 / settings.embedding_size) ** 0.5), (3 / settings.embedding_size) ** 0.5)

    @abstractmethod
    def forward(self, spelling: Padded) -> Float[Tensor, "words size"]:
        """Read words.

        Args:
            spelling: ids of characters, `[words, longest]`.

        Returns:
            One vector a word.
        """


class SpellingConvolution(SpellingReader):
    """The largest value of each filter over the characters of a word (Ma & Hovy 2016, section 2.1)."""

    def __init__(self, characters: int, settings: SpellingSettings) -> None:
        super().__init__(characters, settings)
        self.filters = nn.Conv1d(settings.embedding_size, settings.size, settings.width, padding=settings.width // 2)

    def forward(self, spelling: Padded) -> Float[Tensor, "words size"]:
        """Read words; see `SpellingReader.forward`.

        Args:
            spelling: ids of characters, `[words, longest]`.

        Returns:
            One vector a word.
        """
        inside = length_mask(spelling.lengths, spelling.data.shape[1])
        vectors = self.embedding(spelling.data) * inside.unsqueeze(-1)
        found = torch.tanh(self.filters(vectors.transpose(1, 2)))
        # Nothing is below -1: what is hidden has no character, and is all -1.
        return found.masked_fill(~inside.unsqueeze(1), -1).amax(2)


class SpellingRecurrence(SpellingReader):
    """The last states of an LSTM from each end (Lample et al. 2016, section 4.1)."""

    def __init__(self, characters: int, settings: SpellingSettings) -> None:
        super().__init__(characters, settings)
        half = settings.size // 2
        self.layer = Bidirectional(LSTM(settings.embedding_size, half), LSTM(settings.embedding_size, half), outputs_only=True)

    def forward(self, spelling: Padded) -> Float[Tensor, "words size"]:
        """Read words; see `SpellingReader.forward`.

        Args:
            spelling: ids of characters, `[words, longest]`.

        Returns:
            One vector a word.
        """
        outputs, _ = self.layer(Padded(self.embedding(spelling.data), spelling.lengths))
        half = self.output_size // 2
        return torch.cat([at_last(outputs)[:, :half], outputs.data[:, 0, half:]], -1)


SPELLING: dict[str, Any] = {"convolution": SpellingConvolution, "recurrent": SpellingRecurrence}
"""What reads the characters of a word, by the kind that a configuration names; `none` reads none."""


class TextEncoder(nn.Module):
    """One vector a unit that knows what stands on both sides of it."""

    def __init__(self, settings: TextEncoderSettings, vocabulary: int, characters: int | None, *, trust: bool = False) -> None:
        """Build the encoder.

        Args:
            settings: kinds, sizes and dropout.
            vocabulary: ids of units.
            characters: ids of characters; `None` where units are not spelled.
            trust: allow the settings to import a class of the user's own.
        """
        super().__init__()
        self.settings, self.output_size = settings, settings.hidden_size
        self.embedding = WordEmbedding(vocabulary, settings.embedding_size, settings.word_dropout)
        nn.init.normal_(self.embedding.weight, std=settings.embedding_size**-0.5)
        spelled = characters is not None and settings.spelling.kind != "none"
        self.spelling: SpellingReader | None = SPELLING[settings.spelling.kind](characters, settings.spelling) if spelled else None
        size = settings.embedding_size + (0 if self.spelling is None else self.spelling.output_size)
        self.input_dropout = LockedDropout(settings.input_dropout)
        self.encoder: Any = ENCODERS[settings.encoder.kind](settings, size, trust=trust)

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.embedding.weight.device

    def embed(self, batch: UnitBatch, noise: Noise | None = None) -> Padded:
        """The vectors of the units, each by itself.

        Args:
            batch: on the encoder's device.
            noise: where dropout takes its masks from in training.

        Returns:
            `[batch, time, features]`.
        """
        parts = [self.embedding.embed(batch.ids, noise)]
        if self.spelling is not None and batch.spelling is not None:
            parts.append(self.spelling(at_least_one(batch.spelling)))
        places, vectors = at_least_one(batch.places), torch.cat(parts, -1)
        if not len(vectors):  # no text of the batch holds anything
            return Padded(vectors.new_zeros(*places.data.shape, vectors.shape[1]), places.lengths)
        return Padded(nn.functional.embedding(places.data, vectors), places.lengths)

    def forward(self, vectors: Padded, noise: Noise | None = None) -> Encoded:
        """See every unit among the others.

        Args:
            vectors: from `embed`.
            noise: where dropout takes its masks from in training.

        Returns:
            One vector a unit, and one a text.
        """
        masked, _ = self.input_dropout(vectors, noise=noise)
        chunk = self.settings.chunk
        if masked.data.shape[1] <= chunk:
            encoded: Encoded = self.encoder(masked, noise)
            return encoded
        # How many pieces there are depends on this process's rows: a source of its own leaves the shared one in step.
        own = None if noise is None else Noise(branch(noise, masked.data.device).generator)
        return in_pieces(masked, chunk, lambda pieces: self.encoder(pieces, own))


def at_least_one(sequences: Padded) -> Padded:
    """Sequences with a column, even where all of them are empty.

    Args:
        sequences: ids, `[batch, time]`.

    Returns:
        The same ones with the same lengths.
    """
    return sequences if sequences.data.shape[1] else Padded(sequences.data.new_zeros(len(sequences.data), 1), sequences.lengths)


def in_pieces(sequences: Padded, chunk: int, encoder: Callable[[Padded], Encoded]) -> Encoded:
    """Read long texts in pieces, each by itself.

    Args:
        sequences: `[batch, time, features]`.
        chunk: units of a piece.
        encoder: reads pieces, none of them empty.

    Returns:
        One vector a unit; the one for a text is the mean of those of its pieces, weighed by their lengths.
    """
    B, T = sequences.data.shape[:2]
    count = -(-T // chunk)
    data = pad(sequences.data, (0, 0, 0, count * chunk - T)).reshape(B * count, chunk, -1)
    lengths = sequences.lengths.to(data.device)
    of_pieces = (lengths.unsqueeze(1) - torch.arange(count, device=data.device) * chunk).clamp(0, chunk).flatten()
    (there,) = of_pieces.nonzero(as_tuple=True)
    memory, summary = encoder(Padded(data[there], of_pieces[there]))
    vectors = memory.data.new_zeros(B * count, *memory.data.shape[1:]).index_copy(0, there, memory.data)
    summaries = summary.new_zeros(B * count, summary.shape[1]).index_copy(0, there, summary).reshape(B, count, -1)
    shares = (of_pieces.reshape(B, count) / lengths.clamp(min=1).unsqueeze(1)).to(summary.dtype)
    return Encoded(Padded(vectors.reshape(B, -1, vectors.shape[2])[:, :T], lengths), torch.einsum("bp,bpd->bd", shares, summaries))


def gather_firsts(memory: Padded, firsts: Padded) -> Padded:
    """The vectors of the units with which words begin.

    Args:
        memory: one vector a unit.
        firsts: where each word begins, `[batch, words]`.

    Returns:
        `[batch, words, features]`, zero past a row's words.
    """
    places: Int[Tensor, "batch words 1"] = firsts.data.unsqueeze(-1)
    inside = length_mask(firsts.lengths, firsts.data.shape[1]).unsqueeze(-1)
    found = memory.data.gather(1, places.expand(-1, -1, memory.data.shape[2]))
    return Padded(torch.where(inside, found, 0), firsts.lengths)


def depths(model: nn.Module) -> dict[str, int]:
    """How far below the read-out every parameter lies.

    Args:
        model: has a `TextEncoder` as `text`.

    Returns:
        By name: 0 for what reads out, then the layers of the encoder from above, then the vectors of units and their spelling.
    """
    text = model.text
    assert isinstance(text, TextEncoder)
    blocks = text.encoder.blocks()
    found = {id(p): len(blocks) + 1 for p in text.parameters()}
    for depth, parts in enumerate(reversed(blocks), 1):
        found |= {id(p): depth for part in parts for p in part.parameters()}
    return {name: found.get(id(p), 0) for name, p in model.named_parameters()}

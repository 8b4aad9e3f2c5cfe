"""A corpus: the token ids of a text of any length, mapped from a file, and views of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data.counts import TextCounts
from unrolled.data.tokenizer import Tokenizer, UnknownSymbolError

TOKENS, CHARACTERS, WORDS, INSIDE_WORD = range(4)
"""The columns of the marks of an index."""


class Document(NamedTuple):
    """One text of a corpus: what to call it in an error, and its chunks."""

    name: str
    chunks: Iterable[str]


class CorpusIndex(NamedTuple):
    """What is known about the tokens of a corpus without reading them."""

    documents: Int[np.ndarray, " documents"]
    """Where each document begins; documents without a token are left out."""
    marks: Int[np.ndarray, "marks 4"]
    """Running totals (tokens, characters, words, inside a word) at the start of every document and wherever a piece of text ended."""


@dataclass(frozen=True)
class Corpus:
    """Tokens `start` to `stop` of a text; a part is a view, nothing is copied."""

    name: str
    """The text in an error message, such as `` `a.txt` ``."""
    tokenizer: Tokenizer
    stored: UInt[np.ndarray, " stored"]
    """All tokens of the text, of which this is a part, in the smallest unsigned type."""
    index: CorpusIndex
    digest: str
    """A hash of the files the text came from."""
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def tokens(self) -> UInt[np.ndarray, " tokens"]:
        """The ids of this part; reading a slice reads that much of the file."""
        return self.stored[self.start : self.stop]

    @property
    def documents(self) -> Int[np.ndarray, " documents"]:
        """Offsets in this part at which a document begins."""
        first, last = np.searchsorted(self.index.documents, [self.start, self.stop])
        return self.index.documents[first:last] - self.start

    def part(self, start: int, stop: int) -> Corpus:
        """A view of some of the tokens.

        Args:
            start: the first token of the view, counted from the start of this one.
            stop: one after its last token.

        Returns:
            The view.
        """
        assert 0 <= start <= stop <= len(self)
        return Corpus(self.name, self.tokenizer, self.stored, self.index, self.digest, self.start + start, self.start + stop)

    def split(self, share: float = 0.1) -> tuple[Corpus, Corpus]:
        """Cut the end off for validation, at token `int((1 - share) * tokens)`.

        Args:
            share: how much of the tokens the second part gets.

        Returns:
            Both parts.

        Raises:
            ConfigurationError: `share` is not between 0 and 1.
            DataError: a part has fewer than the 2 tokens that one prediction needs.
        """
        if not 0 < share < 1:
            raise ConfigurationError(f"the share of the text for validation must lie between 0 and 1, got {share}; try 0.1")
        cut = int((1 - share) * len(self))
        if min(cut, len(self) - cut) < 2:
            found = f"got {len(self)} in all ({cut} and {len(self) - cut} after the cut)"
            raise DataError(f"{self.name} must hold at least 2 tokens for training and 2 for validation, {found}; try a longer text")
        return self.part(0, cut), self.part(cut, len(self))

    def counts(self) -> TextCounts:
        """Characters and words of this part of the text, each counted where it begins.

        Only the ends are read: at most one piece of text is decoded for each. Exact for characters and BPE; for words the white space
        between the last piece and a cut counts as single spaces.

        Returns:
            The counts.
        """
        return self._counts_before(self.stop).minus(self._counts_before(self.start))

    def _counts_before(self, token: int) -> TextCounts:
        # A document may begin at the mark where another ended: the last of equal marks is the right one.
        mark = self.index.marks[np.searchsorted(self.index.marks[:, TOKENS], token, side="right") - 1]
        counts = TextCounts(int(mark[CHARACTERS]), int(mark[WORDS]), bool(mark[INSIDE_WORD]))
        return counts.plus(self.tokenizer.decode(np.asarray(self.stored[int(mark[TOKENS]) : token])))


def smallest_dtype(size: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned type that holds the ids 0 … size - 1.

    Args:
        size: of a vocabulary.

    Returns:
        uint8, uint16 or uint32, little-endian.
    """
    return np.min_scalar_type(max(size - 1, 0)).newbyteorder("<")


def encode_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, take: Callable[[UInt[np.ndarray, " tokens"]], object]
) -> CorpusIndex:
    """Encode texts one after another as streams.

    Args:
        documents: the texts in order.
        tokenizer: makes the ids.
        take: receives them piece by piece, in the smallest type.

    Returns:
        The index of what `take` received.

    Raises:
        DataError: a text holds a symbol outside the vocabulary, or no token comes out at all.
    """
    dtype, tokens, counts = smallest_dtype(tokenizer.size), 0, TextCounts()
    borders: list[int] = []
    marks: list[tuple[int, int, int, bool]] = []
    for document in documents:
        counts = counts._replace(inside_word=False)  # a word does not go on in the next file
        borders.append(tokens)
        marks.append((tokens, *counts))
        line = 1
        for piece in tokenizer.pieces(document.chunks):
            try:
                ids = tokenizer.encode(piece)
            except UnknownSymbolError as error:
                line += piece.count("\n", 0, error.position)
                raise DataError(f"{error.found} in {document.name}, line {line}, is not in the vocabulary; {error.advice}") from None
            take(ids.astype(dtype))
            line, tokens, counts = line + piece.count("\n"), tokens + len(ids), counts.plus(piece)
            marks.append((tokens, *counts))
    if not tokens:
        raise DataError("a corpus must hold at least one token, got none; try a text that is more than white space")
    starts = np.unique(np.array(borders, dtype=np.int64))
    return CorpusIndex(starts[starts < tokens], np.array(marks, dtype=np.int64))


def corpus_in_memory(texts: Iterable[str], tokenizer: Tokenizer) -> Corpus:
    """A small corpus without a file.

    Args:
        texts: one string a document.
        tokenizer: makes the ids.

    Returns:
        The corpus.
    """
    parts: list[np.ndarray] = []
    index = encode_documents([Document(f"text {i}", [text]) for i, text in enumerate(texts, 1)], tokenizer, parts.append)
    stored = np.concatenate(parts)
    return Corpus("the text", tokenizer, stored, index, "", 0, len(stored))

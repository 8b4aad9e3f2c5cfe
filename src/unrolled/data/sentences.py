"""Sentences as ids and back: a tokenizer for one side of a pair, with the ids that begin and end a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt64

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.data.bpe import BPETokenizer, mixed_bits
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.tokenizer import Tokenizer, as_list
from unrolled.data.tokenizer_files import tokenizer_from_json, tokenizer_to_json
from unrolled.data.unigram import UnigramTokenizer
from unrolled.data.words import WordTokenizer

SUBWORDS = 8000
"""Symbols of a sub-word vocabulary where none are asked for: some ten thousand pairs of short sentences, both languages together."""
END, START = "<end>", "<start>"


@dataclass(frozen=True)
class SentenceCodec:
    """A tokenizer's vocabulary with two more ids behind it; one codec may serve both sides.

    The ids of a sentence are the tokenizer's own. Who trains or decodes puts `end` behind a target and `start` before it.
    """

    tokenizer: Tokenizer

    @property
    def end(self) -> int:
        """The id that ends a sentence."""
        return self.tokenizer.size

    @property
    def start(self) -> int:
        """The id that a decoder reads first."""
        return self.tokenizer.size + 1

    @property
    def vocabulary(self) -> int:
        """How many ids there are, `end` and `start` included."""
        return self.tokenizer.size + 2

    @property
    def unknown(self) -> int | None:
        """The id of every symbol outside the vocabulary; `None` where all texts can be encoded, or unknown symbols are errors."""
        return self.tokenizer.unknown

    def encode(self, sentence: str) -> Int32[np.ndarray, " tokens"]:
        """The ids of a sentence, without `start` and `end`.

        Args:
            sentence: one line of text.

        Returns:
            The ids.

        Raises:
            UnknownSymbolError: a symbol is outside a vocabulary without an unknown one (a `DataError`).
        """
        return self.tokenizer.encode(sentence).astype(np.int32)

    def encode_all(self, sentences: Sequence[str]) -> list[Int32[np.ndarray, " _"]]:
        """The ids of many sentences, each as `encode` gives them.

        Args:
            sentences: one line of text each.

        Returns:
            The ids of each.

        Raises:
            UnknownSymbolError: a symbol is outside a vocabulary without an unknown one.
        """
        return [ids.astype(np.int32) for ids in self.tokenizer.encode_all(sentences)]

    def encode_with_dropout(
        self, sentences: Sequence[str], probability: float, keys: UInt64[np.ndarray, " sentences"]
    ) -> list[Int32[np.ndarray, " _"]]:
        """The ids of sentences, cut at random (BPE dropout, Provilkov et al. 2020).

        Args:
            sentences: one line of text each.
            probability: of leaving a merge out; 0 is the plain encoding.
            keys: a random number a sentence (`sample_keys`).

        Returns:
            The ids of each.

        Raises:
            ConfigurationError: the symbols are not byte pairs, or `probability` is not between 0 and 1.
        """
        if not isinstance(self.tokenizer, BPETokenizer):
            raise ConfigurationError(f"BPE dropout needs the symbols `bpe`, got `{self.tokenizer.kind}`; try a dropout of 0")
        return [ids.astype(np.int32) for ids in self.tokenizer.encode_with_dropout(sentences, probability, keys)]

    def decode(self, ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> str:
        """The sentence of ids, always one line: a line break that a model wrote becomes a space.

        Args:
            ids: ids of this vocabulary; `start`, `end` and what is no id at all (padding of -100) are left out.

        Returns:
            The sentence, exactly as it was for characters, BPE and unigram; with single spaces for words.
        """
        own = [i for i in as_list(ids) if 0 <= i < self.tokenizer.size]
        return self.tokenizer.decode(own).replace("\n", " ")

    def pieces(self, ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> list[str]:
        """Each id as it is shown to people, white space made visible.

        Args:
            ids: ids of this vocabulary.

        Returns:
            Short strings, one an id.
        """
        special = {self.end: END, self.start: START}
        return [special.get(i) or self.tokenizer.symbol(i) for i in as_list(ids)]

    def spans(self, sentence: str) -> list[tuple[int, int]]:
        """Which characters of a sentence each id of `encode(sentence)` stands for, such as those of an unknown word.

        Args:
            sentence: one line of text.

        Returns:
            Half-open ranges, one an id.
        """
        return self.tokenizer.spans(sentence)

    def borders(self) -> tuple[Bool[np.ndarray, " vocab"], Bool[np.ndarray, " vocab"]]:
        """Where words (runs of letters, digits and `_`) end and begin between ids, `start` and `end` included.

        What is no whole character (bytes of one, the unknown symbol) is taken for a letter.

        Returns:
            True for ids right behind which a word may begin, and for ids before which a word has ended.
        """
        opens, closes = np.ones((2, self.vocabulary), dtype=bool)
        if self.tokenizer.kind != "words":
            for token in range(self.tokenizer.size):
                text = self.tokenizer.decode([token])
                opens[token], closes[token] = not is_letter(text[-1]), not is_letter(text[0])
        return opens, closes

    def digest(self) -> str:
        """A hash of all that makes the codec.

        Returns:
            The hash in hexadecimal.
        """
        return self.tokenizer.digest()

    def to_json(self) -> dict[str, Any]:
        """What makes the codec: the very object of the tokenizer's file (`save_tokenizer`).

        Returns:
            An object that `from_json` takes.
        """
        return tokenizer_to_json(self.tokenizer)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SentenceCodec:
        """The codec that `to_json` described.

        Args:
            content: an object that `to_json` made.

        Returns:
            The codec.

        Raises:
            RunError: the object is damaged, of an unknown kind or from a newer version.
        """
        return cls(tokenizer_from_json(content))


def is_letter(character: str) -> bool:
    """Whether a character is part of a word.

    Args:
        character: one, U+FFFD for what is none.

    Returns:
        True for letters, digits and `_` of any script, and for U+FFFD.
    """
    return character == "\ufffd" or re.match(r"\w", character) is not None


@dataclass(frozen=True)
class _Wishes:
    vocabulary_size: int | None
    min_count: int
    unknown: bool


TRAINERS: Mapping[str, Callable[[Iterable[str], _Wishes], Tokenizer]] = MappingProxyType(
    {
        "characters": lambda texts, wishes: CharacterTokenizer.train(texts, unknown=wishes.unknown),
        "words": lambda texts, wishes: WordTokenizer.train(
            texts, vocabulary_size=wishes.vocabulary_size, min_count=wishes.min_count, unknown=wishes.unknown
        ),
        "bpe": lambda texts, wishes: BPETokenizer.train(texts, vocabulary_size=wishes.vocabulary_size or SUBWORDS),
        "unigram": lambda texts, wishes: UnigramTokenizer.train(texts, vocabulary_size=wishes.vocabulary_size or SUBWORDS),
    }
)
"""How each kind of tokenizer learns its vocabulary from sentences."""


def train_codec(
    kind: str, texts: Iterable[str], *, vocabulary_size: int | None = None, min_count: int = 1, unknown: bool = True
) -> SentenceCodec:
    """Learn a vocabulary from sentences: those of one side, or of both for one vocabulary of both sides.

    Args:
        kind: `characters`, `words`, `bpe` or `unigram`.
        texts: the sentences, one string each; `itertools.chain(sources, targets)` for both sides.
        vocabulary_size: at most so many symbols; all words, or 8,000 sub-words, where it is `None`.
        min_count: words seen less often become `<unk>`; 2 lets a model learn what an unknown word is.
        unknown: whether characters and words have a symbol for what was never seen; where not, that is an error. Sub-words need none.

    Returns:
        The codec.

    Raises:
        ConfigurationError: an unknown kind, a limit that is too low, or an option that this kind of symbol does not have.
        DataError: there is no text at all.
    """
    if kind not in TRAINERS:
        raise ConfigurationError(
            f"the kind of symbols must be one of {', '.join(f'`{k}`' for k in TRAINERS)}, got `{kind}`; {nearest(kind, TRAINERS)}"
        )
    if kind == "characters" and vocabulary_size is not None:
        raise ConfigurationError("`vocabulary_size` limits words and sub-words; characters are all kept, so leave it out")
    if kind != "words" and min_count != 1:
        raise ConfigurationError(f"`min_count` is for words, and the symbols are `{kind}`; leave it out")
    return SentenceCodec(TRAINERS[kind](texts, _Wishes(vocabulary_size, min_count, unknown)))


def sample_keys(seed: int, epoch: int, rows: Integer[np.ndarray, " rows"]) -> UInt64[np.ndarray, " rows"]:
    """A random number for each sample and epoch, whichever process and batch it is in.

    Args:
        seed: of the training, at least 0.
        epoch: counted from 0.
        rows: places of the samples in the data.

    Returns:
        A key a row, for `SentenceCodec.encode_with_dropout`.
    """
    base = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return mixed_bits(base + rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))

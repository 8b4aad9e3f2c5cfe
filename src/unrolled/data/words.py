"""One symbol a word: what stands between white space, and `<eos>` for every newline (the convention of WikiText and PTB)."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, final

import numpy as np
from jaxtyping import Int

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.data.tokenizer import StreamDecoder, Tokenizer, UnknownSymbolError, each_text

END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"
WHITE_SPACE = re.compile(r"\s")
PIECE = 1 << 10
"""How many characters make a piece. Counts are exact between pieces; within one, words that became `<unk>` spoil them."""
LONGEST_WORD = 1 << 20


@final
class WordTokenizer(Tokenizer):
    """A vocabulary of words, the most frequent first; others are `<unk>` where the vocabulary has it, else an error."""

    kind = "words"

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self._id_of = {word: i for i, word in enumerate(words)}

    @classmethod
    def train(
        cls, texts: Iterable[str | Iterable[str]], *, vocabulary_size: int | None = None, min_count: int = 1, unknown: bool = False
    ) -> WordTokenizer:
        """The words of all texts by falling frequency, ties in alphabetical order; `<eos>` is always among them.

        Args:
            texts: one string or iterable of chunks a document.
            vocabulary_size: at most so many symbols, `<eos>` and `<unk>` included; `None` keeps every word.
            min_count: rarer words become `<unk>`.
            unknown: whether there is `<unk>` even where every word of the texts is kept.

        Returns:
            The tokenizer; a limited vocabulary has `<unk>`.

        Raises:
            ConfigurationError: a limit is too low.
            DataError: there is no word at all.
        """
        if vocabulary_size is not None and vocabulary_size < 3:
            raise ConfigurationError(f"`vocabulary_size` must be at least 3 (`<eos>`, `<unk>` and a word), got {vocabulary_size}")
        if min_count < 1:
            raise ConfigurationError(f"`min_count` must be at least 1, got {min_count}")
        counts: Counter[str] = Counter()
        for text in each_text(texts):
            for piece in _whole_words(text):
                counts.update(_split(piece))
        if not counts:
            raise DataError("a vocabulary must be made from words, got a text without any; try a file that holds text")
        counts.setdefault(END_OF_LINE, 0)
        if unknown or vocabulary_size is not None or min_count > 1:
            counts = _limit(counts, vocabulary_size, min_count)
        return cls(_by_frequency(counts))

    @property
    def size(self) -> int:
        """How many words the vocabulary has."""
        return len(self.words)

    @property
    def unknown(self) -> int | None:
        """The id of `<unk>`, where the vocabulary has it."""
        return self._id_of.get(UNKNOWN)

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """One id a word and one a newline.

        Args:
            text: any string.

        Returns:
            The ids, int64.

        Raises:
            UnknownSymbolError: a word is outside a vocabulary without `<unk>`.
        """
        words = _split(text)
        unknown = self.unknown
        found = map(self._id_of.__getitem__, words) if unknown is None else map(self._id_of.get, words, repeat(unknown))
        try:
            return np.fromiter(found, dtype=np.int64, count=len(words))
        except KeyError:
            raise self._unknown_word(text) from None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The characters of each word, and the newline of each `<eos>`.

        Args:
            text: any string.

        Returns:
            Half-open ranges of characters.
        """
        return [match.span() for match in re.finditer(r"\n|\S+", text)]

    def pieces(self, chunks: Iterable[str]) -> Iterator[str]:
        """Cut after white space, so that no word is cut.

        Args:
            chunks: a text cut anywhere.

        Yields:
            Pieces of whole words.

        Raises:
            DataError: there is no white space for a mebibyte.
        """
        yield from _whole_words(chunks)

    def decoder(self) -> StreamDecoder:
        """A decoder that puts a space between words and a newline for `<eos>`.

        Returns:
            The decoder.
        """
        return _WordDecoder(self.words)

    def symbol(self, token: int) -> str:
        """The word.

        Args:
            token: its id.

        Returns:
            The word itself.
        """
        return self.words[token]

    def to_json(self) -> dict[str, Any]:
        """The words in the order of their ids.

        Returns:
            An object that `from_json` takes.
        """
        return {"words": self.words}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> WordTokenizer:
        """The tokenizer that `to_json` described.

        Args:
            content: an object that `to_json` made.

        Returns:
            The tokenizer.

        Raises:
            RunError: `words` is missing, repeats a word, or lacks `<eos>`.
        """
        words = content.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
            raise RunError("`words` must be a list of words")
        if len(set(words)) != len(words) or END_OF_LINE not in words:
            raise RunError(f"`words` must be different words, `{END_OF_LINE}` among them")
        return cls(words)

    def _unknown_word(self, text: str) -> UnknownSymbolError:
        match, *later = (m for m in re.finditer(r"\S+", text) if m[0] not in self._id_of)
        others = [f"`{word}`" for word in dict.fromkeys(m[0] for m in later) if word != match[0]]
        near = difflib.get_close_matches(match[0], self.words, n=1)
        advice = f"did you mean `{near[0]}`?" if near else "try a known word, or a vocabulary with `<unk>` (`min_count` 2)"
        return UnknownSymbolError(f"the word `{match[0]}`", match.start(), advice, others)


@final
class _WordDecoder(StreamDecoder):
    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._line_has_words = False

    def push(self, token: int) -> str:
        word = self._words[token]
        space = " " if self._line_has_words else ""
        self._line_has_words = word != END_OF_LINE
        return space + word if self._line_has_words else "\n"


def _split(text: str) -> list[str]:
    return text.replace("\n", f" {END_OF_LINE} ").split()


def _whole_words(chunks: Iterable[str]) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        text = held + chunk
        last_word = text.rsplit(maxsplit=1)[-1] if text and not text[-1].isspace() and not text.isspace() else ""
        held = last_word
        if len(held) > LONGEST_WORD:
            found = f"got {len(held):,} characters without any"
            raise DataError(f"words must have white space between them, {found}; try characters or BPE instead of words")
        begin, stop = 0, len(text) - len(held)
        while begin < stop:
            space = WHITE_SPACE.search(text, begin + PIECE - 1, stop)
            end = stop if space is None else space.end()
            yield text[begin:end]
            begin = end
    if held:
        yield held


def _limit(counts: Counter[str], vocabulary_size: int | None, min_count: int) -> Counter[str]:
    words = [word for word in _by_frequency(counts) if word not in (END_OF_LINE, UNKNOWN) and counts[word] >= min_count]
    kept = words if vocabulary_size is None else words[: vocabulary_size - 2]
    limited = Counter({word: counts[word] for word in (END_OF_LINE, *kept)})
    limited[UNKNOWN] = counts.total() - limited.total()
    return limited


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))

"""One symbol a character (Unicode code point), ordered by code point."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, final

import numpy as np
from jaxtyping import Int, Integer, UInt

from unrolled.core.errors import DataError, RunError
from unrolled.data.tokenizer import StreamDecoder, Tokenizer, UnknownSymbolError, as_list, each_text, visible

ABSENT = -1
REPLACEMENT = "\ufffd"
"""What the unknown symbol is decoded to."""
UNKNOWN = "<unk>"
"""The unknown symbol as it is shown to people."""


def code_points(text: str) -> UInt[np.ndarray, " characters"]:
    """The code points of a text at the speed of a copy.

    Args:
        text: any string, lone surrogates (undecodable bytes of a command line) included.

    Returns:
        One number a character.
    """
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@final
class CharacterTokenizer(Tokenizer):
    """A vocabulary of the characters that were seen; any other is an error, so text survives unchanged.

    With `unknown`, one more id behind the characters stands for every other character and is decoded to U+FFFD.
    """

    kind = "characters"

    def __init__(self, characters: str, *, unknown: bool = False) -> None:
        self.characters = characters
        self._symbols = [*characters, REPLACEMENT] if unknown else [*characters]
        codes = code_points(characters)
        # One entry more than the largest code point: whatever lies above is looked up there and is unknown.
        self._id_of = np.full(int(codes.max(initial=0)) + 2, len(characters) if unknown else ABSENT, dtype=np.int64)
        self._id_of[codes] = np.arange(len(codes))

    @classmethod
    def train(cls, texts: Iterable[str | Iterable[str]], *, unknown: bool = False) -> CharacterTokenizer:
        """The characters of all texts.

        Args:
            texts: one string or iterable of chunks a document.
            unknown: whether an id for all other characters is added.

        Returns:
            The tokenizer.

        Raises:
            DataError: there is no character at all.
        """
        seen = np.zeros(sys.maxunicode + 1, dtype=bool)
        for text in each_text(texts):
            for chunk in text:
                seen[code_points(chunk)] = True
        if not seen.any():
            raise DataError("a vocabulary must be made from text, got none; try a file that holds text")
        return cls("".join(map(chr, np.flatnonzero(seen))), unknown=unknown)

    @property
    def size(self) -> int:
        """How many characters the vocabulary has, the unknown one included."""
        return len(self._symbols)

    @property
    def unknown(self) -> int | None:
        """The id behind the characters, where there is one."""
        return len(self.characters) if len(self._symbols) > len(self.characters) else None

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """One id a character.

        Args:
            text: any string.

        Returns:
            The ids, int64.

        Raises:
            UnknownSymbolError: a character is outside a vocabulary without `unknown`.
        """
        ids: np.ndarray = self._id_of[np.minimum(code_points(text), len(self._id_of) - 1)]
        if len(ids) and ids.min() == ABSENT:
            position = int(np.argmin(ids))
            first, *others = dict.fromkeys(text[i] for i in np.flatnonzero(ids == ABSENT))
            raise UnknownSymbolError(f"the character {_describe(first)}", position, self._advice(first), [*map(_describe, others)])
        return ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """One character an id.

        Args:
            text: any string.

        Returns:
            Half-open ranges of characters.
        """
        return list(pairwise(range(len(text) + 1)))

    def pieces(self, chunks: Iterable[str]) -> Iterator[str]:
        """Any cut is a good one.

        Args:
            chunks: a text cut anywhere.

        Yields:
            The same chunks.
        """
        yield from chunks

    def decode(self, ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> str:
        """The characters of ids.

        Args:
            ids: ids of this vocabulary.

        Returns:
            The text, U+FFFD for the unknown symbol.
        """
        return "".join(map(self._symbols.__getitem__, as_list(ids)))

    def decoder(self) -> StreamDecoder:
        """A decoder that prints every id at once.

        Returns:
            The decoder.
        """
        return _CharacterDecoder(self._symbols)

    def symbol(self, token: int) -> str:
        """The character, made visible.

        Args:
            token: its id.

        Returns:
            A short string, `<unk>` for the unknown symbol.
        """
        return UNKNOWN if token == self.unknown else visible(self.characters[token])

    def to_json(self) -> dict[str, Any]:
        """The characters in the order of their ids, and whether an unknown one follows.

        Returns:
            An object that `from_json` takes.
        """
        # A vocabulary without it is written as before there was one: the hash that names its caches stays.
        return {"characters": self.characters} | ({} if self.unknown is None else {"unknown": True})

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> CharacterTokenizer:
        """The tokenizer that `to_json` described.

        Args:
            content: an object that `to_json` made.

        Returns:
            The tokenizer.

        Raises:
            RunError: `characters` is missing, empty or out of order, or `unknown` is not true or false.
        """
        characters = content.get("characters")
        if not isinstance(characters, str) or not characters or any(a >= b for a, b in pairwise(characters)):
            raise RunError("`characters` must be a string of different characters in order")
        unknown = content.get("unknown", False)
        if not isinstance(unknown, bool):
            raise RunError("`unknown` must be true or false")
        return cls(characters, unknown=unknown)

    def _advice(self, character: str) -> str:
        near = [c for c in (character.swapcase(), *unicodedata.normalize("NFKD", character)) if c in self.characters]
        return f"try `{near[0]}` instead" if near else "try leaving it out, or a model trained on text that has it"


@final
class _CharacterDecoder(StreamDecoder):
    def __init__(self, symbols: list[str]) -> None:
        self._symbols = symbols

    def push(self, token: int) -> str:
        return self._symbols[token]


def _describe(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"

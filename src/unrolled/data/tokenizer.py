"""The contract of tokenizers: text to ids and back, whole or as a stream."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int, Integer

from unrolled.core.errors import DataError

VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥"}


NAMED = 5
"""How many further unknown symbols a sentence names at most."""


class UnknownSymbolError(DataError):
    """A symbol outside the vocabulary; `position` is its offset in the text that was given, `others` are all others outside, in short."""

    def __init__(self, found: str, position: int, advice: str, others: Sequence[str] = ()) -> None:
        named = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
        either = f"; not in it either: {named}" if others else ""
        super().__init__(f"{found} at character {position + 1} is not in the vocabulary; {advice}{either}")
        self.found, self.position, self.advice, self.others = found, position, advice, tuple(others)

    def after(self, characters: int) -> UnknownSymbolError:
        """The same error, told for a text that has more in front.

        Args:
            characters: how many stand in front.

        Returns:
            The error with its new position.
        """
        return UnknownSymbolError(self.found, self.position + characters, self.advice, self.others)


class StreamDecoder(ABC):
    """Turns ids into printable text as they come."""

    @abstractmethod
    def push(self, token: int) -> str:
        """The text that one more id makes printable, empty while a character is incomplete.

        Args:
            token: the next id.

        Returns:
            The text to append to what was printed.
        """

    def finish(self) -> str:
        """What is still held back when no more ids come.

        Returns:
            A replacement character for an incomplete one, else nothing.
        """
        return ""


class Tokenizer(ABC):
    """A vocabulary and the two ways through it; without state, so one serves any number of streams."""

    kind: ClassVar[str]
    """Its name in files and on the command line."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many symbols the vocabulary has; ids are 0 … size - 1."""

    @property
    def unknown(self) -> int | None:
        """The id that stands for every symbol outside the vocabulary; `None` where there is none."""
        return None

    @abstractmethod
    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """The ids of a whole text.

        Args:
            text: any string.

        Returns:
            The ids, int64.

        Raises:
            UnknownSymbolError: a symbol is outside the vocabulary (a `DataError`).
        """

    @abstractmethod
    def spans(self, text: str) -> list[tuple[int, int]]:
        """Which characters of a text each id of `encode(text)` stands for.

        Args:
            text: any string.

        Returns:
            Half-open ranges, one an id; ids that share a character (bytes of it) all have that character.
        """

    def encode_all(self, texts: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        """The ids of many texts, each by itself.

        Args:
            texts: any strings.

        Returns:
            What `encode` returns for each.

        Raises:
            UnknownSymbolError: a symbol is outside the vocabulary.
        """
        return [self.encode(text) for text in texts]

    @abstractmethod
    def pieces(self, chunks: Iterable[str]) -> Iterator[str]:
        """Cut a stream anew, at places where encoding piece by piece gives the ids of the whole.

        Args:
            chunks: a text cut anywhere.

        Yields:
            The same text, cut well.
        """

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[Int[np.ndarray, " tokens"]]:
        """The ids of a text of any length, the same as those of the whole wherever the chunks were cut.

        Args:
            chunks: the text, cut anywhere.

        Yields:
            The ids, piece by piece.

        Raises:
            UnknownSymbolError: a symbol is outside the vocabulary.
        """
        before = 0
        for piece in self.pieces(chunks):
            try:
                ids = self.encode(piece)
            except UnknownSymbolError as error:
                raise error.after(before) from None
            yield ids
            before += len(piece)

    def decode(self, ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> str:
        """The text of ids.

        Args:
            ids: ids of this vocabulary.

        Returns:
            The text as a stream decoder would print it.
        """
        decoder = self.decoder()
        return "".join(map(decoder.push, as_list(ids))) + decoder.finish()

    @abstractmethod
    def decoder(self) -> StreamDecoder:
        """A new decoder for one stream of ids.

        Returns:
            The decoder; it holds the state of that stream.
        """

    @abstractmethod
    def symbol(self, token: int) -> str:
        """A symbol as it is shown to people, white space made visible.

        Args:
            token: its id.

        Returns:
            A short string.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What makes the tokenizer, for a JSON file.

        Returns:
            An object that `from_json` takes.
        """

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any]) -> Tokenizer:
        """The tokenizer that `to_json` described.

        Args:
            content: an object that `to_json` made.

        Returns:
            The tokenizer.

        Raises:
            RunError: the object is not what `to_json` makes.
        """

    def digest(self) -> str:
        """A hash of all that makes the tokenizer.

        Returns:
            The hash in hexadecimal.
        """
        content = json.dumps({"kind": self.kind, **self.to_json()}, sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def as_list(ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> list[int]:
    """Ids as Python integers, which look up faster than numpy's.

    Args:
        ids: integers in any form.

    Returns:
        The same integers.
    """
    return ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]


def each_text(texts: Iterable[str | Iterable[str]]) -> Iterator[Iterable[str]]:
    """Texts to train on, each as chunks; a plain string is a text of one chunk.

    Args:
        texts: strings or iterables of chunks, one a document.

    Yields:
        The chunks of one text after another.
    """
    for text in texts:
        yield [text] if isinstance(text, str) else text


def visible(text: str) -> str:
    """A text with its white space and unprintable characters made visible.

    Args:
        text: a symbol of a vocabulary.

    Returns:
        What can be shown in a table.
    """
    return "".join(VISIBLE.get(c, c if c.isprintable() else f"U+{ord(c):04X}") for c in text)

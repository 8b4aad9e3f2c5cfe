"""What tokenizers over bytes share: their letters and lines, and the library behind them (bytes and splitting of GPT-2, Radford et al. 2019)."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, NamedTuple, TypeVar, final

import numpy as np
import tokenizers
from jaxtyping import Int, Integer
from tokenizers import models, pre_tokenizers, trainers

from unrolled.core.errors import DataError
from unrolled.data.characters import code_points
from unrolled.data.tokenizer import StreamDecoder, Tokenizer, as_list, each_text, visible

T = TypeVar("T")

LINES_AT_ONCE = 2048
LONGEST_LINE = 1 << 16
BYTES = 256


class Words(NamedTuple):
    """Many texts as ids, with the words (as GPT-2 splits a text) that they are cut from."""

    ids: np.ndarray
    """Of all texts, one after another."""
    text: np.ndarray
    """Which text each id belongs to."""
    words: np.ndarray
    """Where in `ids` each word begins."""


class ByteLevelTokenizer(Tokenizer):
    """Pieces of words over an alphabet of all bytes: every text can be encoded and comes back byte for byte.

    A text is encoded line by line (a line longer than 65,536 characters in parts), which makes a stream equal to the whole.
    """

    def __init__(self, symbols: list[str], model: models.Model) -> None:
        self.symbols = symbols
        self._encoder = _by_bytes(model)
        byte_of = _bytes_of_letters()
        self._bytes_of = [bytes(byte_of[letter] for letter in symbol) for symbol in symbols]
        self.bytes_in = np.array([len(symbol) for symbol in symbols])
        """How many bytes each symbol has."""

    @property
    def size(self) -> int:
        """How many symbols the vocabulary has."""
        return len(self.symbols)

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """The ids of a text, line by line.

        Args:
            text: any string; a lone surrogate, which no file can hold, becomes `?`.

        Returns:
            The ids, int64.
        """
        parts = _in_groups(self._encode_lines, list(_lines([_as_utf8(text)])))
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def encode_all(self, texts: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        """The ids of many texts, each by itself.

        Args:
            texts: any strings.

        Returns:
            What `encode` returns for each.
        """
        return list(chain.from_iterable(_in_groups(self._encode_texts, texts)))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Which characters each id stands for; ids that are bytes of one character all have that character.

        Args:
            text: any string.

        Returns:
            Half-open ranges of characters, one an id.
        """
        text = _as_utf8(text)
        points = code_points(text)
        width = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)  # bytes of UTF-8
        character_of = np.repeat(np.arange(len(points)), width)
        in_bytes = self.bytes_in[self.encode(text)]
        ends = np.cumsum(in_bytes)
        return list(zip(character_of[ends - in_bytes].tolist(), (character_of[ends - 1] + 1).tolist(), strict=True))

    def pieces(self, chunks: Iterable[str]) -> Iterator[str]:
        """Cut after newlines, so that no line is cut.

        Args:
            chunks: a text cut anywhere.

        Yields:
            Pieces of whole lines (or parts of very long lines).
        """
        for lines in _whole_lines(chunks):
            if lines:
                yield "".join(lines)

    def decode(self, ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> str:
        """The text of ids.

        Args:
            ids: ids of this vocabulary.

        Returns:
            The text, U+FFFD for what is not UTF-8.
        """
        return b"".join(map(self._bytes_of.__getitem__, as_list(ids))).decode("utf-8", "replace")

    def decoder(self) -> StreamDecoder:
        """A decoder that holds bytes back until they form a character.

        Returns:
            The decoder.
        """
        return _ByteDecoder(self._bytes_of)

    def symbol(self, token: int) -> str:
        """The symbol's text, or its bytes in hexadecimal where they are a part of a character.

        Args:
            token: its id.

        Returns:
            A short string.
        """
        try:
            return visible(self._bytes_of[token].decode())
        except UnicodeDecodeError:
            return "<" + self._bytes_of[token].hex(" ").upper() + ">"

    def encode_words(self, texts: Sequence[str]) -> Words:
        """The ids of many texts in one row, and where in it each text and word is.

        Args:
            texts: any strings.

        Returns:
            Ids and places.
        """
        lines = [list(_lines([_as_utf8(text)])) for text in texts]
        with one_thread():
            encoded = self._encoder.encode_batch(list(chain.from_iterable(lines)), add_special_tokens=False)
        lengths = [len(line) for line in encoded]
        ids = np.fromiter(chain.from_iterable(line.ids for line in encoded), dtype=np.int64)
        word = np.fromiter(chain.from_iterable(line.word_ids for line in encoded), dtype=np.int64)
        line = np.repeat(np.arange(len(lengths)), lengths)
        text = np.repeat(np.arange(len(texts)), [len(own) for own in lines])[line]
        begins = (np.diff(word, prepend=-1) != 0) | (np.diff(line, prepend=-1) != 0)
        return Words(ids, text, np.flatnonzero(begins))

    def _encode_lines(self, lines: Sequence[str]) -> Int[np.ndarray, " tokens"]:
        encoded = self._encoder.encode_batch_fast(lines, add_special_tokens=False)
        return np.fromiter(chain.from_iterable(line.ids for line in encoded), dtype=np.int64)

    def _encode_texts(self, texts: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        lines = [list(_lines([_as_utf8(text)])) for text in texts]
        encoded = iter(self._encoder.encode_batch_fast(list(chain.from_iterable(lines)), add_special_tokens=False))
        return [np.array([i for _ in range(len(own)) for i in next(encoded).ids], dtype=np.int64) for own in lines]


@final
class _ByteDecoder(StreamDecoder):
    def __init__(self, bytes_of: list[bytes]) -> None:
        self._bytes_of = bytes_of
        self._held = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._held.decode(self._bytes_of[token])

    def finish(self) -> str:
        return self._held.decode(b"", final=True)


def alphabet() -> list[str]:
    """GPT-2's letters for the 256 bytes.

    Returns:
        The letters in order.
    """
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def all_bytes_once(symbols: list[str]) -> bool:
    """Whether symbols are different, written in GPT-2's letters, and every byte is one of them.

    Args:
        symbols: of a vocabulary that was read from a file.

    Returns:
        Whether they can be the vocabulary of a byte-level tokenizer.
    """
    known, letters = set(symbols), set(_bytes_of_letters())
    return len(known) == len(symbols) and letters <= known and "" not in known and all(letters.issuperset(symbol) for symbol in symbols)


def count_words(texts: Iterable[str | Iterable[str]]) -> Counter[str]:
    """How often each word comes, as GPT-2 splits a text, in its letters for bytes.

    Args:
        texts: one string or iterable of chunks a document.

    Returns:
        The words in the order of their first coming.
    """
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    return Counter(word for text in each_text(texts) for line in _lines(text) for word, _ in split(_as_utf8(line)))


def learn(model: models.Model, trainer: trainers.Trainer, texts: Iterable[str | Iterable[str]]) -> dict[str, Any]:
    """Train a model of the library on the lines of texts.

    Args:
        model: an untrained one.
        trainer: of its kind.
        texts: one string or iterable of chunks a document.

    Returns:
        The trained model as the library writes it.

    Raises:
        DataError: there is no text at all.
    """
    lines = chain.from_iterable(_lines(text) for text in each_text(texts))
    first = next(lines, None)
    if first is None:
        raise DataError("a vocabulary must be made from text, got none; try a file that holds text")
    encoder = _by_bytes(model)
    with one_thread():
        encoder.train_from_iterator(chain([first], lines), trainer)
    return json.loads(encoder.to_str())["model"]


def _by_bytes(model: models.Model) -> tokenizers.Tokenizer:
    encoder = tokenizers.Tokenizer(model)
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return encoder


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _in_groups(encode: Callable[[Sequence[str]], T], texts: Sequence[str]) -> list[T]:
    groups = [texts[i : i + LINES_AT_ONCE] for i in range(0, len(texts), LINES_AT_ONCE)]
    with one_thread():
        if len(groups) < 2:
            return [encode(group) for group in groups]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(encode, groups))


def _bytes_of_letters() -> dict[str, int]:
    # GPT-2 writes a printable Latin-1 byte as itself and the others, in order, as the letters from U+0100 on.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(BYTES + i): byte for i, byte in enumerate(others)}


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    return chain.from_iterable(_whole_lines(chunks))


def _whole_lines(chunks: Iterable[str]) -> Iterator[list[str]]:
    held = ""
    for chunk in chunks:
        *whole, rest = (held + chunk).split("\n")
        lines = [part for line in whole for part in _parts(line + "\n")]
        *long, held = _parts(rest)
        yield lines + long
    yield [held] if held else []


def _parts(line: str) -> list[str]:
    # Where a very long line (a text without newlines) is cut depends on what stands before the cut only, never on the chunks.
    parts, start = [], 0
    while len(line) - start > LONGEST_LINE:
        space = line.rfind(" ", start + 1, start + LONGEST_LINE)
        end = space if space > 0 else start + LONGEST_LINE
        parts.append(line[start:end])
        start = end
    return [*parts, line[start:]]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep the library to one thread, unless the user chose: its versions before 0.23 warn at every fork once threads of its own were used.

    Yields:
        Nothing.
    """
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)

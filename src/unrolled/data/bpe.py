"""Byte-level byte-pair encoding by Hugging Face `tokenizers` (Sennrich et al. 2016; bytes and splitting of GPT-2, Radford et al. 2019)."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, final

import numpy as np
import tokenizers
from jaxtyping import Int, Integer
from tokenizers import models, pre_tokenizers, trainers

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.data.tokenizer import StreamDecoder, Tokenizer, as_list, each_text, visible

LINES_AT_ONCE = 2048
LONGEST_LINE = 1 << 16
BYTES = 256


@final
class BPETokenizer(Tokenizer):
    """Pieces of words learnt from a text; every text can be encoded and comes back byte for byte.

    A text is encoded line by line (a line longer than 65,536 characters in parts), which makes a stream equal to the whole.
    """

    kind = "bpe"

    def __init__(self, symbols: list[str], merges: list[tuple[str, str]]) -> None:
        self.symbols, self.merges = symbols, merges
        self._pairs = _pair_encoder(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, merges))
        byte_of = _bytes_of_letters()
        self._bytes_of = [bytes(byte_of[letter] for letter in symbol) for symbol in symbols]

    @classmethod
    def train(cls, texts: Iterable[str | Iterable[str]], *, vocabulary_size: int = 4096) -> BPETokenizer:
        """The most frequent pairs of all texts, merged until the vocabulary is full or no pair comes twice.

        Args:
            texts: one string or iterable of chunks a document.
            vocabulary_size: at most so many symbols, the 256 bytes included.

        Returns:
            The tokenizer.

        Raises:
            ConfigurationError: the vocabulary cannot hold the bytes.
            DataError: there is no text at all.
        """
        if vocabulary_size < BYTES:
            raise ConfigurationError(f"`vocabulary_size` must be at least {BYTES} for BPE (every byte is a symbol), got {vocabulary_size}")
        lines = chain.from_iterable(_lines(text) for text in each_text(texts))
        first = next(lines, None)
        if first is None:
            raise DataError("a vocabulary must be made from text, got none; try a file that holds text")
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
        pairs = _pair_encoder(models.BPE())
        with _one_thread():
            pairs.train_from_iterator(chain([first], lines), trainer)
        model = json.loads(pairs.to_str())["model"]
        return cls(sorted(model["vocab"], key=model["vocab"].get), [(a, b) for a, b in model["merges"]])

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
        lines = list(_lines([text.encode("utf-8", "replace").decode()]))
        groups = [lines[i : i + LINES_AT_ONCE] for i in range(0, len(lines), LINES_AT_ONCE)]
        with _one_thread():
            if len(groups) < 2:
                return self._encode_lines(lines)
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                return np.concatenate(list(pool.map(self._encode_lines, groups)))

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

    def to_json(self) -> dict[str, Any]:
        """The symbols in the order of their ids and the merges in the order they were learnt, both in GPT-2's letters for bytes.

        Returns:
            An object that `from_json` takes.
        """
        return {"symbols": self.symbols, "merges": [" ".join(pair) for pair in self.merges]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> BPETokenizer:
        """The tokenizer that `to_json` described.

        Args:
            content: an object that `to_json` made.

        Returns:
            The tokenizer.

        Raises:
            RunError: symbols or merges are missing or do not belong together.
        """
        symbols, merges = content.get("symbols"), content.get("merges")
        if not isinstance(symbols, list) or not isinstance(merges, list) or not all(isinstance(s, str) for s in [*symbols, *merges]):
            raise RunError("`symbols` and `merges` must be lists of strings")
        pairs = [(first, second) for first, _, second in (merge.partition(" ") for merge in merges)]
        known = set(symbols)
        whole = len(known) == len(symbols) and known >= set(_bytes_of_letters()) and all({a, b, a + b} <= known for a, b in pairs)
        if not whole or any(letter not in _bytes_of_letters() for symbol in symbols for letter in symbol):
            raise RunError("`symbols` must be different, hold every byte, and hold both sides and the result of every merge")
        return cls(symbols, pairs)

    def _encode_lines(self, lines: list[str]) -> Int[np.ndarray, " tokens"]:
        encoded = self._pairs.encode_batch_fast(lines, add_special_tokens=False)
        return np.fromiter(chain.from_iterable(line.ids for line in encoded), dtype=np.int64)


@final
class _ByteDecoder(StreamDecoder):
    def __init__(self, bytes_of: list[bytes]) -> None:
        self._bytes_of = bytes_of
        self._held = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._held.decode(self._bytes_of[token])

    def finish(self) -> str:
        return self._held.decode(b"", final=True)


def _pair_encoder(model: models.BPE) -> tokenizers.Tokenizer:
    pairs = tokenizers.Tokenizer(model)
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pairs


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
def _one_thread() -> Iterator[None]:
    # Versions of the library before 0.23 warn at every fork once its own threads were used, so the threads are ours, unless the user chose.
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)

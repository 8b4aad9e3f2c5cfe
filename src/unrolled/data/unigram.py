"""A unigram language model over byte-level pieces (Kudo 2018, "Subword Regularization"), trained by Hugging Face `tokenizers`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, final

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.data.byte_level import BYTES, ByteLevelTokenizer, all_bytes_once, alphabet, count_words, one_thread

DIGITS = 5
"""Decimal places of a score: the library adds up in another order in every process, which shows behind the 13th."""

FIRST_MARK, MARKS = "\U000f0000", 65_000
"""Private characters, which are no letters of GPT-2's for bytes."""
BETWEEN = "\n"
"""Nor is this."""

ADDED = 0.03
"""More than the library adds to the least score in all, 0.0001 a byte."""


@final
class UnigramTokenizer(ByteLevelTokenizer):
    """Pieces of words with a probability each; a word is cut where the product of its pieces' probabilities is largest.

    The library takes as first candidates what at least two different words go on from differently, however often one of them comes. So
    the most frequent words are given to it once more with a mark of their own behind them: each of them then is a candidate.
    """

    kind = "unigram"

    def __init__(self, symbols: list[str], scores: list[float]) -> None:
        super().__init__(symbols, models.Unigram(list(zip(symbols, scores, strict=True))))
        self.scores = scores

    @classmethod
    def train(cls, texts: Iterable[str | Iterable[str]], *, vocabulary_size: int = 8000) -> UnigramTokenizer:
        """Start from all frequent pieces, fit their probabilities by EM, and drop those that are missed least, until few enough are left.

        Args:
            texts: one string or iterable of chunks a document.
            vocabulary_size: at most so many symbols, the 256 bytes included.

        Returns:
            The tokenizer, its symbols by falling score; the same in every process.

        Raises:
            ConfigurationError: the vocabulary cannot hold the bytes.
            DataError: there is no text at all.
        """
        if vocabulary_size < BYTES:
            raise ConfigurationError(
                f"`vocabulary_size` must be at least {BYTES} for a unigram model (every byte is a symbol), got {vocabulary_size}"
            )
        counts = count_words(texts)
        if not counts:
            raise DataError("a vocabulary must be made from text, got none; try a file that holds text")
        frequent = [word for word, _ in counts.most_common(min(vocabulary_size, MARKS))]
        found = {symbol: score for symbol, score in _fit(counts, frequent, vocabulary_size + len(frequent)) if symbol[-1] < FIRST_MARK}
        # Bytes without a probability of their own get the least score and a little more each, in an order that is random: here the least alone.
        least = min(found.values())
        scores = {symbol: least if len(symbol) == 1 and score < least + ADDED else score for symbol, score in found.items()}
        in_order = sorted(scores, key=lambda symbol: (-scores[symbol], symbol))
        kept = set([symbol for symbol in in_order if len(symbol) > 1][: vocabulary_size - BYTES])  # the library may give some more
        symbols = [symbol for symbol in in_order if len(symbol) == 1 or symbol in kept]
        return cls(symbols, [scores[symbol] for symbol in symbols])

    def to_json(self) -> dict[str, Any]:
        """The symbols in the order of their ids, in GPT-2's letters for bytes, and their scores.

        Returns:
            An object that `from_json` takes.
        """
        return {"symbols": self.symbols, "scores": self.scores}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> UnigramTokenizer:
        """The tokenizer that `to_json` described.

        Args:
            content: an object that `to_json` made.

        Returns:
            The tokenizer.

        Raises:
            RunError: symbols or scores are missing or do not belong together.
        """
        symbols, scores = content.get("symbols"), content.get("scores")
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols) or not all_bytes_once(symbols):
            raise RunError("`symbols` must be different strings and hold every byte")
        if not isinstance(scores, list) or len(scores) != len(symbols) or not all(_is_finite(score) for score in scores):
            raise RunError("`scores` must be finite numbers, one a symbol")
        return cls(symbols, [float(score) for score in scores])


def _fit(counts: Counter[str], marked: list[str], size: int) -> Iterator[tuple[str, float]]:
    """The pieces that the library finds in words, with their scores; marks are among them."""
    encoder = tokenizers.Tokenizer(models.Unigram())
    encoder.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(BETWEEN)
    lines = chain(
        (f"{word}{BETWEEN}" * count for word, count in counts.items()), (word + chr(ord(FIRST_MARK) + i) for i, word in enumerate(marked))
    )
    with one_thread():
        encoder.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=size, initial_alphabet=alphabet(), show_progress=False))
    for symbol, score in json.loads(encoder.to_str())["model"]["vocab"]:
        yield symbol, round(score, DIGITS)


def _is_finite(score: Any) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)

"""Byte-level byte-pair encoding (Sennrich et al. 2016), trained by Hugging Face `tokenizers`, with dropout of merges (Provilkov et al. 2020)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any, final

import numpy as np
from jaxtyping import Int, UInt64
from tokenizers import models, trainers

from unrolled.core.errors import ConfigurationError, RunError
from unrolled.data.byte_level import BYTES, LINES_AT_ONCE, ByteLevelTokenizer, all_bytes_once, alphabet, learn

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""The step of SplitMix64."""
NO_SYMBOL = -1


@final
class BPETokenizer(ByteLevelTokenizer):
    """Pieces of words merged from frequent pairs (Sennrich et al. 2016), optionally with some merges left out (Provilkov et al. 2020)."""

    kind = "bpe"

    def __init__(self, symbols: list[str], merges: list[tuple[str, str]]) -> None:
        id_of = {symbol: i for i, symbol in enumerate(symbols)}
        super().__init__(symbols, models.BPE(id_of, merges))
        self.merges = merges
        self._merge_of = {(id_of[a], id_of[b]): (rank, id_of[a + b]) for rank, (a, b) in enumerate(merges)}
        self._letters_of = [[id_of[letter] for letter in symbol] for symbol in symbols]

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
        trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, min_frequency=2, initial_alphabet=alphabet(), show_progress=False)
        model = learn(models.BPE(), trainer, texts)
        return cls(sorted(model["vocab"], key=model["vocab"].get), [(a, b) for a, b in model["merges"]])

    def encode_with_dropout(
        self, texts: Sequence[str], probability: float, keys: UInt64[np.ndarray, " texts"]
    ) -> list[Int[np.ndarray, " _"]]:
        """The ids of texts, cut at random: at every step each possible merge is left out with some probability (Provilkov et al. 2020).

        How a text is cut depends on its own key alone, so that it does not matter which texts stand beside it or which process has it.

        Args:
            texts: any strings.
            probability: of leaving a merge out; 0 is the plain encoding, 1 cuts into bytes.
            keys: a random number a text, such as `generator.integers(2**64, size=len(texts), dtype=np.uint64)` or `sample_keys`.

        Returns:
            The ids of each text, int64.

        Raises:
            ConfigurationError: `probability` is not between 0 and 1.
        """
        if not 0 <= probability <= 1:
            raise ConfigurationError(f"the probability of BPE dropout must lie between 0 and 1, got {probability}; try 0.1")
        assert len(texts) == len(keys)
        places = range(0, len(texts), LINES_AT_ONCE)
        groups = [self._drop(texts[i : i + LINES_AT_ONCE], probability, keys[i : i + LINES_AT_ONCE]) for i in places]
        return list(chain.from_iterable(groups))

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
        if not all_bytes_once(symbols) or not all({a, b, a + b} <= known for a, b in pairs):
            raise RunError("`symbols` must be different, hold every byte, and hold both sides and the result of every merge")
        return cls(symbols, pairs)

    def _drop(self, texts: Sequence[str], probability: float, keys: np.ndarray) -> list[np.ndarray]:
        """The plain encoding, with every word cut anew that has a merge to leave out."""
        plain = self.encode_words(texts)
        in_bytes = self.bytes_in[plain.ids]
        first_letter = np.cumsum(in_bytes) - in_bytes
        letters = np.bincount(plain.text, weights=in_bytes, minlength=len(texts)).astype(np.int64)  # of each text
        skipped = _merges_skipped(probability, keys, letters)
        last_letter = np.append(first_letter[plain.words[1:]], len(skipped))[: len(plain.words)] - 1
        skipped[last_letter] = 0  # n letters have at most n - 1 merges
        changed = np.flatnonzero(np.maximum.reduceat(skipped, first_letter[plain.words])) if len(plain.words) else plain.words
        begins, ends = plain.words[changed].tolist(), np.append(plain.words, len(plain.ids))[changed + 1].tolist()
        flat, skips, made, at = plain.ids.tolist(), skipped.tolist(), list[int](), 0
        counts = np.bincount(plain.text, minlength=len(texts))
        for begin, end, letter in zip(begins, ends, first_letter[begins].tolist(), strict=True):
            spelt = list(chain.from_iterable(map(self._letters_of.__getitem__, flat[begin:end])))
            cut = _merged(spelt, self._merge_of, skips[letter : letter + len(spelt) - 1])
            made += flat[at:begin]
            made += cut
            counts[plain.text[begin]] += len(cut) - (end - begin)
            at = end
        made += flat[at:]
        return np.split(np.array(made, dtype=np.int64), np.cumsum(counts)[:-1])


def mixed_bits(numbers: UInt64[np.ndarray, " numbers"]) -> UInt64[np.ndarray, " numbers"]:
    """A random-looking number for each number: the output function of SplitMix64 (Steele et al. 2014).

    Args:
        numbers: any; neighbours give unrelated results.

    Returns:
        As many.
    """
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _merges_skipped(probability: float, keys: np.ndarray, letters: np.ndarray) -> np.ndarray:
    """One number a letter of every text: how many merges, the best first, are left out at a step; the next one is done.

    That each merge is left out with probability p makes the number geometric: P(at least n) = pⁿ.
    """
    step = np.arange(letters.sum()) - np.repeat(np.cumsum(letters) - letters, letters)
    bits = mixed_bits(np.repeat(keys, letters) + (step.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    uniform = ((bits >> np.uint64(11)) + np.uint64(1)) * 2.0**-53  # above 0, up to 1
    if probability in (0, 1):
        return np.full(len(uniform), probability * np.iinfo(np.int32).max, dtype=np.int64)
    return np.floor(np.log(uniform) / np.log(probability)).astype(np.int64)


def _merged(symbols: list[int], merge_of: dict[tuple[int, int], tuple[int, int]], skipped: list[int]) -> list[int]:
    """A word merged pair by pair: at each step the best possible merge after those that are left out, until all are.

    The possible merges are kept in order, best and then leftmost first; `previous` and `following` chain what is left of the word.
    """
    size = len(symbols)
    symbols = [*symbols, NO_SYMBOL]  # merges with nothing, so that the last symbol needs no care
    previous, following = list(range(-1, size)), list(range(1, size + 1))
    found = map(merge_of.get, pairwise(symbols))
    possible = [None if merge is None else (merge[0], at) for at, merge in enumerate(found)] + [None]
    in_order = sorted(merge for merge in possible if merge is not None)
    for skip in skipped:
        if skip >= len(in_order):
            break
        at = in_order.pop(skip)[1]
        second = following[at]
        for overlapping in (
            possible[previous[at]],
            possible[second],
        ):  # before the first symbol lies the last place, where nothing is possible
            if overlapping is not None:
                del in_order[bisect_left(in_order, overlapping)]
        symbols[at], following[at] = merge_of[symbols[at], symbols[second]][1], following[second]
        previous[following[at]] = at
        for place in (previous[at], at):
            merge = merge_of.get((symbols[place], symbols[following[place]])) if place >= 0 else None
            possible[place] = None if merge is None else (merge[0], place)
            if merge is not None:
                insort(in_order, (merge[0], place))
    left, at = [], 0
    while at < size:
        left.append(symbols[at])
        at = following[at]
    return left

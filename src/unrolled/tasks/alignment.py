"""Which word of a translation came from which word of its source, by attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from unrolled.data.sentences import SentenceCodec

Link = tuple[int, int]
"""A word of the source and a word of the translation, both counted from 0."""


def word_alignment(weights: Sequence[Sequence[float]], source_words: Sequence[int], target_words: Sequence[int]) -> list[Link]:
    """Link every word of a translation with the source word that its symbols attended to most, all together.

    Args:
        weights: attention, a row a target symbol, at least as many as `target_words` has.
        source_words: the word that each source symbol belongs to, -1 for white space.
        target_words: the word that each target symbol belongs to, -1 for white space.

    Returns:
        One link a target word, by its place.
    """
    words, columns = max(target_words, default=-1) + 1, max(source_words, default=-1) + 1
    total = np.zeros((words, columns))
    for row, target in zip(weights, target_words, strict=False):
        for weight, source in zip(row, source_words, strict=False):
            if target >= 0 and source >= 0:
                total[target, source] += weight
    return [(int(total[target].argmax()), target) for target in range(words) if columns]


def words_of_source(codec: SentenceCodec, sentence: str) -> list[int]:
    """The word that each symbol of a sentence belongs to.

    Args:
        codec: of the source.
        sentence: one line of text.

    Returns:
        Words counted from 0, -1 for a symbol of white space only.
    """
    return [_word_at(sentence, begin, end) for begin, end in codec.spans(sentence)]


def words_of_target(codec: SentenceCodec, tokens: Sequence[int]) -> list[int]:
    """The word that each symbol of a translation belongs to.

    Args:
        codec: of the target.
        tokens: ids without start and end.

    Returns:
        Words counted from 0, -1 for a symbol of white space only.
    """
    # Bytes of one character may lie in several symbols: the text so far is decoded anew for each.
    texts = [codec.decode(tokens[:i]) for i in range(len(tokens) + 1)]
    ends = list(accumulate((len(text.rstrip("\ufffd")) for text in texts), max))
    return [_word_at(texts[-1], begin, max(end, begin + 1)) for begin, end in pairwise(ends)]


def _word_at(text: str, begin: int, end: int) -> int:
    piece = text[begin:end]
    if piece and piece.isspace():
        return -1
    first = begin + len(piece) - len(piece.lstrip())
    before = text[:first]
    inside = bool(before) and not before[-1].isspace()
    return len(before.split()) - inside

"""Links between words, from weights between symbols."""

from __future__ import annotations

import pytest

from unrolled.data.sentences import train_codec
from unrolled.tasks.alignment import word_alignment, words_of_source, words_of_target

TEXTS = ["ein Hund rennt", "a dog is running", "the dog — ok"] * 3


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
def test_every_symbol_belongs_to_its_word(kind: str) -> None:
    codec = train_codec(kind, TEXTS, vocabulary_size=280 if kind == "bpe" else None)
    for text in TEXTS:
        ids = codec.encode(text).tolist()
        words = text.split()
        for where in (words_of_source(codec, text), words_of_target(codec, ids)):
            assert len(where) == len(ids)
            for place, i in zip(where, ids, strict=True):
                piece = codec.decode([i]).strip().strip("\ufffd")
                assert (piece == "" and place == -1) or "�" in codec.decode([i]) or piece in words[place]
            assert [w for w in range(len(words)) if w in where] == list(range(len(words)))


def test_a_word_goes_where_its_symbols_look_together() -> None:
    weights = [[0.6, 0.4, 0.0, 0.0], [0.0, 0.3, 0.3, 0.4], [0.1, 0.1, 0.8, 0.0], [0.25] * 4]
    # Two target words of two and one symbols (the last row is the end symbol's), three source words, one of two symbols.
    assert word_alignment(weights, [0, 1, 1, 2], [0, 0, 1]) == [(1, 0), (1, 1)]
    assert word_alignment(weights, [0, -1, 1, 2], [0, -1, 1]) == [(0, 0), (1, 1)]
    assert word_alignment([], [], []) == []

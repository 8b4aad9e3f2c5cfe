"""Streams against a plain loop over the tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.core.errors import DataError
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.corpus import Corpus, corpus_in_memory
from unrolled.data.streams import IGNORED, Streams, evaluation_streams

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def corpus(*lengths: int) -> Corpus:
    """Documents whose tokens run through the alphabet."""
    text = LETTERS * (sum(lengths) // 26 + 1)
    ends = np.cumsum(lengths).tolist()
    return corpus_in_memory([text[end - n : end] for n, end in zip(lengths, ends, strict=True)], CharacterTokenizer.train([LETTERS]))


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    batch=st.integers(1, 6),
    length=st.integers(1, 9),
    offset=st.integers(0, 3),
)
def test_training_streams_against_a_plain_loop(lengths: list[int], batch: int, length: int, offset: int) -> None:
    part = corpus(*lengths)
    tokens, documents = part.tokens.tolist(), set(part.documents.tolist())
    if (len(tokens) - 1 - offset) // batch < 1:
        with pytest.raises(DataError, match="`batch_size` must be"):
            Streams(part, batch, offset=offset)
        return
    streams = Streams(part, batch, offset=offset)
    assert streams.steps == (len(tokens) - 1 - offset) // batch
    at = 0
    for window in streams.windows(length):
        inputs, targets, resets = window
        assert inputs.dtype == targets.dtype == torch.int64
        for row in range(batch):
            for step in range(inputs.shape[1]):
                place = offset + row * streams.steps + at + step
                assert inputs[row, step] == tokens[place]
                assert targets[row, step] == (IGNORED if place + 1 in documents else tokens[place + 1])
                assert (resets is not None and bool(resets[row, step])) == (place in documents and at + step > 0)
        assert resets is None or resets.any()
        at += inputs.shape[1]
    assert at == streams.steps


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), batch=st.integers(1, 12), length=st.integers(1, 9))
def test_evaluation_predicts_every_token_once(lengths: list[int], batch: int, length: int) -> None:
    part = corpus(*lengths)
    if len(part) - 1 < batch:
        return
    streams = evaluation_streams(part, batch)
    windows = list(streams.windows(length))
    targets = torch.cat([window.targets for window in windows], 1)
    inputs = torch.cat([window.inputs for window in windows], 1)
    found = targets[targets != IGNORED].tolist()
    first = set(part.documents.tolist())
    assert found == [token for i, token in enumerate(part.tokens.tolist()) if i not in first]
    assert streams.predictions == len(part) - 1
    assert torch.equal(inputs[targets != IGNORED], (targets[targets != IGNORED] - 1) % 26)
    assert targets.shape[1] == streams.steps == -(-(len(part) - 1) // batch)


def test_rows_of_several_processes_are_the_rows_of_one() -> None:
    part = corpus(40, 63)
    whole = Streams(part, 6, offset=1)
    halves = [Streams(part, 6, rows=rows, offset=1) for rows in (slice(0, 3), slice(3, 6))]
    assert [half.batch_size for half in halves] == [3, 3]
    for start in range(0, whole.steps, 5):
        one = whole.window(start, 5)
        parts = [half.window(start, 5) for half in halves]
        assert torch.equal(one.inputs, torch.cat([p.inputs for p in parts]))
        assert torch.equal(one.targets, torch.cat([p.targets for p in parts]))
        nothing = torch.zeros(3, one.inputs.shape[1], dtype=torch.bool)
        resets = torch.cat([nothing if p.resets is None else p.resets for p in parts])
        assert torch.equal(torch.zeros_like(resets) if one.resets is None else one.resets, resets)


def test_no_resets_without_a_border() -> None:
    streams = Streams(corpus(50, 50), 2)
    assert streams.steps == 49
    assert [window.resets is None for window in streams.windows(10)] == [False, True, True, True, True]
    assert all(window.resets is None for window in Streams(corpus(100), 2).windows(10))


def test_windows_hold_copies_of_what_the_file_holds() -> None:
    part = corpus(30)
    window = Streams(part, 2).window(0, 5)
    window.inputs.zero_()
    assert part.tokens[:5].tolist() == [0, 1, 2, 3, 4]


def test_batch_larger_than_the_text() -> None:
    part = corpus(6)
    assert Streams(part, 5).steps == 1
    with pytest.raises(
        DataError, match=r"`batch_size` must be between 1 and 5 for the text \(6 tokens\), got 64; try a smaller one or a longer text"
    ):
        Streams(part, 64)
    with pytest.raises(DataError, match=r"between 1 and 3 for the text \(6 tokens, the first 2 left out\), got 4"):
        Streams(part, 4, offset=2)
    with pytest.raises(DataError, match="the text can ever feed"):
        evaluation_streams(corpus(1), 1)
    with pytest.raises(DataError, match="between 1 and 5"):
        Streams(part, 0)

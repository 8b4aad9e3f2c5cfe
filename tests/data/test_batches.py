"""Batches by tokens against what they promise, and ids in one array against plain lists."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.padded import pad
from unrolled.data import batches as batches_module
from unrolled.data.batches import PairCorpus, TokenBatch, TokenBatches, build_pair_corpus, evaluation_batches, padded_ids, token_lists
from unrolled.data.pairs import Pairs, read_pairs
from unrolled.data.sentences import train_codec
from unrolled.train.loop import Source

MULTI30K = Path(__file__).parents[2].parent / "shared" / "data" / "multi30k"
sides = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=80).map(
    lambda rows: np.array(rows, dtype=np.int32).T
)


def epoch(batches: TokenBatches) -> list[TokenBatch]:
    """The rest of the epoch that the reading stands in."""
    taken = [batches.take()]
    while batches.state_dict()["position"]:
        taken.append(batches.take())
    return taken


def cost(lengths: np.ndarray, rows: np.ndarray) -> int:
    return len(rows) * int(lengths[:, rows].max())


@given(lengths=sides, batch_tokens=st.integers(1, 120), seed=st.integers(0, 3))
def test_every_pair_once_an_epoch_within_the_cost(lengths: np.ndarray, batch_tokens: int, seed: int) -> None:
    batches = TokenBatches(list(lengths), batch_tokens, seed=seed)
    assert isinstance(batches, Source)
    for number in range(3):
        assert batches.epochs_done == number
        taken = epoch(batches)
        assert {batch.epoch for batch in taken} == {number}
        assert sorted(np.concatenate([batch.rows for batch in taken]).tolist()) == list(range(lengths.shape[1]))
        assert all(len(batch.rows) == 1 or cost(lengths, batch.rows) <= batch_tokens for batch in taken)
        assert all(batch.rows.dtype == np.int64 and batch.fresh for batch in taken)


def test_lengths_may_be_others_in_every_epoch() -> None:
    lengths = [np.random.default_rng(n).integers(1, 40, (2, 60)) for n in range(3)]
    batches = TokenBatches(lambda n: list(lengths[n]), 100)
    for number in range(3):
        taken = epoch(batches)
        assert sorted(np.concatenate([batch.rows for batch in taken]).tolist()) == list(range(60))
        assert all(len(batch.rows) == 1 or cost(lengths[number], batch.rows) <= 100 for batch in taken)


def test_the_order_follows_from_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, (2, 500))

    def orders(seed: int) -> list[list[list[int]]]:
        batches = TokenBatches(list(lengths), 100, seed=seed)
        return [[batch.rows.tolist() for batch in epoch(batches)] for _ in range(2)]

    first, second = orders(1)
    assert orders(1) == [first, second]
    assert first != second
    assert orders(2)[0] != first
    together = {frozenset(rows) for rows in first} & {frozenset(rows) for rows in second}
    assert len(together) < len(first) / 10, "the same sentences shall not always stand together"


@given(lengths=sides, batch_tokens=st.integers(1, 200), stop=st.integers(0, 100))
@settings(max_examples=40)
def test_a_reading_goes_on_where_another_stood(lengths: np.ndarray, batch_tokens: int, stop: int) -> None:
    batches = TokenBatches(list(lengths), batch_tokens, seed=5)
    for _ in range(stop):
        batches.take()
    other = TokenBatches(list(lengths), batch_tokens, seed=5)
    other.load_state_dict(batches.state_dict())
    assert other.epochs_done == batches.epochs_done
    for _ in range(5):
        mine, its = batches.take(), other.take()
        assert (mine.rows.tolist(), mine.epoch) == (its.rows.tolist(), its.epoch)


def test_a_place_of_other_data_is_refused() -> None:
    with pytest.raises(RunError, match="batch 9 is behind the last of an epoch"):
        TokenBatches([np.ones(4, dtype=np.int32)], 2).load_state_dict({"epoch": 0, "position": 9})


def test_similar_lengths_stand_together_and_long_ones_alone() -> None:
    generator = np.random.default_rng(1)
    lengths = generator.poisson(14, (2, 20_000)).astype(np.int32)
    lengths[0, 77] = 5000
    taken = epoch(TokenBatches(list(lengths), 1000))
    padded = sum(cost(lengths, batch.rows) for batch in taken if 77 not in batch.rows)
    assert np.delete(lengths.max(0), 77).sum() / padded > 0.93
    assert padded / 1000 / len(taken) > 0.93
    assert [len(batch.rows) for batch in taken if 77 in batch.rows] == [1]
    means = np.array([lengths[:, batch.rows].max(0).mean() for batch in taken])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2, "short and long batches shall be mixed"


@given(rows=st.integers(0, 20), size=st.integers(1, 6))
def test_processes_share_a_batch(rows: int, size: int) -> None:
    batch = TokenBatch(np.arange(rows) * 3, 0)
    shares = [batch.rows_of(rank, size) for rank in range(size)]
    assert np.concatenate(shares).tolist() == batch.rows.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(np.array_equal(batch.rows[batch.share(rank, size)], share) for rank, share in enumerate(shares))


def test_batches_need_pairs_and_room() -> None:
    lengths = [np.ones(3, dtype=np.int32)]
    for make in (TokenBatches, evaluation_batches):
        with pytest.raises(ConfigurationError, match="`batch_tokens` must be at least 1, got 0"):
            make(lengths, 0)
    with pytest.raises(DataError, match="batches need at least one pair"):
        TokenBatches([np.zeros(0, dtype=np.int32)] * 2, 10)


@given(lengths=sides, batch_tokens=st.integers(1, 120))
def test_evaluation_covers_all_and_can_be_put_back(lengths: np.ndarray, batch_tokens: int) -> None:
    found = evaluation_batches(list(lengths), batch_tokens)
    order = np.concatenate(found.batches)
    results = order * 10
    assert results[found.restore].tolist() == [10 * i for i in range(lengths.shape[1])]
    assert (np.diff(lengths.max(0).clip(1)[order]) >= 0).all()
    assert all(len(rows) == 1 or cost(lengths, rows) <= batch_tokens for rows in found.batches)
    assert evaluation_batches([lengths[0][:0]], batch_tokens).batches == []


# --- Ids ------------------------------------------------------------------------------------------------------------

some_ids = st.lists(st.lists(st.integers(0, 299), max_size=9), max_size=9)


@given(sentences=some_ids, data=st.data())
def test_ids_in_one_array_are_those_of_the_list(sentences: list[list[int]], data: st.DataObject) -> None:
    lists = token_lists([np.array(ids, dtype=np.int32) for ids in sentences], 300)
    assert lists.tokens.dtype == np.uint16
    assert [lists[i].tolist() for i in range(len(lists))] == sentences
    assert lists.lengths.tolist() == list(map(len, sentences))
    rows = np.array(data.draw(st.lists(st.integers(0, len(sentences) - 1), max_size=12) if sentences else st.just([])), dtype=np.int64)
    chosen = lists.select(rows)
    assert [chosen[i].tolist() for i in range(len(chosen))] == [sentences[row] for row in rows]
    for padded in (lists.padded(rows), padded_ids([lists[row] for row in rows])):
        assert padded.data.dtype == padded.lengths.dtype == torch.int64
        if not len(rows):
            assert (padded.data.shape, padded.lengths.shape) == ((0, 0), (0,))
            continue
        expected = pad([torch.tensor(sentences[row], dtype=torch.int64) for row in rows])
        assert torch.equal(padded.data, expected.data)
        assert torch.equal(padded.lengths, expected.lengths)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(256, np.uint8), (257, np.uint16), (65_537, np.uint32)])
def test_the_smallest_type_holds_the_largest_id(vocabulary: int, dtype: type) -> None:
    lists = token_lists([np.array([vocabulary - 1, 0])], vocabulary)
    assert (lists.tokens.dtype, lists[0].tolist()) == (dtype, [vocabulary - 1, 0])


def made(sources: list[str], targets: list[str]) -> Pairs:
    return Pairs(sources, targets, ("x.en", "x.de"), range(1, len(sources) + 1))


PAIRS = made(["the cat", "a dog ran far away", "the end"], ["die Katze", "ein Hund lief weit weg", "das Ende hier"])
SOURCE, TARGET = train_codec("words", PAIRS.sources), train_codec("characters", PAIRS.targets)


def content(corpus: PairCorpus) -> list[tuple[str, str]]:
    return [(SOURCE.decode(corpus.source(i)), TARGET.decode(corpus.target(i))) for i in range(len(corpus))]


def test_a_corpus_of_pairs() -> None:
    corpus = build_pair_corpus(PAIRS, SOURCE, TARGET)
    assert content(corpus) == list(zip(PAIRS.sources, PAIRS.targets, strict=True))
    assert (corpus.left_out, corpus.kept.tolist(), len(corpus)) == (0, [0, 1, 2], 3)
    assert [side.tolist() for side in corpus.lengths] == [[2, 5, 2], list(map(len, PAIRS.targets))]
    batch = corpus.collate(np.array([2, 0]))
    assert batch.source.data.tolist() == [SOURCE.encode("the end").tolist(), SOURCE.encode("the cat").tolist()]
    assert [TARGET.decode(row.numpy()) for row in batch.target.unpad()] == ["das Ende hier", "die Katze"]
    assert batch.target.data[1, 9:].tolist() == [0] * 4
    share = corpus.collate(np.array([0]), np.array([2, 0]))
    assert share.target.lengths.tolist() == [9]
    assert (share.source.data == batch.source.data[1:]).all() and (share.target.data == batch.target.data[1:]).all()


def test_long_pairs_are_counted_and_left_out() -> None:
    corpus = build_pair_corpus(PAIRS, SOURCE, TARGET, max_length=13)
    assert (corpus.left_out, corpus.kept.tolist()) == (1, [0, 2])
    assert content(corpus) == [("the cat", "die Katze"), ("the end", "das Ende hier")]
    with pytest.raises(DataError, match=r"at most 3 tokens on each side, the shortest of 3 has 9; try a larger `max_length`"):
        build_pair_corpus(PAIRS, SOURCE, TARGET, max_length=3)
    assert len(build_pair_corpus(PAIRS.select([]), SOURCE, TARGET)) == 0


def test_a_very_long_sentence_can_be_predicted() -> None:
    sentences = SOURCE.encode_all(["the cat", "a dog " * 5000, "ran"])
    found = evaluation_batches([np.array([len(ids) for ids in sentences])], 4096)
    assert [rows.tolist() for rows in found.batches] == [[2, 0], [1]]
    assert padded_ids([sentences[1]]).data.shape == (1, 10_000)


def test_an_unknown_symbol_is_named_with_its_line() -> None:
    strict = train_codec("characters", PAIRS.targets, unknown=False)
    with pytest.raises(DataError, match=r"the character 'ß' \(U\+00DF\) in `x.de`, line 2, is not in the vocabulary"):
        build_pair_corpus(made(["a", "b"], ["das", "saß"]), SOURCE, strict)


def test_the_cache_is_used_and_made_anew_when_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_pair_corpus(PAIRS, SOURCE, TARGET, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    encoded: list[int] = []
    encode = batches_module._encode
    monkeypatch.setattr(batches_module, "_encode", lambda pairs, side, codec: (encoded.append(side), encode(pairs, side, codec))[1])
    again = build_pair_corpus(PAIRS, SOURCE, TARGET, cache_dir=tmp_path, max_length=13)
    assert (encoded, again.left_out, again.sources.tokens.dtype) == ([], 1, first.sources.tokens.dtype)
    stored = bytearray(path.read_bytes())
    for damaged in (
        stored[: len(stored) // 2],
        b"",
        bytes(stored).replace(first.targets.tokens.tobytes(), b"\1" * len(first.targets.tokens)),
    ):
        path.write_bytes(damaged)
        encoded.clear()
        assert content(build_pair_corpus(PAIRS, SOURCE, TARGET, cache_dir=tmp_path)) == content(first)
        assert encoded == [0, 1]
    build_pair_corpus(made(["the cat"], ["die Ente"]), SOURCE, TARGET, cache_dir=tmp_path)
    build_pair_corpus(PAIRS, TARGET, TARGET, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_two_may_build_the_same_cache_at_once(tmp_path: Path) -> None:
    found: list[list[tuple[str, str]]] = []

    def build() -> None:
        found.append(content(build_pair_corpus(PAIRS, SOURCE, TARGET, cache_dir=tmp_path)))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(zip(PAIRS.sources, PAIRS.targets, strict=True))] * 4
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not MULTI30K.exists(), reason="Multi30k is not here")
def test_multi30k_is_batched_with_little_padding() -> None:
    pairs = read_pairs([MULTI30K / "val.en.gz", MULTI30K / "val.de.gz"])
    own = train_codec("words", [*pairs.sources, *pairs.targets])
    corpus = build_pair_corpus(pairs, own, own)
    taken = epoch(TokenBatches(corpus.lengths, 1000))
    steps = sum(corpus.collate(batch.rows).target.data.numel() for batch in taken)
    assert corpus.targets.lengths.sum() / steps > 0.85

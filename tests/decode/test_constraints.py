"""Required phrases against restricted enumeration; automata against counting runs; processors that forbid, against plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_beam import END, START, Leaf, Maze, SharingMaze, assert_same, options_of, outputs, plain, score, search

from unrolled.core.errors import ConfigurationError
from unrolled.decode import Forbid, ForbidPhrases, MinimumLength, NoRepeatNgram, beam_search, record_beam
from unrolled.decode.constraints import allocate
from unrolled.decode.phrases import advance, compile_phrases, is_met, progress, wanted_tokens

Phrase = list[int]
texts = st.lists(st.integers(0, 2), max_size=9)
phrase_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=3)


def contains(text: list[int] | tuple[int, ...], phrase: Phrase) -> bool:
    return any(list(text[i : i + len(phrase)]) == phrase for i in range(len(text)))


@given(texts, phrase_lists)
def test_automata_count_what_there_is_of_each_phrase(text: list[int], phrases: list[Phrase]) -> None:
    tables = compile_phrases([phrases, [[9, 9]]], 10, 8)
    states = torch.zeros((2, 1, tables.met.shape[1]), dtype=torch.long)
    for read in range(len(text) + 1):
        begun, total = text[:read], 0
        wanted = wanted_tokens(tables, states)[0, 0].view(tables.met.shape[1], -1)
        for i, phrase in enumerate(phrases):
            ends = [n for n in range(len(phrase) + 1) if n <= read and begun[read - n :] == phrase[:n]]
            there = len(phrase) if contains(begun, phrase) else max(ends)
            total += there
            assert wanted[i].tolist() == [phrase[there] if there < len(phrase) else -1]
        assert progress(tables, states).tolist() == [[total], [0]]
        assert is_met(tables, states).tolist() == [[all(contains(begun, p) for p in phrases)], [False]]
        if read < len(text):
            states = advance(tables, states, torch.tensor([[text[read]], [text[read]]]))


@given(st.lists(st.tuples(st.sampled_from([-math.inf, -3.0, -2.0, -1.0]), st.integers(0, 3)), min_size=1, max_size=12), st.integers(1, 12))
def test_slots_are_dealt_out_bank_by_bank(candidates: list[tuple[float, int]], beam: int) -> None:
    beam = min(beam, len(candidates))
    totals, banks = (torch.tensor([column]) for column in zip(*candidates, strict=True))
    found = allocate(totals.double(), banks, beam)[0].tolist()
    stacks = {bank: [i for i, c in enumerate(candidates) if c[1] == bank and c[0] > -math.inf] for bank in range(4)}
    for stack in stacks.values():
        stack.sort(key=lambda i: (-candidates[i][0], i))
    dealt: list[int] = []
    while any(stacks.values()):
        dealt += [stacks[bank].pop(0) for bank in (3, 2, 1, 0) if stacks[bank]]
    assert found[: len(dealt)] == dealt[:beam]
    assert len(set(found)) == beam


def restricted(maze: Maze, source: int, limit: int, phrases: list[Phrase]) -> list[Leaf]:
    return [leaf for leaf in outputs(maze, source, limit) if all(contains(leaf.tokens, phrase) for phrase in phrases)]


@pytest.mark.parametrize("normalisation", ["none", "average", "gnmt"])
@pytest.mark.parametrize("phrases", [[[2]], [[0, 2], [2, 2]], [[2, 0, 2]], [[0], [0], [2]], [[2, 2], []][:1], [[0, 2, 0, 0]]])
def test_as_many_slots_as_outputs_is_restricted_enumeration(normalisation: str, phrases: list[Phrase]) -> None:
    maze = Maze(3)
    options = options_of(beam=3**4, n_best=5, normalisation=normalisation)
    found = search(maze, [0, 1, 2], options, constraints=[phrases, [], [[2]]])
    for source, wanted in enumerate([phrases, [], [[2]]]):
        best = sorted(restricted(maze, source, 4, wanted), key=lambda leaf: -score(leaf, options))[:5]
        have = [h for h in found[source] if h.met]
        assert_same(have, best[: len(have)], options)
        assert len(have) == min(5, len(best))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(st.lists(st.sampled_from([0, 2, 3, 4, 5]), min_size=1, max_size=3), min_size=1, max_size=3),
    st.integers(0, 10**6),
)
def test_a_narrow_beam_finds_outputs_that_contain_the_phrases(beam: int, phrases: list[Phrase], seed: int) -> None:
    maze = SharingMaze(6, seed=seed)
    needed = sum(map(len, phrases))
    options = options_of(beam=beam, n_best=beam, max_length=needed + 4, normalisation="average")
    early = beam_search(maze, maze.start([0, 1]), 2, options, constraints=[phrases, phrases[:1]])
    late = options.model_copy(update={"early_stopping": False})
    assert plain(early.hypotheses) == plain(beam_search(maze, maze.start([0, 1]), 2, late, constraints=[phrases, phrases[:1]]).hypotheses)
    for group, asked in zip(early.hypotheses, [phrases, phrases[:1]], strict=True):
        assert group[0].met, "the banks see to it that some hypothesis meets them all"
        assert len({(tuple(h.tokens), h.ended) for h in group}) == len(group)
        assert [h.met for h in group] == sorted((h.met for h in group), reverse=True)
        for hypothesis in group:
            assert hypothesis.met == all(contains(hypothesis.tokens, phrase) for phrase in asked)
            assert hypothesis.met or not hypothesis.ended
            assert hypothesis.log_probability == pytest.approx(sum(hypothesis.token_log_probabilities))


def test_the_result_of_a_source_does_not_depend_on_its_batch() -> None:
    maze, sources = SharingMaze(7, sources=6, end=-1), list(range(6))
    asked: list[list[Phrase]] = [[], [[2, 3]], [[4], [5, 6], [2]], [[3, 3, 3]], [], [[2], [3]]]
    prefix: list[list[int]] = [[], [2], [], [3], [5], []]
    options = options_of(beam=5, n_best=5, max_length=12)
    together = search(maze, sources, options, constraints=asked, prefix=prefix)
    for source in sources:
        assert search(maze, [source], options, constraints=[asked[source]], prefix=[prefix[source]]) == [together[source]]
    assert together[1][0].tokens[0] == 2


def test_no_phrases_change_nothing() -> None:
    maze, options = Maze(6), options_of(beam=4, n_best=4, max_length=8)
    free = search(maze, [0, 1, 2], options)
    assert search(maze, [0, 1, 2], options, constraints=[[], [], []]) == free
    mixed = search(maze, [0, 1, 2], options, constraints=[[], [[5, 5]], []])
    assert [plain(mixed)[i] for i in (0, 2)] == [plain(free)[i] for i in (0, 2)]


def test_what_cannot_be_met_in_time_is_flagged() -> None:
    maze = Maze(4)
    (found,) = search(maze, [0], options_of(beam=3, n_best=3, max_length=3), constraints=[[[2, 2], [3, 3]]])
    assert found and all(not h.met and not h.ended and len(h.tokens) == 3 for h in found)
    (found,) = search(maze, [0], options_of(beam=3, n_best=3), constraints=[[[2, 3]]], processors=[Forbid((3,))])
    assert found and not any(h.met for h in found)
    nothing = beam_search(maze, maze.start([0, 1]), 2, options_of(), constraints=[[], [[2]]], max_lengths=torch.tensor([0, 3]))
    assert nothing.hypotheses[0][0].met and nothing.hypotheses[1][0].met


def test_the_tree_of_a_constrained_search() -> None:
    maze, options = Maze(5), options_of(beam=3, n_best=3, max_length=6)
    tree = record_beam(maze, maze.start([1]), options, constraints=[[2, 3]], prefix=[4])
    assert [tree.result.hypotheses[0]] == search(maze, [1], options, constraints=[[[2, 3]]], prefix=[[4]])
    for end, hypothesis in zip(tree.best, tree.result.hypotheses[0], strict=True):
        assert tree.nodes[end].total == pytest.approx(hypothesis.log_probability)


@pytest.mark.parametrize(
    ("phrases", "sentence"),
    [
        ([[[]]], "a required phrase must have at least one token, got an empty one; leave it out"),
        ([[[2, 4]]], "a required phrase must hold ids in 0..3 (the vocabulary), got 4"),
        ([[[2, END]]], "a required phrase must not hold the end symbol 1, got [2, 1]; it ends every output"),
        ([[[2] * 5]], "a required phrase must fit into the greatest length, 4, got 5 tokens; raise the greatest length"),
        ([[], []], "`constraints` must have one entry for each of 1 sources, got 2"),
    ],
)
def test_phrases_that_no_output_can_contain(phrases: Any, sentence: str) -> None:
    maze = Maze(4)
    with pytest.raises(ConfigurationError) as caught:
        search(maze, [0], options_of(), constraints=phrases)
    assert str(caught.value) == sentence and maze.rows == []


# --- Processors that forbid -------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=3), st.integers(0, 7), st.integers(1, 4))
def test_n_grams_are_blocked_where_they_would_repeat(histories: list[list[int]], read: int, size: int) -> None:
    histories = [row[:read] for row in histories]
    logits = torch.randn(len(histories), 4, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    result = NoRepeatNgram(size)(logits, torch.tensor(histories, dtype=torch.long).view(len(histories), read))
    assert torch.equal(logits, before)
    for row, history in enumerate(histories):
        runs = [history[i : i + size] for i in range(len(history) - size + 1)]
        for token in range(4):
            repeats = len(history) >= size - 1 and [*history[len(history) - size + 1 :], token][-size:] in runs
            assert result[row, token] == (-math.inf if repeats else logits[row, token])


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=5))
def test_phrases_are_forbidden_at_their_last_token(history: list[int], phrases: list[Phrase]) -> None:
    logits = torch.zeros(2, 4)
    other = [3 - token for token in history]
    result = ForbidPhrases(tuple(map(tuple, phrases)))(logits, torch.tensor([history, other], dtype=torch.long).view(2, len(history)))
    for row, read in enumerate((history, other)):
        for token in range(4):
            ends = any([*read, token][-len(p) :] == p for p in phrases)
            assert result[row, token] == (-math.inf if ends else 0)
    assert not logits.any()


def test_forbidden_phrases_never_come() -> None:
    phrases = ((2, 3), (4,), (3, 3, 2))
    for beam in (1, 5):
        for group in search(Maze(6), [0, 1, 2], options_of(beam=beam, n_best=beam, max_length=9), processors=[ForbidPhrases(phrases)]):
            assert group and not any(contains(h.tokens, list(phrase)) for h in group for phrase in phrases)


def test_the_end_waits_for_the_shortest_length() -> None:
    processor = MinimumLength(2, (0, 3))
    for read in range(1, 6):
        result = processor(torch.ones(2, 4), torch.zeros(2, read, dtype=torch.long))
        assert result.isinf().tolist() == [[read < 3, False, False, read < 3]] * 2
    options = options_of(beam=3, n_best=3, max_length=6)
    wanted = search(Maze(5), [0, 1], options.model_copy(update={"min_length": 2}))
    assert search(Maze(5), [0, 1], options, processors=[MinimumLength(2, (END,))]) == wanted


def test_a_nan_is_never_hidden() -> None:
    logits, history = torch.tensor([[math.nan, math.nan, 0.0]]), torch.tensor([[START, 0]])
    assert NoRepeatNgram(1)(logits, history).isnan().any()
    assert ForbidPhrases(((0, 1),))(logits, history).isnan().any()


def test_processors_refuse_what_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="`no_repeat_ngram` must be 1 or more, got 0"):
        NoRepeatNgram(0)
    with pytest.raises(ConfigurationError, match="must be 0 or more, got -1"):
        MinimumLength(-1, (0,))
    with pytest.raises(ConfigurationError, match="must have at least one token, got an empty one"):
        ForbidPhrases(((1,), ()))
    with pytest.raises(ConfigurationError, match=r"forbidden phrases must hold ids in 0..2 \(the vocabulary\), got 3"):
        ForbidPhrases(((1, 3),))(torch.zeros(1, 3), torch.zeros(1, 1, dtype=torch.long))

"""Phrases with several spellings, as whole words: automata against plain loops, searches against restricted enumeration."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_beam import END, START, Maze, SharingMaze, assert_same, options_of, outputs, plain, score, search
from toy import Constant

from unrolled.decode import Borders, ForbidBeginnings, ForbidWords, Wording, beam_search
from unrolled.decode.phrases import CLOSING, advance, compile_phrases, is_met, wanted_tokens

Text = list[int] | tuple[int, ...]


def borders_of(opens: list[int], closes: list[int], vocabulary: int) -> Borders:
    flags = torch.zeros((2, vocabulary), dtype=torch.bool)
    flags[0, [START, *opens]] = True
    flags[1, closes] = True
    return Borders(flags[0], flags[1])


def stands(text: Text, wording: Wording) -> bool:
    """Whether a whole text, to its end, has the phrase; token by token."""
    borders = wording.borders
    text = [START, *text]
    for begin in range(1, len(text)):
        for run in wording.runs:
            behind = begin + len(run)
            if tuple(text[begin:behind]) != run:
                continue
            if run not in wording.anywhere and not (borders is not None and borders.opens[text[begin - 1]]):
                continue
            if not wording.whole or behind == len(text) or (borders is not None and borders.closes[text[behind]]):
                return True
    return False


# Of tokens 2 … 5: 3 opens, 4 closes, 5 does both.
BORDERS = borders_of([3, 5], [4, 5], 6)
tokens = st.integers(2, 5)
runs = st.lists(tokens, min_size=1, max_size=3).map(tuple)
# Not yet as `Wording`: the check of annotations draws random numbers, which a strategy must not.
some_runs = st.lists(runs, max_size=2).map(tuple)
wordings = st.tuples(some_runs, some_runs, st.booleans()).filter(lambda one: bool(one[0] + one[1]))
Spelt = tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...], bool]


@settings(max_examples=300, deadline=None)
@given(st.lists(tokens, max_size=9), wordings, wordings)
def test_an_automaton_knows_whether_a_text_has_its_phrase(text: list[int], spelt: Spelt, besides: Spelt) -> None:
    asked = [Wording(*one, BORDERS) for one in (spelt, besides)]
    tables = compile_phrases([asked, asked[:1]], 6, END)
    states = torch.zeros((2, 1, 2), dtype=torch.long)
    for read in range(len(text) + 1):
        both = [stands(text[:read], one) for one in asked]
        assert is_met(tables, states).tolist() == [[all(both)], [both[0]]]
        # At the end of the text a word ends.
        ended = advance(tables, states, torch.tensor([[END], [END]]))
        assert torch.equal(is_met(tables, ended), is_met(tables, states))
        if read < len(text):
            states = advance(tables, states, torch.tensor([[text[read]], [text[read]]]))


def test_what_takes_a_phrase_on() -> None:
    wording = Wording(((4, 2),), ((2, 2, 3),), True, BORDERS)
    tables = compile_phrases([[wording]], 6, END)

    def wanted(*text: int) -> set[int]:
        states = torch.zeros((1, 1, 1), dtype=torch.long)
        for token in text:
            states = advance(tables, states, torch.tensor([[token]]))
        return set(wanted_tokens(tables, states).flatten().tolist()) - {-1}

    assert wanted() == {2, 4}  # at the beginning either spelling
    assert wanted(2) == {2} and wanted(2, 2) == {3}
    assert wanted(2, 4) == {2}
    assert wanted(3, 2) == {2} and wanted(4, 4) == {2} and wanted(2, 3, 5) == {2, 4}
    assert wanted(2, 5, 3, 2, 3) == {2, 4}
    assert wanted(2, 2, 2) == {4}  # inside a word only the one that begins with a space, so to say
    assert wanted(4, 2) == {CLOSING} and wanted(4, 2, 3) == {2, 4} and wanted(4, 2, 4) == set() == wanted(4, 2, 5)


WANTED = [
    Wording(((2,),), (), True, borders_of([], [3], 4)),
    Wording(((2, 3),), ((3,),), False, borders_of([2], [], 4)),
    Wording(((3, 2),), ((2,),), True, borders_of([3], [3], 4)),
    Wording((), ((2, 2),), True, borders_of([3], [2, 3], 4)),
]


@pytest.mark.parametrize("normalisation", ["none", "gnmt"])
@pytest.mark.parametrize("wording", WANTED)
def test_as_many_slots_as_outputs_is_restricted_enumeration(normalisation: str, wording: Wording) -> None:
    maze, options = Maze(4), options_of(beam=4**4, n_best=6, normalisation=normalisation)
    found = search(maze, [0, 1], options, constraints=[[wording], []])
    for source, asked in enumerate([[wording], []]):
        best = [leaf for leaf in outputs(maze, source, 4) if all(stands(leaf.tokens, one) for one in asked)]
        best = sorted(best, key=lambda leaf: -score(leaf, options))[:6]
        have = [one for one in found[source] if one.met]
        assert len(have) == len(best) == 6
        assert_same(have, best, options)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.lists(wordings.filter(lambda one: bool(one[0])), min_size=1, max_size=2), st.integers(0, 10**6))
def test_a_narrow_beam_finds_outputs_that_contain_the_phrases(beam: int, spelt: list[Spelt], seed: int) -> None:
    asked = [Wording(*one, BORDERS) for one in spelt]
    maze = SharingMaze(6, seed=seed)
    options = options_of(beam=beam, n_best=beam, max_length=sum(max(map(len, one.runs)) + 1 for one in asked) + 4)
    early = beam_search(maze, maze.start([0, 1]), 2, options, constraints=[asked, asked[:1]]).hypotheses
    alone = beam_search(maze, maze.start([1]), 1, options, constraints=[asked[:1]]).hypotheses
    assert plain(early)[1:] == plain(alone)
    for group, those in zip(early, [asked, asked[:1]], strict=True):
        assert group[0].met, "the banks see to it that some hypothesis meets them all"
        for hypothesis in group:
            assert hypothesis.met == all(stands(hypothesis.tokens, one) for one in those)
            assert hypothesis.met or not hypothesis.ended


def test_a_word_is_ended_where_the_likeliest_tokens_go_on_with_it() -> None:
    """After the phrase 2 the tokens 3 and 4 are likeliest, and only the unlikely 5 ends a word."""
    model = Constant([-9.0, -4.0, 0.0, 3.0, 2.5, -3.0])
    wording = Wording(((2,),), (), True, borders_of([], [5], 6))
    for beam in (1, 2):
        options = options_of(beam=beam, max_length=6)
        (best,) = beam_search(model, model.start(1), 1, options, constraints=[[wording]]).hypotheses[0]
        assert best.met and stands(best.tokens, wording)


# --- What must not stand -----------------------------------------------------------------------------------------------


def forbidden_in(tokens: Text, ended: bool, forbidden: list[Wording]) -> bool:
    """Whether a phrase stands in an output; one at the very end of what was cut may yet have gone on."""
    return any(stands(tokens if ended else [*tokens, 9], one._replace(borders=wider(one.borders))) for one in forbidden)


def wider(borders: Borders | None) -> Borders:
    """The same for a vocabulary with a token 9 that neither opens nor closes."""
    assert borders is not None
    none = torch.zeros(6, dtype=torch.bool)
    return Borders(torch.cat([borders.opens, none]), torch.cat([borders.closes, none]))


@pytest.mark.parametrize("forbidden", [WANTED[:1], WANTED[2:3], WANTED[3:], [WANTED[0], WANTED[2]._replace(borders=WANTED[0].borders)]])
def test_forbidden_words_take_nothing_else_away(forbidden: list[Wording]) -> None:
    maze, options = Maze(4), options_of(beam=4**4, n_best=4**4)
    found = search(maze, [0, 1], options, processors=[ForbidWords(tuple(forbidden), END)])
    for source in (0, 1):
        have = {(tuple(one.tokens), one.ended): one.log_probability for one in found[source]}
        every = {(leaf.tokens, leaf.ended): sum(leaf.terms) for leaf in outputs(maze, source, 4)}
        expected = {key: value for key, value in every.items() if not forbidden_in(*key, forbidden)}
        assert have.keys() == expected.keys() and len(have) < len(every)
        assert all(have[key] == pytest.approx(expected[key], abs=1e-5) for key in have)


def test_a_ban_does_not_share_out_what_it_takes() -> None:
    """Token 2 is nearly certain, and must be followed by 3: a processor would make that free, a ban lets it be as unlikely as it is."""
    logits = torch.zeros(1, 4)
    wording = WANTED[0]._replace(borders=borders_of([], [2], 4))
    history = torch.tensor([[START, 2]])
    banned = ForbidWords((wording,), END)(logits.log_softmax(1), history)
    assert banned[0, 3] == pytest.approx(math.log(1 / 4)) and banned[0, END] == banned[0, 2] == -math.inf
    assert torch.equal(ForbidWords((wording,), END)(logits, torch.tensor([[START, 3]])), logits)


@given(st.lists(tokens, max_size=6), wordings)
def test_beginnings_are_forbidden_at_their_last_token(text: list[int], spelt: Spelt) -> None:
    wording = Wording(*spelt, BORDERS)
    result: Any = ForbidBeginnings((wording,))(torch.zeros(1, 6), torch.tensor([[START, *text]]))
    loose = wording._replace(whole=False)
    for token in range(2, 6):
        read = [*text, token]
        # What the text had before does not matter; only what this token completes.
        completes = any(
            tuple(read[len(read) - len(run) :]) == run
            and len(run) <= len(read)
            and (run in loose.anywhere or bool(BORDERS.opens[[START, *read][len(read) - len(run)]]))
            for run in loose.runs
        )
        assert result[0, token] == (-math.inf if completes else 0)

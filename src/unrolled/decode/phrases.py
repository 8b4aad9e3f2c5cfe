"""Required phrases as automata over tokens: a phrase may be spelt in several ways, and may have to stand as whole words.

An automaton reads an output token by token (Knuth, Morris & Pratt 1977; Aho & Corasick 1975 for several spellings), so that a phrase
counts wherever it stands as a run, overlaps included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NO_TOKEN = -1
"""Fills tables where there is no token."""
CLOSING = -2
"""Stands for any token that closes."""
KINDS = 4
"""Of tokens by their borders: none, a word ends before it, a word may begin behind it, both."""

Run = tuple[int, ...]


class Borders(NamedTuple):
    """Where words begin and end without a token of their own between them, `[vocab]` each."""

    opens: Bool[Tensor, " vocab"]
    """True for tokens right behind which a word may begin; the start symbol is one."""
    closes: Bool[Tensor, " vocab"]
    """True for tokens before which a word has ended."""


class Wording(NamedTuple):
    """A phrase and the ways to spell it."""

    anywhere: tuple[Run, ...]
    """Runs of tokens that count wherever they stand."""
    opening: tuple[Run, ...] = ()
    """Runs that count at the beginning of an output, and behind a token that opens."""
    whole: bool = False
    """Whether a token that closes must follow, or the end."""
    borders: Borders | None = None
    """Of the vocabulary; the same for all phrases of a search."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """All spellings."""
        return self.anywhere + self.opening


def wording_of(phrase: Sequence[int] | Wording) -> Wording:
    """A plain run of tokens as a phrase with one spelling.

    Args:
        phrase: ids, or what is a wording already.

    Returns:
        The wording.
    """
    return phrase if isinstance(phrase, Wording) else Wording((tuple(phrase),))


class _Read(NamedTuple):
    """What an automaton knows of the tokens before."""

    begun: frozenset[tuple[int, int]]
    """Spellings that are under way, each with how many of its tokens are there."""
    opened: bool
    """Whether a word may begin here."""
    complete: bool
    """Whether a spelling ends here."""
    done: bool = False
    """Whether the phrase is met for good; else a spelling that ends here waits for its word to end."""


DONE = _Read(frozenset(), False, True, True)


class Automaton(NamedTuple):
    """One phrase: its states are numbered, and 0 is the beginning."""

    letters: list[int]
    """The tokens that it tells apart."""
    moves: list[list[int]]
    """The state after each letter, then after any other token of each kind."""
    wanted: list[list[int]]
    """The tokens that take the phrase on, `CLOSING` where all are there but its word may go on; none where it is met for good."""
    progress: list[int]
    """How far it is."""
    met: list[bool]


def build_automaton(wording: Wording) -> Automaton:
    """Number all that can be known of the tokens before.

    Args:
        wording: the phrase.

    Returns:
        Its automaton.
    """
    letters, full = sorted({token for run in wording.runs for token in run}), max(map(len, wording.runs))
    borders = wording.borders
    flags = [(False, False) if borders is None else (bool(borders.opens[i]), bool(borders.closes[i])) for i in letters]
    tokens = [*zip(letters, flags, strict=True), *((NO_TOKEN, (kind >= 2, kind % 2 == 1)) for kind in range(KINDS))]
    states = [_Read(frozenset(), bool(wording.opening), False)]
    place, moves = {states[0]: 0}, []
    for state in states:  # grows on the way
        after = [_advance(wording, state, token, opens, closes) for token, (opens, closes) in tokens]
        for new in after:
            if new not in place:
                place[new] = len(states)
                states.append(new)
        moves.append([place[new] for new in after])
    left = [min((len(wording.runs[run]) - there for run, there in state.begun), default=full) for state in states]
    progress = [full if state.complete else full - rest for state, rest in zip(states, left, strict=True)]
    return Automaton(letters, moves, [_wanted(wording, state) for state in states], progress, [state.complete for state in states])


def _advance(wording: Wording, state: _Read, token: int, opens: bool, closes: bool) -> _Read:
    """What is known after one token more."""
    if state.done or (state.complete and closes):
        return DONE
    begins = {(run, 0) for run in range(len(wording.runs)) if run < len(wording.anywhere) or state.opened}
    moved = {(run, there + 1) for run, there in begins | state.begun if wording.runs[run][there] == token}
    under_way = frozenset((run, there) for run, there in moved if there < len(wording.runs[run]))
    complete = len(under_way) < len(moved)
    if complete and not wording.whole:
        return DONE
    return _Read(under_way, opens and bool(wording.opening), complete)


def _wanted(wording: Wording, state: _Read) -> list[int]:
    """The next token of what is nearest to its end; where nothing is under way, the first token of every spelling that may begin."""
    if state.complete:
        return [] if state.done else [CLOSING]
    if state.begun:
        left = min(len(wording.runs[run]) - there for run, there in state.begun)
        return sorted({wording.runs[run][there] for run, there in state.begun if len(wording.runs[run]) - there == left})
    may_begin = wording.runs if state.opened else wording.anywhere
    return sorted({run[0] for run in may_begin})


class Phrases(NamedTuple):
    """Required phrases of every source as tables, on the CPU. A source with fewer has empty ones, which are met from the start."""

    met: Bool[Tensor, "sources phrases states"]
    progress: Int[Tensor, "sources phrases states"]
    wanted: Int[Tensor, "sources phrases states some"]
    """The tokens that take a phrase on, which may be `CLOSING`; `NO_TOKEN` where there is none."""
    alphabet: Int[Tensor, "sources phrases letters"]
    """The different tokens of each phrase."""
    moves: Int[Tensor, "sources phrases states moves"]
    """The state after each letter, then after any other token of each kind."""
    kinds: Int[Tensor, " vocab"]
    """The kind of every token."""

    @property
    def closing(self) -> Bool[Tensor, " vocab"]:
        """The tokens before which a word has ended, the end symbol among them."""
        return self.kinds % 2 == 1


def compile_phrases(phrases: Sequence[Sequence[Sequence[int] | Wording]], vocabulary_size: int, end: int) -> Phrases:
    """Build the automata.

    Args:
        phrases: for every source its phrases, each with at least one token.
        vocabulary_size: how many tokens there are.
        end: the end symbol, which closes whatever stands before it.

    Returns:
        Their tables.
    """
    groups = [[wording_of(phrase) for phrase in group] for group in phrases]
    borders = next((one.borders for group in groups for one in group if one.borders is not None), None)
    kinds = torch.zeros(vocabulary_size, dtype=torch.long) if borders is None else 2 * borders.opens.long() + borders.closes.long()
    kinds[end] |= 1
    # Many sources ask for the same; borders are those of the vocabulary, and have no hash.
    built = {one[:3]: one for group in groups for one in group}
    automata = {key: build_automaton(one) for key, one in built.items()}
    shape = len(groups), max(map(len, groups), default=0)
    states = max((len(one.met) for one in automata.values()), default=1)
    letters = max((len(one.letters) for one in automata.values()), default=0)
    some = max((len(wanted) for one in automata.values() for wanted in one.wanted), default=0)
    tables = Phrases(
        torch.ones((*shape, states), dtype=torch.bool),
        torch.zeros((*shape, states), dtype=torch.long),
        torch.full((*shape, states, some), NO_TOKEN),
        torch.full((*shape, letters), NO_TOKEN),
        torch.zeros((*shape, states, letters + KINDS), dtype=torch.long),
        kinds,
    )
    for source, group in enumerate(groups):
        for i, wording in enumerate(group):
            _fill(tables, source, i, automata[wording[:3]])
    return tables


def _fill(tables: Phrases, source: int, i: int, automaton: Automaton) -> None:
    count, letters = len(automaton.met), len(automaton.letters)
    moves = torch.tensor(automaton.moves)
    tables.met[source, i, :count] = torch.tensor(automaton.met)
    tables.progress[source, i, :count] = torch.tensor(automaton.progress)
    tables.alphabet[source, i, :letters] = torch.tensor(automaton.letters)
    tables.moves[source, i, :count, :letters] = moves[:, :letters]
    tables.moves[source, i, :count, -KINDS:] = moves[:, letters:]
    for state, wanted in enumerate(automaton.wanted):
        tables.wanted[source, i, state, : len(wanted)] = torch.tensor(wanted, dtype=torch.long)


def advance(
    phrases: Phrases, states: Int[Tensor, "sources some phrases"], tokens: Int[Tensor, "sources some"]
) -> Int[Tensor, "sources some phrases"]:
    """The state of each phrase after one token more.

    Args:
        phrases: the tables.
        states: before it.
        tokens: what comes.

    Returns:
        The new states.
    """
    sources, count, letters = phrases.alphabet.shape
    is_letter = tokens[:, :, None, None] == phrases.alphabet.unsqueeze(1)
    other = (letters + phrases.kinds[tokens]).unsqueeze(2).expand(-1, -1, count)
    letter = torch.where(is_letter.any(3), is_letter.byte().argmax(3), other) if letters else other
    return phrases.moves[torch.arange(sources)[:, None, None], torch.arange(count), states, letter]


def _of_states(table: Tensor, states: Tensor) -> Tensor:
    """Entries `[sources, some, phrases, …]` of a table `[sources, phrases, states, …]`."""
    sources, count = table.shape[:2]
    return table[torch.arange(sources)[:, None, None], torch.arange(count), states]


def wanted_tokens(phrases: Phrases, states: Int[Tensor, "sources beam phrases"]) -> Int[Tensor, "sources beam wanted"]:
    """The tokens that take some phrase on.

    Args:
        phrases: the tables.
        states: of each hypothesis.

    Returns:
        Ids, `CLOSING` for any token that closes, `NO_TOKEN` where there is none.
    """
    return _of_states(phrases.wanted, states).flatten(2)


def is_met(phrases: Phrases, states: Int[Tensor, "sources some phrases"]) -> Bool[Tensor, "sources some"]:
    """True where every phrase is there, should the output end.

    Args:
        phrases: the tables.
        states: of each hypothesis.

    Returns:
        One answer a hypothesis.
    """
    return _of_states(phrases.met, states).all(2)


def progress(phrases: Phrases, states: Int[Tensor, "sources some phrases"]) -> Int[Tensor, "sources some"]:
    """How many required tokens there are.

    Args:
        phrases: the tables.
        states: of each hypothesis.

    Returns:
        A sum over phrases; of several spellings the nearest to its end counts.
    """
    return _of_states(phrases.progress, states).sum(2)

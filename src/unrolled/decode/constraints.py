"""What is asked of single outputs: how they begin, how long they get, and which phrases they must contain.

Phrases are met by lexically constrained beam search with dynamic allocation (Post & Vilar 2018).

Candidates are sorted into banks by how many tokens of the required phrases they have; the slots of a source are shared out evenly
among its banks, and what a bank cannot fill goes to the others. Which tokens a hypothesis has is kept by one automaton a phrase
(Knuth, Morris & Pratt 1977), so that a phrase counts wherever it stands as a run, overlaps included. The same phrase asked for
twice is met by one occurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.decode.hypotheses import log_probabilities_of
from unrolled.decode.processors import NEVER

NO_TOKEN = -1
"""Fills tables where there is no token."""


class Phrases(NamedTuple):
    """Required phrases of every source as tables, on the CPU. A source with fewer has empty ones, which are met from the start."""

    lengths: Int[Tensor, "sources phrases"]
    following: Int[Tensor, "sources phrases states"]
    """The token that takes a phrase on, by how many tokens of it are there; `NO_TOKEN` once all are."""
    alphabet: Int[Tensor, "sources phrases letters"]
    """The different tokens of each phrase."""
    moves: Int[Tensor, "sources phrases states moves"]
    """How many tokens are there after a token, by how many were and which letter it is; the last column is any other token."""


class Requests(NamedTuple):
    """What is asked for source by source, on the CPU."""

    limits: Int[Tensor, " sources"]
    """Greatest lengths."""
    prefix: Int[Tensor, "sources longest"]
    """Forced tokens, `NO_TOKEN` past the end of each."""
    phrases: Phrases | None
    """`None` where no source has any."""


class Pool(NamedTuple):
    """The candidates of a step by row."""

    log_probabilities: Float[Tensor, "rows candidates"]
    """-inf is no candidate."""
    tokens: Int[Tensor, "rows candidates"]


def check_requests(
    limits: Sequence[int],
    prefix: Sequence[Sequence[int]] | None,
    phrases: Sequence[Sequence[Sequence[int]]] | None,
    vocabulary_size: int,
    end: int,
) -> Requests:
    """Refuse what no output can meet.

    Args:
        limits: the greatest length of every source.
        prefix: for every source the ids its outputs begin with.
        phrases: for every source the phrases its outputs must contain.
        vocabulary_size: how many tokens there are.
        end: the end symbol.

    Returns:
        The requests as tables.

    Raises:
        ConfigurationError: a length below 0; not one entry a source; an id outside the vocabulary; the end symbol inside; an
            empty phrase; a prefix or a phrase longer than the greatest length.
    """
    if min(limits, default=0) < 0:
        raise ConfigurationError(f"`max_lengths` must be 0 or more, got {min(limits)}")
    prefix = [()] * len(limits) if prefix is None else prefix
    phrases = [()] * len(limits) if phrases is None else phrases
    for name, given in (("prefix", prefix), ("constraints", phrases)):
        if len(given) != len(limits):
            raise ConfigurationError(f"`{name}` must have one entry for each of {len(limits)} sources, got {len(given)}")
    forced = torch.full((len(limits), max(map(len, prefix), default=0)), NO_TOKEN)
    for source, (beginning, group, limit) in enumerate(zip(prefix, phrases, limits, strict=True)):
        _check_ids("a prefix", beginning, limit, vocabulary_size, end)
        forced[source, : len(beginning)] = torch.tensor(list(beginning), dtype=torch.long)
        for phrase in group:
            if not phrase:
                raise ConfigurationError("a required phrase must have at least one token, got an empty one; leave it out")
            _check_ids("a required phrase", phrase, limit, vocabulary_size, end)
    compiled = compile_phrases(phrases) if any(phrases) else None
    return Requests(torch.tensor(limits, dtype=torch.long), forced, compiled)


def _check_ids(name: str, ids: Sequence[int], limit: int, vocabulary_size: int, end: int) -> None:
    outside = [token for token in ids if not 0 <= token < vocabulary_size]
    if outside:
        raise ConfigurationError(f"{name} must hold ids in 0..{vocabulary_size - 1} (the vocabulary), got {outside[0]}")
    if end in ids:
        raise ConfigurationError(f"{name} must not hold the end symbol {end}, got {list(ids)}; it ends every output")
    if len(ids) > limit:
        raise ConfigurationError(f"{name} must fit into the greatest length, {limit}, got {len(ids)} tokens; raise the greatest length")


def compile_phrases(phrases: Sequence[Sequence[Sequence[int]]]) -> Phrases:
    """Build the automata.

    Args:
        phrases: for every source its phrases, each at least one id.

    Returns:
        Their tables.
    """
    count = max(map(len, phrases), default=0)
    longest = max((len(phrase) for group in phrases for phrase in group), default=0)
    shape = (len(phrases), count)
    tables = Phrases(
        torch.zeros(shape, dtype=torch.long),
        torch.full((*shape, longest + 1), NO_TOKEN),
        torch.full((*shape, longest), NO_TOKEN),
        torch.zeros((*shape, longest + 1, longest + 1), dtype=torch.long),
    )
    for source, group in enumerate(phrases):
        for i, phrase in enumerate(group):
            letters = sorted(set(phrase))
            tables.lengths[source, i] = len(phrase)
            tables.following[source, i, : len(phrase)] = torch.tensor(phrase)
            tables.alphabet[source, i, : len(letters)] = torch.tensor(letters)
            tables.moves[source, i, : len(phrase) + 1, : len(letters)] = torch.tensor(_automaton(list(phrase), letters))
            tables.moves[source, i, len(phrase)] = len(phrase)  # once met, met for good
    return tables


def _automaton(phrase: list[int], letters: list[int]) -> list[list[int]]:
    """The longest beginning of the phrase that ends a text, by the longest one that ended it before a letter."""

    def longest_beginning(text: list[int]) -> int:
        return next(n for n in range(min(len(text), len(phrase)), -1, -1) if text[len(text) - n :] == phrase[:n])

    return [[longest_beginning([*phrase[:state], letter]) for letter in letters] for state in range(len(phrase) + 1)]


def wanted_tokens(phrases: Phrases, matched: Int[Tensor, "sources beam phrases"]) -> Int[Tensor, "sources beam phrases"]:
    """The token that takes each phrase on.

    Args:
        phrases: the tables.
        matched: how many tokens of each phrase a hypothesis has.

    Returns:
        Ids, `NO_TOKEN` where the phrase is met.
    """
    return phrases.following.unsqueeze(1).expand(-1, matched.shape[1], -1, -1).gather(3, matched.unsqueeze(3)).squeeze(3)


def advance(
    phrases: Phrases, matched: Int[Tensor, "sources some phrases"], tokens: Int[Tensor, "sources some"]
) -> Int[Tensor, "sources some phrases"]:
    """How many tokens of each phrase there are after one token more.

    Args:
        phrases: the tables.
        matched: how many there were.
        tokens: what comes.

    Returns:
        The new counts.
    """
    sources, count = phrases.lengths.shape
    is_letter = tokens[:, :, None, None] == phrases.alphabet.unsqueeze(1)
    any_other = phrases.moves.shape[3] - 1
    letter = torch.where(is_letter.any(3), is_letter.byte().argmax(3), any_other) if any_other else torch.zeros_like(matched)
    return phrases.moves[torch.arange(sources)[:, None, None], torch.arange(count), matched, letter]


def is_met(phrases: Phrases, matched: Int[Tensor, "sources some phrases"]) -> Bool[Tensor, "sources some"]:
    """True where every phrase is there.

    Args:
        phrases: the tables.
        matched: how many tokens of each there are.

    Returns:
        One answer a hypothesis.
    """
    return (matched == phrases.lengths.unsqueeze(1)).all(2)


def allocate(totals: Float[Tensor, "sources some"], banks: Int[Tensor, "sources some"], beam: int) -> Int[Tensor, "sources beam"]:
    """The candidates that take slots, in the order in which slots are given out.

    First the best candidate of every bank, the bank with the most required tokens first, then the second best of every bank, and so
    on: an even share for each bank, and what a bank cannot fill goes to the others (the sharing of Post & Vilar 2018, also where there are more banks than slots).

    Args:
        totals: log-probabilities; -inf is no candidate.
        banks: how many required tokens each has.
        beam: how many to choose, at most as many as there are.

    Returns:
        Indices of candidates; those of -inf come last.
    """
    order = totals.argsort(dim=1, descending=True, stable=True)
    bank = banks.gather(1, order)
    count = int(banks.max()) + 1 if banks.numel() else 1
    member = torch.nn.functional.one_hot(bank, count)
    rank = member.cumsum(1).gather(2, bank.unsqueeze(2)).squeeze(2)
    turn = rank * count + (count - 1 - bank)
    turn = turn.masked_fill(totals.gather(1, order) == -torch.inf, torch.iinfo(torch.long).max)
    return order.gather(1, turn.argsort(dim=1, stable=True)[:, :beam])


def with_wanted(pool: Pool, log_probabilities: Float[Tensor, "rows vocab"], wanted: Int[Tensor, "rows phrases"], end: int) -> Pool:
    """Add the tokens that required phrases want, and take the end symbol away from rows that lack some.

    Args:
        pool: the best tokens of each row.
        log_probabilities: of all tokens.
        wanted: the token that takes each phrase on, `NO_TOKEN` where there is none.
        end: the end symbol.

    Returns:
        A pool with a column more for each phrase; no token is twice in a row.
    """
    wanted = wanted.to(pool.tokens.device)
    absent = wanted == NO_TOKEN
    twice = (wanted.unsqueeze(2) == pool.tokens.unsqueeze(1)).any(2)
    twice |= (wanted.unsqueeze(2) == wanted.unsqueeze(1)).tril(-1).any(2)
    more = log_probabilities.gather(1, wanted.clamp(min=0)).masked_fill(absent | twice, NEVER)
    lacking = ~absent.all(1, keepdim=True)
    best = pool.log_probabilities.masked_fill(lacking & (pool.tokens == end), NEVER)
    return Pool(torch.cat([best, more], 1), torch.cat([pool.tokens, wanted.clamp(min=0)], 1))


def with_forced(pool: Pool, logits: Float[Tensor, "rows vocab"], forced: Int[Tensor, " rows"]) -> Pool:
    """Leave rows inside a forced prefix its next token only, as probable as the model itself has it.

    Args:
        pool: candidates, on the CPU.
        logits: what the model gave, before any processor.
        forced: the token of each row, `NO_TOKEN` where it is free.

    Returns:
        A pool of the same size.

    Raises:
        UserError: the model gives a forced token no probability.
    """
    rows = (forced != NO_TOKEN).nonzero().flatten()
    tokens = forced[rows]
    terms = log_probabilities_of(logits[rows.to(logits.device)]).gather(1, tokens.unsqueeze(1).to(logits.device)).squeeze(1).cpu()
    if (terms == NEVER).any():
        found = int(tokens[terms == NEVER][0])
        raise UserError(f"every token of a prefix must be possible, but the model gives token {found} probability 0; leave it out")
    only = torch.full_like(pool.log_probabilities, NEVER)
    only[rows, 0] = terms
    kept = pool.tokens.clone()
    kept[rows, 0] = tokens
    return Pool(torch.where((forced == NO_TOKEN).unsqueeze(1), pool.log_probabilities, only), kept)

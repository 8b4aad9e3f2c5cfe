"""What is asked of single outputs: how they begin, how long they get, and which phrases they must contain.

Phrases are met by lexically constrained beam search with dynamic allocation (Post & Vilar 2018).

Candidates are sorted into banks by how many tokens of the required phrases they have; the slots of a source are shared out evenly
among its banks, and what a bank cannot fill goes to the others. Which tokens a hypothesis has is kept by one automaton a phrase
(`phrases.py`). The same phrase asked for twice is met by one occurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.decode.hypotheses import log_probabilities_of
from unrolled.decode.phrases import CLOSING, NO_TOKEN, Phrases, Wording, compile_phrases, is_met, wanted_tokens, wording_of
from unrolled.decode.processors import NEVER


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
    phrases: Sequence[Sequence[Sequence[int] | Wording]] | None,
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
        for run in (run for phrase in group for run in wording_of(phrase).runs):
            if not run:
                raise ConfigurationError("a required phrase must have at least one token, got an empty one; leave it out")
            _check_ids("a required phrase", run, limit, vocabulary_size, end)
    compiled = compile_phrases(phrases, vocabulary_size, end) if any(phrases) else None
    return Requests(torch.tensor(limits, dtype=torch.long), forced, compiled)


def _check_ids(name: str, ids: Sequence[int], limit: int, vocabulary_size: int, end: int) -> None:
    outside = [token for token in ids if not 0 <= token < vocabulary_size]
    if outside:
        raise ConfigurationError(f"{name} must hold ids in 0..{vocabulary_size - 1} (the vocabulary), got {outside[0]}")
    if end in ids:
        raise ConfigurationError(f"{name} must not hold the end symbol {end}, got {list(ids)}; it ends every output")
    if len(ids) > limit:
        raise ConfigurationError(f"{name} must fit into the greatest length, {limit}, got {len(ids)} tokens; raise the greatest length")


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


class Demands(NamedTuple):
    """What required phrases demand of each row of the model's batch."""

    wanted: Int[Tensor, "rows wanted"]
    """The tokens that take phrases on, as `wanted_tokens` has them."""
    lacking: Bool[Tensor, " rows"]
    """True for rows without all of the phrases."""


def demands_of(phrases: Phrases, states: Int[Tensor, "sources beam phrases"], slots: Int[Tensor, " rows"]) -> Demands:
    """What is demanded of each row.

    Args:
        phrases: the tables.
        states: of the hypothesis in each slot.
        slots: of each row, counted over all sources; `sources × beam` for a row without a hypothesis, of which nothing is demanded.

    Returns:
        Tokens, and what may not end.
    """
    wanted, met = wanted_tokens(phrases, states).flatten(0, 1), is_met(phrases, states).flatten()
    nothing, rest = wanted.new_full((1, wanted.shape[1]), NO_TOKEN), met.new_ones(1)
    return Demands(torch.cat([wanted, nothing])[slots], ~torch.cat([met, rest])[slots])


def with_wanted(
    pool: Pool, log_probabilities: Float[Tensor, "rows vocab"], demands: Demands, closing: Bool[Tensor, " vocab"], end: int
) -> Pool:
    """Add the tokens that required phrases want, and take the end symbol away from rows that lack some.

    Args:
        pool: the best tokens of each row.
        log_probabilities: of all tokens.
        demands: of each row.
        closing: the tokens of which the likeliest stands for `CLOSING`; the end symbol is left out.
        end: the end symbol.

    Returns:
        A pool with a column more for each wanted token; no token is twice in a row.
    """
    wanted, lacking = demands.wanted.to(pool.tokens.device), demands.lacking.to(pool.tokens.device).unsqueeze(1)
    if (demands.wanted == CLOSING).any():
        others = ~closing | (torch.arange(len(closing)) == end)
        likeliest = log_probabilities.masked_fill(others.to(wanted.device), NEVER).argmax(1, keepdim=True)
        wanted = torch.where(wanted == CLOSING, likeliest, wanted)
    absent = wanted == NO_TOKEN
    twice = (wanted.unsqueeze(2) == pool.tokens.unsqueeze(1)).any(2)
    twice |= (wanted.unsqueeze(2) == wanted.unsqueeze(1)).tril(-1).any(2)
    more = log_probabilities.gather(1, wanted.clamp(min=0)).masked_fill(absent | twice, NEVER)
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

"""Beam search over any stepper: k hypotheses a source, all sources at once, each with the result it would have alone.

The k hypotheses of a source are the live ones plus the finished ones: a finished hypothesis keeps its slot, so the search is as wide
as what is left (`k - finished`). At each step the likeliest continuations by Σ log P take these slots, those with the end symbol
finish, and at the greatest length all others are cut, so that outputs are the leaves of one tree and their probabilities sum to 1.
With one slot this is greedy decoding; with as many slots as there are outputs it is exhaustive.

The model runs on live rows; what is chosen is kept on the CPU in tensors `[sources, beam]`, so that an accelerator is waited for once
a step. Memory, besides the model's state for `sources × beam` rows: some numbers for each of sources × beam × length (times the
source length where alignments are asked for), never anything of the size of length × vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.core.state import State, named_leaves
from unrolled.decode.constraints import Pool, Requests, allocate, check_requests, demands_of, with_forced, with_wanted
from unrolled.decode.forbidding import Ban
from unrolled.decode.hypotheses import (
    LENGTH_PENALTIES,
    BeamOptions,
    BeamResult,
    BeamTree,
    Hypothesis,
    Step,
    TreeRecorder,
    Weighed,
    assemble,
    coverage_penalty,
    log_probabilities_of,
    rank,
)
from unrolled.decode.phrases import NO_TOKEN, Wording, advance, is_met, progress
from unrolled.decode.processors import NEVER, NoRepeatNgram, Processor
from unrolled.decode.sampling import why_nothing
from unrolled.decode.stepper import Aligns, Stepper, reorder

WASTE = 1 / 8
"""The share of dead rows at which it is cheaper to copy the state of the live ones than to go on reading the dead."""
CHUNK = 64
"""Tokens that stand for one in the first round of finding the best."""


def beam_search(
    stepper: Stepper,
    state: State,
    batch: int,
    options: BeamOptions,
    *,
    processors: Sequence[Processor] = (),
    prefix: Sequence[Sequence[int]] | None = None,
    constraints: Sequence[Sequence[Sequence[int] | Wording]] | None = None,
    max_lengths: Int[Tensor, " batch"] | None = None,
) -> BeamResult:
    """Find the likeliest outputs of every source.

    A source is done when all its slots are finished, at its greatest length, or (early stopping) when nothing can change its `n_best`.
    Proof that the last loses nothing: let s be the log-probability of a live hypothesis after t tokens. Every output that begins
    with it has between t + 1 and M tokens, M the greatest length, and log-probability s' ≤ s ≤ 0, since each further term is ≤ 0.
    Its score is s'/N(length) plus a coverage penalty ≤ 0, where N > 0 does not fall and rise both; so the score is at most
    s / max(N(t + 1), N(M)). Where this bound is at most the score of the n-th best finished hypothesis, for all live ones, no
    later output comes before it: what finished earlier wins a tie. Rounding keeps all of these inequalities.

    While it runs, logits that are NaN or +inf, or that leave a source without any token, end in a `UserError`, as in sampling; so
    does a prefix of probability 0. One hypothesis without any token left is a dead end, and no error.

    Args:
        stepper: the model.
        state: its state before the start symbol, a row for each source.
        batch: how many sources there are.
        options: width, ranking, lengths, end and start symbol.
        processors: applied to the logits in turn, with what was read so far (the start symbol first) as history; then those of `options`.
            A `Ban` comes last, and what it rules out lowers the score of a hypothesis.
        prefix: for every source the ids its outputs begin with. They count as output: scored by the model itself, no processor
            taking part, and part of every length.
        constraints: for every source the phrases that its outputs must contain, as ids or with several spellings. An end symbol comes
            only after all of them; outputs that are cut before say so (`met`), and come last.
        max_lengths: greatest length by source, instead of `options.max_length`.

    Returns:
        Hypotheses by source, best first, with the steps taken.

    Raises:
        ConfigurationError: a request that cannot be met.
    """
    limits = [options.max_length] * batch if max_lengths is None else max_lengths.tolist()
    if len(limits) != batch:
        raise ConfigurationError(f"`max_lengths` must have one entry for each of {batch} sources, got {len(limits)}")
    requests = _check(stepper, options, limits, prefix, constraints)
    search = _Search(stepper, options, processors, requests)
    search.run(state)
    return search.result()


def record_beam(
    stepper: Stepper,
    state: State,
    options: BeamOptions,
    *,
    processors: Sequence[Processor] = (),
    prefix: Sequence[int] = (),
    constraints: Sequence[Sequence[int] | Wording] = (),
    max_length: int | None = None,
) -> BeamTree:
    """Search one source and keep everything that was weighed, for a picture of the search.

    Args:
        stepper: the model.
        state: its state before the start symbol, one row.
        options: as for `beam_search`.
        processors: as for `beam_search`.
        prefix: the ids outputs begin with.
        constraints: the phrases outputs must contain.
        max_length: greatest length, instead of `options.max_length`.

    Returns:
        The tree, with the same result that `beam_search` gives.
    """
    limits = [options.max_length if max_length is None else max_length]
    requests = _check(stepper, options, limits, [prefix], [constraints])
    recorder = TreeRecorder()
    search = _Search(stepper, options, processors, requests, recorder)
    search.run(state)
    ends = rank(search.steps, options.n_best).order[0].tolist() if search.steps else []
    result = search.result()
    return recorder.tree(result, ends[: len(result.hypotheses[0])] if search.steps else [], options.beam)


def _check(
    stepper: Stepper,
    options: BeamOptions,
    limits: Sequence[int],
    prefix: Sequence[Sequence[int]] | None,
    constraints: Sequence[Sequence[Sequence[int] | Wording]] | None,
) -> Requests:
    """Refuse what cannot be, before the model runs."""
    V = stepper.vocabulary_size
    for name, token in (("start", options.start), ("end", options.end)):
        if token >= V:
            raise ConfigurationError(f"the {name} symbol must be an id in 0..{V - 1} (the vocabulary), got {token}")
    if (options.coverage or options.alignments) and not isinstance(stepper, Aligns):
        wish = "`coverage`" if options.coverage else "`alignments`"
        raise ConfigurationError(f"{wish} must be left out for a model that does not attend, got {type(stepper).__name__}")
    return check_requests(limits, prefix, constraints, V, options.end)


class _Rows(NamedTuple):
    """The rows of the model's batch. Rows of one source stand together; dead ones among them are read in vain."""

    state: State
    tokens: Tensor
    """What each reads next, on the model's device."""
    slots: Tensor
    """The slot of each, counted over all sources; `sources × beam` for a dead one. On the CPU."""
    owned: Tensor
    """How many rows each source has, on the CPU."""
    history: Tensor | None
    """What each has read and reads next, on the model's device, where a processor is there to see it."""
    coverage: Tensor | None
    """The sum of attention so far."""


class _Chosen(NamedTuple):
    """What takes the slots, `[sources, beam]` each."""

    at: Tensor
    """Place among the candidates of a source: slot before × width of the pool + column."""
    totals: Tensor
    kept: Tensor
    """False where there was nothing left to take, or no room."""
    matched: Tensor | None
    """The states of required phrases, `[sources, beam, phrases]`."""
    weighed: Tensor
    """Totals of all candidates, `[sources, candidates]`."""


class _Search:
    """The book-keeping of one search; the model's state goes through it from step to step."""

    def __init__(
        self,
        stepper: Stepper,
        options: BeamOptions,
        processors: Sequence[Processor],
        requests: Requests,
        recorder: TreeRecorder | None = None,
    ) -> None:
        self.stepper, self.options, self.requests, self.recorder = stepper, options, requests, recorder
        self.processors = tuple(one for one in processors if not isinstance(one, Ban))
        self.bans = tuple(one for one in processors if isinstance(one, Ban))
        if options.no_repeat_ngram is not None:
            self.processors += (NoRepeatNgram(options.no_repeat_ngram),)
        S, K, limits = len(requests.limits), options.beam, requests.limits
        self.width = min(K + (requests.phrases is not None), stepper.vocabulary_size)
        lengths = torch.arange(int(limits.max()) + 2 if S else 2, dtype=torch.float64)
        self.penalties = LENGTH_PENALTIES[options.normalisation](lengths, options.alpha)
        self.totals = torch.full((S, K), NEVER, dtype=torch.float64)
        self.totals[limits > 0, 0] = 0
        self.room = torch.full((S, 1), K)
        self.best = torch.full((S, options.n_best), NEVER, dtype=torch.float64)
        self.saved = torch.zeros(S, dtype=torch.long)
        self.complete = False  # some source has all the hypotheses it is to hand out
        self.matched = None if requests.phrases is None else torch.zeros((S, K, requests.phrases.met.shape[1]), dtype=torch.long)
        self.steps: list[Step] = []
        self.alignments: list[Tensor] = []

    def run(self, state: State) -> None:
        """Search until every source is done."""
        S, K = self.totals.shape
        device = next((leaf.device for _, leaf in named_leaves(state)), torch.device("cpu"))
        tokens = torch.full((S,), self.options.start, dtype=torch.long, device=device)
        slots = torch.where(self.requests.limits > 0, torch.arange(S) * K, S * K)
        history = tokens.unsqueeze(1) if self.processors or self.bans else None
        rows: _Rows | None = _Rows(state, tokens, slots, torch.ones(S, dtype=torch.long), history, None)
        if not (self.requests.limits > 0).any():
            return
        with torch.inference_mode():
            while rows is not None:
                rows = self._advance(rows)

    def result(self) -> BeamResult:
        """What was found so far."""
        found: list[list[Hypothesis]] = [[] for _ in self.saved]
        taken = torch.zeros_like(self.saved)
        if self.steps:
            taken = torch.stack([step.totals[:, 0] > NEVER for step in self.steps]).sum(0)
            found = assemble(self.steps, self.alignments, rank(self.steps, self.options.n_best))
        for source in (self.requests.limits == 0).nonzero().flatten().tolist():
            nothing = torch.zeros(0, 0) if self.options.alignments else None
            found[source] = [Hypothesis([], 0.0, 0.0, [], nothing, False, self._nothing_required(source))]
        return BeamResult(found, taken.tolist(), self.saved.tolist())

    def _nothing_required(self, source: int) -> bool:
        return self.requests.phrases is None or bool(self.requests.phrases.met[source, :, 0].all())

    def _advance(self, rows: _Rows) -> _Rows | None:
        """One step of the model, and of every source that is not done."""
        logits, state = self.stepper.step(rows.tokens, rows.state)
        rows = rows._replace(state=state, coverage=self._look(state, rows.coverage))
        pool = self._weigh(logits, rows)
        chosen = self._choose(pool, rows.slots)
        live = self._take(chosen, pool, rows)
        return self._next_rows(live, rows)

    def _look(self, state: State, coverage: Tensor | None) -> Tensor | None:
        """Keep the attention of this step; the sum of all so far, where it counts."""
        if not (self.options.coverage or self.options.alignments):
            return None
        assert isinstance(self.stepper, Aligns)
        attention = self.stepper.alignment(state)
        if self.options.alignments:
            self.alignments.append(attention)
        if not self.options.coverage:
            return None
        return attention if coverage is None else coverage + attention

    def _weigh(self, logits: Tensor, rows: _Rows) -> Pool:
        """The candidates of every row."""
        processed = logits
        for process in self.processors:
            assert rows.history is not None
            processed = process(processed, rows.history)
        if len(self.steps) < self.options.min_length:
            processed = processed.index_fill(-1, torch.tensor([self.options.end], device=logits.device), NEVER)
        log_probabilities = log_probabilities_of(processed)
        for process in self.bans:
            assert rows.history is not None
            log_probabilities = process(log_probabilities, rows.history)
        pool = Pool(*best_tokens(log_probabilities, self.width))
        if self.matched is not None and self.requests.phrases is not None:
            phrases = self.requests.phrases
            demands = demands_of(phrases, self.matched, rows.slots)
            pool = with_wanted(pool, log_probabilities, demands, phrases.closing, self.options.end)
        pool = Pool(pool.log_probabilities.cpu(), pool.tokens.cpu())
        if len(self.steps) < self.requests.prefix.shape[1]:
            living, forced = self._living(rows.slots), torch.full((len(rows.slots),), NO_TOKEN)
            forced[living] = self.requests.prefix[rows.slots[living] // self.options.beam, len(self.steps)]
            pool = with_forced(pool, logits, forced)
        return self._checked(pool, processed, rows.slots)

    def _living(self, slots: Tensor) -> Tensor:
        """The rows that hold a hypothesis."""
        return (slots < self.totals.numel()).nonzero().flatten()

    def _checked(self, pool: Pool, processed: Tensor, slots: Tensor) -> Pool:
        """Refuse what no choice can be made by; a row whose every token is ruled out is a dead end without candidates."""
        broken = pool.log_probabilities.isnan()
        if broken.any():
            living = self._living(slots)
            faulty = processed[living[broken[living].any(1)].to(processed.device)]
            if (faulty.isnan() | faulty.isposinf()).any():
                raise UserError(why_nothing(faulty))
            pool = pool._replace(log_probabilities=pool.log_probabilities.masked_fill(broken, NEVER))
        return pool

    def _choose(self, pool: Pool, slots: Tensor) -> _Chosen:
        """Share out the slots of every source among its candidates."""
        S, K = self.totals.shape
        width = pool.tokens.shape[1]
        spread = torch.full((S * K + 1, width), NEVER, dtype=torch.float64)  # dead rows write past the end
        spread[slots] = pool.log_probabilities.double()
        weighed = (self.totals.view(-1, 1) + spread[:-1]).view(S, K * width)
        if self.matched is None:
            matched = None
            totals, at = weighed.topk(K)
        else:
            assert self.requests.phrases is not None
            tokens = torch.zeros((S * K + 1, width), dtype=torch.long)
            tokens[slots] = pool.tokens
            phrases = self.requests.phrases
            after = advance(phrases, self.matched.repeat_interleave(width, 1), tokens[:-1].view(S, K * width))
            at = allocate(weighed, progress(phrases, after), K)
            totals = weighed.gather(1, at)
            matched = after.gather(1, at.unsqueeze(2).expand(-1, -1, after.shape[2]))
        kept = (totals > NEVER) & (torch.arange(K) < self.room)
        empty = ~kept.any(1)
        if empty.any() and (empty & (self.totals > NEVER).any(1) & (self.room == K).squeeze(1)).any():
            # Every token of every live row of a source is ruled out, and nothing has finished.
            raise UserError(why_nothing(torch.full((1, 1), NEVER)))
        return _Chosen(at, totals, kept, matched, weighed)

    def _take(self, chosen: _Chosen, pool: Pool, rows: _Rows) -> Tensor:
        """Write the step down, let finish what finishes, and see which sources are done; what lives on."""
        S, K = self.totals.shape
        time, width = len(self.steps) + 1, pool.tokens.shape[1]
        row_of = torch.zeros(S * K + 1, dtype=torch.long)
        row_of[rows.slots] = torch.arange(len(rows.slots))
        row_of = row_of[:-1].view(S, K)
        parents = chosen.at // width
        from_rows = row_of.gather(1, parents)
        cells = from_rows * width + chosen.at % width
        tokens, terms = pool.tokens.flatten()[cells], pool.log_probabilities.flatten()[cells]
        ended = tokens == self.options.end
        finishing = chosen.kept & (ended | (self.requests.limits <= time).unsqueeze(1))
        divisor, penalty = float(self.penalties[time]), None
        scores = chosen.totals / divisor
        if rows.coverage is not None:
            penalty = coverage_penalty(rows.coverage, self.options.coverage).double().cpu()
            scores = scores + penalty[from_rows]
        scores = scores.masked_fill(~finishing, NEVER)
        phrases = self.requests.phrases
        met = torch.ones_like(ended) if phrases is None or chosen.matched is None else is_met(phrases, chosen.matched)
        self.steps.append(Step(parents, from_rows, tokens, terms, chosen.totals, scores, ended, met))
        if self.recorder is not None:
            all_scores = chosen.weighed / divisor
            if penalty is not None:
                all_scores = all_scores + penalty[row_of].repeat_interleave(width, 1)
            terms_of, tokens_of = (x[row_of[0]].flatten() for x in pool)
            self.recorder.add(Weighed(tokens_of, terms_of, chosen.weighed[0], all_scores[0], chosen.at[0], chosen.kept[0], finishing[0]))
        self._finish(finishing, scores)
        live = self._stop(chosen.kept & ~finishing, chosen.totals)
        self.totals, self.matched = chosen.totals.masked_fill(~live, NEVER), chosen.matched
        return live

    def _finish(self, finishing: Tensor, scores: Tensor) -> None:
        """Give slots to what finishes, and keep the best scores."""
        if finishing.any():
            self.room = self.room - finishing.sum(1, keepdim=True)
            self.best = torch.cat([self.best, scores], 1).topk(self.best.shape[1]).values
            self.complete = bool((self.best[:, -1] > NEVER).any())

    def _stop(self, live: Tensor, totals: Tensor) -> Tensor:
        """What lives on where sources end of which nothing can change the result any more."""
        if not (self.complete and self.options.early_stopping):
            return live
        time, limits = len(self.steps), self.requests.limits
        bound = totals.masked_fill(~live, NEVER).amax(1) / torch.maximum(self.penalties[time + 1], self.penalties[limits])
        over = (self.best[:, -1] >= bound) & live.any(1)
        self.saved = torch.where(over, limits - time, self.saved)
        return live & ~over.unsqueeze(1)

    def _next_rows(self, live: Tensor, rows: _Rows) -> _Rows | None:
        """The rows of the next step: the same ones with their state re-ordered, or only the live ones where that is worth a copy."""
        S, K = live.shape
        R, step = len(rows.slots), self.steps[-1]
        flat = live.flatten().nonzero().flatten()
        if not len(flat):
            return None
        counts, device = live.sum(1), rows.tokens.device
        parents, tokens, slots, owned = step.rows.flatten()[flat], step.tokens.flatten()[flat], flat, counts
        stays = torch.equal(counts, rows.owned)
        if not stays and (len(flat) >= (1 - WASTE) * R) and (counts <= rows.owned).all():
            stays, owned = True, rows.owned
            places = (owned.cumsum(0) - owned)[flat // K] + (live.cumsum(1) - 1).flatten()[flat]
            parents = torch.arange(R).index_copy(0, places, parents)  # a dead row goes on from itself
            tokens = torch.full((R,), self.options.start).index_copy(0, places, tokens)
            slots = torch.full((R,), S * K).index_copy(0, places, flat)
        still = stays and torch.equal(parents, torch.arange(R))
        tokens, parents = tokens.to(device), parents.to(device)
        if still:
            state = rows.state
        else:
            state = reorder(self.stepper, rows.state, parents) if stays else self.stepper.select(rows.state, parents)
        history = None if rows.history is None else torch.cat([rows.history[parents], tokens.unsqueeze(1)], 1)
        coverage = None if rows.coverage is None else rows.coverage[parents]
        return _Rows(state, tokens, slots, owned, history, coverage)


def best_tokens(scores: Float[Tensor, "rows vocab"], count: int) -> tuple[Float[Tensor, "rows count"], Int[Tensor, "rows count"]]:
    """The greatest entries of each row and where they are; with one, ties go to the lowest id.

    In a large vocabulary first the chunks with the greatest entries, then the greatest entries of those: three times as fast
    as one `topk`, with the same result.

    Args:
        scores: log-probabilities.
        count: how many, at most `vocab`.

    Returns:
        Values, best first, and tokens.
    """
    R, V = scores.shape
    chunks = V // CHUNK
    if chunks < 4 * count or chunks < CHUNK // 2:
        return _top(scores, count)
    heads = scores[:, : chunks * CHUNK].view(R, chunks, CHUNK).amax(2)
    _, chosen = _top(heads, count)
    tokens = (chosen.unsqueeze(2) * CHUNK + torch.arange(CHUNK, device=scores.device)).view(R, count * CHUNK)
    rest = torch.arange(chunks * CHUNK, V, device=scores.device).expand(R, -1)
    tokens = torch.cat([tokens, rest], 1)
    values, at = _top(scores.gather(1, tokens), count)
    return values, tokens.gather(1, at)


def _top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if count == 1:
        values, at = scores.max(1, keepdim=True)
    else:
        values, at = scores.topk(count, 1)
    return values, at

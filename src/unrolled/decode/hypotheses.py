"""What beam search is asked for and what it finds: options, hypotheses and their scores, the way back from a last token to the first, and the tree of a search.

Length normalisation and coverage penalty are those of Wu et al. 2016, eq. 14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded, check_lengths
from unrolled.core.settings import Settings
from unrolled.core.state import State
from unrolled.decode.processors import NEVER
from unrolled.decode.stepper import Stepper


class BeamOptions(Settings):
    """How beam search searches and ranks. `start` and `end` are facts of the vocabulary; all else has a default."""

    start: int = Field(ge=0)
    """The symbol that is read first."""
    end: int = Field(ge=0)
    """The symbol that ends an output."""
    beam: int = Field(5, ge=1)
    """Hypotheses kept for each source; 1 is greedy decoding."""
    n_best: int = Field(1, ge=1)
    """Hypotheses handed out for each source, at most `beam`."""
    max_length: int = Field(200, ge=0)
    """The most tokens of an output, its end symbol included; what reaches it is cut there."""
    min_length: int = Field(0, ge=0)
    """The fewest tokens before the end symbol."""
    normalisation: Literal["none", "average", "gnmt"] = "none"
    """What Σ log P is divided by before hypotheses are ranked: 1, `length^alpha`, or `((5 + length) / 6)^alpha` (Wu et al. 2016, eq. 14).
    The length counts the end symbol."""
    alpha: float = Field(1.0, ge=-10, le=10)
    """Exponent of the length normalisation: above 0 longer outputs gain, below they lose."""
    coverage: float = Field(0.0, ge=0)
    """Weight β of the coverage penalty (Wu et al. 2016, eq. 14), for models that attend; 0 is without."""
    no_repeat_ngram: int | None = Field(None, ge=1)
    """No run of this many tokens comes twice in an output."""
    early_stopping: bool = True
    """Stop a source as soon as nothing can change its `n_best`; costs nothing and loses nothing."""
    alignments: bool = False
    """Hand out attention weights with each hypothesis, for models that attend."""

    @model_validator(mode="after")
    def _fits(self) -> BeamOptions:
        if self.n_best > self.beam:
            raise ValueError(f"`n_best` must be at most `beam`, {self.beam}, got {self.n_best}; raise `beam`")
        return self


class Hypothesis(NamedTuple):
    """One output of beam search."""

    tokens: list[int]
    """What was put out, a forced prefix included, without the start symbol and without the end symbol."""
    score: float
    """What hypotheses are ranked by: log-probability over the length penalty, plus the coverage penalty."""
    log_probability: float
    """Σ log P in nats, the end symbol's included where there is one."""
    token_log_probabilities: list[float]
    """The terms of that sum: one a token, then that of the end symbol where `ended`."""
    alignment: Float[Tensor, "length source"] | None
    """Attention weights, a row for each term (that of the end symbol is the last); `None` unless they were asked for."""
    ended: bool
    """False where the greatest length cut it, so that no end symbol was put out."""
    met: bool
    """True where it contains every required phrase, so also where none was required."""


class BeamResult(NamedTuple):
    """What beam search found, source by source."""

    hypotheses: list[list[Hypothesis]]
    """Up to `n_best` a source, best first; fewer only where no more could be found."""
    steps: list[int]
    """How many tokens deep each source was searched."""
    steps_saved: list[int]
    """Where a source was done before its slots were full: by how many steps its greatest length lies further, the most
    that going on could have taken. 0 for all others."""


class Fate(StrEnum):
    """What became of a candidate at its step."""

    KEPT = "kept"
    FINISHED = "finished"
    DROPPED = "dropped"


class BeamNode(NamedTuple):
    """One candidate of one step."""

    step: int
    """0 for the first token."""
    parent: int
    """Index of the node it goes on from, -1 at the first step."""
    token: int
    log_probability: float
    """Of this token."""
    total: float
    """Of all tokens to here."""
    score: float
    """As if it ended here: with length and coverage penalty."""
    fate: Fate


class BeamTree(NamedTuple):
    """Every candidate that the search of one source weighed: what each hypothesis could go on with among its best `beam` tokens."""

    nodes: list[BeamNode]
    """Parents before children."""
    best: list[int]
    """The last nodes of the hypotheses, in their order."""
    result: BeamResult
    """What the search returned, of this one source."""


LengthPenalty = Callable[[Tensor, float], Tensor]
"""From lengths and the exponent α to what log-probabilities are divided by; must not fall and rise both."""

LENGTH_PENALTIES: dict[str, LengthPenalty] = {
    "none": lambda length, alpha: torch.ones_like(length),
    "average": lambda length, alpha: length**alpha,
    "gnmt": lambda length, alpha: ((5 + length) / (5 + 1)) ** alpha,
}
"""Every normalisation there is: Σ log P itself, over `length^α` (at α = 1 the mean), and Wu et al. 2016, eq. 14."""


def coverage_penalty(coverage: Float[Tensor, "batch source"], weight: float) -> Float[Tensor, " batch"]:
    """`β Σ_i log min(Σ_j p_ij, 1)` (Wu et al. 2016, eq. 14), never above 0.

    Args:
        coverage: the attention each position of the source got, summed over the steps; exactly 0 is padding and does not count.
        weight: β.

    Returns:
        What is added to a score.
    """
    return weight * torch.where(coverage > 0, coverage.clamp(max=1).log(), 0).sum(-1)


class Step(NamedTuple):
    """One step of a search: what was chosen in the `beam` slots of every source. Tensors `[sources, beam]` on the CPU."""

    parents: Tensor
    """The slot, one step before, that each goes on from."""
    rows: Tensor
    """The row of the model's batch that gave it."""
    tokens: Tensor
    log_probabilities: Tensor
    totals: Tensor
    scores: Tensor
    """-inf for all but those that finish here."""
    ended: Tensor
    """An end symbol was put out."""
    met: Tensor
    """Every required phrase is in it."""


class _Walk(NamedTuple):
    """Hypotheses from their first token to their last: tensors `[sources, hypotheses, time]`."""

    tokens: Tensor
    log_probabilities: Tensor
    alignments: Tensor | None


class Ranking(NamedTuple):
    """Where the best hypotheses of every source end, best first."""

    order: Tensor
    """`[sources, hypotheses]`: the step of the last token times the beam, plus its slot."""
    counts: list[int]
    """How many of them there are, source by source."""


def rank(steps: Sequence[Step], n_best: int) -> Ranking:
    """Order what finished: what meets every requirement first, then by score, then what finished earlier.

    Args:
        steps: all steps of a search, at least one.
        n_best: the most hypotheses a source.

    Returns:
        Where they end.
    """
    scores, met = torch.stack([step.scores for step in steps], 1).flatten(1), torch.stack([step.met for step in steps], 1).flatten(1)
    found = scores > NEVER
    order = scores.argsort(dim=1, descending=True, stable=True)
    behind = ~(met & found).gather(1, order)
    order = order.gather(1, behind.byte().argsort(dim=1, stable=True))
    return Ranking(order[:, :n_best], found.sum(1).clamp(max=n_best).tolist())


def assemble(steps: Sequence[Step], alignments: Sequence[Tensor], ranking: Ranking) -> list[list[Hypothesis]]:
    """Walk back from each last token to its first.

    Args:
        steps: all steps of a search, at least one.
        alignments: `[rows, source]` of every step, or nothing.
        ranking: what to hand out.

    Returns:
        Hypotheses of every source, best first.
    """
    beam = steps[0].scores.shape[1]
    last = ranking.order // beam
    walk = _walk_back(steps, alignments, last, ranking.order % beam)
    tokens, log_probabilities = walk.tokens.tolist(), walk.log_probabilities.tolist()
    facts = [
        torch.stack([getattr(step, name) for step in steps], 1).flatten(1).gather(1, ranking.order).tolist()
        for name in ("scores", "totals", "ended", "met")
    ]
    found: list[list[Hypothesis]] = []
    for source, lengths in enumerate((last + 1).tolist()):
        found.append([])
        for i in range(ranking.counts[source]):
            score, total, has_end, met = (fact[source][i] for fact in facts)
            text, terms = tokens[source][i][: lengths[i] - has_end], log_probabilities[source][i][: lengths[i]]
            alignment = None if walk.alignments is None else walk.alignments[source, i, : lengths[i]]
            found[-1].append(Hypothesis(text, score, total, terms, alignment, has_end, met))
    return found


def _walk_back(steps: Sequence[Step], alignments: Sequence[Tensor], last: Tensor, slot: Tensor) -> _Walk:
    """Follow the parents of hypotheses that end at step `last` in `slot`; what lies past a last step means nothing."""
    sources, count = last.shape
    at = torch.zeros_like(slot)
    tokens, log_probabilities, looked = [], [], []
    for time in range(len(steps) - 1, -1, -1):
        step = steps[time]
        at = torch.where(last == time, slot, at)
        tokens.append(step.tokens.gather(1, at))
        log_probabilities.append(step.log_probabilities.gather(1, at))
        if alignments:
            rows = step.rows.gather(1, at).flatten().to(alignments[time].device)
            looked.append(alignments[time].index_select(0, rows).view(sources, count, -1))
        at = step.parents.gather(1, at)
    attention = torch.stack(looked[::-1], 2).float().cpu() if looked else None
    return _Walk(torch.stack(tokens[::-1], 2), torch.stack(log_probabilities[::-1], 2), attention)


class Weighed(NamedTuple):
    """All candidates of one step of one source, `[candidates]` each, ordered by the slot they go on from; and what took the slots."""

    tokens: Tensor
    log_probabilities: Tensor
    totals: Tensor
    """-inf where there is no candidate."""
    scores: Tensor
    chosen: Tensor
    """The candidate that took each slot, `[beam]`."""
    kept: Tensor
    """False for slots that nothing took, `[beam]`."""
    finishing: Tensor
    """`[beam]`."""


class TreeRecorder:
    """Grows the tree of the search of one source as it goes."""

    def __init__(self) -> None:
        """Begin at the root."""
        self._nodes: list[BeamNode] = []
        self._chosen: list[dict[int, int]] = []

    def add(self, weighed: Weighed) -> None:
        """Take down one step.

        Args:
            weighed: its candidates.
        """
        step = len(self._chosen)
        before = self._chosen[-1] if step else {0: -1}
        width = len(weighed.totals) // len(weighed.kept)
        chosen = {int(weighed.chosen[slot]): slot for slot in weighed.kept.nonzero().flatten().tolist()}
        ends = weighed.finishing.tolist()
        nodes_of_slots: dict[int, int] = {}
        columns = (x.tolist() for x in (weighed.tokens, weighed.log_probabilities, weighed.totals, weighed.scores))
        for i, (token, log_probability, total, score) in enumerate(zip(*columns, strict=True)):
            if total == NEVER:
                continue
            slot, fate = chosen.get(i), Fate.DROPPED
            if slot is not None:
                fate = Fate.FINISHED if ends[slot] else Fate.KEPT
                nodes_of_slots[slot] = len(self._nodes)
            self._nodes.append(BeamNode(step, before[i // width], token, log_probability, total, score, fate))
        self._chosen.append(nodes_of_slots)

    def tree(self, result: BeamResult, ends: Sequence[int], beam: int) -> BeamTree:
        """The whole tree.

        Args:
            result: what the search found for its one source.
            ends: where its hypotheses end, as `Ranking` has it.
            beam: slots a source.

        Returns:
            Nodes, and which of them are the hypotheses.
        """
        return BeamTree(self._nodes, [self._chosen[end // beam][end % beam] for end in ends], result)


def score_sequences(stepper: Stepper, state: State, targets: Padded, start: int) -> Float[Tensor, "batch time"]:
    """Log-probabilities of given tokens, by reading them one by one (teacher forcing).

    What beam search found scores what beam search said, where no processor took part: the terms of `token_log_probabilities`.

    Args:
        stepper: the model.
        state: its state before the start symbol, a row for each sequence.
        targets: ids `[batch, time]`; an end symbol is scored where it is given.
        start: the symbol read first.

    Returns:
        In nats, in single precision or better; 0 past the length of a row.

    Raises:
        DataError: lengths that do not fit, or an id outside the vocabulary.
    """
    tokens, mask = targets.data, targets.mask
    batch, time = tokens.shape
    check_lengths(targets.lengths, batch, time)
    outside = ((tokens < 0) | (tokens >= stepper.vocabulary_size)) & mask
    if outside.any():
        found = int(tokens[outside][0])
        raise DataError(f"targets must be ids in 0..{stepper.vocabulary_size - 1} (the vocabulary), got {found}")
    tokens = tokens.long() * mask
    terms = []
    with torch.inference_mode():
        read = torch.full((batch,), start, dtype=torch.long, device=tokens.device)
        for column in tokens.unbind(1):
            logits, state = stepper.step(read, state)
            terms.append(log_probabilities_of(logits).gather(1, column.unsqueeze(1)))
            read = column
        scored = torch.cat(terms, 1) if terms else torch.zeros((batch, 0), device=tokens.device)
    return torch.where(mask, scored, 0)


def log_probabilities_of(logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
    """`log softmax(logits)`, in single precision or better.

    Args:
        logits: of any precision.

    Returns:
        Natural logarithms, none above 0.
    """
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))

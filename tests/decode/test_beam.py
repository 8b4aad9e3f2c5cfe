"""Beam search against enumeration, a plain loop, and itself: alone, in a batch, with and without early stopping."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy import Chain, Constant

from unrolled.core.errors import ConfigurationError, DataError, UserError
from unrolled.core.padded import Padded, pad
from unrolled.core.settings import resolve
from unrolled.core.state import select_state
from unrolled.decode import (
    Aligns,
    BeamOptions,
    Fate,
    Forbid,
    Hypothesis,
    NoRepeatNgram,
    Reorders,
    SamplingOptions,
    beam_search,
    greedy,
    record_beam,
    score_sequences,
)
from unrolled.decode.beam import best_tokens

START, END = 0, 1
NORMALISATIONS = [("none", 1.0), ("average", 1.0), ("average", 0.6), ("average", -0.7), ("gnmt", 0.8), ("gnmt", -2.0)]
PRIME = 211


class Path(NamedTuple):
    source: Tensor
    place: Tensor


class Maze:
    """Logits depend on the source and on everything read so far; attends, over sources of unequal length."""

    def __init__(self, vocabulary_size: int, sources: int = 3, seed: int = 0, spread: float = 1.5, end: float = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(sources, PRIME, vocabulary_size, generator=generator) * spread
        self.table[..., END] += end
        self.looks = torch.rand(sources, PRIME, 4, generator=generator)
        for source in range(sources):
            self.looks[source, :, 2 + source % 3 :] = 0
        self.looks /= self.looks.sum(-1, keepdim=True)
        self.rows: list[int] = []
        self.reordered = 0

    @property
    def vocabulary_size(self) -> int:
        return self.table.shape[2]

    def start(self, source: Sequence[int]) -> Path:
        return Path(torch.tensor(source, dtype=torch.long), torch.zeros(len(source), dtype=torch.long))

    def step(self, tokens: Tensor, state: Path) -> tuple[Tensor, Path]:
        assert torch.is_inference_mode_enabled()
        self.rows.append(len(tokens))
        place = (state.place * 31 + tokens + 1) % PRIME
        return self.table[state.source, place], Path(state.source, place)

    def select(self, state: Path, rows: Tensor) -> Path:
        chosen: Path = select_state(state, rows)
        return chosen

    def alignment(self, state: Path) -> Tensor:
        return self.looks[state.source, state.place]


class SharingMaze(Maze):
    """The same; what belongs to the source stays where it is when rows change places."""

    def reorder(self, state: Path, rows: Tensor) -> Path:
        assert torch.equal(state.source, state.source[rows]), "rows of different sources changed places"
        self.reordered += 1
        return Path(state.source, state.place[rows])


class Leaf(NamedTuple):
    """A possible output as the oracles have it."""

    tokens: tuple[int, ...]
    terms: tuple[float, ...]
    coverage: tuple[float, ...]
    ended: bool


def children(maze: Maze, source: int, leaf: Leaf, least: int = 0) -> Iterator[Leaf]:
    """Every continuation of an output that has not ended; the end symbol has no probability before `least` tokens."""
    place = 0
    for token in (START, *leaf.tokens):
        place = (place * 31 + token + 1) % PRIME
    logits = maze.table[source, place].double()
    if len(leaf.tokens) < least:
        logits[END] = -math.inf
    terms = logits.log_softmax(0).tolist()
    coverage = tuple(a + b for a, b in zip(leaf.coverage, maze.looks[source, place].tolist(), strict=True))
    for token, term in enumerate(terms):
        ends = token == END
        yield Leaf(leaf.tokens if ends else (*leaf.tokens, token), (*leaf.terms, term), coverage, ends)


ROOT = Leaf((), (), (0.0,) * 4, False)


def outputs(maze: Maze, source: int, limit: int, leaf: Leaf = ROOT) -> Iterator[Leaf]:
    for child in children(maze, source, leaf):
        if child.ended or len(child.terms) == limit:
            yield child
        else:
            yield from outputs(maze, source, limit, child)


def score(leaf: Leaf, options: BeamOptions) -> float:
    length = len(leaf.terms)
    over = {"none": 1.0, "average": length**options.alpha, "gnmt": ((5 + length) / 6) ** options.alpha}[options.normalisation]
    return sum(leaf.terms) / over + options.coverage * sum(math.log(min(c, 1)) for c in leaf.coverage if c > 0)


def plain_beam(maze: Maze, source: int, options: BeamOptions) -> tuple[list[Leaf], int]:
    """The definition, one source and one hypothesis at a time; what finished, best first, and the steps until all slots were full."""
    live, finished, steps = [ROOT], [], 0
    while live and steps < options.max_length:
        steps += 1
        pool = [child for leaf in live for child in children(maze, source, leaf, options.min_length)]
        pool = [child for child in pool if child.terms[-1] > -math.inf]
        pool.sort(key=lambda leaf: -sum(leaf.terms))
        chosen = pool[: options.beam - len(finished)]
        done = [leaf for leaf in chosen if leaf.ended or steps == options.max_length]
        live = [leaf for leaf in chosen if leaf not in done]
        finished += done
    return sorted(finished, key=lambda leaf: -score(leaf, options))[: options.n_best], steps


def options_of(**given: Any) -> BeamOptions:
    return resolve(BeamOptions, {"start": START, "end": END, "max_length": 4} | given)


def search(maze: Maze, sources: Sequence[int], options: BeamOptions, **more: Any) -> list[list[Hypothesis]]:
    return beam_search(maze, maze.start(sources), len(sources), options, **more).hypotheses


def assert_same(found: Sequence[Hypothesis], wanted: Sequence[Leaf], options: BeamOptions) -> None:
    assert [(tuple(h.tokens), h.ended) for h in found] == [(leaf.tokens, leaf.ended) for leaf in wanted]
    for hypothesis, leaf in zip(found, wanted, strict=True):
        assert hypothesis.token_log_probabilities == pytest.approx(leaf.terms, abs=1e-5)
        assert hypothesis.log_probability == pytest.approx(sum(leaf.terms), abs=1e-5)
        assert hypothesis.score == pytest.approx(score(leaf, options), abs=1e-5)
        assert hypothesis.met


def plain(hypotheses: list[list[Hypothesis]]) -> list[list[tuple[Any, ...]]]:
    return [[h._replace(alignment=None if h.alignment is None else h.alignment.tolist()) for h in group] for group in hypotheses]


@pytest.mark.parametrize(("normalisation", "alpha"), NORMALISATIONS)
@pytest.mark.parametrize("coverage", [0.0, 0.4])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_as_many_slots_as_outputs_is_enumeration(normalisation: str, alpha: float, coverage: float, early_stopping: bool) -> None:
    maze = Maze(3)
    options = options_of(beam=3**4, n_best=9, normalisation=normalisation, alpha=alpha, coverage=coverage, early_stopping=early_stopping)
    for source, found in enumerate(search(maze, [0, 1, 2], options)):
        every = sorted(outputs(maze, source, 4), key=lambda leaf: -score(leaf, options))
        assert_same(found, every[:9], options)


def test_outputs_are_the_leaves_of_one_tree() -> None:
    options = options_of(beam=100, n_best=100, max_length=3)
    (found,) = search(Maze(4), [0], options)
    assert len(found) == len(list(outputs(Maze(4), 0, 3))) == 1 + 3 + 9 * 4
    assert sum(math.exp(h.log_probability) for h in found) == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(1, 9), st.integers(1, 8), st.integers(0, 3), st.sampled_from(NORMALISATIONS), st.integers(0, 10**6))
def test_a_narrow_beam_is_a_plain_loop(size: int, beam: int, limit: int, least: int, norm: tuple[str, float], seed: int) -> None:
    maze = SharingMaze(size, seed=seed)
    given = {"beam": beam, "n_best": beam, "max_length": limit, "min_length": least, "normalisation": norm[0], "alpha": norm[1]}
    options = options_of(early_stopping=False, coverage=0.3, **given)
    result = beam_search(maze, maze.start([0, 1, 2]), 3, options)
    for source, found in enumerate(result.hypotheses):
        wanted, steps = plain_beam(maze, source, options)
        assert_same(found, wanted, options)
        assert result.steps[source] == steps and result.steps_saved[source] == 0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 12),
    st.sampled_from(NORMALISATIONS),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.3, 1.5, 4.0]),
    st.integers(0, 10**6),
)
def test_early_stopping_changes_nothing(
    size: int, beam: int, n_best: int, limit: int, norm: tuple[str, float], coverage: float, spread: float, seed: int
) -> None:
    maze = Maze(size, seed=seed, spread=spread)
    given = {"beam": beam, "n_best": min(beam, n_best), "max_length": limit, "normalisation": norm[0], "alpha": norm[1]}
    early = beam_search(maze, maze.start([0, 1, 2]), 3, options_of(coverage=coverage, **given))
    late = beam_search(maze, maze.start([0, 1, 2]), 3, options_of(coverage=coverage, early_stopping=False, **given))
    assert plain(early.hypotheses) == plain(late.hypotheses)
    for taken, saved, whole in zip(early.steps, early.steps_saved, late.steps, strict=True):
        assert taken <= whole and (saved == limit - taken if taken < whole else saved in (0, limit - taken))


@pytest.mark.parametrize(
    ("normalisation", "alpha", "length"), [("none", 1, 1), ("average", 1, 30), ("average", -1, 1), ("gnmt", 1, 30), ("gnmt", -1, 1)]
)
def test_a_long_output_that_begins_badly_is_waited_for_where_it_can_win(normalisation: str, alpha: float, length: int) -> None:
    """The end comes first with probability 0.7; whoever goes on then goes on at hardly any cost, which pays only in the long run."""
    maze = Maze(3)
    maze.table[:] = torch.tensor([-math.inf, -9.0, 9.0])
    maze.table[:, START + 1] = torch.tensor([0, 0.7, 0.3]).log()
    options = options_of(beam=2, max_length=30, normalisation=normalisation, alpha=alpha)
    result = beam_search(maze, maze.start([0]), 1, options)
    assert len(result.hypotheses[0][0].token_log_probabilities) == length
    assert result.steps == [length] and result.steps_saved == [30 - length]


def test_where_length_costs_the_next_end_still_counts() -> None:
    maze = Maze(3)
    maze.table[:] = torch.tensor([-math.inf, 9.0, -9.0])
    maze.table[:, START + 1] = torch.tensor([0, 0.2, 0.8]).log()
    options = options_of(beam=2, max_length=9, normalisation="average", alpha=-1)
    assert search(maze, [0], options)[0][0].tokens == [2]


def test_early_stopping_saves_steps_and_says_so() -> None:
    maze = Maze(6, seed=3)
    early = beam_search(maze, maze.start([0, 1]), 2, options_of(beam=4, max_length=30))
    late = beam_search(maze, maze.start([0, 1]), 2, options_of(beam=4, max_length=30, early_stopping=False))
    assert sum(early.steps) < sum(late.steps) and sum(early.steps_saved) > 0 == sum(late.steps_saved)


@pytest.mark.parametrize("normalisation", ["none", "average", "gnmt"])
def test_one_slot_is_greedy(normalisation: str) -> None:
    for seed in range(20):
        chain = Chain(5, seed)
        stream = greedy(chain, torch.tensor([[START]] * 2), SamplingOptions(length=12, stop_ids=(END,)))
        rows = torch.stack(list(stream), 1)
        found = beam_search(chain, chain.start(2), 2, options_of(beam=1, max_length=12, normalisation=normalisation)).hypotheses
        for row, length, (hypothesis,) in zip(rows.tolist(), stream.lengths.tolist(), found, strict=True):
            assert hypothesis.tokens == [token for token in row[:length] if token != END]
            assert hypothesis.ended == (END in row[:length])
    ties = beam_search(Constant([1.0, 0.0, 2.0, 2.0]), None, 1, options_of(beam=1)).hypotheses[0][0]
    assert ties.tokens == [2, 2, 2, 2] and not ties.ended


@pytest.mark.parametrize("options", [{}, {"no_repeat_ngram": 2, "min_length": 2}, {"coverage": 0.5, "normalisation": "average"}])
def test_the_result_of_a_source_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    maze, sources = SharingMaze(7, sources=12, end=-2), list(range(12))
    chosen = options_of(beam=5, n_best=3, max_length=15, alignments=True, **options)
    limits = torch.tensor([0, 1, 2, 15, 15, 9, 15, 15, 3, 15, 7, 15])
    prefix = [[2] * (source % 3) if source > 1 else [] for source in sources]
    together = beam_search(maze, maze.start(sources), 12, chosen, max_lengths=limits, prefix=prefix)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    mixed = beam_search(maze, maze.start(order), 12, chosen, max_lengths=limits[order], prefix=[prefix[i] for i in order])
    assert maze.reordered > 0 and len(set(maze.rows)) > 2, "rows were re-ordered, and left the batch, or this shows nothing"
    for source in sources:
        alone = beam_search(maze, maze.start([source]), 1, chosen, max_lengths=limits[[source]], prefix=[prefix[source]])
        assert plain(alone.hypotheses)[0] == plain(together.hypotheses)[source] == plain(mixed.hypotheses)[order.index(source)]
        assert alone.steps[0] == together.steps[source] and alone.steps_saved[0] == together.steps_saved[source]


def test_how_rows_are_re_ordered_does_not_matter() -> None:
    assert isinstance(SharingMaze(3), Reorders) and not isinstance(Maze(3), Reorders)
    options = options_of(beam=4, n_best=4, max_length=20)
    assert search(Maze(6), [0, 1, 2], options) == search(SharingMaze(6), [0, 1, 2], options)


def test_the_model_reads_no_rows_that_are_not_needed() -> None:
    maze = Maze(8, sources=20, end=-2)
    result = beam_search(maze, maze.start(list(range(20))), 20, options_of(beam=4, max_length=60))
    assert maze.rows[0] == 20 and 60 < max(maze.rows) <= 80
    at_last = sum(steps == max(result.steps) for steps in result.steps)
    assert at_last < 10 and maze.rows[-1] * 7 / 8 <= 4 * at_last, "sources that are done leave the batch"


def test_alignments_follow_their_hypotheses() -> None:
    maze = Maze(5)
    for source, group in enumerate(search(maze, [0, 1, 2], options_of(beam=6, n_best=6, max_length=6, alignments=True))):
        for hypothesis in group:
            place, read = 0, [START, *hypothesis.tokens]
            assert hypothesis.alignment is not None
            rows = []
            for token in read[: len(hypothesis.token_log_probabilities)]:
                place = (place * 31 + token + 1) % PRIME
                rows.append(maze.looks[source, place])
            assert torch.equal(hypothesis.alignment, torch.stack(rows))
            assert not hypothesis.alignment.is_inference()


def test_scores_are_those_of_reading_the_output() -> None:
    maze = Maze(6)
    for source, group in enumerate(search(maze, [0, 1, 2], options_of(beam=4, n_best=4, max_length=7))):
        outs = [torch.tensor(h.tokens + [END] * h.ended) for h in group]
        targets = pad(outs)
        scores = score_sequences(maze, maze.start([source] * len(group)), targets, START)
        assert scores.shape == targets.data.shape and not scores.is_inference()
        for hypothesis, row, out in zip(group, scores.tolist(), outs, strict=True):
            assert row[: len(out)] == pytest.approx(hypothesis.token_log_probabilities, abs=1e-6)
            assert set(row[len(out) :]) <= {0.0}
            assert sum(row) == pytest.approx(hypothesis.log_probability, abs=1e-5)


def test_scoring_at_its_borders() -> None:
    maze = Maze(4)
    nothing = score_sequences(
        maze, maze.start([0, 1]), Padded(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, dtype=torch.long)), START
    )
    assert nothing.shape == (2, 0)
    junk = Padded(torch.tensor([[2, -100]]), torch.tensor([1]))
    assert score_sequences(maze, maze.start([0]), junk, START)[0, 1] == 0
    with pytest.raises(DataError, match=r"targets must be ids in 0..3 \(the vocabulary\), got 4"):
        score_sequences(maze, maze.start([0]), Padded(torch.tensor([[4]]), torch.tensor([1])), START)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_more_slots_than_tokens(size: int) -> None:
    maze = Maze(size + 1)
    for source, found in enumerate(search(maze, [0, 1], options_of(beam=50, n_best=50, max_length=2))):
        wanted = sorted(outputs(maze, source, 2), key=lambda leaf: -sum(leaf.terms))
        assert_same(found, wanted, options_of())


def test_a_vocabulary_of_one() -> None:
    options = BeamOptions(start=0, end=0, beam=3, n_best=3, max_length=4)
    assert beam_search(Constant([2.0]), None, 2, options).hypotheses == [[Hypothesis([], 0.0, 0.0, [0.0], None, True, True)]] * 2


def test_nothing_to_search() -> None:
    maze = Maze(4)
    assert beam_search(maze, maze.start([]), 0, options_of()) == ([], [], [])
    result = beam_search(maze, maze.start([0, 1]), 2, options_of(max_length=0))
    assert result == ([[Hypothesis([], 0.0, 0.0, [], None, False, True)]] * 2, [0, 0], [0, 0]) and maze.rows == []
    one = beam_search(maze, maze.start([0, 1]), 2, options_of(alignments=True), max_lengths=torch.tensor([0, 1]))
    assert [len(h.token_log_probabilities) for (h,) in one.hypotheses] == [0, 1] and one.steps == [0, 1]
    assert one.hypotheses[0][0].alignment is not None and len(one.hypotheses[0][0].alignment) == 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_run_of_tokens_comes_twice(n: int) -> None:
    maze = Maze(4, seed=5)
    runs_seen = 0
    for beam in (1, 3, 8):
        for blocked, free in zip(
            search(maze, [0, 1, 2], options_of(beam=beam, n_best=beam, max_length=10, min_length=2, no_repeat_ngram=n)),
            search(maze, [0, 1, 2], options_of(beam=beam, n_best=beam, max_length=10, min_length=2)),
            strict=True,
        ):
            for hypothesis in blocked:
                runs = list(zip(*(hypothesis.tokens[i:] for i in range(n)), strict=False))
                assert len(set(runs)) == len(runs)
            for hypothesis in free:
                runs = list(zip(*(hypothesis.tokens[i:] for i in range(n)), strict=False))
                runs_seen += len(runs) - len(set(runs))
    assert runs_seen > 0, "something would have come twice"


def test_blocked_exhaustive_search_is_restricted_enumeration() -> None:
    """The log-probabilities are those of what is left, so only the set is compared."""
    maze = Maze(3)
    (found,) = search(maze, [0], options_of(beam=200, n_best=200, max_length=5, no_repeat_ngram=2, early_stopping=False))
    allowed = set()
    for leaf in outputs(maze, 0, 5):
        runs = list(itertools.pairwise([START, *leaf.tokens]))
        if len(set(runs)) == len(runs):
            allowed.add((leaf.tokens, leaf.ended))
    assert {(tuple(h.tokens), h.ended) for h in found} == allowed
    assert sum(math.exp(h.log_probability) for h in found) == pytest.approx(1)


@pytest.mark.parametrize("beam", [1, 4])
def test_outputs_begin_with_their_prefix(beam: int) -> None:
    maze = Maze(5)
    prefix = [[], [3], [2, 2, 4]]
    options = options_of(beam=beam, n_best=beam, max_length=5, normalisation="average")
    found = search(maze, [0, 1, 2], options, prefix=prefix, processors=[Forbid((2,))])
    for group, beginning in zip(found, prefix, strict=True):
        assert group and all(h.tokens[: len(beginning)] == beginning for h in group)
        assert all(2 not in h.tokens[len(beginning) :] for h in group), "a prefix is not processed, what follows is"
    assert {len(h.tokens) for group in found for h in group} != {5}


def test_a_prefix_restricts_enumeration_and_is_scored_by_the_model() -> None:
    maze, prefix = Maze(3), [[2, 0], [0], [2, 2, 0, 2]]
    options = options_of(beam=81, n_best=3, normalisation="average")
    for source, found in enumerate(search(maze, [0, 1, 2], options, prefix=prefix)):
        begins = tuple(prefix[source])
        every = [leaf for leaf in outputs(maze, source, 4) if leaf.tokens[: len(begins)] == begins]
        assert_same(found, sorted(every, key=lambda leaf: -score(leaf, options))[:3], options)


def test_lengths_by_source() -> None:
    maze = Maze(4, seed=1)
    limits = torch.tensor([1, 3, 6])
    options = options_of(beam=9, n_best=9, min_length=3)
    result = beam_search(maze, maze.start([0, 1, 2]), 3, options, max_lengths=limits)
    for group, limit in zip(result.hypotheses, limits.tolist(), strict=True):
        for hypothesis in group:
            assert END not in hypothesis.tokens
            assert len(hypothesis.token_log_probabilities) <= limit
            if hypothesis.ended:
                assert len(hypothesis.tokens) >= 3
            else:
                assert len(hypothesis.tokens) == limit
    assert any(h.ended for h in result.hypotheses[2])


def test_large_vocabularies_find_the_same_tokens_in_two_rounds() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (2048, 4099, 8000):
        scores = torch.randn(6, size, generator=generator)
        for count in (1, 2, 5):
            values, tokens = best_tokens(scores, count)
            wanted = scores.topk(count)
            assert torch.equal(values, wanted.values) and torch.equal(tokens, wanted.indices)
    tied = torch.zeros(2, 4096)
    assert best_tokens(tied, 1)[1].tolist() == [[0], [0]]


def test_precision() -> None:
    maze = Maze(5)
    wanted = search(maze, [0, 1], options_of(beam=3))
    maze.table = maze.table.bfloat16()
    half = search(maze, [0, 1], options_of(beam=3))
    maze.table = maze.table.double()
    double = search(maze, [0, 1], options_of(beam=3))
    for group, one in zip(half, double, strict=True):
        assert group[0].tokens == one[0].tokens and group[0].score == pytest.approx(one[0].score, abs=1e-5)
        assert group[0].score == pytest.approx(wanted[half.index(group)][0].score, abs=0.2)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_that_leave_no_choice_are_one_sentence(beam: int, batch: int) -> None:
    options = options_of(beam=beam)
    with pytest.raises(UserError, match=r"must be numbers, got NaN; the training of this model may have diverged"):
        beam_search(Constant([0.0, math.nan, 1.0]), None, batch, options)
    with pytest.raises(UserError, match=r"must be finite or -inf, got \+inf; the training of this model may have diverged"):
        beam_search(Constant([0.0, math.inf, 1.0]), None, batch, options)
    with pytest.raises(UserError, match=r"must leave at least one token, got -inf for all of them; forbid fewer tokens"):
        beam_search(Constant([0.0, 1.0]), None, batch, options, processors=[Forbid((0, 1))])


def test_a_dead_end_of_one_hypothesis_is_no_error() -> None:
    maze = Maze(4)
    maze.table[0, 1 * 31 + 3] = -math.inf  # after the start symbol and 2 there is nothing
    options = options_of(beam=100, n_best=100, max_length=3)
    (found,) = search(maze, [0], options)
    assert found and all(h.tokens[:1] != [2] for h in found)
    with pytest.raises(UserError, match="must leave at least one token"):
        search(maze, [1, 0], options, prefix=[[], [2]])


def test_a_prefix_the_model_rules_out() -> None:
    with pytest.raises(UserError, match="every token of a prefix must be possible, but the model gives token 2 probability 0"):
        beam_search(Constant([0.0, 0.0, -math.inf]), None, 1, options_of(), prefix=[[2]])


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"prefix": [[4]]}, "a prefix must hold ids in 0..3 (the vocabulary), got 4"),
        ({"prefix": [[-1]]}, "a prefix must hold ids in 0..3 (the vocabulary), got -1"),
        ({"prefix": [[2, END]]}, "a prefix must not hold the end symbol 1, got [2, 1]; it ends every output"),
        ({"prefix": [[2] * 5]}, "a prefix must fit into the greatest length, 4, got 5 tokens; raise the greatest length"),
        ({"prefix": [[], []]}, "`prefix` must have one entry for each of 1 sources, got 2"),
        ({"max_lengths": torch.tensor([-1])}, "`max_lengths` must be 0 or more, got -1"),
        ({"max_lengths": torch.tensor([2, 2])}, "`max_lengths` must have one entry for each of 1 sources, got 2"),
    ],
)
def test_requests_that_cannot_be_met(request_: dict[str, Any], sentence: str) -> None:
    maze = Maze(4)
    with pytest.raises(ConfigurationError) as caught:
        search(maze, [0], options_of(), **request_)
    assert str(caught.value) == sentence and maze.rows == []


def test_options_refuse_what_cannot_be() -> None:
    for wrong in ({"beam": 0}, {"n_best": 6}, {"alpha": math.inf}, {"coverage": -1}, {"normalisation": "mean"}, {"no_repeat_ngram": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            options_of(**wrong)
    for name, token in (("start", 4), ("end", 9)):
        with pytest.raises(ConfigurationError, match=rf"the {name} symbol must be an id in 0..3 \(the vocabulary\), got {token}"):
            search(Maze(4), [0], options_of(**{name: token}))
    assert not isinstance(Chain(4), Aligns)
    for wish in ({"coverage": 0.1}, {"alignments": True}):
        with pytest.raises(ConfigurationError, match="must be left out for a model that does not attend, got Chain"):
            beam_search(Chain(4), Chain(4).start(1), 1, options_of(**wish))


@pytest.mark.parametrize("normalisation", ["none", "average"])
def test_the_tree_holds_every_candidate(normalisation: str) -> None:
    maze = Maze(5)
    options = options_of(beam=3, n_best=3, max_length=6, normalisation=normalisation, coverage=0.2)
    tree = record_beam(maze, maze.start([1]), options)
    assert plain(tree.result.hypotheses) == plain([search(maze, [0, 1], options)[1]])
    nodes = tree.nodes
    for i, node in enumerate(nodes):
        assert node.parent < i
        before = nodes[node.parent] if node.parent >= 0 else None
        assert node.step == (0 if before is None else before.step + 1)
        assert before is None or before.fate is Fate.KEPT
        assert node.total == pytest.approx((0 if before is None else before.total) + node.log_probability)
    for step in range(nodes[-1].step + 1):
        here = [node for node in nodes if node.step == step]
        taken, dropped = [n for n in here if n.fate is not Fate.DROPPED], [n for n in here if n.fate is Fate.DROPPED]
        full = sum(n.fate is Fate.FINISHED for n in nodes if n.step < step)
        assert len(taken) <= 3 - full
        assert not dropped or min(n.total for n in taken) >= max(n.total for n in dropped)
    for end, hypothesis in zip(tree.best, tree.result.hypotheses[0], strict=True):
        assert nodes[end].fate is Fate.FINISHED and nodes[end].score == pytest.approx(hypothesis.score)
        path: list[int] = []
        while end >= 0:
            path.insert(0, nodes[end].token)
            end = nodes[end].parent
        assert path == hypothesis.tokens + [END] * hypothesis.ended
    assert any(node.fate is Fate.DROPPED for node in nodes)


def test_the_tree_of_nothing() -> None:
    tree = record_beam(Maze(3), Maze(3).start([0]), options_of(), max_length=0)
    assert tree.nodes == [] and tree.best == [] and len(tree.result.hypotheses[0]) == 1


def test_processors_see_the_start_symbol_and_what_each_row_read() -> None:
    maze, seen = Maze(5), []

    def spy(logits: Tensor, history: Tensor) -> Tensor:
        seen.extend(map(tuple, history.tolist()))
        return logits

    (found,) = search(maze, [0], options_of(beam=3, n_best=3), processors=[spy])
    for hypothesis in found:
        for length in range(len(hypothesis.tokens)):
            assert (START, *hypothesis.tokens[:length]) in seen


def test_the_processor_of_n_grams_is_the_option() -> None:
    options = options_of(beam=3, max_length=8)
    blocked = options.model_copy(update={"no_repeat_ngram": 2})
    assert search(Maze(5), [0, 1], options, processors=[NoRepeatNgram(2)]) == search(Maze(5), [0, 1], blocked)

"""Several models as one, against the mean written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_beam import Maze, SharingMaze, options_of
from toy import Chain, Constant

from unrolled.core.errors import ConfigurationError
from unrolled.core.padded import pad
from unrolled.decode import (
    Aligns,
    Ensemble,
    Reorders,
    Stepper,
    beam_search,
    mean_log_probability,
    mean_probability,
    score_sequences,
)

FIRST, SECOND = [1.0, 0.0, -2.0], [0.5, 3.0, 0.0]


def step(ensemble: Ensemble) -> torch.Tensor:
    logits, _ = ensemble.step(torch.tensor([0]), ensemble.start([1] * len(ensemble.members)))
    return logits[0]


@pytest.mark.parametrize(("weights", "shares"), [(None, (0.5, 0.5)), ([3, 1.0], (0.75, 0.25)), ([1e-3, 3e-3], (0.25, 0.75))])
def test_means_are_as_written(weights: list[float] | None, shares: tuple[float, float]) -> None:
    first, second = torch.tensor(FIRST).softmax(0), torch.tensor(SECOND).softmax(0)
    members = [Constant(FIRST), Constant(SECOND)]
    torch.testing.assert_close(step(Ensemble(members, weights)).exp(), shares[0] * first + shares[1] * second)
    geometric = step(Ensemble(members, weights, mean_log_probability)).softmax(0)
    wanted = first ** shares[0] * second ** shares[1]
    torch.testing.assert_close(geometric, wanted / wanted.sum())


def test_one_member_is_itself_and_equal_members_are_one() -> None:
    maze, options = SharingMaze(5), options_of(beam=4, n_best=4, max_length=8)
    alone = beam_search(maze, maze.start([0, 1, 2]), 3, options).hypotheses
    for members in ([maze], [maze, maze]):
        for mean in (mean_probability, mean_log_probability):
            ensemble = Ensemble(members, mean=mean)
            found = beam_search(ensemble, ensemble.start([[0, 1, 2]] * len(members)), 3, options).hypotheses
            for group, wanted in zip(found, alone, strict=True):
                assert [h.tokens for h in group] == [h.tokens for h in wanted]
                assert [h.score for h in group] == pytest.approx([h.score for h in wanted], abs=1e-5)


def test_members_have_their_own_sources_and_the_search_reads_what_it_scores() -> None:
    ensemble = Ensemble([SharingMaze(5, seed=1), Maze(5, sources=9, seed=2), Chain(5)], weights=[1, 2, 3])
    state = ensemble.start([[0, 1], [7, 3], 2])
    found = beam_search(ensemble, state, 2, options_of(beam=6, n_best=1, max_length=9)).hypotheses
    best = [group[0] for group in found]
    targets = pad([torch.tensor(h.tokens + [1] * h.ended) for h in best])
    scores = score_sequences(ensemble, state, targets, 0)
    assert scores.sum(1).tolist() == pytest.approx([h.log_probability for h in best], abs=1e-5)
    swapped = beam_search(ensemble, ensemble.start([[1, 0], [3, 7], 2]), 2, options_of(beam=6, n_best=1, max_length=9)).hypotheses
    assert [g[0].tokens for g in swapped] == [g[0].tokens for g in found[::-1]]


def test_rows_are_re_ordered_by_each_members_own_way() -> None:
    sharing, maze = SharingMaze(6, end=-3), Maze(6, seed=5, end=-3)
    ensemble = Ensemble([sharing, maze])
    found = beam_search(ensemble, ensemble.start([[0, 1]] * 2), 2, options_of(beam=4, max_length=12)).hypotheses
    assert sharing.reordered > 0
    copying = Ensemble([Maze(6, end=-3), maze])
    assert beam_search(copying, copying.start([[0, 1]] * 2), 2, options_of(beam=4, max_length=12)).hypotheses == found


def test_alignment_is_there_where_every_member_has_one() -> None:
    one, two = Maze(5, seed=1), Maze(5, seed=2)
    ensemble = Ensemble([one, two], weights=[3, 1])
    assert isinstance(ensemble, Aligns) and isinstance(ensemble, Stepper) and isinstance(ensemble, Reorders)
    assert not isinstance(Ensemble([one, Chain(5)]), Aligns)
    (group,) = beam_search(ensemble, ensemble.start([[2], [2]]), 1, options_of(alignments=True)).hypotheses
    assert group[0].alignment is not None
    torch.testing.assert_close(group[0].alignment[0], 0.75 * one.looks[2, 1] + 0.25 * two.looks[2, 1])
    mixed = Ensemble([one, Chain(5)])
    with pytest.raises(ConfigurationError, match="must be left out for a model that does not attend, got Ensemble"):
        beam_search(mixed, mixed.start([[0], 1]), 1, options_of(alignments=True))
    two.looks = two.looks[:, :, :3]
    with pytest.raises(ConfigurationError, match=r"sources of the same length for all models, got lengths \[4, 3\]"):
        beam_search(ensemble, ensemble.start([[0], [0]]), 1, options_of(alignments=True))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([],), "an ensemble must have at least one model, got none"),
        (([Chain(4), Chain(5)],), "the models of an ensemble must have the same target vocabulary, got sizes [4, 5]"),
        (([Chain(4)], [1.0, 2.0]), "the weights of an ensemble must be 1 positive numbers, got [1.0, 2.0]"),
        (([Chain(4)] * 2, [1.0, 0.0]), "the weights of an ensemble must be 2 positive numbers, got [1.0, 0.0]"),
    ],
)
def test_ensembles_that_cannot_be(given: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Ensemble(*given)
    assert str(caught.value) == sentence


def test_a_source_for_each_member() -> None:
    with pytest.raises(ConfigurationError, match="must get one source for each of its 2 models, got 1"):
        Ensemble([Chain(4)] * 2).start([3])

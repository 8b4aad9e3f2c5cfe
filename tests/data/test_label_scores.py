"""Scores of labels against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import DataError
from unrolled.data.label_scores import Score, indicator, label_scores, mean_of, multi_label_scores, score_of


def test_scores_by_hand() -> None:
    gold, predicted = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 1, 0, 1])
    scores = label_scores(gold, predicted, 5)
    assert scores.accuracy == 0.5
    assert scores.confusion.tolist() == [[1, 1, 0, 0, 0], [1, 2, 0, 0, 0], [0] * 5, [0, 1, 0, 0, 0], [0] * 5]
    assert scores.classes[0] == (0.5, 0.5, 0.5, 2)
    assert scores.classes[1] == pytest.approx((0.5, 2 / 3, 4 / 7, 3))
    assert scores.classes[2] == scores.classes[4] == (0, 0, 0, 0)
    assert scores.classes[3] == (0, 0, 0, 1)
    assert scores.macro == pytest.approx((1 / 3, 7 / 18, 15 / 42, 6))  # over the three classes that occur


def test_a_class_that_was_unseen_in_training_is_always_missed() -> None:
    scores = label_scores(np.array([0, -1, -1]), np.array([0, 0, 1]), 2)
    assert (scores.accuracy, scores.unseen) == (pytest.approx(1 / 3), 2)
    assert scores.classes == (pytest.approx((0.5, 1, 2 / 3, 1)), (0, 0, 0, 0))
    assert scores.confusion.tolist() == [[1, 0], [0, 0]]
    assert scores.macro == pytest.approx((1 / 6, 1 / 3, 2 / 9, 3))


def test_nothing_to_score_is_refused_and_empty_means_are_zero() -> None:
    with pytest.raises(DataError, match="at least one label"):
        label_scores(np.array([], dtype=np.int64), np.array([], dtype=np.int64), 2)
    with pytest.raises(DataError, match="at least one label"):
        multi_label_scores(np.zeros((0, 2), dtype=bool), np.zeros((0, 2), dtype=bool))
    assert mean_of([]) == score_of(0, 0, 0) == Score(0, 0, 0, 0)


def test_several_labels_by_hand() -> None:
    gold = indicator([[0, 1], [], [2], [1]], 4)
    predicted = indicator([[0], [], [1, 2], [0]], 4)
    scores = multi_label_scores(gold, predicted)
    assert (scores.exact, scores.hamming_loss) == (0.25, 4 / 16)
    assert scores.micro == (0.5, 0.5, 0.5, 4)
    assert scores.classes == (pytest.approx((0.5, 1, 2 / 3, 1)), (0, 0, 0, 2), (1, 1, 1, 1), (0, 0, 0, 0))
    assert scores.macro.f1 == pytest.approx(5 / 9)
    assert scores.samples_f1 == pytest.approx((2 / 3 + 0 + 2 / 3 + 0) / 4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_one_label_each_as_scikit_learn_scores_it(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gold, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    scores = label_scores(gold, predicted, 5)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(gold, predicted))
    if (gold >= 0).any():  # else an error in scikit-learn
        assert (scores.confusion == metrics.confusion_matrix(gold, predicted, labels=range(5))).all()
    own = metrics.precision_recall_fscore_support(gold, predicted, labels=range(5), zero_division=0)
    assert np.array(scores.classes) == pytest.approx(np.array(own).T)
    for average, score in (("macro", scores.macro[:3]), ("micro", [scores.accuracy] * 3)):
        assert score == pytest.approx(metrics.precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)[:3])


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.booleans(), min_size=3, max_size=3)] * 2), min_size=1, max_size=12))
def test_several_labels_as_scikit_learn_scores_them(rows: list[tuple[list[bool], list[bool]]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gold, predicted = (np.array(column) for column in zip(*rows, strict=True))
    scores = multi_label_scores(gold, predicted)
    assert scores.exact == pytest.approx(metrics.accuracy_score(gold, predicted))
    assert scores.hamming_loss == pytest.approx(metrics.hamming_loss(gold, predicted))
    occurring = np.flatnonzero((gold | predicted).any(0))
    for average, score, labels in (("micro", scores.micro, None), ("macro", scores.macro, occurring)):
        if labels is None or len(labels):
            theirs = metrics.precision_recall_fscore_support(gold, predicted, average=average, labels=labels, zero_division=0)
            assert score[:3] == pytest.approx(theirs[:3])
    assert scores.samples_f1 == pytest.approx(metrics.f1_score(gold, predicted, average="samples", zero_division=0))
    assert np.array(scores.classes) == pytest.approx(np.array(metrics.precision_recall_fscore_support(gold, predicted, zero_division=0)).T)

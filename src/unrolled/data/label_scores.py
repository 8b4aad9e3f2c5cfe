"""Scores of labels: accuracy, precision, recall and F1 of each class and on the average, the confusion matrix; one or several labels each.

A quotient without a denominator is 0, as in seqeval and in scikit-learn with `zero_division=0`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer

from unrolled.core.errors import DataError


class Score(NamedTuple):
    """Precision, recall, and their harmonic mean F1."""

    precision: float
    recall: float
    f1: float
    support: int
    """How many there were to find."""


def score_of(hits: int, predicted: int, gold: int) -> Score:
    """A score by its counts.

    Args:
        hits: predicted ones that are right.
        predicted: how many were predicted.
        gold: how many there were to find.

    Returns:
        precision = hits / predicted, recall = hits / gold, F1 = 2 hits / (predicted + gold).
    """
    return Score(_share(hits, predicted), _share(hits, gold), _share(2 * hits, predicted + gold), int(gold))


def mean_of(scores: Iterable[Score]) -> Score:
    """The unweighted mean of scores (macro average).

    Args:
        scores: of each class or type.

    Returns:
        Their mean, zeros where there is none; the supports are added.
    """
    scores = list(scores)
    precision, recall, f1 = (_share(sum(score[i] for score in scores), len(scores)) for i in range(3))
    return Score(precision, recall, f1, sum(score.support for score in scores))


class LabelScores(NamedTuple):
    """Scores of one label each."""

    accuracy: float
    macro: Score
    """The mean over the classes that occur, right or predicted."""
    classes: tuple[Score, ...]
    """One a class, also those that do not occur."""
    confusion: Int[np.ndarray, "classes classes"]
    """Counts: a row for the right class, a column for the predicted one; without the unseen."""
    unseen: int
    """How many are of a class that the model cannot predict."""


def percentages(names: Sequence[str], scores: Sequence[Score]) -> dict[str, list[float]]:
    """Scores as figures have them.

    Args:
        names: of classes.
        scores: one a name; what comes behind the last name is left out.

    Returns:
        Precision, recall and F1 in percent, and how many there are, by name.
    """
    return {name: [100 * one.precision, 100 * one.recall, 100 * one.f1, one.support] for name, one in zip(names, scores, strict=False)}


def label_scores(gold: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"], classes: int) -> LabelScores:
    """Score one label each; the micro average of precision, recall and F1 is then the accuracy.

    Args:
        gold: the right classes; -1 for one that the model cannot predict, as it was unseen in training.
        predicted: the predicted classes, each from 0 to below `classes`.
        classes: how many the model knows.

    Returns:
        The scores. What is unseen is always missed: it counts in the accuracy, against the precision of what was predicted for it, and as
        one more class without a hit in the mean.

    Raises:
        DataError: there is nothing to score.
    """
    if not len(gold):
        raise DataError("scores must be made from at least one label, got none; try another file")
    seen = gold >= 0
    pairs = gold[seen].astype(np.int64) * classes + predicted[seen]
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    hits, guesses, rights = np.diagonal(confusion), np.bincount(predicted, minlength=classes), confusion.sum(1)
    scores, unseen = _scores(hits, guesses, rights), int((~seen).sum())
    occurring = [score for score, guess, right in zip(scores, guesses, rights, strict=True) if guess or right]
    occurring += [score_of(0, 0, unseen)] * (unseen > 0)
    return LabelScores(float(hits.sum() / len(gold)), mean_of(occurring), scores, confusion, unseen)


class MultiLabelScores(NamedTuple):
    """Scores of any number of labels each."""

    exact: float
    """The share of rows whose labels are all right (subset accuracy)."""
    hamming_loss: float
    """The share of single decisions, yes or no, that are wrong."""
    micro: Score
    """Over all decisions together."""
    macro: Score
    """The mean over the classes that occur, right or predicted."""
    samples_f1: float
    """The mean of the rows' own F1; 0 for a row without labels on both sides."""
    classes: tuple[Score, ...]


def multi_label_scores(gold: Bool[np.ndarray, "n classes"], predicted: Bool[np.ndarray, "n classes"]) -> MultiLabelScores:
    """Score any number of labels each.

    Args:
        gold: whether each row has each label.
        predicted: whether it was predicted.

    Returns:
        The scores.

    Raises:
        DataError: there is nothing to score.
    """
    if not gold.size:
        raise DataError("scores must be made from at least one label, got none; try another file")
    hits, guesses, rights = ((gold & predicted).sum(0), predicted.sum(0), gold.sum(0))
    scores = _scores(hits, guesses, rights)
    occurring = [score for score, guess, right in zip(scores, guesses, rights, strict=True) if guess or right]
    both = predicted.sum(1) + gold.sum(1)
    rows = np.divide(2 * (gold & predicted).sum(1), both, out=np.zeros(len(gold)), where=both > 0)
    return MultiLabelScores(
        exact=float((gold == predicted).all(1).mean()),
        hamming_loss=float((gold != predicted).mean()),
        micro=score_of(int(hits.sum()), int(guesses.sum()), int(rights.sum())),
        macro=mean_of(occurring),
        samples_f1=float(rows.mean()),
        classes=scores,
    )


def indicator(labels: Sequence[Sequence[int]], classes: int) -> Bool[np.ndarray, "n classes"]:
    """Which row has which label.

    Args:
        labels: the classes of each row, none or several.
        classes: how many there are.

    Returns:
        A table of yes and no.
    """
    table = np.zeros((len(labels), classes), dtype=bool)
    for row, own in enumerate(labels):
        table[row, list(own)] = True
    return table


def _scores(
    hits: Integer[np.ndarray, " classes"], predicted: Integer[np.ndarray, " classes"], gold: Integer[np.ndarray, " classes"]
) -> tuple[Score, ...]:
    return tuple(score_of(*counts) for counts in zip(hits.tolist(), predicted.tolist(), gold.tolist(), strict=True))


def _share(part: float, whole: int) -> float:
    return float(part / whole) if whole else 0.0

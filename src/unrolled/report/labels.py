"""How well single labels are told apart, at the best evaluation of a run: scores of each, and which was taken for which."""

from __future__ import annotations

from typing import NamedTuple

from unrolled.report.reading import RunData
from unrolled.report.wording import best, count, decimal

MOST = 40
"""A larger confusion than this is no picture any more; the commonest labels are drawn."""


class LabelRow(NamedTuple):
    """A row of the scores."""

    label: str
    precision: str
    recall: str
    f1: str
    number: str


class Confused(NamedTuple):
    """How often the label of a row was taken for that of a column."""

    number: str
    share: int
    """Percent of the row."""
    right: bool
    words: str


class Confusion(NamedTuple):
    """Which label was taken for which."""

    labels: list[str]
    rows: list[tuple[str, list[Confused]]]
    left_out: int
    """Labels that are too rare for the picture."""


def scores(run: RunData) -> list[LabelRow]:
    """Precision, recall and F1 of each label, or of each type of span.

    Args:
        run: what was read.

    Returns:
        The commonest first; none where the task has no labels.
    """
    line = best(run.valid) or {}
    found = line.get("types") or line.get("classes")
    if not isinstance(found, dict):
        return []
    rows = [(str(name), values) for name, values in found.items() if isinstance(values, list) and len(values) == 4]
    rows.sort(key=lambda row: -row[1][3])
    return [
        LabelRow(name, decimal(right, 1), decimal(found, 1), decimal(f1, 1), count(support)) for name, (right, found, f1, support) in rows
    ]


def confusion(run: RunData) -> Confusion | None:
    """Which label was taken for which.

    Args:
        run: what was read.

    Returns:
        Rows of right labels, columns of given ones; `None` where a text may have several, or the task has no labels.
    """
    line = best(run.valid) or {}
    table, classes = line.get("confusion"), line.get("classes")
    if not isinstance(table, list) or not isinstance(classes, dict) or len(table) != len(classes):
        return None
    names = [str(name) for name in classes]
    kept = sorted(sorted(range(len(names)), key=lambda i: -sum(table[i]))[:MOST])
    rows = []
    for i in kept:
        total = max(sum(table[i]), 1)
        cells = [
            Confused(
                count(table[i][j]) if table[i][j] else "·",
                round(100 * table[i][j] / total),
                i == j,
                f"{names[i]} taken for {names[j]}: {table[i][j]} of {sum(table[i])}",
            )
            for j in kept
        ]
        rows.append((names[i], cells))
    return Confusion([names[i] for i in kept], rows, len(names) - len(kept))

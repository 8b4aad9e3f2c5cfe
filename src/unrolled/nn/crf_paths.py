"""The best path of a linear-chain CRF and the n best ones: the Viterbi algorithm, for a batch at once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrolled.nn.crf_partition import FORBIDDEN, PerSequence, Scores, Steps
from unrolled.nn.crf_rows import Rows

CACHED = 1 << 17
"""How many sums of pairs the best path looks at once: so many stay in the cache."""

ROUNDING = 1e-6
"""By what share of a bound it is missed, so that rounding excludes nothing."""


def best_scores(steps: Steps, rows: Rows, transitions: Float[Tensor, "labels labels"], begin: Float[Tensor, " labels"]) -> Steps:
    """The score of the best way that leads to each label at each step, that step included.

    Args:
        steps: emissions.
        rows: the layout.
        transitions: their scores.
        begin: scores of the first label.

    Returns:
        One number for each label of each step.
    """
    labels = steps.shape[1]
    at_once = max(1, CACHED // labels**2)
    room = steps.new_empty(min(at_once, rows.sizes[0]), labels, labels)
    best = torch.empty_like(steps)
    tables = best.split(rows.sizes)
    torch.add(begin, steps[: rows.sizes[0]], out=tables[0])
    for before, after, step in zip(tables, tables[1:], steps.split(rows.sizes)[1:], strict=False):
        for first in range(0, len(step), at_once):
            some = slice(first, min(first + at_once, len(step)))
            pairs = torch.add(before[some].unsqueeze(2), transitions, out=room[: some.stop - first])
            torch.amax(pairs, 1, out=after[some])
        after.add_(step)
    return best


def best_paths(steps: Steps, rows: Rows, scores: Scores) -> tuple[Int[Tensor, " rows"], PerSequence]:
    """The Viterbi algorithm without back-pointers: on the way back the maximum is found again, for the one label that is on the path.

    Args:
        steps: emissions.
        rows: the layout.
        scores: of transitions.

    Returns:
        The labels of the best paths in the order of the rows, and the score of each sequence's path in the order of `rows.order`.
    """
    best = best_scores(steps, rows, scores.transitions, scores.start)
    into = scores.transitions.t().contiguous()
    found: list[Tensor] = []
    for table in reversed(best.split(rows.sizes)):
        # Sequences that end here come after those that go on.
        onward = into.index_select(0, found[-1]) if found else into[:0]
        if len(onward) < len(table):
            onward = torch.cat([onward, scores.end.expand(len(table) - len(onward), -1)])
        found.append(onward.add_(table).argmax(1))
    return torch.cat(found[::-1]), (best[rows.last] + scores.end).amax(1)


def candidates(steps: Steps, rows: Rows, scores: Scores, n: int) -> Int[Tensor, "rows kept"]:
    """All labels that are on one of the n best paths, and few others.

    The best path through a label is known from both sides. Different labels of one step have different paths, so the n-th best path
    is at least as good as the n-th best label of any step; what is worse than the best such bound is on none of them.

    Args:
        steps: emissions.
        rows: the layout.
        scores: of transitions.
        n: how many paths.

    Returns:
        Labels of each step, as many as the step that needs the most.
    """
    onward = best_scores(steps, rows, scores.transitions, scores.start)
    back = best_scores(steps.index_select(0, rows.mirror), rows, scores.transitions.t().contiguous(), scores.end)
    through = onward + back.index_select(0, rows.mirror) - steps
    bound = through.new_full((rows.sizes[0],), FORBIDDEN / 2)
    if n <= steps.shape[1]:
        bound = bound.scatter_reduce(0, rows.owner, through.topk(n, dim=1).values[:, -1], "amax")
    # Both sides are rounded on their own.
    bound = bound - ROUNDING * bound.abs()
    kept = int((through >= bound[rows.owner].unsqueeze(1)).sum(1).amax())
    return through.topk(max(kept, 1), dim=1).indices


def n_best_paths(steps: Steps, rows: Rows, scores: Scores, n: int) -> tuple[Int[Tensor, "rows n"], Float[Tensor, "sequences n"]]:
    """The n best paths, exactly: every label keeps the n best ways that lead to it (list Viterbi; Seshadri and Sundberg 1994, section III-A).

    Args:
        steps: emissions.
        rows: the layout.
        scores: of transitions.
        n: how many.

    Returns:
        The labels of the paths, the best first, and their scores; where there are fewer, scores near `FORBIDDEN`.
    """
    if n == 1:
        path, score = best_paths(steps, rows, scores)
        return path.unsqueeze(1), score.unsqueeze(1)
    kept = candidates(steps, rows, scores, n)
    steps, labels = steps.gather(1, kept), kept.split(rows.sizes)
    # At the beginning one way leads to a label, the others are not there.
    ways = (scores.start[labels[0]] + steps[: rows.sizes[0]]).unsqueeze(2)
    ways = torch.nn.functional.pad(ways, (0, n - 1), value=FORBIDDEN)
    pointers, ended = [], []
    for t, step in enumerate(steps.split(rows.sizes)[1:], 1):
        ended.append(ways[len(step) :])
        into = scores.transitions[labels[t - 1][: len(step)].unsqueeze(1), labels[t].unsqueeze(2)]
        onward = ways[: len(step)].unsqueeze(1) + into.unsqueeze(3)
        ways, pointer = onward.flatten(2).topk(n, dim=2)
        ways = ways + step.unsqueeze(2)
        pointers.append(pointer.flatten(1))
    last = torch.cat([ways, *reversed(ended)]) + scores.end[kept[rows.last]].unsqueeze(2)
    best, state = last.flatten(1).topk(n, dim=1)
    found = [state[: rows.sizes[-1]]]
    for size, pointer in zip(rows.sizes[-2::-1], reversed(pointers), strict=True):
        found.append(torch.cat([pointer.gather(1, found[-1]), state[len(pointer) : size]]))
    return kept.gather(1, torch.cat(found[::-1]) // n), best

"""The best path of a linear-chain CRF and the n best ones: the Viterbi algorithm, for a batch at once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrolled.nn.crf_partition import FORBIDDEN, PerSequence, Scores, Steps
from unrolled.nn.crf_rows import Rows

CACHED = 1 << 17
"""How many sums of pairs the best path looks at once: so many stay in the cache."""


def best_paths(steps: Steps, rows: Rows, scores: Scores) -> tuple[Int[Tensor, " rows"], PerSequence]:
    """The Viterbi algorithm without back-pointers: on the way back the maximum is found again, for the one label that is on the path.

    Args:
        steps: emissions.
        rows: the layout.
        scores: of transitions.

    Returns:
        The labels of the best paths in the order of the rows, and the score of each sequence's path in the order of `rows.order`.
    """
    labels = steps.shape[1]
    at_once = max(1, CACHED // labels**2)
    room = steps.new_empty(min(at_once, rows.sizes[0]), labels, labels)
    best = torch.empty_like(steps)
    tables = best.split(rows.sizes)
    torch.add(scores.start, steps[: rows.sizes[0]], out=tables[0])
    for t, step in enumerate(steps.split(rows.sizes)[1:], 1):
        for before, after in zip(tables[t - 1][: len(step)].split(at_once), tables[t].split(at_once), strict=True):
            pairs = torch.add(before.unsqueeze(2), scores.transitions, out=room[: len(before)])
            torch.amax(pairs, 1, out=after)
        tables[t].add_(step)
    into = scores.transitions.t().contiguous()
    found: list[Tensor] = []
    for table in reversed(tables):
        # Sequences that end here come after those that go on.
        onward = into.index_select(0, found[-1]) if found else into[:0]
        onward = torch.cat([onward, scores.end.expand(len(table) - len(onward), labels)])
        found.append((table + onward).argmax(1))
    return torch.cat(found[::-1]), (best[rows.last] + scores.end).amax(1)


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
    labels = steps.shape[1]
    # What is not there: a label has one way that leads to it at the beginning.
    absent = steps.new_full((1, 1, n - 1), FORBIDDEN)
    first = scores.start + steps[: rows.sizes[0]]
    ways = torch.cat([first.unsqueeze(2), absent.expand(*first.shape, n - 1)], 2)
    into = scores.transitions.t().repeat_interleave(n, 1)
    pointers, ended = [], []
    for step in steps.split(rows.sizes)[1:]:
        ended.append(ways[len(step) :])
        ways, pointer = (ways[: len(step)].flatten(1).unsqueeze(1) + into).topk(n, dim=2)
        ways = ways + step.unsqueeze(2)
        pointers.append(pointer.flatten(1))
    last = torch.cat([ways, *reversed(ended)]) + scores.end.unsqueeze(1)
    best, state = last.flatten(1).topk(n, dim=1)
    found = [state[: rows.sizes[-1]]]
    for size, pointer in zip(rows.sizes[-2::-1], reversed(pointers), strict=True):
        found.append(torch.cat([pointer.gather(1, found[-1]), state[len(pointer) : size]]))
    return torch.cat(found[::-1]) // n, best

"""What is allowed in a linear-chain CRF, as a graph: which labels are on some whole path, how fast labels mix, which lengths have a path."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

SLOWEST = 8
"""Labels that mix more slowly are summed over in logarithms."""


class Allowed(NamedTuple):
    """Which labels may follow each other, begin and end a path."""

    transitions: Bool[Tensor, "labels labels"]
    """Whether the label of the row may be followed by that of the column."""
    first: Bool[Tensor, " labels"]
    last: Bool[Tensor, " labels"]

    def useful(self) -> Allowed:
        """The same without labels that are on no path from a first to a last label.

        Returns:
            What is left; no path is lost.
        """
        onward, back = reached(self.first, self.transitions), reached(self.last, self.transitions.t())
        live = onward & back
        return Allowed(self.transitions & live & live.unsqueeze(1), self.first & live, self.last & live)

    def mixing(self) -> int | None:
        """The least `d` such that every useful label leads to every useful one in exactly `d` steps.

        Returns:
            `d`, or nothing where there is none up to `SLOWEST`.
        """
        live = self.first | self.transitions.any(0)
        matrix = self.transitions[live][:, live].float()
        power = matrix
        for steps in range(1, SLOWEST + 1):
            if bool((power > 0).all()):
                return steps
            power = ((power @ matrix) > 0).float()
        return None

    def possible(self, longest: int) -> Bool[Tensor, " lengths"]:
        """Which lengths have a path at all.

        Args:
            longest: up to where.

        Returns:
            For each length from 0 to `longest`.
        """
        found = torch.ones(longest + 1, dtype=torch.bool, device=self.first.device)
        here = self.first
        for length in range(1, longest + 1):
            found[length] = (here & self.last).any()
            after = step(here, self.transitions)
            if torch.equal(after, here):
                found[length:] = found[length].clone()
                break
            here = after
        return found


def step(here: Bool[Tensor, " labels"], transitions: Bool[Tensor, "labels labels"]) -> Bool[Tensor, " labels"]:
    """The labels that follow.

    Args:
        here: some labels.
        transitions: what is allowed.

    Returns:
        All that may come after one of them.
    """
    return transitions[here].any(0)


def reached(begin: Bool[Tensor, " labels"], transitions: Bool[Tensor, "labels labels"]) -> Bool[Tensor, " labels"]:
    """The labels that some number of steps leads to, zero included.

    Args:
        begin: where to begin.
        transitions: what is allowed.

    Returns:
        All of them.
    """
    found = begin
    while True:
        more = found | step(found, transitions)
        if torch.equal(more, found):
            return found
        found = more

"""Which inputs a score came from: gradient × input, and integrated gradients (Sundararajan, Taly & Yan 2017).

A score `F` of vectors `x`, against a baseline `x'` that stands for nothing::

    gradient × input        Σ_d (x - x')_d ∂F(x)/∂x_d
    integrated gradients    Σ_d (x - x')_d ∫₀¹ ∂F(x' + α (x - x'))/∂x_d dα          (eq. 1)

The second adds up to `F(x) - F(x')` (completeness, Proposition 1); what a sum over a few `α` misses of that is the gap. The integral is
taken by the Gauss–Legendre rule, which for smooth scores needs far fewer steps than equal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]
"""From vectors `[rows, time, features]` and the target of each row, `[rows]`, to a score a row; rows know nothing of each other."""

AT_ONCE = 8192
"""Steps of time that are read at once: what bounds the memory."""


class Attribution(NamedTuple):
    """What each step of time contributed to the score of each target."""

    contributions: Float[Tensor, "targets time"]
    scores: Float[Tensor, " targets"]
    """`F(x)`."""
    baselines: Float[Tensor, " targets"]
    """`F(x')`."""

    @property
    def gaps(self) -> Float[Tensor, " targets"]:
        """`F(x) - F(x')` less all contributions."""
        return self.scores - self.baselines - self.contributions.sum(1)


def gradient_times_input(
    score: Score,
    vectors: Float[Tensor, "targets time features"],
    baseline: Float[Tensor, "targets time features"],
    *,
    at_once: int = AT_ONCE,
) -> Attribution:
    """The first-order change of each target's score between the baseline and the vectors, by the slope at the vectors.

    Args:
        score: of one target a row.
        vectors: what is explained, one input a target.
        baseline: what stands for nothing.
        at_once: steps of time that are read at once.

    Returns:
        Contributions, which need not add up to anything.
    """
    return _attribute(score, vectors, baseline, np.ones(1), np.ones(1), at_once)


def integrated_gradients(
    score: Score,
    vectors: Float[Tensor, "targets time features"],
    baseline: Float[Tensor, "targets time features"],
    *,
    steps: int = 32,
    at_once: int = AT_ONCE,
) -> Attribution:
    """The change of each target's score from the baseline to the vectors, shared out among the steps of time.

    Args:
        score: of one target a row.
        vectors: what is explained, one input a target.
        baseline: where the path begins; it is straight.
        steps: points on the path; more make the gap smaller.
        at_once: steps of time that are read at once.

    Returns:
        Contributions that add up to the change but for the gap.

    Example:
        >>> squares = lambda vectors, targets: vectors.square().sum((1, 2))
        >>> found = integrated_gradients(squares, torch.tensor([[[1.0], [3.0]]]), torch.zeros(1, 2, 1), steps=2)
        >>> found.contributions.round(decimals=6)
        tensor([[1., 9.]], dtype=torch.float64)
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return _attribute(score, vectors, baseline, (nodes + 1) / 2, weights / 2, at_once)


def _attribute(score: Score, vectors: Tensor, baseline: Tensor, nodes: np.ndarray, weights: np.ndarray, at_once: int) -> Attribution:
    """The weighed sum over the path's nodes of the slopes there, times the way from the baseline to the vectors."""
    vectors, baseline = vectors.detach(), baseline.detach()
    N, T = vectors.shape[:2]
    # Sums over the path in double precision: the gap shall tell of the path, not of rounding.
    slopes = torch.zeros(vectors.shape, dtype=sum_type(vectors), device=vectors.device)
    points, shares = (torch.as_tensor(values, dtype=vectors.dtype, device=vectors.device) for values in (nodes, weights))
    target, node = (axis.flatten() for axis in torch.meshgrid(torch.arange(N), torch.arange(len(nodes)), indexing="ij"))
    for some in torch.arange(N * len(nodes)).split(max(1, at_once // max(T, 1))):
        whose, where = target[some].to(vectors.device), node[some].to(vectors.device)
        gradient = _slope(score, torch.lerp(baseline[whose], vectors[whose], points[where, None, None]), whose)
        slopes.index_add_(0, whose, (gradient * shares[where, None, None]).to(slopes.dtype))
    contributions = (slopes * (vectors - baseline)).sum(2)
    return Attribution(contributions, _scores(score, vectors, at_once), _scores(score, baseline, at_once))


def _slope(score: Score, points: Tensor, targets: Int[Tensor, " rows"]) -> Tensor:
    with torch.enable_grad():
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(score(points, targets).sum(), points, allow_unused=True)
    return torch.zeros_like(points) if gradient is None else gradient


@torch.no_grad()
def _scores(score: Score, vectors: Tensor, at_once: int) -> Float[Tensor, " targets"]:
    targets = torch.arange(len(vectors), device=vectors.device)
    found = [score(vectors[some], some) for some in targets.split(max(1, at_once // max(vectors.shape[1], 1)))]
    return torch.cat(found).to(sum_type(vectors)) if found else vectors.new_zeros(0, dtype=sum_type(vectors))


def sum_type(values: Tensor) -> torch.dtype:
    """In what sums are taken: double precision wherever the device has it.

    Args:
        values: what is summed.

    Returns:
        A type.
    """
    return values.dtype if values.device.type == "mps" else torch.float64

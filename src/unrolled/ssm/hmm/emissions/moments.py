"""Log-densities and weighted moments of Gaussian outputs, with what is missing integrated out: the inner loops of Baum–Welch.

Where nothing is missing both are done in C++ where they can be (`gaussian.cpp`), a block of rows at a time, so that no difference from a mean is kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.ssm.hmm.emissions.gaussian_compiled import compiled_moments, compiled_scores, takes
from unrolled.ssm.hmm.rows import Rows

LOG_TWO_PI = math.log(2 * math.pi)
NOTHING_MISSING = (None, None)


class Moments(NamedTuple):
    """Sums over outputs, about a given mean."""

    weight: Tensor
    """`[states]`; `[states, features]` where each feature is counted where it was seen."""
    first: Tensor
    """`[states, features]`."""
    second: Tensor
    """`[states, features]` squares, or `[states, features, features]`."""


def single_scores(rows: Rows, means: Tensor, variances: Tensor) -> Tensor:
    """Log-densities of independent features.

    Args:
        rows: outputs.
        means: `[states, features]`.
        variances: `[states, features]`.

    Returns:
        `[rows, states]`.
    """
    constant = -0.5 * (LOG_TWO_PI + variances.log())
    if rows.seen is None and takes(rows.values, means, variances):
        return compiled_scores(rows.values, means, variances.rsqrt(), constant.sum(1))
    found = []
    for mean, variance, each in zip(means, variances, constant, strict=True):
        squares = (rows.values - mean).square()
        if rows.seen is None:
            found.append(squares @ (-0.5 / variance) + each.sum())
        else:
            found.append((squares * rows.seen) @ (-0.5 / variance) + rows.seen.to(each.dtype) @ each)
    return torch.stack(found, 1)


def joint_scores(rows: Rows, means: Tensor, variances: Tensor) -> Tensor:
    """Log-densities of features that depend on each other; of those that were seen alone where some were not.

    Args:
        rows: outputs.
        means: `[states, features]`.
        variances: `[states, features, features]`.

    Returns:
        `[rows, states]`.
    """
    if not rows.patterns:
        return _dense_scores(rows.values, means, variances)
    found = rows.values.new_zeros(len(rows.values), len(means))
    for seen, which in rows.patterns:
        if bool(seen.any()):
            part = _dense_scores(rows.values[which][:, seen], means[:, seen], variances[:, seen][:, :, seen])
            found = found.index_put((which,), part)
    return found


def _dense_scores(values: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    roots, failed = torch.linalg.cholesky_ex(variances)
    if bool(failed.any()):
        state = int(failed.nonzero()[0])
        raise DataError(
            f"the covariance of state {state} is not positive definite any more; give a larger `floor` or a prior, or use fewer states"
        )
    features = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
    whitening = torch.linalg.solve_triangular(roots, features.expand_as(roots), upper=False)
    constant = -0.5 * means.shape[1] * LOG_TWO_PI - roots.diagonal(dim1=1, dim2=2).log().sum(1)
    if takes(values, means, variances):
        return compiled_scores(values, means, whitening, constant)
    distances = [((values - mean) @ white.T).square().sum(1) for mean, white in zip(means, whitening, strict=True)]
    return constant - 0.5 * torch.stack(distances, 1)


def single_moments(rows: Rows, weights: Tensor, means: Tensor, variances: Tensor) -> Moments:
    """Moments of independent features, each over the outputs in which it was seen.

    Args:
        rows: outputs.
        weights: `[rows, states]`.
        means: about which, `[states, features]`.
        variances: not needed: what was not seen is not counted.

    Returns:
        The moments.
    """
    if rows.seen is None and takes(rows.values, means, weights):
        total, *sums = compiled_moments(rows.values, weights, means, full=False)
        return Moments(total.unsqueeze(1).expand_as(means), *sums)
    first, second = [], []
    for weight, mean in zip(weights.T, means, strict=True):
        away = rows.values - mean if rows.seen is None else (rows.values - mean) * rows.seen
        first.append(weight @ away)
        second.append(weight @ away.square())
    total = weights.sum(0).unsqueeze(1).expand_as(means) if rows.seen is None else weights.T @ rows.seen.to(weights.dtype)
    return Moments(total, torch.stack(first), torch.stack(second))


def joint_moments(rows: Rows, weights: Tensor, means: Tensor, variances: Tensor) -> Moments:
    """Moments of features that depend on each other, with what is expected of those that were not seen.

    Args:
        rows: outputs.
        weights: `[rows, states]`.
        means: about which, `[states, features]`.
        variances: the present ones, `[states, features, features]`.

    Returns:
        The moments.
    """
    if not rows.patterns and takes(rows.values, means, weights):
        return Moments(*compiled_moments(rows.values, weights, means, full=True))
    first, second = [], []
    total = weights.sum(0)
    for pattern in rows.patterns:
        if not bool(pattern.seen.any()):
            total = total - weights[pattern.rows].sum(0)  # of which nothing was seen is not counted
    for state, mean in enumerate(means):
        one, two = torch.zeros_like(mean), torch.zeros_like(variances[state])
        for seen, which in rows.patterns or (NOTHING_MISSING,):
            if seen is None:
                away, weight = rows.values - mean, weights[:, state]
            elif bool(seen.any()):
                weight = weights[which, state]
                away, left = _completed(rows.values[which] - mean, variances[state], seen)
                two = two + weight.sum() * left
            else:
                continue
            scaled = away * weight.unsqueeze(1)
            one = one + scaled.sum(0)
            two = two + scaled.T @ away
        first.append(one)
        second.append(two)
    return Moments(total, torch.stack(first), torch.stack(second))


def _completed(away: Tensor, variance: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Differences from the mean with what is expected of the missing ones, and the covariance that remains."""
    if bool(seen.all()):
        return away, torch.zeros_like(variance)
    gain = torch.linalg.solve(variance[seen][:, seen], variance[seen][:, ~seen]).T
    expected = away.new_zeros(away.shape)
    expected[:, seen] = away[:, seen]
    expected[:, ~seen] = away[:, seen] @ gain.T
    left = torch.zeros_like(variance)
    unseen = (~seen).nonzero().squeeze(1)
    left[unseen.unsqueeze(1), unseen] = variance[~seen][:, ~seen] - gain @ variance[seen][:, ~seen]
    return expected, left

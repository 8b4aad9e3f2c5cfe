"""Filter and smoother in square-root form: roots of covariances are carried, which stay covariances however ill-conditioned they are.

Each update is one triangularisation (Kailath, Sayed & Hassibi 2000, ch. 12). With `P = L L'`, `R = S S'`, an orthogonal matrix from the right turns::

    [S  C L]      [F^½   0 ]                 [A L_f  Q^½]      [L_p  0]
    [0    L ]  to  [G   L_f]       and        [ L_f   0 ]  to   [G   W]

where `F` is the variance of the innovation, `G F^-½` the gain, `L_p` the root of the predicted covariance, and on the way back `J = G L_p^-1` the
gain of the smoother, whose covariance has the root `[W  J L_s]` (Park & Kailath 1995). What is missing has a row of its own in `S` and none in `C L`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.entries import as_padded, check_inputs
from unrolled.ssm.kalman.results import Filtered, Smoothed
from unrolled.ssm.kalman.sampling import root_of
from unrolled.ssm.kalman.system import LinearGaussian, check_system


class _Step(NamedTuple):
    predicted_mean: Tensor
    predicted_root: Tensor
    mean: Tensor
    root: Tensor
    log_likelihood: Tensor


def square_root_filter(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None) -> Filtered:
    """The Kalman filter by roots of covariances.

    Args:
        system: the model, without diffuse states; the noise of what is seen must be positive definite.
        series: outputs `[batch, time, observed]`; NaN is missing.
        inputs: known inputs `[batch, time, input]`.

    Returns:
        What `kalman_filter` gives.
    """
    padded, steps = _forward(system, series, inputs)
    inside = padded.mask
    told = torch.stack([one.log_likelihood for one in steps], 1)
    means, predicted = (torch.stack(one, 1) for one in zip(*((one.mean, one.predicted_mean) for one in steps), strict=True))
    roots, before = (torch.stack(one, 1) for one in zip(*((one.root, one.predicted_root) for one in steps), strict=True))
    flat, square = inside.unsqueeze(2), inside[..., None, None]
    return Filtered(
        told, predicted.where(flat, 0), (before @ before.mT).where(square, 0), means.where(flat, 0), (roots @ roots.mT).where(square, 0)
    )


def square_root_smoother(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None) -> Smoothed:
    """The smoother by roots of covariances.

    Args:
        system: the model, without diffuse states; the noises must be positive definite.
        series: outputs `[batch, time, observed]`; NaN is missing.
        inputs: known inputs `[batch, time, input]`.

    Returns:
        What `kalman_smoother` gives.
    """
    padded, steps = _forward(system, series, inputs)
    A, noise = system.transition, root_of(system.transition_covariance).expand(len(padded.data), -1, -1)
    mean, root = steps[-1].mean, steps[-1].root
    K = system.states
    means, roots, lagged = [mean], [root], []
    for t in reversed(range(len(steps) - 1)):
        here, last = steps[t], (t + 1 >= padded.lengths).view(-1, 1)
        both = _triangular(torch.cat([torch.cat([A @ here.root, noise], 2), torch.cat([here.root, torch.zeros_like(noise)], 2)], 1))
        J = torch.linalg.solve_triangular(both[:, :K, :K], both[:, K:, :K], upper=False, left=False)
        lagged.append((root @ root.mT @ J.mT).where(~last.unsqueeze(2), 0))
        back = here.mean + (J @ (mean - steps[t + 1].predicted_mean).unsqueeze(2)).squeeze(2)
        mean = back.where(~last, here.mean)
        root = _triangular(torch.cat([both[:, K:, K:], J @ root], 2)).where(~last.unsqueeze(2), here.root)
        means.append(mean)
        roots.append(root)
    stacked, square = torch.stack(roots[::-1], 1), padded.mask[..., None, None]
    between = torch.stack([torch.zeros_like(root), *lagged[::-1]], 1)
    told = torch.stack([one.log_likelihood for one in steps], 1).sum(1)
    return Smoothed(told, torch.stack(means[::-1], 1).where(padded.mask.unsqueeze(2), 0), (stacked @ stacked.mT).where(square, 0), between)


def _forward(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None) -> tuple[Padded, list[_Step]]:
    check_system(system)
    if system.rank:
        raise DataError("the square-root form must begin from a proper prior, got diffuse states; use `kalman_filter`")
    padded = as_padded(system, series)
    known = check_inputs(system, padded, inputs)
    if 0 in padded.data.shape:
        raise DataError(f"the square-root form must see at least one series of one step, got {tuple(padded.data.shape)}")
    B = len(padded.data)
    mean, root = system.initial_mean.expand(B, -1), root_of(system.initial_covariance).expand(B, -1, -1)
    noise = root_of(system.transition_covariance).expand(B, -1, -1)
    steps: list[_Step] = []
    for t, y in enumerate(padded.data.unbind(1)):
        if t:
            mean = mean @ system.transition.T
            if known is not None and system.transition_input is not None:
                mean = mean + known[:, t] @ system.transition_input.T
            root = _triangular(torch.cat([system.transition @ root, noise], 2))
        offset = 0 if known is None or system.emission_input is None else known[:, t] @ system.emission_input.T
        steps.append(_learn(system, mean, root, y - offset))
        mean, root = steps[-1].mean, steps[-1].root
    return padded, steps


def _learn(system: LinearGaussian, mean: Tensor, root: Tensor, y: Tensor) -> _Step:
    D, seen = y.shape[1], ~y.isnan()
    both = seen.unsqueeze(2) & seen.unsqueeze(1)
    one = torch.eye(D, dtype=y.dtype, device=y.device)
    noise, wrong = torch.linalg.cholesky_ex(torch.where(both, system.emission_covariance, one))
    if bool(wrong.any()):
        raise DataError(
            "the square-root form must have a positive definite `emission_covariance`, got one that is singular; use `kalman_filter`"
        )
    across = seen.unsqueeze(2) * (system.emission @ root)
    below = root.new_zeros(len(y), root.shape[1], D)
    array = _triangular(torch.cat([torch.cat([noise, across], 2), torch.cat([below, root], 2)], 1))
    spread, gain, after = array[:, :D, :D], array[:, D:, :D], array[:, D:, D:]
    v = torch.where(seen, y - mean @ system.emission.T, 0)
    scaled = torch.linalg.solve_triangular(spread, v.unsqueeze(2), upper=False)
    told = seen.sum(1) * math.log(2 * math.pi) / 2 + spread.diagonal(dim1=1, dim2=2).abs().log().sum(1) + scaled.square().sum((1, 2)) / 2
    return _Step(mean, root, mean + (gain @ scaled).squeeze(2), after, -told)


def _triangular(array: Tensor) -> Tensor:
    """A lower triangular matrix with the same square, `[…, rows, rows]`."""
    return torch.linalg.qr(array.mT, mode="r").R.mT

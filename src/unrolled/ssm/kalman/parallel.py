"""Filter and smoother in parallel over time, by an associative scan (Särkkä & García-Fernández 2021): for one long series on many cores or a GPU.

An element of the filter stands for some steps in turn: given the state before them it is `N(F h + b, P)` after them, and the outputs among them have, as
a function of that state, the likelihood `exp(η'h - h'J h / 2)`. Two in turn, `1` and then `2`, with `D = (I + P_1 J_2)^-1`::

    F = F_2 D F_1      b = F_2 D (b_1 + P_1 η_2) + b_2      P = F_2 D P_1 F_2' + P_2
    η = F_1' D' (η_2 - J_2 b_1) + η_1                       J = F_1' D' J_2 F_1 + J_1

An element of the smoother is the state given a later one, `N(E h + g, L)`; two in turn: `E_1 E_2`, `E_1 g_2 + g_1`, `E_1 L_2 E_1' + L_1`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.core.scan import Elements, associative_scan
from unrolled.ssm.kalman.entries import as_padded, check_inputs
from unrolled.ssm.kalman.results import Filtered, Smoothed
from unrolled.ssm.kalman.system import LinearGaussian, check_system


def parallel_filter(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None) -> Filtered:
    """The Kalman filter by a scan.

    Args:
        system: the model, without diffuse states; the noise of what is seen must be positive definite.
        series: outputs `[batch, time, observed]`; NaN is missing.
        inputs: known inputs `[batch, time, input]`.

    Returns:
        What `kalman_filter` gives; differentiable.
    """
    padded, known = _checked(system, series, inputs)
    return _filter(system, padded, known)


def parallel_smoother(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None) -> Smoothed:
    """The smoother by two scans.

    Args:
        system: the model, without diffuse states; predicted covariances must be positive definite.
        series: outputs `[batch, time, observed]`; NaN is missing.
        inputs: known inputs `[batch, time, input]`.

    Returns:
        What `kalman_smoother` gives; differentiable.
    """
    padded, known = _checked(system, series, inputs)
    filtered = _filter(system, padded, known)
    inside = padded.mask
    later = torch.nn.functional.pad(inside[:, 1:], (0, 1))
    one = torch.eye(system.states, dtype=filtered.means.dtype, device=filtered.means.device)
    predicted = torch.cat([filtered.predicted_covariances[:, 1:], one.expand(len(inside), 1, -1, -1)], 1)
    root = torch.linalg.cholesky(torch.where(later[..., None, None], predicted, one))
    E = torch.where(later[..., None, None], torch.cholesky_solve(system.transition @ filtered.covariances, root).mT, 0)
    ahead = torch.cat([filtered.predicted_means[:, 1:], torch.zeros_like(filtered.means[:, :1])], 1)
    g = filtered.means - _times(E, ahead)
    L = filtered.covariances - E @ predicted @ E.mT
    _, means, covariances = associative_scan(_back, (E, g, L), reverse=True)
    lagged = torch.cat([torch.zeros_like(E[:, :1]), covariances[:, 1:] @ E[:, :-1].mT], 1)
    return Smoothed(filtered.log_likelihood, means, covariances, lagged.where(inside[..., None, None], 0))


def _checked(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None) -> tuple[Padded, Tensor | None]:
    check_system(system)
    if system.rank:
        raise DataError("the parallel form must begin from a proper prior, got diffuse states; use `kalman_filter`")
    padded = as_padded(system, series)
    if 0 in padded.data.shape:
        raise DataError(f"the parallel form must see at least one series of one step, got {tuple(padded.data.shape)}")
    return padded, check_inputs(system, padded, inputs)


def _filter(system: LinearGaussian, padded: Padded, known: Tensor | None) -> Filtered:
    A, C = system.transition, system.emission
    seen, data = ~padded.data.isnan(), padded.data
    offset = 0 if known is None or system.emission_input is None else known @ system.emission_input.T
    y = torch.where(seen, data - offset, 0)
    shift = torch.zeros_like(data[:, :, :1] * A[0]).nan_to_num()
    if known is not None and system.transition_input is not None:
        shift = known @ system.transition_input.T
    shift = torch.cat([system.initial_mean.expand(len(y), 1, -1), shift[:, 1:]], 1)
    rows = seen.unsqueeze(3) * C
    elements = _elements(system, y, seen, rows, shift)
    _, means, covariances, _, _ = associative_scan(_forth, elements)
    before = torch.cat([system.initial_mean.expand(len(y), 1, -1), means[:, :-1] @ A.T + shift[:, 1:]], 1)
    first = system.initial_covariance.expand(len(y), 1, -1, -1)
    spread = torch.cat([first, A @ covariances[:, :-1] @ A.T + system.transition_covariance], 1)
    root = torch.linalg.cholesky(rows @ spread @ rows.mT + _noise(system, seen))
    scaled = torch.linalg.solve_triangular(root, (y - _times(rows, before)).unsqueeze(3), upper=False)
    told = seen.sum(2) * math.log(2 * math.pi) / -2 - root.diagonal(dim1=2, dim2=3).log().sum(2) - scaled.square().sum((2, 3)) / 2
    flat, square = padded.mask.unsqueeze(2), padded.mask[..., None, None]
    return Filtered(told, before.where(flat, 0), spread.where(square, 0), means.where(flat, 0), covariances.where(square, 0))


def _elements(system: LinearGaussian, y: Tensor, seen: Tensor, rows: Tensor, shift: Tensor) -> Elements:
    T, K = shift.shape[1:]
    spread = torch.cat([system.initial_covariance.expand(1, 1, K, K), system.transition_covariance.expand(1, T - 1, K, K)], 1)
    moves = torch.cat([torch.zeros_like(system.transition).expand(1, 1, K, K), system.transition.expand(1, T - 1, K, K)], 1)
    root = torch.linalg.cholesky(rows @ spread @ rows.mT + _noise(system, seen))
    weighted = torch.cholesky_solve(rows, root)  # S^-1 C
    gain = spread @ weighted.mT
    keep = torch.eye(K, dtype=y.dtype, device=y.device) - gain @ rows
    error = y - _times(rows, shift)
    return (
        keep @ moves,
        shift + _times(gain, error),
        keep @ spread,
        _times((weighted @ moves).mT, error),
        moves.mT @ rows.mT @ weighted @ moves,
    )


def _noise(system: LinearGaussian, seen: Tensor) -> Tensor:
    """The noise of what is seen; one where nothing is."""
    one = torch.eye(system.observed, dtype=system.transition.dtype, device=seen.device)
    return torch.where(seen.unsqueeze(3) & seen.unsqueeze(2), system.emission_covariance, one)


def _forth(earlier: Elements, later: Elements) -> Elements:
    (F1, b1, P1, e1, J1), (F2, b2, P2, e2, J2) = earlier, later
    mixed = torch.eye(F1.shape[-1], dtype=F1.dtype, device=F1.device) + P1 @ J2
    left = torch.linalg.solve(mixed.mT, F2.mT).mT  # F_2 D
    right = torch.linalg.solve(mixed, F1)  # D F_1
    return (
        left @ F1,
        _times(left, b1 + _times(P1, e2)) + b2,
        left @ P1 @ F2.mT + P2,
        _times(right.mT, e2 - _times(J2, b1)) + e1,
        right.mT @ J2 @ F1 + J1,
    )


def _back(earlier: Elements, later: Elements) -> Elements:
    (E1, g1, L1), (E2, g2, L2) = earlier, later
    return E1 @ E2, _times(E1, g2) + g1, E1 @ L2 @ E1.mT + L1


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)

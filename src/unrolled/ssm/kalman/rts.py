"""The Rauch–Tung–Striebel smoother (1965), in the form of the textbooks, by Cholesky factors.

With the gain `J = P_{t|t} A' P_{t+1|t}^-1`::

    E[h_t | y] = m_{t|t} + J (E[h_{t+1} | y] - m_{t+1|t})
    Cov[h_t | y] = P_{t|t} + J (Cov[h_{t+1} | y] - P_{t+1|t}) J'        Cov[h_{t+1}, h_t | y] = Cov[h_{t+1} | y] J'

`kalman_smoother` gives the same, faster, and needs no inverse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.entries import as_padded
from unrolled.ssm.kalman.inference import kalman_filter
from unrolled.ssm.kalman.results import Smoothed
from unrolled.ssm.kalman.system import LinearGaussian


def rts_smoother(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None) -> Smoothed:
    """Filter, then go back.

    Args:
        system: the model, without diffuse states; predicted covariances must be positive definite.
        series: outputs `[batch, time, observed]`; NaN is missing.
        inputs: known inputs `[batch, time, input]`.

    Returns:
        Means and covariances; differentiable.

    Raises:
        DataError: a system with diffuse states, or a predicted covariance that cannot be inverted.
    """
    if system.rank:
        raise DataError("the Rauch-Tung-Striebel smoother must begin from a proper prior, got diffuse states; use `kalman_smoother`")
    padded = as_padded(system, series)
    filtered = kalman_filter(system, padded, inputs)
    gains = _gains(system, filtered.covariances[:, :-1], filtered.predicted_covariances[:, 1:], padded.mask[:, 1:])
    means, covariances = list(filtered.means.unbind(1)), list(filtered.covariances.unbind(1))
    lagged = [torch.zeros_like(one) for one in covariances]
    for t in reversed(range(len(means) - 1)):
        J = gains[:, t]
        lagged[t + 1] = covariances[t + 1] @ J.mT
        means[t] = means[t] + (J @ (means[t + 1] - filtered.predicted_means[:, t + 1]).unsqueeze(2)).squeeze(2)
        covariances[t] = covariances[t] + J @ (covariances[t + 1] - filtered.predicted_covariances[:, t + 1]) @ J.mT
    if not means:
        return Smoothed(filtered.log_likelihood, filtered.means, filtered.covariances, filtered.covariances)
    return Smoothed(filtered.log_likelihood, *(torch.stack(one, 1) for one in (means, covariances, lagged)))


def _gains(system: LinearGaussian, covariances: Tensor, predicted: Tensor, inside: Tensor) -> Tensor:
    """`J` of each step that has one behind it; zero at others, so that nothing comes from past the end."""
    one = torch.eye(system.states, dtype=predicted.dtype, device=predicted.device)
    root, wrong = torch.linalg.cholesky_ex(torch.where(inside[..., None, None], predicted, one))
    if bool(wrong.any()):
        raise DataError(
            "the Rauch-Tung-Striebel smoother must invert predicted covariances, got one that is singular; use `kalman_smoother`"
        )
    gains = torch.cholesky_solve(system.transition @ covariances, root).mT
    return torch.where(inside[..., None, None], gains, 0)

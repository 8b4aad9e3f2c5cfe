"""Free numbers to bound ones and back: what a search may set to anything becomes a variance, a correlation, a stationary autoregression."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

WITHIN = 1 - 1e-6
"""Partial autocorrelations stay below this: at 1 there is no stationary distribution."""


class Kind(NamedTuple):
    """How numbers are bound."""

    name: str
    bind: Callable[[Tensor], Tensor]
    """From free numbers to bound ones; differentiable."""
    free: Callable[[Tensor], Tensor]
    """The inverse."""
    allows: Callable[[Tensor], bool]
    """Whether a model can be computed with such bound numbers; the edges that no search reaches are among them where they can be."""
    must: str
    """What they must be, in words."""


def _autoregression(free: Tensor) -> Tensor:
    """Coefficients of a stationary autoregression from partial autocorrelations `tanh(free)` (Durbin–Levinson; Monahan 1984)."""
    partial = free.tanh() * WITHIN
    coefficients = partial[:1]
    for order in range(1, len(partial)):
        coefficients = torch.cat([coefficients - partial[order] * coefficients.flip(0), partial[order : order + 1]])
    return coefficients


def _partial(coefficients: Tensor) -> Tensor:
    found = []
    while len(coefficients):
        last = coefficients[-1]
        found.append(last)
        rest = coefficients[:-1]
        coefficients = (rest + last * rest.flip(0)) / (1 - last * last)
    return (torch.stack(found[::-1]) / WITHIN).atanh() if found else coefficients


def _same(numbers: Tensor) -> Tensor:
    return numbers


def _finite(numbers: Tensor) -> bool:
    return bool(numbers.isfinite().all())


def _not_negative(numbers: Tensor) -> bool:
    return _finite(numbers) and bool((numbers >= 0).all())


def _share(numbers: Tensor) -> bool:
    return bool(((numbers >= 0) & (numbers <= 1)).all())


def _stationary(coefficients: Tensor) -> bool:
    # Partial autocorrelations beyond ±1 have no inverse hyperbolic tangent.
    return _finite(_partial(coefficients))


REAL = Kind("real", _same, _same, _finite, "finite")
"""Any number."""
POSITIVE = Kind("positive", torch.exp, torch.log, _not_negative, "a variance, at least 0")
"""Above zero: variances."""
CORRELATION = Kind("correlation", torch.sigmoid, torch.logit, _share, "from 0 to 1")
"""Between 0 and 1."""
STATIONARY = Kind("stationary", _autoregression, _partial, _stationary, "a stationary autoregression (one number lies between -1 and 1)")
"""Coefficients `c` for which `1 - Σ c_i z^i` has no root within the unit circle."""


def _moving_average(free: Tensor) -> Tensor:
    return -_autoregression(free)


def _free_moving_average(coefficients: Tensor) -> Tensor:
    return _partial(-coefficients)


INVERTIBLE = Kind("invertible", _moving_average, _free_moving_average, _finite, "finite")
"""Coefficients `c` for which `1 + Σ c_i z^i` has no root within the unit circle."""


def covariance_of(free: Tensor, size: int) -> Tensor:
    """A covariance from as many free numbers as it has entries on and below its diagonal: a Cholesky factor, the logarithms of its diagonal first.

    Args:
        free: `[size (size + 1) / 2]`.
        size: of the covariance.

    Returns:
        `[size, size]`, positive definite.
    """
    below = torch.tril_indices(size, size, -1)
    root = torch.diag(free[:size].exp()).index_put((below[0], below[1]), free[size:])
    return root @ root.T


def free_of_covariance(covariance: Tensor) -> Tensor:
    """The inverse of `covariance_of`.

    Args:
        covariance: positive definite.

    Returns:
        The free numbers.
    """
    root = torch.linalg.cholesky(covariance)
    below = torch.tril_indices(len(root), len(root), -1)
    return torch.cat([root.diag().log(), root[below[0], below[1]]])

"""The forms of a Gaussian's covariance: how it is kept, what it is as matrices, and its estimate from scatter matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError


@dataclass(frozen=True)
class Covariance:
    """One form. Scatter is `[states, features]` (sums of squares) where features are independent, else `[states, features, features]`."""

    name: str
    independent: bool
    """Whether the features of one state are independent of each other."""
    pooled: Callable[[Tensor, Tensor], Tensor]
    """The estimate from scatter and weights (of the scatter's shape without its last axis, or with it where features are independent)."""
    expand: Callable[[Tensor, int, int], Tensor]
    """From how it is kept to `[states, features]` variances or `[states, features, features]`, given states and features."""
    count: Callable[[int, int], int]
    """How many numbers it has, given states and features."""


SPHERICAL = Covariance(
    "spherical",
    True,
    lambda scatter, weights: scatter.sum(1) / weights.sum(1),
    lambda kept, states, features: kept.unsqueeze(1).expand(states, features),
    lambda states, features: states,
)
DIAGONAL = Covariance(
    "diagonal",
    True,
    lambda scatter, weights: scatter / weights,
    lambda kept, states, features: kept,
    lambda states, features: states * features,
)
TIED = Covariance(
    "tied",
    False,
    lambda scatter, weights: scatter.sum(0) / weights.sum(),
    lambda kept, states, features: kept.expand(states, features, features),
    lambda states, features: features * (features + 1) // 2,
)
FULL = Covariance(
    "full",
    False,
    lambda scatter, weights: scatter / weights.view(-1, 1, 1),
    lambda kept, states, features: kept,
    lambda states, features: states * features * (features + 1) // 2,
)
COVARIANCES = {form.name: form for form in (SPHERICAL, DIAGONAL, TIED, FULL)}
"""All forms by name."""


@dataclass(frozen=True)
class NormalInverseWishart:
    """A prior on each state's mean and covariance; what is fitted is the most probable value (Murphy 2012, section 4.6.3).

    Up to a constant its logarithm is `-½ ((degrees + features + 2) log|Σ| + tr(Σ⁻¹ (scale + strength (μ - mean)(μ - mean)ᵀ)))`, for a Σ of any form.
    """

    mean: Float[Tensor, " features"]
    """The mean that is expected."""
    strength: float
    """As how many outputs that expectation counts."""
    degrees: float
    """As how many outputs `scale` counts."""
    scale: Float[Tensor, " features"]
    """Sums of squares expected of `degrees` outputs, feature by feature."""

    def log_density(self, means: Tensor, variances: Tensor, *, independent: bool) -> Tensor:
        """The logarithm, up to a constant, summed over states.

        Args:
            means: `[states, features]`.
            variances: `[states, features]`, or `[states, features, features]`.
            independent: which of the two.

        Returns:
            A number.
        """
        away = means - self.mean
        exponent = self.degrees + means.shape[1] + 2
        if independent:
            return -0.5 * (exponent * variances.log() + (self.scale + self.strength * away**2) / variances).sum()
        inside = torch.diag(self.scale) + self.strength * away.unsqueeze(2) * away.unsqueeze(1)
        traces = torch.linalg.solve(variances, inside).diagonal(dim1=-2, dim2=-1).sum()
        return -0.5 * (exponent * torch.linalg.slogdet(variances)[1].sum() + traces)


def at_least(variances: Tensor, floor: float, *, independent: bool) -> Tensor:
    """The likeliest covariance of which no direction varies less than `floor`: its eigenvalues, raised where they are smaller.

    Args:
        variances: as kept.
        floor: the smallest variance.
        independent: whether these are single variances, not matrices.

    Returns:
        Of the same shape.
    """
    if independent:
        return variances.clamp(min=floor)
    if not floor:
        return variances
    values, vectors = torch.linalg.eigh(variances)
    if bool((values >= floor).all()):
        return variances
    return (vectors * values.clamp(min=floor).unsqueeze(-2)) @ vectors.transpose(-1, -2)


def check_covariances(kept: Tensor, form: Covariance, states: int, features: int) -> None:
    """Refuse what is no covariance.

    Args:
        kept: as the form keeps it.
        form: its form.
        states: how many.
        features: how many.

    Raises:
        DataError: not positive definite, not symmetric, or of the wrong shape.
    """
    wanted = {"spherical": (states,), "diagonal": (states, features), "tied": (features, features), "full": (states, features, features)}[
        form.name
    ]
    if tuple(kept.shape) != wanted:
        raise DataError(f"`covariances` of the form {form.name} must have the shape {wanted}, got {tuple(kept.shape)}")
    if form.independent:
        if not bool((kept > 0).all()):
            raise DataError(f"`covariances` must be above 0, got {float(kept.min()):.4g}; no state may have a feature that never changes")
        return
    if not torch.allclose(kept, kept.transpose(-1, -2), rtol=1e-6, atol=1e-12):
        raise DataError("`covariances` must be symmetric; average the matrix with its transpose")
    smallest = torch.linalg.eigvalsh(kept).amin(-1)
    if not bool((smallest > 0).all()):
        state = int((~(smallest > 0)).nonzero().flatten()[0]) if smallest.dim() else 0
        raise DataError(
            f"`covariances` must be positive definite, got the smallest eigenvalue {float(smallest.min()):.4g} in state {state}; "
            "add a small number to the diagonal"
        )

"""Gaussian outputs. What is missing of an output is integrated out, and in the M-step replaced by what is expected of it.

With `d = y - μ_k` (μ before the step), `w` the weights, and for a missing part `m` beside a seen part `o` of an output (Little & Rubin 2002, section 11.2)::

    E[d_m] = Σ_mo Σ_oo⁻¹ d_o        Cov[d_m] = Σ_mm - Σ_mo Σ_oo⁻¹ Σ_om
    N = Σ w        S1 = Σ w E[d]        S2 = Σ w (E[d] E[d]ᵀ + Cov[d])
    μ' = μ + S1 / N        Σ' = (S2 - N (μ' - μ)(μ' - μ)ᵀ) / N

Where features are independent of each other, each is fitted to the outputs in which it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.emissions.covariance import DIAGONAL, Covariance, NormalInverseWishart, at_least, check_covariances
from unrolled.ssm.hmm.emissions.moments import Moments, joint_moments, joint_scores, single_moments, single_scores
from unrolled.ssm.hmm.rows import Rows

NEAR = 2.0
"""A variance within this factor of the floor has ended there: a fit stops a little before."""


@dataclass(frozen=True)
class Gaussian(Emission):
    """Each state's outputs are normal around its mean."""

    means: Float[Tensor, "states features"]
    covariances: Tensor
    """As `form` keeps it: spherical `[states]`, diagonal `[states, features]`, tied `[features, features]`, full `[states, features, features]`."""
    form: Covariance = DIAGONAL
    prior: NormalInverseWishart | None = None
    floor: float = 0.0
    """No direction varies less than this, so that no state ends on a single output."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """Frozen entries of `means`; `covariances` are frozen as a whole or not at all."""

    @property
    def free_parameters(self) -> int:
        """Means and covariances that are fitted."""
        return self.unfrozen("means") + (0 if "covariances" in self.fixed else self.form.count(*self.means.shape))

    def check(self) -> None:
        """Refuse what is no covariance, and means that are not finite.

        Raises:
            DataError: a mean is not finite.
        """
        if not bool(self.means.isfinite().all()):
            raise DataError("`means` must be finite; start from other values")
        check_covariances(self.covariances, self.form, *self.means.shape)

    def expanded(self) -> Tensor:
        """Variances `[states, features]` where features are independent, else `[states, features, features]`."""
        return self.form.expand(self.covariances, *self.means.shape)

    def scores(self, rows: Rows) -> Tensor:
        """`log N(y | μ, Σ)` of what was seen.

        Args:
            rows: outputs.

        Returns:
            `[rows, states]`.
        """
        return (single_scores if self.form.independent else joint_scores)(rows, self.means, self.expanded())

    def fitted(self, rows: Rows, weights: Tensor) -> Gaussian:
        """The equations above, with the prior's pseudo-outputs.

        Args:
            rows: outputs.
            weights: `[rows, states]`.

        Returns:
            A new emission; a state without weight stays as it was.
        """
        moments = (single_moments if self.form.independent else joint_moments)(rows, weights, self.means, self.expanded())
        means = self._means(moments)
        covariances = estimate(self, moments, means)
        return replace(self, means=means, covariances=covariances)

    def _means(self, moments: Moments) -> Tensor:
        weight = moments.weight if self.form.independent else moments.weight.unsqueeze(1)
        total = moments.first
        if self.prior is not None:
            weight = weight + self.prior.strength
            total = total + self.prior.strength * (self.prior.mean - self.means)
        means = self.means + torch.where(weight > 0, total / torch.where(weight > 0, weight, 1), 0)
        if "means" not in self.fixed:
            return means
        fixed = self.fixed["means"].expand_as(means)
        return torch.where(fixed, self.means, means if self.form.independent else self._beside_fixed(means, fixed))

    def _beside_fixed(self, means: Tensor, fixed: Tensor) -> Tensor:
        """Free entries of a mean whose other entries are frozen: what is likeliest beside these, under the present covariance."""
        precision = torch.linalg.inv(self.expanded())
        found = means.clone()
        for state, frozen in enumerate(fixed):
            if bool(frozen.any()) and not bool(frozen.all()):
                inner, across = precision[state][~frozen][:, ~frozen], precision[state][~frozen][:, frozen]
                found[state, ~frozen] += torch.linalg.solve(inner, across @ (means[state, frozen] - self.means[state, frozen]))
        return found

    def log_prior(self) -> Tensor:
        """Of means and covariances."""
        if self.prior is None:
            return super().log_prior()
        return self.prior.log_density(self.means, self.expanded(), independent=self.form.independent)

    def at_floor(self) -> Tensor:
        """States of which a direction varies as little as `floor` lets it."""
        return small(self.form, self.expanded(), self.floor) & ("covariances" not in self.fixed)

    def draw(self, states: Tensor, history: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Normal outputs.

        Args:
            states: `[count]`.
            history: not looked at.
            generator: source of randomness.

        Returns:
            `[count, features]`.
        """
        noise = torch.randn(len(states), self.means.shape[1], dtype=self.means.dtype, generator=generator)
        spread = self.expanded()
        if self.form.independent:
            return self.means[states] + noise * spread[states].sqrt()
        return self.means[states] + (torch.linalg.cholesky(spread)[states] @ noise.unsqueeze(2)).squeeze(2)

    def mean(self) -> Tensor:
        """The means."""
        return self.means

    def variance(self) -> Tensor:
        """The diagonal of each covariance."""
        return self.expanded() if self.form.independent else self.expanded().diagonal(dim1=-2, dim2=-1)


def estimate(emission: Gaussian, moments: Moments, means: Tensor) -> Tensor:
    """Covariances from moments about the old means.

    Args:
        emission: gives form, prior, floor, what is fixed, and the old values.
        moments: about its means.
        means: the new ones.

    Returns:
        As the form keeps them.
    """
    if "covariances" in emission.fixed:
        return emission.covariances
    prior, away = emission.prior, means - emission.means
    weight = moments.weight
    if emission.form.independent:
        scatter = moments.second - 2 * away * moments.first + weight * away**2
    else:
        cross = away.unsqueeze(2) * moments.first.unsqueeze(1)
        scatter = moments.second - cross - cross.transpose(1, 2) + weight.view(-1, 1, 1) * away.unsqueeze(2) * away.unsqueeze(1)
    if prior is not None:
        weight = weight + prior.degrees + means.shape[1] + 2
        beside = means - prior.mean
        extra = prior.scale + prior.strength * beside**2
        if not emission.form.independent:
            extra = torch.diag(prior.scale) + prior.strength * beside.unsqueeze(2) * beside.unsqueeze(1)
        scatter = scatter + extra
    return settled(emission.form, scatter, weight, emission.covariances, emission.floor)


def small(form: Covariance, spread: Tensor, floor: float) -> Tensor:
    """Whether a direction of each covariance varies about as little as the floor.

    Args:
        form: of the covariance.
        spread: variances or covariances, a row a state.
        floor: the smallest variance.

    Returns:
        `[states]`.
    """
    least = spread if form.independent else torch.linalg.eigvalsh(spread)
    return (least <= NEAR * floor).any(1)


def settled(form: Covariance, scatter: Tensor, weight: Tensor, old: Tensor, floor: float) -> Tensor:
    """The estimate, at least the floor; as it was where there is no weight.

    Args:
        form: of the covariance.
        scatter: sums of squares.
        weight: what they are sums over.
        old: the present covariances.
        floor: the smallest variance.

    Returns:
        As the form keeps them.
    """
    fresh = form.pooled(scatter, weight)
    fresh = fresh if form.independent else (fresh + fresh.transpose(-1, -2)) / 2
    known = fresh.isfinite() if form.independent else fresh.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return at_least(torch.where(known, fresh, old), floor, independent=form.independent)

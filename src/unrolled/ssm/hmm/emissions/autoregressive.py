"""Outputs that depend on those before them, in each state in another way (Hamilton 1989): `y_t = coefficients_k [1; y_{t-1}; …; y_{t-p}] + ε`.

The first `order` outputs of a sequence are given: they are not scored. Nor is an output that is missing in part, or one that looks back at such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.emissions.covariance import DIAGONAL, Covariance, check_covariances
from unrolled.ssm.hmm.emissions.gaussian import settled, small
from unrolled.ssm.hmm.emissions.moments import joint_scores, single_scores
from unrolled.ssm.hmm.rows import Rows, pack, rows_of_features


@dataclass(frozen=True)
class Autoregressive(Emission):
    """A linear regression on the last outputs for each state, with normal noise."""

    coefficients: Float[Tensor, "states features regressors"]
    """For each feature those of the constant, then of all features one step back, two steps back, and so on."""
    covariances: Tensor
    """Of the noise, as `form` keeps it."""
    form: Covariance = DIAGONAL
    floor: float = 0.0
    """The smallest variance of the noise."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """`coefficients` and `covariances` are frozen as a whole or not at all."""

    @property
    def order(self) -> int:
        """How many outputs it looks back."""
        return (self.coefficients.shape[2] - 1) // self.coefficients.shape[1]

    @property
    def free_parameters(self) -> int:
        """Coefficients and covariances."""
        noise = self.form.count(self.states, self.coefficients.shape[1])
        return (0 if "coefficients" in self.fixed else self.coefficients.numel()) + (0 if "covariances" in self.fixed else noise)

    def check(self) -> None:
        """Refuse what is no covariance, and coefficients that are not finite or too few.

        Raises:
            DataError: such coefficients.
        """
        _, D, R = self.coefficients.shape
        if R < D + 1 or (R - 1) % D or not bool(self.coefficients.isfinite().all()):
            raise DataError(f"`coefficients` must be finite [states, {D}, 1 + order * {D}], got {tuple(self.coefficients.shape)}")
        check_covariances(self.covariances, self.form, self.states, D)

    def at_floor(self) -> Tensor:
        """States of which the noise varies as little as `floor` lets it."""
        spread = self.form.expand(self.covariances, self.states, self.coefficients.shape[1])
        return small(self.form, spread, self.floor) & ("covariances" not in self.fixed)

    def rows(self, outputs: Padded) -> Rows:
        """Outputs, each beside those that it looks back at.

        Args:
            outputs: `[batch, time, features]`.

        Returns:
            Rows, the rows that are not scored marked as not seen.
        """
        D = self.coefficients.shape[1]
        plain = rows_of_features(outputs, D)
        data = outputs.data.unsqueeze(-1) if outputs.data.dim() == 2 else outputs.data
        data = data if data.is_floating_point() else data.to(torch.float64)
        before = [torch.nn.functional.pad(data, (0, 0, lag, 0), value=torch.nan)[:, : data.shape[1]] for lag in range(1, self.order + 1)]
        lags = pack(Padded(torch.cat(before, 2), outputs.lengths))
        known = ~lags.isnan().any(1)
        if plain.seen is not None:
            known = known & plain.seen.all(1)
        design = torch.cat([lags.new_ones(len(lags), 1), lags.nan_to_num(0)], 1)
        return Rows(plain.values, plain.places, (), known.unsqueeze(1).expand(-1, D), design)

    def scores(self, rows: Rows) -> Tensor:
        """Log-densities of the noise.

        Args:
            rows: outputs and what they look back at.

        Returns:
            `[rows, states]`.
        """
        assert rows.design is not None
        assert rows.seen is not None
        spread = self.form.expand(self.covariances, self.states, self.coefficients.shape[1])
        scored = single_scores if self.form.independent else joint_scores
        found = []
        for state in range(self.states):
            noise = Rows(rows.values - rows.design @ self.coefficients[state].T, rows.places)
            found.append(scored(noise, spread.new_zeros(1, spread.shape[1]), spread[state : state + 1]))
        return torch.cat(found, 1) * rows.seen[:, :1]

    def fitted(self, rows: Rows, weights: Tensor) -> Autoregressive:
        """Weighted least squares.

        Args:
            rows: outputs and what they look back at.
            weights: `[rows, states]`.

        Returns:
            A new emission; a state without weight stays as it was.
        """
        assert rows.design is not None
        assert rows.seen is not None
        weights = weights * rows.seen[:, :1]
        coefficients, scatter = self.coefficients.clone(), []
        for state, weight in enumerate(weights.T):
            scaled = rows.design * weight.unsqueeze(1)
            if "coefficients" not in self.fixed and bool(weight.sum() > 0):
                # The pseudo-inverse: of coefficients that are not determined, the smallest.
                coefficients[state] = (torch.linalg.pinv(scaled.T @ rows.design, hermitian=True) @ (scaled.T @ rows.values)).T
            noise = rows.values - rows.design @ coefficients[state].T
            weighed = noise * weight.unsqueeze(1)
            scatter.append((weighed * noise).sum(0) if self.form.independent else weighed.T @ noise)
        total = weights.sum(0)
        total = total.unsqueeze(1).expand(-1, rows.values.shape[1]) if self.form.independent else total
        fresh = settled(self.form, torch.stack(scatter), total, self.covariances, self.floor)
        return replace(self, coefficients=coefficients, covariances=self.kept("covariances", fresh))

    def draw(self, states: Tensor, history: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Outputs that go on from those before; where there are fewer than `order`, zeros stand for what is not there.

        Args:
            states: `[count]`.
            history: `[count, steps, features]`.
            generator: source of randomness.

        Returns:
            `[count, features]`.
        """
        D = self.coefficients.shape[1]
        lags = self.coefficients.new_zeros(len(states), self.order, D)
        if history is not None and history.shape[1] and self.order:
            latest = history[:, -self.order :].flip(1)
            lags[:, : latest.shape[1]] = latest
        design = torch.cat([lags.new_ones(len(states), 1), lags.flatten(1)], 1)
        center = (self.coefficients[states] @ design.unsqueeze(2)).squeeze(2)
        noise = torch.randn(len(states), D, dtype=center.dtype, generator=generator)
        spread = self.form.expand(self.covariances, self.states, D)
        if self.form.independent:
            return center + noise * spread[states].sqrt()
        return center + (torch.linalg.cholesky(spread)[states] @ noise.unsqueeze(2)).squeeze(2)

    def mean(self) -> Tensor:
        """The constant of each state: what is expected after outputs of zero."""
        return self.coefficients[:, :, 0]

    def variance(self) -> Tensor:
        """Of the noise."""
        spread = self.form.expand(self.covariances, self.states, self.coefficients.shape[1])
        return spread if self.form.independent else spread.diagonal(dim1=-2, dim2=-1)

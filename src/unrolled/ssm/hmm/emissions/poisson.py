"""Counts: each feature is Poisson, and independent of the others within a state. NaN is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.rows import Rows, rows_of_features


def seen_sums(rows: Rows, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums of the features, and of how often each was seen.

    Args:
        rows: outputs.
        weights: `[rows, states]`.

    Returns:
        Both `[states, features]`.
    """
    sums = weights.T @ rows.values.to(weights.dtype)
    return sums, weights.sum(0).unsqueeze(1).expand_as(sums) if rows.seen is None else weights.T @ rows.seen.to(weights.dtype)


@dataclass(frozen=True)
class Poisson(Emission):
    """`P(y | z = k) = Π_d rates[k, d]^y_d exp(-rates[k, d]) / y_d!`."""

    rates: Float[Tensor, "states features"]
    shape: float = 1.0
    """Of a Gamma prior on each rate, at least 1."""
    pace: float = 0.0
    """Of the same prior, its rate: as many outputs it counts; `shape` 1 and `pace` 0 are none."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """Frozen entries of `rates`."""

    @property
    def free_parameters(self) -> int:
        """The rates that are not frozen."""
        return self.unfrozen("rates")

    def check(self) -> None:
        """Refuse rates that are negative or not finite.

        Raises:
            DataError: such a rate.
        """
        if not bool((self.rates.isfinite() & (self.rates >= 0)).all()):
            raise DataError(f"`rates` must be finite and at least 0, got {float(self.rates.min()):.4g}")

    def rows(self, outputs: Padded) -> Rows:
        """Counts one behind the other.

        Args:
            outputs: `[batch, time, features]`.

        Returns:
            Rows.

        Raises:
            DataError: a value that is no count.
        """
        rows = rows_of_features(outputs, self.rates.shape[1])
        wrong = (rows.values < 0) | (rows.values != rows.values.round())
        if bool(wrong.any()):
            raise DataError(f"counts must be whole numbers from 0 on, or NaN where missing, got {rows.values[wrong][0].item():.6g}")
        return rows

    def scores(self, rows: Rows) -> Tensor:
        """Log-probabilities of what was seen.

        Args:
            rows: counts.

        Returns:
            `[rows, states]`.
        """
        values = rows.values.to(self.rates.dtype)
        seen = torch.ones_like(values) if rows.seen is None else rows.seen.to(values.dtype)
        possible = self.rates.clamp(min=torch.finfo(values.dtype).tiny)  # 0 log 0 is 0
        found = values @ possible.log().T - seen @ self.rates.T - (torch.lgamma(values + 1) * seen).sum(1, keepdim=True)
        return found.masked_fill(values @ (self.rates == 0).to(values.dtype).T > 0, -torch.inf)

    def fitted(self, rows: Rows, weights: Tensor) -> Poisson:
        """Weighted means.

        Args:
            rows: counts.
            weights: `[rows, states]`.

        Returns:
            A new emission.
        """
        sums, counts = seen_sums(rows, weights)
        sums, counts = sums + (self.shape - 1), counts + self.pace
        return replace(self, rates=self.kept("rates", torch.where(counts > 0, sums / torch.where(counts > 0, counts, 1), self.rates)))

    def log_prior(self) -> Tensor:
        """Of the rates."""
        return torch.special.xlogy(self.shape - 1, self.rates).sum() - self.pace * self.rates.sum()

    def draw(self, states: Tensor, history: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Counts.

        Args:
            states: `[count]`.
            history: not looked at.
            generator: source of randomness.

        Returns:
            `[count, features]`.
        """
        return torch.poisson(self.rates[states], generator=generator)

    def mean(self) -> Tensor:
        """The rates."""
        return self.rates

    def variance(self) -> Tensor:
        """The rates."""
        return self.rates

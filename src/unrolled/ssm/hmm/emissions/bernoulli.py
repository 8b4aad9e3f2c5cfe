"""Yes or no: each feature is 1 with a probability of its own, independent of the others within a state. NaN is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm.counts import check_concentration
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.emissions.poisson import seen_sums
from unrolled.ssm.hmm.rows import Rows, rows_of_features


@dataclass(frozen=True)
class Bernoulli(Emission):
    """`P(y | z = k) = Π_d chances[k, d]^y_d (1 - chances[k, d])^(1 - y_d)`."""

    chances: Float[Tensor, "states features"]
    concentration: float = 1.0
    """Of a Beta prior on each chance, the same for 0 and 1; 1 is none."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """Frozen entries of `chances`."""

    @property
    def free_parameters(self) -> int:
        """The chances that are not frozen."""
        return self.unfrozen("chances")

    def check(self) -> None:
        """Refuse what is no chance.

        Raises:
            DataError: below 0, above 1, or not a number.
        """
        if not bool(((self.chances >= 0) & (self.chances <= 1)).all()):
            raise DataError("`chances` must lie between 0 and 1")
        check_concentration(self.concentration)

    def rows(self, outputs: Padded) -> Rows:
        """Outputs one behind the other.

        Args:
            outputs: `[batch, time, features]` of 0 and 1.

        Returns:
            Rows.

        Raises:
            DataError: another value.
        """
        rows = rows_of_features(outputs, self.chances.shape[1])
        wrong = (rows.values != 0) & (rows.values != 1)
        if bool(wrong.any()):
            raise DataError(f"outputs must be 0 or 1, or NaN where missing, got {rows.values[wrong][0].item():.6g}")
        return rows

    def scores(self, rows: Rows) -> Tensor:
        """Log-probabilities of what was seen.

        Args:
            rows: outputs.

        Returns:
            `[rows, states]`.
        """
        values = rows.values.to(self.chances.dtype)
        other = (1 - values) if rows.seen is None else (1 - values) * rows.seen
        tiny = torch.finfo(values.dtype).tiny  # 0 log 0 is 0
        found = values @ self.chances.clamp(min=tiny).log().T + other @ (1 - self.chances).clamp(min=tiny).log().T
        never = values @ (self.chances == 0).to(values.dtype).T + other @ (self.chances == 1).to(values.dtype).T
        return found.masked_fill(never > 0, -torch.inf)

    def fitted(self, rows: Rows, weights: Tensor) -> Bernoulli:
        """Weighted means.

        Args:
            rows: outputs.
            weights: `[rows, states]`.

        Returns:
            A new emission.
        """
        sums, counts = seen_sums(rows, weights)
        sums, counts = sums + (self.concentration - 1), counts + 2 * (self.concentration - 1)
        fresh = torch.where(counts > 0, sums / torch.where(counts > 0, counts, 1), self.chances).clamp(max=1)
        return replace(self, chances=self.kept("chances", fresh))

    def log_prior(self) -> Tensor:
        """Of the chances."""
        both = torch.stack([self.chances, 1 - self.chances])
        return torch.special.xlogy(torch.full_like(both, self.concentration - 1), both).sum()

    def draw(self, states: Tensor, history: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Outputs of 0 and 1.

        Args:
            states: `[count]`.
            history: not looked at.
            generator: source of randomness.

        Returns:
            `[count, features]`.
        """
        return torch.bernoulli(self.chances[states], generator=generator)

    def mean(self) -> Tensor:
        """The chances."""
        return self.chances

    def variance(self) -> Tensor:
        """Of each feature."""
        return self.chances * (1 - self.chances)

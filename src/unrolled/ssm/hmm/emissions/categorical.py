"""Symbols: each state has a probability for each of them. Negative numbers, or NaN, are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded, check_lengths
from unrolled.ssm.hmm.chain import check_probabilities
from unrolled.ssm.hmm.counts import check_concentration, free_numbers, log_dirichlet, probable
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.rows import Rows, pack, places_of


@dataclass(frozen=True)
class Categorical(Emission):
    """`P(y = v | z = k)` at `[k, v]`; outputs are `[batch, time]`."""

    probabilities: Float[Tensor, "states symbols"]
    """What is exactly zero stays zero."""
    concentration: float = 1.0
    """Of a Dirichlet prior on each state's probabilities; 1 is none."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """Frozen entries of `probabilities`."""

    @property
    def free_parameters(self) -> int:
        """Probabilities, one a state taken off."""
        return free_numbers(self.probabilities, self.fixed.get("probabilities"))

    def check(self) -> None:
        """Refuse rows that do not sum to one, and a prior that cannot be."""
        check_probabilities("probabilities", self.probabilities)
        check_concentration(self.concentration)

    def rows(self, outputs: Padded) -> Rows:
        """Symbols one behind the other.

        Args:
            outputs: `[batch, time]`, whole numbers below the number of symbols.

        Returns:
            Rows.

        Raises:
            DataError: another shape, or a number that is no symbol.
        """
        data = outputs.data.squeeze(-1) if outputs.data.dim() == 3 and outputs.data.shape[-1] == 1 else outputs.data
        if data.dim() != 2:
            raise DataError(f"symbols must be [batch, time], got {tuple(outputs.data.shape)}")
        check_lengths(outputs.lengths, *data.shape)
        values = pack(Padded(data, outputs.lengths))
        whole = values.nan_to_num(-1.0).long() if values.is_floating_point() else values.long()
        symbols = self.probabilities.shape[1]
        wrong = (whole >= symbols) | ((whole != values) & ~values.isnan()) if values.is_floating_point() else whole >= symbols
        if bool(wrong.any()):
            raise DataError(
                f"symbols must be whole numbers from 0 to {symbols - 1}, or negative where missing, got {values[wrong][0].item()}"
            )
        return Rows(whole.clamp(min=-1), places_of(outputs.lengths))

    def scores(self, rows: Rows) -> Tensor:
        """Logarithms of the probabilities.

        Args:
            rows: symbols.

        Returns:
            `[rows, states]`.
        """
        table = torch.cat([self.probabilities.log().T, self.probabilities.new_zeros(1, self.states)])
        return table[rows.values]  # the last row is that of -1

    def fitted(self, rows: Rows, weights: Tensor) -> Categorical:
        """Counts over their sum.

        Args:
            rows: symbols.
            weights: `[rows, states]`.

        Returns:
            A new emission.
        """
        symbols = self.probabilities.shape[1]
        counts = weights.new_zeros(symbols + 1, self.states).index_add_(0, rows.values % (symbols + 1), weights)[:symbols].T
        return replace(self, probabilities=probable(counts, self.probabilities, self.concentration, self.fixed.get("probabilities")))

    def log_prior(self) -> Tensor:
        """Of the probabilities."""
        return log_dirichlet(self.probabilities, self.concentration, self.fixed.get("probabilities"))

    def draw(self, states: Tensor, history: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Symbols.

        Args:
            states: `[count]`.
            history: not looked at.
            generator: source of randomness.

        Returns:
            `[count]`.
        """
        return torch.multinomial(self.probabilities[states], 1, generator=generator).squeeze(1)

    def mean(self) -> Tensor:
        """The probabilities: what is expected of each symbol's indicator."""
        return self.probabilities

    def variance(self) -> Tensor:
        """Of each symbol's indicator."""
        return self.probabilities * (1 - self.probabilities)

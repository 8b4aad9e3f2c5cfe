"""Mixtures of Gaussians: each state draws one of its components, and that draws the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.ssm.hmm.chain import check_probabilities
from unrolled.ssm.hmm.counts import check_concentration, free_numbers, log_dirichlet, probable
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.emissions.gaussian import Gaussian
from unrolled.ssm.hmm.rows import Rows


@dataclass(frozen=True)
class GaussianMixture(Emission):
    """`P(y | z = k) = Σ_m weights[k, m] N(y | component k, m)`."""

    weights: Float[Tensor, "states components"]
    components: Gaussian
    """Those of state 0, then those of state 1, and so on; `states × components` of them."""
    concentration: float = 1.0
    """Of a Dirichlet prior on the weights of each state; 1 is none."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """Frozen entries of `weights`."""

    @property
    def free_parameters(self) -> int:
        """Of weights and components."""
        return free_numbers(self.weights, self.fixed.get("weights")) + self.components.free_parameters

    def check(self) -> None:
        """Refuse weights that do not sum to one, and components that cannot be.

        Raises:
            DataError: the wrong number of components.
        """
        check_probabilities("weights", self.weights)
        check_concentration(self.concentration)
        if self.components.states != self.weights.numel():
            raise DataError(
                f"a mixture with weights {tuple(self.weights.shape)} must have {self.weights.numel()} components, got {self.components.states}"
            )
        self.components.check()

    def at_floor(self) -> Tensor:
        """States of which a component is at its floor."""
        return self.components.at_floor().view(self.weights.shape).any(1)

    def scores(self, rows: Rows) -> Tensor:
        """Log-densities of what was seen.

        Args:
            rows: outputs.

        Returns:
            `[rows, states]`.
        """
        return self._joint(rows).logsumexp(2)

    def _joint(self, rows: Rows) -> Tensor:
        return self.components.scores(rows).view(-1, *self.weights.shape) + self.weights.log()

    def fitted(self, rows: Rows, weights: Tensor) -> GaussianMixture:
        """Each output is shared out to the components of its state, as likely as each has made it.

        Args:
            rows: outputs.
            weights: `[rows, states]`.

        Returns:
            A new emission.
        """
        shares = weights.unsqueeze(2) * self._joint(rows).softmax(2)
        return replace(
            self,
            weights=probable(shares.sum(0), self.weights, self.concentration, self.fixed.get("weights")),
            components=self.components.fitted(rows, shares.flatten(1)),
        )

    def log_prior(self) -> Tensor:
        """Of weights and components."""
        return log_dirichlet(self.weights, self.concentration, self.fixed.get("weights")) + self.components.log_prior()

    def draw(self, states: Tensor, history: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """A component, then an output of it.

        Args:
            states: `[count]`.
            history: not looked at.
            generator: source of randomness.

        Returns:
            `[count, features]`.
        """
        chosen = torch.multinomial(self.weights[states], 1, generator=generator).squeeze(1)
        return self.components.draw(states * self.weights.shape[1] + chosen, None, generator)

    def mean(self) -> Tensor:
        """Of the mixture."""
        return (self.weights.unsqueeze(2) * self.components.mean().view(*self.weights.shape, -1)).sum(1)

    def variance(self) -> Tensor:
        """Of the mixture: within components and between them."""
        means, within = (part.view(*self.weights.shape, -1) for part in (self.components.mean(), self.components.variance()))
        return (self.weights.unsqueeze(2) * (within + means**2)).sum(1) - self.mean() ** 2

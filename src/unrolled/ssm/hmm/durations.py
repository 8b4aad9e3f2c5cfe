"""Explicit durations (Yu 2010): a state says how long it lasts before it is left, instead of being left with the same probability at every step.

The chain is one of states and steps that remain, `(k, d)`: from `(k, d)` it goes to `(k, d - 1)`, and from `(k, 1)` to `(j, e)` with the probability
`transition[k, j] durations[j, e]`. The end of a sequence may cut the last stay short. The chain has `states × longest` states, and each step costs the
square of that: for longest stays of hundreds of steps this form is slow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.ssm.hmm.chain import Chain, check_probabilities
from unrolled.ssm.hmm.counts import check_concentration, free_numbers, log_dirichlet, probable
from unrolled.ssm.hmm.dynamics import Dynamics, Expected


@dataclass(frozen=True)
class ExplicitDurations(Dynamics):
    """A semi-Markov chain: states, which state follows which, and how long each lasts."""

    initial: Float[Tensor, " states"]
    transition: Float[Tensor, "states states"]
    """Which state follows at the end of a stay; the diagonal is zero where a state does not follow itself."""
    durations: Float[Tensor, "states longest"]
    """`P(a stay in state k takes d + 1 steps)` at `[k, d]`."""
    concentration: float = 1.0
    """Of a Dirichlet prior on each row of all three; 1 is none."""

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.initial)

    @property
    def free_parameters(self) -> int:
        """Of all rows."""
        return sum(free_numbers(rows, None) for rows in (self.initial, self.transition, self.durations))

    @property
    def owner(self) -> Tensor:
        """The state of each pair of state and steps that remain."""
        return torch.arange(self.states, device=self.initial.device).repeat_interleave(self.durations.shape[1])

    def check(self) -> None:
        """Refuse rows that do not sum to one.

        Raises:
            DataError: shapes that do not fit each other.
        """
        K = self.states
        if self.transition.shape != (K, K) or self.durations.shape[0] != K or self.durations.shape[1] == 0:
            raise DataError(
                f"`transition` must be [{K}, {K}] and `durations` [{K}, longest], got {tuple(self.transition.shape)} and {tuple(self.durations.shape)}"
            )
        for name, rows in self.parameters().items():
            check_probabilities(name, rows)
        check_concentration(self.concentration)

    def chain(self, inputs: Tensor | None) -> Chain:
        """The chain of pairs.

        Args:
            inputs: not looked at.

        Returns:
            Of `states × longest` states.
        """
        K, D = self.durations.shape
        transition = torch.eye(K * D, dtype=self.initial.dtype, device=self.initial.device).roll(-1, 1)
        begins = (self.transition.unsqueeze(2) * self.durations).flatten(1)
        ends = torch.arange(K, device=self.initial.device) * D
        transition = transition.index_copy(0, ends, begins)
        return Chain((self.initial.unsqueeze(1) * self.durations).flatten(), transition)

    def fitted(self, expected: Expected, inputs: Tensor | None) -> ExplicitDurations:
        """Counts of stays over their sums.

        Args:
            expected: counts of pairs.
            inputs: not looked at.

        Returns:
            New dynamics.
        """
        K, D = self.durations.shape
        first = expected.first.view(K, D)
        begun = expected.transitions.view(K, D, K, D)[:, 0]
        return replace(
            self,
            initial=probable(first.sum(1), self.initial, self.concentration, None),
            transition=probable(begun.sum(2), self.transition, self.concentration, None),
            durations=probable(first + begun.sum(0), self.durations, self.concentration, None),
        )

    def log_prior(self) -> Tensor:
        """Of all rows."""
        rows = self.parameters().values()
        return torch.stack([log_dirichlet(part, self.concentration, None) for part in rows]).sum()

    def parameters(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {"initial": self.initial, "transition": self.transition, "durations": self.durations}

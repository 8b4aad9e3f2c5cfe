"""How states follow each other, and how that is fitted: what Baum–Welch needs of a chain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.ssm.hmm.chain import Chain, check_chain
from unrolled.ssm.hmm.compiled import Flat, Places
from unrolled.ssm.hmm.counts import check_concentration, free_numbers, log_dirichlet, probable


class Expected(NamedTuple):
    """What the E-step found of the chain."""

    first: Tensor
    """How often each state of the chain is expected to come first, `[states]`."""
    transitions: Tensor
    """How often each transition is expected, `[states, states]`."""
    flat: Flat
    """All of it, by row."""
    chain: Chain
    """The chain that was used, its matrices by row where they vary."""
    places: Places
    """Where the sequences lie among the rows."""


class Dynamics(ABC):
    """States of a chain and how it is fitted. The chain may have more states than there are kinds of outputs."""

    @property
    @abstractmethod
    def states(self) -> int:
        """How many kinds of outputs there are."""

    @property
    @abstractmethod
    def free_parameters(self) -> int:
        """How many numbers are fitted."""

    @abstractmethod
    def chain(self, inputs: Tensor | None) -> Chain:
        """The chain under inputs.

        Args:
            inputs: `[rows, features]` or `[batch, time, features]`, where they matter.

        Returns:
            Its probabilities.
        """

    @abstractmethod
    def fitted(self, expected: Expected, inputs: Tensor | None) -> Dynamics:
        """The M-step.

        Args:
            expected: counts.
            inputs: `[rows, features]`, where they matter.

        Returns:
            New dynamics.
        """

    @abstractmethod
    def parameters(self) -> dict[str, Tensor]:
        """The tensors by name."""

    @property
    def owner(self) -> Tensor | None:
        """For each state of the chain the kind of its outputs, `[chain states]`; `None` where they are the same."""
        return None

    def log_prior(self) -> Tensor:
        """What the prior adds to the log-likelihood, up to a constant; 0 without one."""
        return torch.zeros((), dtype=torch.float64)

    def revived(self, state: int, begin: Dynamics) -> Dynamics:
        """Transitions into a state that has died out, as likely as any.

        Args:
            state: which one.
            begin: what fitting began from, of which what is zero is impossible.

        Returns:
            New dynamics; the same where there is nothing to do.
        """
        return self

    def check(self) -> None:  # noqa: B027 (nothing to refuse where a kind does not say so)
        """Refuse parameters that cannot be."""


@dataclass(frozen=True)
class Homogeneous(Dynamics):
    """The same transitions at every step. Entries that are exactly zero stay so: a mask is zeros to begin with."""

    initial: Float[Tensor, " states"]
    transition: Float[Tensor, "states states"]
    concentration: float = 1.0
    """Of a Dirichlet prior on each row, of `initial` as well; 1 is none."""
    fixed_initial: Bool[Tensor, " states"] | None = None
    """Frozen entries of `initial`."""
    fixed_transition: Bool[Tensor, "states states"] | None = None
    """Frozen entries of `transition`."""

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.initial)

    @property
    def free_parameters(self) -> int:
        """Possible entries, less one a row."""
        return free_numbers(self.initial, self.fixed_initial) + free_numbers(self.transition, self.fixed_transition)

    def check(self) -> None:
        """Refuse rows that do not sum to one."""
        check_chain(self.chain(None))
        check_concentration(self.concentration)

    def chain(self, inputs: Tensor | None) -> Chain:
        """As it is.

        Args:
            inputs: not looked at.

        Returns:
            The chain.
        """
        return Chain(self.initial, self.transition)

    def fitted(self, expected: Expected, inputs: Tensor | None) -> Homogeneous:
        """Counts over their sums.

        Args:
            expected: counts.
            inputs: not looked at.

        Returns:
            New dynamics.
        """
        initial = probable(expected.first, self.initial, self.concentration, self.fixed_initial)
        transition = probable(expected.transitions, self.transition, self.concentration, self.fixed_transition)
        return replace(self, initial=initial, transition=transition)

    def log_prior(self) -> Tensor:
        """Of all rows."""
        first = log_dirichlet(self.initial, self.concentration, self.fixed_initial)
        return first + log_dirichlet(self.transition, self.concentration, self.fixed_transition)

    def revived(self, state: int, begin: Dynamics) -> Homogeneous:
        """Transitions into the state are as likely as the mean of their row, and those out of it are even.

        Args:
            state: which one.
            begin: what fitting began from, of which what is zero is impossible.

        Returns:
            New dynamics.
        """
        possible = begin.parameters()["transition"] > 0
        free = possible if self.fixed_transition is None else possible & ~self.fixed_transition
        mass = torch.where(free, self.transition, 0).sum(1, keepdim=True)
        even = torch.where(free, mass / free.sum(1, keepdim=True).clamp(min=1), 0)
        wanted = torch.where(free, self.transition, 0)
        wanted[:, state] = torch.maximum(even[:, state], wanted[:, state])
        wanted[state] = even[state]
        total = wanted.sum(1, keepdim=True)
        transition = torch.where(free & (total > 0), wanted / torch.where(total > 0, total, 1) * mass, self.transition)
        return replace(self, transition=transition)

    def parameters(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {"initial": self.initial, "transition": self.transition}


@dataclass(frozen=True)
class InputDriven(Dynamics):
    """Transitions that depend on a known input (Bengio & Frasconi 1995): row `i` at step `t` is `softmax(bias[i] + weights[i] x_t)`."""

    initial: Float[Tensor, " states"]
    weights: Float[Tensor, "states states inputs"]
    bias: Float[Tensor, "states states"]
    """Minus infinity forbids a transition."""
    penalty: float = 1e-3
    """Times half of the squares of weights and biases: a normal prior, without which certain transitions have no best weights."""
    steps: int = 10
    """Of L-BFGS in each M-step: it goes up, not to the top."""

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.initial)

    @property
    def free_parameters(self) -> int:
        """Weights and biases, one a row taken off."""
        possible = (self.bias > -torch.inf).sum(1) - 1
        return free_numbers(self.initial, None) + int(possible.sum()) * (1 + self.weights.shape[2])

    def check(self) -> None:
        """Refuse an initial distribution that is none, and weights that are not finite.

        Raises:
            DataError: such weights, or a state that nothing follows.
        """
        check_chain(Chain(self.initial, torch.full_like(self.bias, 1 / self.states)))
        if not bool(self.weights.isfinite().all()) or bool((self.bias == -torch.inf).all(1).any()):
            raise DataError("`weights` must be finite, and each row of `bias` must allow some transition")

    def chain(self, inputs: Tensor | None) -> Chain:
        """One matrix a step.

        Args:
            inputs: `[…, inputs]`.

        Returns:
            The chain.

        Raises:
            DataError: inputs are missing or of another size.
        """
        if inputs is None or inputs.shape[-1] != self.weights.shape[2]:
            found = "none" if inputs is None else str(tuple(inputs.shape))
            raise DataError(f"transitions that are driven by inputs need [batch, time, {self.weights.shape[2]}] of them, got {found}")
        return Chain(self.initial, self._logits(self.weights, self.bias, inputs).softmax(-1))

    def _logits(self, weights: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
        return torch.einsum("iju,...u->...ij", weights, inputs.to(weights.dtype)) + bias

    def fitted(self, expected: Expected, inputs: Tensor | None) -> InputDriven:
        """Some steps of L-BFGS up the expected log-probability of the transitions, less the penalty.

        Args:
            expected: counts.
            inputs: `[rows, inputs]`.

        Returns:
            New dynamics, in no case less likely ones.
        """
        assert inputs is not None
        pairs, into = pairs_by_row(expected)
        possible = self.bias > -torch.inf
        weights, bias = (
            self.weights.detach().clone().requires_grad_(),
            torch.where(possible, self.bias, 0).detach().clone().requires_grad_(),
        )

        def loss() -> Tensor:
            logits = self._logits(weights, torch.where(possible, bias, -torch.inf), inputs[into])
            logs = torch.where(possible, logits.log_softmax(-1), 0)
            return -(pairs * logs).sum() + 0.5 * self.penalty * (weights.square().sum() + torch.where(possible, bias, 0).square().sum())

        optimizer = torch.optim.LBFGS([weights, bias], max_iter=self.steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            with torch.enable_grad():
                value = loss()
                value.backward()
            return value.detach()

        before = float(loss())
        optimizer.step(closure)
        initial = probable(expected.first, self.initial, 1.0, None)
        if not float(loss()) <= before:
            return InputDriven(initial, self.weights, self.bias, self.penalty, self.steps)
        fresh = torch.where(possible, bias.detach(), -torch.inf)
        return InputDriven(initial, weights.detach(), fresh, self.penalty, self.steps)

    def log_prior(self) -> Tensor:
        """The penalty, taken off."""
        finite = torch.where(self.bias > -torch.inf, self.bias, 0)
        return -0.5 * self.penalty * (self.weights.square().sum() + finite.square().sum())

    def parameters(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {"initial": self.initial, "weights": self.weights, "bias": self.bias}


def pairs_by_row(expected: Expected) -> tuple[Tensor, Tensor]:
    """Two-slice marginals of all steps but the first of each sequence.

    Args:
        expected: with everything by row.

    Returns:
        `[steps, states, states]`, and the rows that they lead into.
    """
    flat: Any = expected.flat
    rows = torch.arange(len(flat.filtered), device=flat.filtered.device)
    starts = torch.zeros(len(rows) + 1, dtype=torch.bool, device=rows.device)
    starts[expected.places.starts] = True
    into = rows[~starts[:-1]]
    transition = expected.chain.transition[into] if expected.chain.transition.dim() > 2 else expected.chain.transition
    predicted = flat.predicted[into]
    ratio = torch.where(predicted > 0, flat.smoothed[into] / torch.where(predicted > 0, predicted, 1), 0)
    return flat.filtered[into - 1].unsqueeze(2) * transition * ratio.unsqueeze(1), into

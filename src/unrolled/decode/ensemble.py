"""Several models decode as one: a stepper whose next token has the mean of its members' probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.core.state import State
from unrolled.decode.hypotheses import log_probabilities_of
from unrolled.decode.stepper import Aligns, Stepper, reorder

Mean = Callable[[Tensor, Tensor], Tensor]
"""From log-probabilities `[members, batch, vocab]` and weights `[members]` that sum to 1 to logits `[batch, vocab]`."""


def mean_probability(
    log_probabilities: Float[Tensor, "members batch vocab"], weights: Float[Tensor, " members"]
) -> Float[Tensor, "batch vocab"]:
    """`log Σ_m w_m P_m`: a token is likely where any member finds it likely.

    Args:
        log_probabilities: of every member.
        weights: positive, of sum 1.

    Returns:
        Log-probabilities.
    """
    return (log_probabilities + weights.log().view(-1, 1, 1)).logsumexp(0)


def mean_log_probability(
    log_probabilities: Float[Tensor, "members batch vocab"], weights: Float[Tensor, " members"]
) -> Float[Tensor, "batch vocab"]:
    """`Σ_m w_m log P_m`, a geometric mean: a token is likely where every member finds it likely.

    Args:
        log_probabilities: of every member.
        weights: positive, of sum 1.

    Returns:
        Logits, which do not sum to 1.
    """
    return (log_probabilities * weights.view(-1, 1, 1)).sum(0)


class Ensemble:
    """A stepper over steppers with one target vocabulary; sources, states and sizes are each member's own.

    It offers `alignment`, the weighted mean, only where every member does.
    """

    alignment: Callable[[State], Tensor]
    """As `Aligns` has it; there only where every member attends, to sources of the same length."""

    def __init__(self, steppers: Sequence[Stepper], weights: Sequence[float] | None = None, mean: Mean = mean_probability) -> None:
        """Put models together.

        Args:
            steppers: the members.
            weights: how much each counts, positive; equal where left out. Their sum does not matter.
            mean: how distributions become one: `mean_probability`, `mean_log_probability`, or your own.

        Raises:
            ConfigurationError: no member, vocabularies of different sizes, or weights that are not one positive number each.
        """
        if not steppers:
            raise ConfigurationError("an ensemble must have at least one model, got none")
        sizes = [stepper.vocabulary_size for stepper in steppers]
        if len(set(sizes)) > 1:
            raise ConfigurationError(f"the models of an ensemble must have the same target vocabulary, got sizes {sizes}")
        given = [1.0] * len(steppers) if weights is None else list(weights)
        if len(given) != len(steppers) or not all(0 < weight < math.inf for weight in given):
            raise ConfigurationError(f"the weights of an ensemble must be {len(steppers)} positive numbers, got {given}")
        self.members, self.mean = tuple(steppers), mean
        self.weights = tuple(weight / sum(given) for weight in given)
        if all(isinstance(stepper, Aligns) for stepper in steppers):
            self.alignment = self._mean_alignment

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are, for every member."""
        return self.members[0].vocabulary_size

    def start(self, source: Sequence[Any]) -> State:
        """The states before the first token.

        Args:
            source: one source for each member, as that member takes it.

        Returns:
            A tuple of the members' states.

        Raises:
            ConfigurationError: not one source for each member.
        """
        if len(source) != len(self.members):
            raise ConfigurationError(f"an ensemble must get one source for each of its {len(self.members)} models, got {len(source)}")
        return tuple(member.start(one) for member, one in zip(self.members, source, strict=True))

    def step(self, tokens: Int[Tensor, " batch"], state: State) -> tuple[Float[Tensor, "batch vocab"], State]:
        """Let every member read one token a row.

        Args:
            tokens: what each row reads.
            state: the members' states.

        Returns:
            Logits of the mean distribution, and the new states.
        """
        results = [member.step(tokens, one) for member, one in zip(self.members, state, strict=True)]
        log_probabilities = torch.stack([log_probabilities_of(logits) for logits, _ in results])
        weights = torch.tensor(self.weights, dtype=log_probabilities.dtype, device=log_probabilities.device)
        return self.mean(log_probabilities, weights), tuple(after for _, after in results)

    def select(self, state: State, rows: Int[Tensor, " chosen"]) -> State:
        """The states of some rows.

        Args:
            state: the members' states.
            rows: indices into the batch.

        Returns:
            Their states.
        """
        return tuple(member.select(one, rows) for member, one in zip(self.members, state, strict=True))

    def reorder(self, state: State, rows: Int[Tensor, " batch"]) -> State:
        """Let rows of one source change places, by each member's own way where it has one.

        Args:
            state: the members' states.
            rows: as many indices as there are rows.

        Returns:
            The states of those rows.
        """
        return tuple(reorder(member, one, rows) for member, one in zip(self.members, state, strict=True))

    def _mean_alignment(self, state: State) -> Tensor:
        looks = [member.alignment(one) for member, one in zip(self.members, state, strict=True) if isinstance(member, Aligns)]
        lengths = [look.shape[1] for look in looks]
        if len(set(lengths)) > 1:
            raise ConfigurationError(f"alignments of an ensemble need sources of the same length for all models, got lengths {lengths}")
        return torch.stack([weight * look for weight, look in zip(self.weights, looks, strict=True)]).sum(0)

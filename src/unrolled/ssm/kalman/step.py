"""The filter one step at a time, under the contract of every sequence model: `initial_state` and `step`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.entries import entries
from unrolled.ssm.kalman.loop import Belief, advance, first_belief, take
from unrolled.ssm.kalman.system import LinearGaussian, check_system, symmetric


class KalmanState(NamedTuple):
    """What is believed of the next state, before its output is seen."""

    mean: Float[Tensor, "batch state"]
    """Less what the input of the next step adds, which is not known yet."""
    covariance: Float[Tensor, "batch state state"]
    diffuse: Float[Tensor, "batch state state"]
    """The infinite part of the covariance; zero without diffuse states."""
    rank: Int[Tensor, " batch"]
    """How many diffuse states have still to be fixed."""
    begun: Bool[Tensor, " batch"]
    """Whether a step was taken: the input has no part in the state of the first output."""


class KalmanOutput(NamedTuple):
    """What one step tells."""

    mean: Float[Tensor, "batch state"]
    """Of the state, given all outputs so far."""
    covariance: Float[Tensor, "batch state state"]
    """The finite part."""
    predicted: Float[Tensor, "batch observed"]
    """The mean of the output before it was seen."""
    log_likelihood: Float[Tensor, " batch"]
    """`log p(y_t | y_1 … y_{t-1})`."""


class KalmanStep:
    """The Kalman filter as a sequence model. The state begins as the prior, so that the first step is an update."""

    def __init__(self, system: LinearGaussian) -> None:
        """Keep the parameters.

        Args:
            system: the model.
        """
        self.system = symmetric(check_system(system))

    def initial_state(self, batch_size: int) -> KalmanState:
        """The prior.

        Args:
            batch_size: how many series.

        Returns:
            The state before the first step.
        """
        belief = first_belief(self.system, batch_size)
        infinite = torch.zeros_like(belief.covariance) if belief.diffuse is None else belief.diffuse
        begun = torch.zeros(batch_size, dtype=torch.bool, device=belief.mean.device)
        return KalmanState(belief.mean, belief.covariance, infinite, belief.rank, begun)

    def step(self, x: Tensor | tuple[Tensor, Tensor], state: KalmanState) -> tuple[KalmanOutput, KalmanState]:
        """See one output.

        Args:
            x: the output `[batch, observed]`, NaN where it is missing; for a system with inputs a pair of output and input.
            state: the state after the step before.

        Returns:
            What was learnt, and the new state.

        Raises:
            DataError: an input is missing, or was not asked for.
        """
        system = self.system
        y, known = x if isinstance(x, tuple) else (x, None)
        if (known is None) == bool(system.inputs):
            raise DataError(f"a step must be given {system.inputs} inputs, as the system has, got {0 if known is None else known.shape[1]}")
        ones = torch.ones(len(y), dtype=torch.long, device=y.device)
        given = entries(system, Padded(y.to(state.mean).unsqueeze(1), ones), None if known is None else known.to(state.mean).unsqueeze(1))
        mean = state.mean if given.shift is None else state.mean + given.shift[:, 0] * state.begun.unsqueeze(1)
        belief = Belief(mean, state.covariance, state.diffuse if system.rank else None, state.rank)
        predicted = mean @ system.emission.T
        if known is not None and system.emission_input is not None:
            predicted = predicted + known.to(mean) @ system.emission_input.T
        told = torch.zeros_like(mean[:, 0])
        for i in range(y.shape[1]):
            rows, variances = (
                one[given.patterns[:, 0] if given.patterns is not None else ones - 1, i] for one in (given.rows, given.variances)
            )
            belief, log_probability, _ = take(belief, given.values[:, 0, i], rows, variances)
            told = told + log_probability
        ahead = advance(system, belief, None)
        infinite = state.diffuse if ahead.diffuse is None else ahead.diffuse
        after = KalmanState(ahead.mean, ahead.covariance, infinite, ahead.rank, torch.ones_like(state.begun))
        return KalmanOutput(belief.mean, belief.covariance, predicted, told), after

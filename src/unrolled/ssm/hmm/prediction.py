"""What comes next, given the outputs so far: states and outputs 1, 2, … k steps ahead, and the same model as a step of time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.dynamics import Dynamics
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.inference import filter
from unrolled.ssm.hmm.sampling import continue_from


class Prediction(NamedTuple):
    """What is expected of the steps behind the end of each sequence."""

    states: Float[Tensor, "batch steps states"]
    """`P(z_{T+k} | y)`."""
    mean: Float[Tensor, "batch steps features"]
    """Of the output; for categorical outputs the probability of each symbol."""
    variance: Float[Tensor, "batch steps features"]
    """Of each feature of the output: within states and between them."""


def chain_scores(dynamics: Dynamics, emission: Emission, outputs: Padded) -> Padded:
    """What each state of the chain says to each output.

    Args:
        dynamics: of the states.
        emission: of the outputs.
        outputs: with NaN where missing.

    Returns:
        `[batch, time, chain states]`.
    """
    scores = emission.log_likelihood(outputs)
    return scores if dynamics.owner is None else Padded(scores.data[..., dynamics.owner], scores.lengths)


def by_kind(dynamics: Dynamics, probabilities: Tensor) -> Tensor:
    """Probabilities of the chain's states summed by the kind of their outputs.

    Args:
        dynamics: of the states.
        probabilities: `[…, chain states]`.

    Returns:
        `[…, states]`.
    """
    if dynamics.owner is None:
        return probabilities
    found = probabilities.new_zeros(*probabilities.shape[:-1], dynamics.states)
    return found.index_add(-1, dynamics.owner, probabilities)


def ahead(chain: Chain, last: Tensor, begun: Tensor, steps: int) -> Tensor:
    """The distribution of the state in each of the next steps.

    Args:
        chain: whose transitions, where they vary, are those into the next steps.
        last: of the state of the last output, `[batch, chain states]`.
        begun: where there was an output at all, boolean `[batch]`; else the first of the next steps is the first of the chain.
        steps: how many.

    Returns:
        `[batch, steps, chain states]`.
    """
    found: list[Tensor] = []
    for step in range(steps):
        moved = ((found[-1] if found else last).unsqueeze(1) @ chain.matrix(step)).squeeze(1)
        found.append(moved if step else torch.where(begun.unsqueeze(1), moved, chain.initial))
    return torch.stack(found, 1) if found else last.unsqueeze(1)[:, :0]


def predict(
    dynamics: Dynamics,
    emission: Emission,
    outputs: Padded,
    steps: int = 1,
    *,
    inputs: tuple[Tensor, Tensor] | None = None,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> Prediction:
    """States and outputs of the next steps.

    Args:
        dynamics: of the states.
        emission: of the outputs.
        outputs: so far; a sequence may be empty.
        steps: how many to look ahead.
        inputs: those so far and those of the next steps, `[batch, time, inputs]` and `[batch, steps, inputs]`.
        draws: for an emission that looks back: how many continuations of each sequence mean and variance are taken over.
        generator: for these.

    Returns:
        Distributions of states, means and variances of outputs.
    """
    inner = chain_ahead(dynamics, emission, outputs, steps, inputs=inputs)
    states = by_kind(dynamics, inner)
    if emission.order and steps:
        drawn = draw_ahead(dynamics, emission, outputs, steps, inputs=inputs, draws=draws, generator=generator)
        return Prediction(states, drawn.mean(1), drawn.var(1))
    mean = states @ emission.mean()
    return Prediction(states, mean, states @ (emission.variance() + emission.mean() ** 2) - mean**2)


def chain_ahead(
    dynamics: Dynamics, emission: Emission, outputs: Padded, steps: int, *, inputs: tuple[Tensor, Tensor] | None = None
) -> Float[Tensor, "batch steps chain"]:
    """The distribution of the chain's state in each of the next steps, given the outputs so far.

    Args:
        dynamics: of the states.
        emission: of the outputs.
        outputs: so far; a sequence may be empty.
        steps: how many to look ahead.
        inputs: those so far and those of the next steps.

    Returns:
        `[batch, steps, chain states]`.
    """
    past, future = inputs or (None, None)
    filtered = filter(dynamics.chain(past), chain_scores(dynamics, emission, outputs)).probabilities
    last = (
        filtered[torch.arange(len(filtered)), (outputs.lengths - 1).clamp(min=0)]
        if filtered.shape[1]
        else filtered.new_zeros(len(filtered), filtered.shape[2])
    )
    return ahead(dynamics.chain(future), last, outputs.lengths > 0, steps)


def draw_ahead(
    dynamics: Dynamics,
    emission: Emission,
    outputs: Padded,
    steps: int,
    *,
    inputs: tuple[Tensor, Tensor] | None = None,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continuations of sequences, drawn.

    Args:
        dynamics: of the states.
        emission: of the outputs.
        outputs: so far.
        steps: how many to look ahead, at least 1.
        inputs: those so far and those of the next steps.
        draws: of each sequence.
        generator: source of randomness.

    Returns:
        `[batch, draws, steps, features]`; without features for categorical outputs.
    """
    inner = chain_ahead(dynamics, emission, outputs, steps, inputs=inputs)
    data = outputs.data.unsqueeze(-1) if outputs.data.dim() == 2 else outputs.data
    back = outputs.lengths.unsqueeze(1) + torch.arange(-emission.order, 0)
    history = torch.where((back >= 0).unsqueeze(-1), data[torch.arange(len(data)).unsqueeze(1), back.clamp(min=0)], 0).nan_to_num(0)
    drawn = continue_from(
        dynamics,
        emission,
        inner[:, 0].repeat_interleave(draws, 0),
        steps,
        inputs=None if inputs is None else inputs[1].repeat_interleave(draws, 0),
        history=history.repeat_interleave(draws, 0),
        generator=generator,
    ).outputs
    return drawn.view(len(data), draws, *drawn.shape[1:])


class StepState(NamedTuple):
    """What a stream carries from step to step."""

    probabilities: Float[Tensor, "batch states"]
    """Of the state of the last output; before the first one, of its own."""
    begun: Tensor
    """Whether there was an output, boolean `[batch]`."""
    history: Tensor
    """The outputs that the emission looks back at, `[batch, order, features]`."""


class StepOutput(NamedTuple):
    """What one output says."""

    probabilities: Float[Tensor, "batch states"]
    """`P(z_t | y_1..y_t)`."""
    evidence: Float[Tensor, " batch"]
    """`log P(y_t | y_1..y_{t-1})`."""


class HiddenMarkovStep:
    """The filter as a step of time, for streams: `initial_state`, then `step` for each output. The first step is an update only."""

    def __init__(self, dynamics: Dynamics, emission: Emission) -> None:
        """Of a model.

        Args:
            dynamics: of the states.
            emission: of the outputs.
        """
        self.dynamics, self.emission = dynamics, emission

    def initial_state(self, batch_size: int, inputs: Tensor | None = None) -> StepState:
        """Before the first output.

        Args:
            batch_size: how many sequences.
            inputs: `[batch, inputs]`, where the dynamics are driven by them; any will do.

        Returns:
            The state.
        """
        initial = self.dynamics.parameters()["initial"] if inputs is not None else self.dynamics.chain(None).initial
        history = initial.new_full((batch_size, self.emission.order, self.emission.mean().shape[1]), torch.nan)
        return StepState(initial.expand(batch_size, -1), torch.zeros(batch_size, dtype=torch.bool, device=initial.device), history)

    def step(self, x: Tensor, state: StepState, inputs: Tensor | None = None) -> tuple[StepOutput, StepState]:
        """One output.

        Args:
            x: `[batch, features]`, or `[batch]` for categorical outputs; NaN is missing.
            state: after the step before.
            inputs: `[batch, inputs]` of this step, where the dynamics are driven by them.

        Returns:
            What is known of the state now, and the state to go on from.
        """
        chain = self.dynamics.chain(None if inputs is None else inputs.unsqueeze(1))
        before = ahead(chain, state.probabilities, state.begun, 1)[:, 0]
        data = torch.cat([state.history, x.unsqueeze(1)], 1) if self.emission.order else x.unsqueeze(1)
        lengths = torch.full((len(x),), data.shape[1], dtype=torch.long, device=x.device)
        scores = chain_scores(self.dynamics, self.emission, Padded(data, lengths)).data[:, -1]
        joint = before.log() + scores
        evidence = joint.logsumexp(1)
        probabilities = (joint - evidence.unsqueeze(1)).exp()
        after = StepState(probabilities, torch.ones_like(state.begun), data[:, 1:] if self.emission.order else state.history)
        return StepOutput(by_kind(self.dynamics, probabilities), evidence), after

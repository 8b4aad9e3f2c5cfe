"""Drawing from a hidden Markov model: sequences from the beginning, or what may come next."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.ssm.hmm.dynamics import Dynamics
from unrolled.ssm.hmm.emissions.base import Emission


class Sampled(NamedTuple):
    """Sequences that were drawn."""

    states: Tensor
    """`[batch, time]`."""
    outputs: Tensor
    """`[batch, time, features]`, or `[batch, time]` for categorical outputs."""


def sample(
    dynamics: Dynamics,
    emission: Emission,
    time: int,
    *,
    batch: int = 1,
    inputs: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Sampled:
    """Draw sequences.

    Args:
        dynamics: of the states.
        emission: of the outputs.
        time: steps of each.
        batch: how many.
        inputs: `[batch, time, inputs]`, where the dynamics are driven by them.
        generator: source of randomness; a seed gives the same sequences again.

    Returns:
        States and outputs.
    """
    start = dynamics.chain(inputs).initial.expand(batch, -1)
    return continue_from(dynamics, emission, start, time, inputs=inputs, generator=generator)


def continue_from(
    dynamics: Dynamics,
    emission: Emission,
    start: Tensor,
    time: int,
    *,
    inputs: Tensor | None = None,
    history: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Sampled:
    """Draw what may come next.

    Args:
        dynamics: of the states.
        emission: of the outputs.
        start: the probabilities of the state of the first step to draw, `[batch, chain states]`.
        time: steps.
        inputs: `[batch, time, inputs]`, where the dynamics are driven by them.
        history: outputs so far, `[batch, steps, features]`, for an emission that looks back.
        generator: source of randomness.

    Returns:
        States and outputs.
    """
    chain = dynamics.chain(inputs)
    owner = dynamics.owner
    seen = [] if history is None else list(history.unbind(1))
    states, outputs = list[Tensor](), list[Tensor]()
    weights = start
    for t in range(time):
        chosen = torch.multinomial(weights, 1, generator=generator).squeeze(1)
        kind = chosen if owner is None else owner[chosen]
        seen = seen[-emission.order :] if emission.order else []
        drawn = emission.draw(kind, torch.stack(seen, 1) if seen else None, generator)
        seen.append(drawn)
        states.append(kind)
        outputs.append(drawn)
        if t + 1 < time:
            matrix = chain.matrix(t + 1)
            weights = matrix[torch.arange(len(chosen)), chosen] if chain.varies else matrix[chosen]
    if not time:
        nothing = emission.draw(torch.zeros(len(start), dtype=torch.long), None, generator).unsqueeze(1)[:, :0]
        return Sampled(torch.zeros(len(start), 0, dtype=torch.long), nothing)
    return Sampled(torch.stack(states, 1), torch.stack(outputs, 1))

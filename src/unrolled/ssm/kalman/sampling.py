"""Drawing from the model, and from what is hidden given what was seen."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.ssm.kalman.entries import as_padded, check_inputs
from unrolled.ssm.kalman.inference import kalman_smoother
from unrolled.ssm.kalman.system import LinearGaussian, check_system


class Drawn(NamedTuple):
    """Series that the model made."""

    states: Float[Tensor, "batch time state"]
    outputs: Float[Tensor, "batch time observed"]


def sample(
    system: LinearGaussian, time: int, batch: int = 1, *, inputs: Tensor | None = None, generator: torch.Generator | None = None
) -> Drawn:
    """Draw series from the model. Diffuse states, about which the model says nothing, begin at zero.

    Args:
        system: the model.
        time: steps of each series.
        batch: how many series.
        inputs: `[batch, time, input]` for a system that has any.
        generator: where randomness comes from, on the device of the system.

    Returns:
        States and outputs.
    """
    check_system(system)
    K, D = system.states, system.observed
    like: dict[str, Any] = {"dtype": system.transition.dtype, "device": system.transition.device}
    none = Padded(torch.zeros(batch, time, D, **like), torch.full((batch,), time, device=like["device"]))
    known = check_inputs(system, none, inputs)
    mean, covariance, _ = system.prior()
    state = mean + torch.randn(batch, K, generator=generator, **like) @ root_of(covariance).T
    noise = torch.randn(batch, time, K, generator=generator, **like) @ root_of(system.transition_covariance).T
    error = torch.randn(batch, time, D, generator=generator, **like) @ root_of(system.emission_covariance).T
    states = []
    for t in range(time):
        if t:
            state = state @ system.transition.T + noise[:, t]
            if known is not None and system.transition_input is not None:
                state = state + known[:, t] @ system.transition_input.T
        states.append(state)
    path = torch.stack(states, 1) if states else torch.zeros(batch, 0, K, **like)
    outputs = path @ system.emission.T + error
    if known is not None and system.emission_input is not None:
        outputs = outputs + known @ system.emission_input.T
    return Drawn(path, outputs)


def sample_states(
    system: LinearGaussian,
    series: Tensor | Padded,
    inputs: Tensor | None = None,
    *,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "draws batch time state"]:
    """The simulation smoother (Durbin & Koopman 2002): whole paths of states, drawn given the outputs.

    A path and outputs are drawn from the model without inputs, `h+` and `y+`; `E[h | y] + h+ - E[h+ | y+]` is then a draw given `y`.

    Args:
        system: the model.
        series: outputs `[batch, time, observed]`; NaN is missing.
        inputs: known inputs `[batch, time, input]`.
        draws: how many paths a series.
        generator: where randomness comes from.

    Returns:
        Paths; zero past a length.
    """
    padded = as_padded(check_system(system), series)
    B, T, D = padded.data.shape
    centred = system._replace(transition_input=None, emission_input=None, initial_mean=torch.zeros_like(system.initial_mean))
    drawn = sample(centred, T, draws * B, generator=generator)
    outputs = drawn.outputs.view(draws, B, T, D).where(~padded.data.isnan(), torch.nan)
    expected = kalman_smoother(centred, Padded(outputs.flatten(0, 1), padded.lengths.repeat(draws))).means
    given = kalman_smoother(system, padded, inputs).means
    inside = padded.mask.unsqueeze(2)
    return given + ((drawn.states - expected).view(draws, B, T, -1) * inside)


def root_of(covariance: Tensor) -> Tensor:
    """A matrix whose square, `root root'`, is the covariance, which may be singular.

    Args:
        covariance: symmetric, no negative eigenvalue.

    Returns:
        `[size, size]`.
    """
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()

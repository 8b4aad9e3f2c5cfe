"""Two-slice marginals: how likely two neighbouring steps are in two states, given all outputs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.results import Smoothed


def two_slice(chain: Chain, smoothed: Smoothed) -> Float[Tensor, "batch time states states"]:
    """Two-slice marginals, `P(z_{t-1} = i, z_t = j | y)` at `[:, t, i, j]`.

    Args:
        chain: initial state and transitions.
        smoothed: what `smooth` gave with this chain.

    Returns:
        Probabilities; zero at the first step and past a length.
    """
    filtered = smoothed.filtered
    found = torch.zeros(
        *smoothed.probabilities.shape, chain.states, dtype=filtered.probabilities.dtype, device=filtered.probabilities.device
    )
    found[:, 1:] = joint_of_pairs(
        filtered.probabilities[:, :-1],
        chain.transition[:, 1:] if chain.varies else chain.transition,
        filtered.predicted[:, 1:],
        smoothed.probabilities[:, 1:],
    )
    return found


def joint_of_pairs(filtered: Tensor, transition: Tensor, predicted: Tensor, smoothed: Tensor) -> Tensor:
    """`P(z_{t-1} = i, z_t = j | y) = a_{t-1}[i] A[i, j] g_t[j] / p_t[j]`.

    Args:
        filtered: `a`, of the step before, `[…, states]`.
        transition: `A`.
        predicted: `p`, of this step.
        smoothed: `g`, of this step.

    Returns:
        `[…, states, states]`.
    """
    possible = predicted > 0
    ratio = torch.where(possible, smoothed / torch.where(possible, predicted, 1), 0)
    return filtered.unsqueeze(-1) * transition * ratio.unsqueeze(-2)

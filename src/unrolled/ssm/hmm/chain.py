"""The hidden chain of a hidden Markov model: the state of the first output and how states follow each other; masks of which may."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.core.errors import DataError

ROUNDING = 1e-6
"""How far from 1 probabilities may sum."""


class Chain(NamedTuple):
    """The probabilities of a Markov chain. An entry that is exactly zero forbids its transition."""

    initial: Float[Tensor, " states"]
    """`P(z_1)`, of the state of the first output."""
    transition: Float[Tensor, "*steps states states"]
    """`P(z_t = j | z_{t-1} = i)` at `[i, j]`; or one matrix a step, `[batch, time, states, states]`, where matrix `t` leads into step `t` (the
    first has no meaning)."""

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.initial)

    @property
    def varies(self) -> bool:
        """Whether every step has a matrix of its own."""
        return self.transition.dim() > 2

    def matrix(self, step: int) -> Tensor:
        """The transition into a step.

        Args:
            step: counted from 0.

        Returns:
            `[states, states]`, or `[batch, states, states]` where it varies.
        """
        return self.transition[:, step] if self.varies else self.transition


def check_chain(chain: Chain) -> Chain:
    """Refuse what are no probabilities.

    Args:
        chain: as given by a user.

    Returns:
        The chain.

    Raises:
        DataError: shapes that do not fit, an entry below zero or not finite, or a row that does not sum to one.
    """
    states = chain.states
    if states == 0 or chain.transition.shape[-2:] != (states, states) or chain.transition.dim() not in (2, 4):
        raise DataError(
            f"`transition` must be [states, states], or [batch, time, states, states] with one matrix a step, for the {states} states of `initial`, "
            f"got the shape {tuple(chain.transition.shape)}"
        )
    check_probabilities("initial", chain.initial)
    check_probabilities("transition", chain.transition[:, 1:] if chain.varies else chain.transition)
    return chain


def check_probabilities(name: str, rows: Tensor) -> None:
    """Refuse rows that are not probabilities.

    Args:
        name: of the parameter, for the sentence.
        rows: `[…, outcomes]`.

    Raises:
        DataError: an entry is negative or not finite, or a row does not sum to one.
    """
    wrong = ~(rows.isfinite() & (rows >= 0)).all(-1)
    if bool(wrong.any()):
        raise DataError(f"`{name}` must hold probabilities (finite, at least 0), got {_shown(rows, wrong)}")
    wrong = (rows.sum(-1) - 1).abs() > ROUNDING
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        total = float(rows[tuple(place)].sum())
        raise DataError(f"every row of `{name}` must sum to 1, got {total:.6g} in {_shown(rows, wrong)}; divide each row by its sum")


def _shown(rows: Tensor, wrong: Tensor) -> str:
    place = wrong.nonzero()[0].tolist()
    row = ", ".join(f"{value:.4g}" for value in rows[tuple(place)].flatten()[:8].tolist())
    return f"row {', '.join(map(str, place))}: [{row}]" if place else f"[{row}]"


def left_to_right(states: int, jump: int = 1) -> Bool[Tensor, "states states"]:
    """The mask of a chain that never goes back (Bakis).

    Args:
        states: how many.
        jump: how many states a step may advance at most.

    Returns:
        True where a transition is allowed.

    Example:
        >>> left_to_right(3).int()
        tensor([[1, 1, 0],
                [0, 1, 1],
                [0, 0, 1]], dtype=torch.int32)
    """
    ahead = torch.arange(states) - torch.arange(states).unsqueeze(1)
    return (ahead >= 0) & (ahead <= jump)


def banded(states: int, width: int = 1) -> Bool[Tensor, "states states"]:
    """The mask of a chain whose states are in a row, and go to near ones only.

    Args:
        states: how many.
        width: how far a step may go, to either side.

    Returns:
        True where a transition is allowed.

    Example:
        >>> banded(3).int()
        tensor([[1, 1, 0],
                [1, 1, 1],
                [0, 1, 1]], dtype=torch.int32)
    """
    return (torch.arange(states) - torch.arange(states).unsqueeze(1)).abs() <= width


def stationary(transition: Float[Tensor, "states states"]) -> Float[Tensor, " states"]:
    """A distribution over states that a step leaves as it is.

    Args:
        transition: rows that sum to one.

    Returns:
        Probabilities; where there are several such distributions, the one of least squares.
    """
    states = len(transition)
    left = torch.cat([transition.T - torch.eye(states, dtype=transition.dtype), transition.new_ones(1, states)])
    right = torch.cat([transition.new_zeros(states), transition.new_ones(1)])
    found = (torch.linalg.pinv(left) @ right).clamp(min=0)
    return found / found.sum()

"""What inference in a hidden Markov model gives; the way it is computed is a choice of `Form`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.ssm.hmm.chain import Chain


class Filtered(NamedTuple):
    """What outputs so far say about states; zero past a length, and in a sequence that cannot be from the first output that cannot."""

    probabilities: Float[Tensor, "batch time states"]
    """`P(z_t | y_1..y_t)`."""
    predicted: Float[Tensor, "batch time states"]
    """`P(z_t | y_1..y_{t-1})`; at the first step the chain's own."""
    evidence: Float[Tensor, "batch time"]
    """`log P(y_t | y_1..y_{t-1})`."""
    log_likelihood: Float[Tensor, " batch"]
    """`log P(y)`: 0 for a sequence without steps, minus infinity for one that cannot be."""


class Smoothed(NamedTuple):
    """What all outputs say about states; zero past a length, and throughout a sequence that cannot be."""

    probabilities: Float[Tensor, "batch time states"]
    """`P(z_t | y)`."""
    transitions: Float[Tensor, "batch states states"]
    """How often each transition is expected: the sum over time of `P(z_{t-1} = i, z_t = j | y)`."""
    filtered: Filtered
    """The filter's part."""

    @property
    def log_likelihood(self) -> Tensor:
        """`log P(y)`, `[batch]`."""
        return self.filtered.log_likelihood


class Paths(NamedTuple):
    """The likeliest sequences of states."""

    states: Int[Tensor, "batch time"]
    """-1 past a length."""
    scores: Float[Tensor, " batch"]
    """`log P(y, z)` of each."""


@dataclass(frozen=True)
class Form:
    """One way to compute the same results."""

    name: str
    filter: Callable[[Chain, Padded], Filtered]
    smooth: Callable[[Chain, Padded], Smoothed]
    viterbi: Callable[[Chain, Padded], Paths]

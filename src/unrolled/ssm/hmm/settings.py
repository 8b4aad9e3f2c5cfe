"""The options of a hidden Markov model that is fitted from nothing but data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unrolled.core.settings import Settings


class HiddenMarkovSettings(Settings):
    """What is fitted, and how."""

    states: int = Field(2, ge=1)
    """How many hidden states there are."""
    emission: Literal["gaussian", "mixture", "autoregressive", "categorical", "poisson", "bernoulli"] = "gaussian"
    """What each state's outputs are."""
    covariance: Literal["spherical", "diagonal", "tied", "full"] = "diagonal"
    """The form of the covariance of Gaussian, mixture and autoregressive outputs."""
    components: int = Field(2, ge=1)
    """Of each state's mixture."""
    order: int = Field(1, ge=1)
    """How many outputs autoregressive ones look back."""
    symbols: int | None = Field(None, ge=1)
    """How many categorical outputs there are; none: as many as the data show."""
    structure: Literal["full", "left-to-right", "banded"] = "full"
    """Which states may follow each other."""
    reach: int = Field(1, ge=1)
    """How far a step may go in a left-to-right or banded structure."""
    longest: int = Field(0, ge=0)
    """The longest stay in a state, for explicit durations; 0: how long a state lasts follows from its transitions."""
    concentration: float = Field(1.0, ge=1)
    """Of Dirichlet priors on all probabilities; 1 is none, 2 counts every outcome once more."""
    floor: float = Field(1e-6, ge=0)
    """The smallest variance, as a share of that of the data."""
    iterations: int = Field(200, ge=0)
    """Of Baum–Welch, at most."""
    tolerance: float = Field(1e-6, ge=0)
    """Stop where an iteration gains less than this a step of the data, in nats."""
    restarts: int = Field(3, ge=1)
    """From how many beginnings; the best is kept."""
    seed: int = Field(0, ge=0)
    """Of the beginnings."""

"""What the algorithms of this room give. Past a length everything is zero."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Filtered(NamedTuple):
    """The state given the outputs up to it.

    While some of it is still unknown (`diffuse` states that the outputs have not fixed yet), covariances are the sum of a finite part and
    of one that is infinitely large: the latter is told apart, and zero once all is known.
    """

    log_likelihoods: Float[Tensor, "batch time"]
    """`log p(y_t | y_1 … y_{t-1})` of what was seen; an output that fixes a diffuse state counts `-log(F) / 2` for the infinite part `F` of its variance."""
    predicted_means: Float[Tensor, "batch time state"]
    """`E[h_t | y_1 … y_{t-1}]`."""
    predicted_covariances: Float[Tensor, "batch time state state"]
    """`Cov[h_t | y_1 … y_{t-1}]`, the finite part."""
    means: Float[Tensor, "batch time state"]
    """`E[h_t | y_1 … y_t]`."""
    covariances: Float[Tensor, "batch time state state"]
    """`Cov[h_t | y_1 … y_t]`, the finite part."""
    predicted_diffuse: Float[Tensor, "batch time state state"] | None = None
    """The infinite part of the predicted covariances; `None` for a system without diffuse states."""
    diffuse: Float[Tensor, "batch time state state"] | None = None
    """The infinite part of the covariances."""

    @property
    def log_likelihood(self) -> Tensor:
        """`log p(y)` of each series, `[batch]`; of a diffuse system the integral over a flat prior."""
        return self.log_likelihoods.sum(1)


class Smoothed(NamedTuple):
    """The state given all outputs of its series."""

    log_likelihood: Float[Tensor, " batch"]
    """`log p(y)` of each series."""
    means: Float[Tensor, "batch time state"]
    """`E[h_t | y]`."""
    covariances: Float[Tensor, "batch time state state"]
    """`Cov[h_t | y]`."""
    lagged_covariances: Float[Tensor, "batch time state state"]
    """`Cov[h_t, h_{t-1} | y]`; zero at the first step."""

"""The linear-Gaussian state-space model (Kalman 1960; Durbin & Koopman 2012, ch. 3): a hidden state that moves linearly and is seen linearly.

The equations, with the state `h`, the output `y` and a known input `u`::

    h_1 ~ N(initial_mean, initial_covariance)                     where not diffuse
    h_t = transition h_{t-1} + transition_input u_t + ε^h,        ε^h ~ N(0, transition_covariance)
    y_t = emission   h_t     + emission_input   u_t + ε^y,        ε^y ~ N(0, emission_covariance)

The prior is on the state of the first output: the transition into it is not used, and `u_t` enters with `y_t` and with the transition into `h_t`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.core.errors import DataError

ROUNDING = 1e-8
"""How far below zero an eigenvalue may be, and how far from symmetric a covariance, beside its largest entry."""


class LinearGaussian(NamedTuple):
    """The parameters of a linear-Gaussian state-space model; all of one dtype, on one device."""

    transition: Float[Tensor, "state state"]
    """How the state follows from the one before."""
    transition_covariance: Float[Tensor, "state state"]
    """Of the noise of the state; may be singular."""
    emission: Float[Tensor, "observed state"]
    """How the output follows from the state."""
    emission_covariance: Float[Tensor, "observed observed"]
    """Of the noise of the output; may be singular."""
    initial_mean: Float[Tensor, " state"]
    """Of the state of the first output."""
    initial_covariance: Float[Tensor, "state state"]
    """Of the state of the first output."""
    transition_input: Float[Tensor, "state input"] | None = None
    """What the known input adds to the state."""
    emission_input: Float[Tensor, "observed input"] | None = None
    """What the known input adds to the output."""
    diffuse: Bool[Tensor, " state"] | None = None
    """States about which nothing is known at first: their prior is flat, and their rows of `initial_covariance` are not used."""

    @property
    def states(self) -> int:
        """Numbers in a state."""
        return len(self.initial_mean)

    @property
    def observed(self) -> int:
        """Numbers in an output."""
        return len(self.emission)

    @property
    def inputs(self) -> int:
        """Numbers in a known input; 0 where there is none."""
        given = [matrix.shape[1] for matrix in (self.transition_input, self.emission_input) if matrix is not None]
        return given[0] if given else 0

    @property
    def rank(self) -> int:
        """How many states begin diffuse."""
        return 0 if self.diffuse is None else int(self.diffuse.sum())

    def prior(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The state of the first output.

        Returns:
            Its mean, the finite part of its covariance, and the part that is infinitely large (`None` without diffuse states).
        """
        if self.diffuse is None or not self.rank:
            return self.initial_mean, self.initial_covariance, None
        known = (~self.diffuse).to(self.initial_covariance)
        infinite = torch.diag(self.diffuse.to(self.initial_covariance))
        return self.initial_mean * known, self.initial_covariance * known * known.unsqueeze(1), infinite


def check_system(system: LinearGaussian) -> LinearGaussian:
    """Refuse parameters that make no model.

    Args:
        system: as given by a user.

    Returns:
        The system.

    Raises:
        DataError: shapes or types that do not fit, an entry that is not finite, or a covariance that is none.
    """
    K, D, M = system.states, system.observed, system.inputs
    shapes = dict(zip(LinearGaussian._fields, ((K, K), (K, K), (D, K), (D, D), (K,), (K, K), (K, M), (D, M), (K,)), strict=True))
    for name, shape in shapes.items():
        matrix = getattr(system, name)
        if matrix is None:
            continue
        if matrix.shape != shape or 0 in matrix.shape:
            raise DataError(f"`{name}` must have the shape {shape} for {K} states, {D} outputs and {M} inputs, got {tuple(matrix.shape)}")
        if name != "diffuse" and matrix.dtype != system.transition.dtype:
            raise DataError(f"`{name}` must have the type of `transition`, {system.transition.dtype}, got {matrix.dtype}")
        if not bool(matrix.isfinite().all()):
            raise DataError(f"`{name}` must be finite, got {_found(matrix, ~matrix.isfinite())}")
    for name in ("transition_covariance", "emission_covariance", "initial_covariance"):
        check_covariance(name, getattr(system, name))
    return system


def symmetric(system: LinearGaussian) -> LinearGaussian:
    """The system with covariances that are symmetric to the last bit, so that derivatives are those of symmetric matrices.

    Args:
        system: checked.

    Returns:
        The same, differentiable.
    """
    named = {name: getattr(system, name) for name in ("transition_covariance", "emission_covariance", "initial_covariance")}
    return system._replace(**{name: (matrix + matrix.T) / 2 for name, matrix in named.items()})


def check_covariance(name: str, matrix: Tensor) -> None:
    """Refuse what is no covariance.

    Args:
        name: of the parameter, for the sentence.
        matrix: `[size, size]`.

    Raises:
        DataError: it is not symmetric, or has a negative eigenvalue.
    """
    matrix = matrix.detach().double()
    scale = float(matrix.abs().max()) or 1.0
    off = (matrix - matrix.T).abs()
    if bool((off > ROUNDING * scale).any()):
        raise DataError(f"`{name}` must be symmetric, got {_found(matrix, off > ROUNDING * scale)}; try (M + M.T) / 2")
    least = float(torch.linalg.eigvalsh(matrix)[0])
    if least < -ROUNDING * scale:
        raise DataError(
            f"`{name}` must be a covariance (no negative eigenvalue), got one of {least:.6g}; is a variance negative or a correlation above 1?"
        )


def _found(matrix: Tensor, wrong: Tensor) -> str:
    place = wrong.nonzero()[0].tolist()
    return f"{float(matrix[tuple(place)]):.6g} at {place}"

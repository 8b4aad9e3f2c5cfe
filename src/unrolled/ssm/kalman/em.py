"""Expectation–maximisation for the linear-Gaussian model (Shumway & Stoffer 1982), exact where single numbers are missing.

What is missing beside something seen is part of what is hidden: with `y = C h + D u + ε` and the seen part `y_o`,
`y_m | h, y_o ~ N(C_m h + D_m u + G (y_o - C_o h - D_o u), R_mm - G R_om)`, `G = R_mo R_oo^-1`. A row of which nothing was seen tells nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.results import Smoothed
from unrolled.ssm.kalman.system import LinearGaussian

FALL = 1e-7
"""By this share of itself the log-likelihood may fall by rounding."""


class Neighbours(NamedTuple):
    """Sums over steps of a linear regression `left = coefficients @ right + noise`."""

    left: Float[Tensor, "left left"]
    cross: Float[Tensor, "left right"]
    right: Float[Tensor, "right right"]
    steps: Float[Tensor, ""]


class Expected(NamedTuple):
    """What the maximisation needs: the sufficient statistics, expected given the outputs."""

    transitions: Neighbours
    """Of the state on the one before and the input."""
    emissions: Neighbours
    """Of the output on the state and the input."""
    first_mean: Float[Tensor, " state"]
    """Sum over series of the first state."""
    first: Float[Tensor, "state state"]
    """Sum of its square."""
    series: Float[Tensor, ""]
    """How many series have a first state."""


class Structure(NamedTuple):
    """What the maximisation may change."""

    frozen: Collection[str] = ()
    """Fields of `LinearGaussian` that stay as they are."""
    free: Mapping[str, Bool[Tensor, "rows columns"]] | None = None
    """By field: which entries of a matrix may change; the others stay as they are."""
    covariances: Mapping[str, str] | None = None
    """By field: a key of `COVARIANCES`; `full` where nothing is said."""


def _full(covariance: Tensor) -> Tensor:
    return (covariance + covariance.T) / 2


def _diagonal(covariance: Tensor) -> Tensor:
    return covariance.diag().diag()


def _spherical(covariance: Tensor) -> Tensor:
    return torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device) * covariance.diag().mean()


COVARIANCES: dict[str, Callable[[Tensor], Tensor]] = {"full": _full, "diagonal": _diagonal, "spherical": _spherical}
"""The forms of a covariance, and how the best one of the form follows from the best one of all."""


def check_structure(structure: Structure) -> None:
    """Refuse names that there are not.

    Args:
        structure: as given by a user.

    Raises:
        ConfigurationError: an unknown field, or an unknown form of a covariance.
    """
    for name in (*structure.frozen, *(structure.free or {}), *(structure.covariances or {})):
        if name not in LinearGaussian._fields:
            raise ConfigurationError(
                f"a structure must name fields of `LinearGaussian`, got `{name}`; {nearest(name, LinearGaussian._fields)}"
            )
    for name in structure.covariances or {}:
        if not name.endswith("covariance"):
            known = [field for field in LinearGaussian._fields if field.endswith("covariance")]
            raise ConfigurationError(f"only a covariance has a form, got one for `{name}`; {nearest(name, known)}")
    for form in (structure.covariances or {}).values():
        if form not in COVARIANCES:
            raise ConfigurationError(
                f"a covariance must have one of the forms {', '.join(COVARIANCES)}, got `{form}`; {nearest(form, COVARIANCES)}"
            )


def expect(system: LinearGaussian, series: Padded, inputs: Tensor | None, smoothed: Smoothed) -> Expected:
    """The expectation step.

    Args:
        system: the parameters under which the states were smoothed.
        series: from `as_padded`.
        inputs: from `check_inputs`.
        smoothed: by the smoother.

    Returns:
        Sums over all series and steps.
    """
    B, T, _ = series.data.shape
    known = series.data.new_zeros(B, T, 0) if inputs is None else inputs
    means, inside = smoothed.means, series.mask
    squares = smoothed.covariances + _outer(means, means)
    later = inside[:, 1:].to(means)
    before = torch.cat([means[:, :-1], known[:, 1:]], 2)
    right = _outer(before, before)
    K = means.shape[2]
    right[:, :, :K, :K] = squares[:, :-1]
    cross = _outer(means[:, 1:], before)
    cross[:, :, :, :K] += smoothed.lagged_covariances[:, 1:]
    transitions = Neighbours(_total(squares[:, 1:], later), _total(cross, later), _total(right, later), later.sum())
    begun = (series.lengths > 0).to(means)
    first_mean, first = (means[:, 0] * begun.unsqueeze(1)).sum(0), (squares[:, 0] * begun.view(-1, 1, 1)).sum(0)
    return Expected(transitions, _expected_emissions(system, series, known, smoothed, squares), first_mean, first, begun.sum())


def _expected_emissions(system: LinearGaussian, series: Padded, known: Tensor, smoothed: Smoothed, squares: Tensor) -> Neighbours:
    seen = ~series.data.isnan()
    told = seen.any(2).to(squares)
    means, K = smoothed.means, smoothed.means.shape[2]
    offset = torch.zeros_like(series.data) if system.emission_input is None else known @ system.emission_input.T
    rows, inverse = torch.unique(seen.flatten(0, 1), dim=0, return_inverse=True)
    fill, left_over = _fill(system.emission_covariance, rows)
    which = inverse.view(seen.shape[:2])
    # y = start + slope h + noise, where what was seen is known and what is missing follows the regression on it.
    centred = torch.where(seen, series.data - offset, 0)
    start = torch.where(seen, series.data, offset + (fill[which] @ centred.unsqueeze(3)).squeeze(3))
    hidden = ~rows
    slope = (hidden.unsqueeze(2) * (system.emission - fill @ (rows.unsqueeze(2) * system.emission)))[which]
    expected = start + (slope @ means.unsqueeze(3)).squeeze(3)
    left = slope @ smoothed.covariances @ slope.mT + _outer(expected, expected) + left_over[which]
    both = torch.cat([means, known], 2)
    cross, right = _outer(expected, both), _outer(both, both)
    cross[..., :K] += slope @ smoothed.covariances
    right[..., :K, :K] = squares
    return Neighbours(_total(left, told), _total(cross, told), _total(right, told), told.sum())


def _fill(noise: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """`G` and `R_mm - G R_om` of each pattern of what is seen, at the places they have in the whole."""
    seen, hidden = rows.to(noise), (~rows).to(noise)
    both = seen.unsqueeze(2) * seen.unsqueeze(1) * noise + torch.diag_embed(hidden)
    across = hidden.unsqueeze(2) * seen.unsqueeze(1) * noise
    fill = torch.linalg.solve(both, across.mT).mT
    return fill, hidden.unsqueeze(2) * hidden.unsqueeze(1) * noise - fill @ across.mT


def maximise(system: LinearGaussian, expected: Expected, structure: Structure) -> LinearGaussian:
    """The maximisation step: first what is linear, then the covariances that go with it.

    Args:
        system: the parameters so far.
        expected: from `expect`.
        structure: what may change.

    Returns:
        New parameters.
    """
    changed = _regressed(system, expected.transitions, ("transition", "transition_input", "transition_covariance"), structure)
    changed |= _regressed(system, expected.emissions, ("emission", "emission_input", "emission_covariance"), structure)
    count = expected.series.clamp(min=1)
    mean = system.initial_mean if "initial_mean" in structure.frozen else expected.first_mean / count
    changed["initial_mean"] = mean
    if "initial_covariance" not in structure.frozen:
        cross = torch.outer(expected.first_mean, mean)
        spread = expected.first - cross - cross.T + count * torch.outer(mean, mean)
        changed["initial_covariance"] = _form("initial_covariance", structure)(spread / count)
    if system.rank:
        changed |= {"initial_mean": system.initial_mean, "initial_covariance": system.initial_covariance}
    return system._replace(**changed)


def _regressed(system: LinearGaussian, pairs: Neighbours, names: tuple[str, str, str], structure: Structure) -> dict[str, Tensor]:
    matrix, by_input, covariance = names
    parts = [getattr(system, name) for name in (matrix, by_input)]
    given = torch.cat([part for part in parts if part is not None], 1)
    size = parts[0].shape[1]
    right = pairs.right[: given.shape[1], : given.shape[1]]
    cross = pairs.cross[:, : given.shape[1]]
    free = torch.cat([_free(name, part, structure) for name, part in zip(names, parts, strict=False) if part is not None], 1)
    coefficients = _solve(given, cross, right, getattr(system, covariance), free)
    changed = {matrix: coefficients[:, :size]}
    if parts[1] is not None:
        changed[by_input] = coefficients[:, size:]
    if covariance not in structure.frozen and float(pairs.steps):
        across = cross @ coefficients.T
        left = pairs.left - across - across.T + coefficients @ right @ coefficients.T
        changed[covariance] = _form(covariance, structure)(left / pairs.steps)
    return changed


def _free(name: str, matrix: Tensor, structure: Structure) -> Tensor:
    if name in structure.frozen:
        return torch.zeros_like(matrix, dtype=torch.bool)
    mask = (structure.free or {}).get(name)
    return torch.ones_like(matrix, dtype=torch.bool) if mask is None else mask.to(matrix.device)


def _solve(given: Tensor, cross: Tensor, right: Tensor, noise: Tensor, free: Tensor) -> Tensor:
    """The coefficients that fit best: all at once where all are free, else those that are free by generalised least squares."""
    if not bool(free.any()):
        return given
    if bool(free.all()):
        return torch.linalg.lstsq(right, cross.T, driver="gelsd").solution.T
    weight = torch.linalg.pinv(noise, hermitian=True)
    places = free.flatten()
    wanted = (weight @ (cross - (given * ~free) @ right)).flatten()[places]
    normal = torch.kron(weight, right)[places][:, places]
    found = given.clone().flatten()
    found[places] = torch.linalg.lstsq(normal, wanted.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    return found.view_as(given)


def _form(name: str, structure: Structure) -> Callable[[Tensor], Tensor]:
    return COVARIANCES[(structure.covariances or {}).get(name, "full")]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(-1) * right.unsqueeze(-2)


def _total(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights[..., None, None]).sum((0, 1))

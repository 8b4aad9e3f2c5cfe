"""What a fitted model has learnt, as named tables of numbers: for the end of a fit, for JSON and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from unrolled.ssm.hmm import Autoregressive, Emission, ExplicitDurations, GaussianMixture, HiddenMarkovModel, Homogeneous
from unrolled.ssm.kalman import LinearDynamicalSystem, StructuralModel
from unrolled.ssm.kalman.parametrise import POSITIVE

Part = dict[str, Any]
"""A table: `name`, `columns`, and `rows` of numbers by name."""


def table(name: str, columns: Iterable[str], rows: Mapping[str, Sequence[float | None]]) -> Part:
    """A table of numbers.

    Args:
        name: what it shows.
        columns: their names.
        rows: numbers by the name of the row.

    Returns:
        What JSON knows.
    """
    return {"name": name, "columns": list(columns), "rows": {row: list(values) for row, values in rows.items()}}


def state_names(count: int) -> list[str]:
    """What states are called.

    Args:
        count: how many.

    Returns:
        Names, counted from 1.
    """
    return [f"state {number}" for number in range(1, count + 1)]


def hidden_markov(model: HiddenMarkovModel, targets: Sequence[str], symbols: Sequence[str], shares: Tensor) -> list[Part]:
    """States and transitions.

    Args:
        model: fitted.
        targets: the columns.
        symbols: what whole numbers stand for; none for numbers.
        shares: of the time that was spent in each state.

    Returns:
        Tables.
    """
    emission, names = model.emission, state_names(model.emission.states)
    stays = _stays(model)
    about: dict[str, list[float | None]] = {name: [float(share), stay] for name, share, stay in zip(names, shares, stays, strict=True)}
    parts = [table("states", ["share of time", "steps in a row"], about)]
    means = emission.mean()
    if symbols:
        parts.append(table("symbols", symbols, _rows(names, means)))
    else:
        parts.append(table("means", targets, _rows(names, means)))
        if _spreads(emission):
            parts.append(table("standard deviations", targets, _rows(names, emission.variance().sqrt())))
    matrices = model.dynamics.parameters()
    if "transition" in matrices:
        parts.append(table("from ↓ to →", names, _rows(names, matrices["transition"])))
    return parts


def _spreads(emission: Emission) -> bool:
    """Whether a spread says more than the mean does."""
    return hasattr(emission, "covariances") or isinstance(emission, GaussianMixture | Autoregressive)


def _stays(model: HiddenMarkovModel) -> list[float | None]:
    """How many steps a state lasts on average."""
    dynamics = model.dynamics
    if isinstance(dynamics, ExplicitDurations):
        chances = dynamics.parameters()["durations"]
        steps = chances.new_tensor(range(1, chances.shape[1] + 1))
        return [float(value) for value in chances @ steps]
    if isinstance(dynamics, Homogeneous):
        leave = 1 - dynamics.transition.diagonal()
        return [float(1 / value) if float(value) > 1e-12 else None for value in leave]
    return [None] * dynamics.states


def structural(model: StructuralModel) -> list[Part]:
    """The parameters.

    Args:
        model: fitted.

    Returns:
        A table of variances, and one of what else there is.
    """
    assert model.parameters is not None
    kinds = model.kinds()
    variances = {name: [float(model.parameters[name])] for name, (kind, _) in kinds.items() if kind is POSITIVE}
    others = {name: model.parameters[name].tolist() for name, (kind, _) in kinds.items() if kind is not POSITIVE}
    widest = max((len(values) for values in others.values()), default=0)
    filled: dict[str, Sequence[float | None]] = {name: [*values, *[None] * (widest - len(values))] for name, values in others.items()}
    found = [table("variances", [""], variances)]
    return found + ([table("coefficients", map(str, range(1, widest + 1)), filled)] if others else [])


def linear_system(model: LinearDynamicalSystem, targets: Sequence[str]) -> list[Part]:
    """The matrices.

    Args:
        model: fitted.
        targets: the columns.

    Returns:
        Tables of the transition, of how outputs follow the state, and of variances.
    """
    system, hidden = model.system, [f"hidden {number}" for number in range(1, model.states + 1)]
    spread = system.emission_covariance.diagonal()
    return [
        table("from ↓ to →", hidden, _rows(hidden, system.transition.T)),
        table("outputs", hidden, _rows(targets, system.emission)),
        table("variance of the noise", targets, {"outputs": spread.tolist()}),
    ]


def _rows(names: Sequence[str], matrix: Tensor) -> dict[str, Sequence[float | None]]:
    return {name: row.tolist() for name, row in zip(names, matrix, strict=True)}

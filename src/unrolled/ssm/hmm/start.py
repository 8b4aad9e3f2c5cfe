"""Where Baum–Welch begins: outputs are put into groups, and each state is fitted to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm.chain import banded, left_to_right
from unrolled.ssm.hmm.durations import ExplicitDurations
from unrolled.ssm.hmm.dynamics import Dynamics, Homogeneous, InputDriven
from unrolled.ssm.hmm.emissions import COVARIANCES, Autoregressive, Bernoulli, Categorical, Emission, Gaussian, GaussianMixture, Poisson
from unrolled.ssm.hmm.rows import Rows, rows_of_features
from unrolled.ssm.hmm.settings import HiddenMarkovSettings

ROUNDS = 30
"""Of the grouping."""


def group(values: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """K-means: Lloyd's rounds from centres that are drawn far from each other (Arthur & Vassilvitskii 2007).

    Args:
        values: `[rows, features]`.
        count: of groups.
        generator: source of randomness.

    Returns:
        The group of each row; each group has a row where there are as many different ones.
    """
    spread = values.std(0, correction=0)
    scaled = (values - values.mean(0)) / torch.where(spread > 0, spread, 1)
    centers = scaled[torch.randint(len(scaled), (1,), generator=generator)]
    nearest = (scaled - centers[0]).square().sum(1)
    for _ in range(count - 1):
        weights = nearest if bool((nearest > 0).any()) else torch.ones_like(nearest)
        drawn = torch.searchsorted(weights.cumsum(0), weights.sum() * torch.rand(1, dtype=weights.dtype, generator=generator))
        centers = torch.cat([centers, scaled[drawn.clamp(max=len(scaled) - 1)]])
        nearest = torch.minimum(nearest, (scaled - centers[-1]).square().sum(1))
    groups = torch.full((len(scaled),), -1)
    for _ in range(ROUNDS):
        found = torch.cdist(scaled, centers).argmin(1)
        if bool((found == groups).all()):
            break
        groups = found
        sizes = torch.bincount(groups, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, groups, scaled)
        centers = torch.where(sizes.unsqueeze(1) > 0, sums / sizes.clamp(min=1).unsqueeze(1), centers)
    return groups


def in_turn(rows: Rows, count: int) -> Tensor:
    """Each sequence in equal parts, for a chain that never goes back.

    Args:
        rows: outputs.
        count: of parts.

    Returns:
        The part of each row.
    """
    starts, lengths = rows.places
    step = torch.arange(len(rows.values)) - starts.repeat_interleave(lengths)
    return (step * count).div(lengths.repeat_interleave(lengths), rounding_mode="floor").clamp(max=count - 1)


def filled(rows: Rows) -> Tensor:
    """Values with the mean of the feature where they are missing.

    Args:
        rows: outputs.

    Returns:
        `[rows, features]`.
    """
    if rows.seen is None:
        return rows.values
    means = (rows.values * rows.seen).sum(0) / rows.seen.sum(0).clamp(min=1)
    return torch.where(rows.seen, rows.values, means)


def weights_of(groups: Tensor, count: int) -> Tensor:
    """Groups as weights, each row a little in all of them.

    Args:
        groups: of the rows.
        count: of groups.

    Returns:
        `[rows, groups]`.
    """
    return 0.99 * torch.nn.functional.one_hot(groups, count).to(torch.float64) + 0.01 / count


def _checked(rows: Rows, settings: HiddenMarkovSettings, *, varies: bool) -> Tensor:
    """Values to start from, where there are enough and each feature changes."""
    values = filled(rows)
    seen = len(values) if rows.seen is None else int(rows.seen.any(1).sum())
    if seen < 2 * settings.states:
        raise DataError(
            f"fitting {settings.states} states needs at least {2 * settings.states} outputs, got {seen}; use fewer states or more data"
        )
    spread = values.var(0)
    if varies and not bool((spread > 0).all()):
        feature = int((~(spread > 0)).nonzero()[0])
        raise DataError(
            f"every feature must vary, got {values[0, feature].item():.6g} throughout in feature {feature} (counted from 0); leave it out"
        )
    return values


def start_gaussian(outputs: Padded, settings: HiddenMarkovSettings, generator: torch.Generator) -> Emission:
    """Each state a group of near outputs.

    Args:
        outputs: with NaN where missing.
        settings: states, covariance and floor.
        generator: source of randomness.

    Returns:
        The emission to begin from.
    """
    rows = rows_of_features(outputs, _features(outputs))
    values = _checked(rows, settings, varies=True)
    groups = _groups(rows, values, settings, generator)
    return _around(rows, values, weights_of(groups, settings.states), settings)


def _around(rows: Rows, values: Tensor, weights: Tensor, settings: HiddenMarkovSettings) -> Gaussian:
    """Gaussians fitted to weighted rows."""
    form, count, features = COVARIANCES[settings.covariance], weights.shape[1], values.shape[1]
    spread = values.var(0)
    whole = {
        "spherical": spread.mean().expand(count),
        "diagonal": spread.expand(count, features),
        "tied": torch.diag(spread),
        "full": torch.diag(spread).expand(count, features, features),
    }[form.name]
    emission = Gaussian(values.mean(0).expand(count, features), whole, form, floor=settings.floor * float(spread.min()))
    return emission.fitted(rows, weights)


def _groups(rows: Rows, values: Tensor, settings: HiddenMarkovSettings, generator: torch.Generator) -> Tensor:
    return in_turn(rows, settings.states) if settings.structure == "left-to-right" else group(values, settings.states, generator)


def start_mixture(outputs: Padded, settings: HiddenMarkovSettings, generator: torch.Generator) -> Emission:
    """Each state a group of near outputs, each component a group inside.

    Args:
        outputs: with NaN where missing.
        settings: states, components, covariance and floor.
        generator: source of randomness.

    Returns:
        The emission to begin from.
    """
    K, M = settings.states, settings.components
    rows = rows_of_features(outputs, _features(outputs))
    values = _checked(rows, settings, varies=True)
    groups = _groups(rows, values, settings, generator)
    inner = torch.zeros_like(groups)
    for state in range(K):
        chosen = groups == state
        if int(chosen.sum()):
            inner[chosen] = group(values[chosen], M, generator)
    weights = weights_of(groups * M + inner, K * M)
    shares = weights.sum(0).view(K, M)
    return GaussianMixture(shares / shares.sum(1, keepdim=True), _around(rows, values, weights, settings))


def start_autoregressive(outputs: Padded, settings: HiddenMarkovSettings, generator: torch.Generator) -> Emission:
    """Each state a group of near outputs that come from near ones.

    Args:
        outputs: with NaN where missing.
        settings: states, order, covariance and floor.
        generator: source of randomness.

    Returns:
        The emission to begin from.
    """
    D = _features(outputs)
    plain = rows_of_features(outputs, D)
    values = _checked(plain, settings, varies=True)
    whole = _around(plain, values, torch.ones(len(values), settings.states, dtype=torch.float64), settings)
    empty = torch.zeros(settings.states, D, 1 + D * settings.order, dtype=torch.float64)
    emission = Autoregressive(empty, whole.covariances, whole.form, floor=whole.floor)
    rows = emission.rows(outputs)
    assert rows.design is not None
    groups = _groups(rows, torch.cat([values, rows.design[:, 1:]], 1), settings, generator)
    return emission.fitted(rows, weights_of(groups, settings.states))


def start_categorical(outputs: Padded, settings: HiddenMarkovSettings, generator: torch.Generator) -> Emission:
    """Every state near the frequencies of all symbols, drawn apart.

    Args:
        outputs: symbols, negative where missing.
        settings: states, symbols and the prior.
        generator: source of randomness.

    Returns:
        The emission to begin from.

    Raises:
        DataError: nothing was seen.
    """
    symbols = (
        settings.symbols
        or int(
            torch.where(
                outputs.mask, outputs.data.nan_to_num(-1).squeeze(-1) if outputs.data.dim() == 3 else outputs.data.nan_to_num(-1), -1
            ).max()
        )
        + 1
    )
    if symbols < 1:
        raise DataError("fitting needs outputs, got missing ones only")
    emission = Categorical(torch.full((settings.states, symbols), 1 / symbols, dtype=torch.float64), settings.concentration)
    rows = emission.rows(outputs)
    counts = torch.bincount(rows.values[rows.values >= 0], minlength=symbols).double() + 0.5
    drawn = counts * -torch.rand(settings.states, symbols, dtype=torch.float64, generator=generator).clamp(min=1e-9).log()
    if settings.structure == "left-to-right":
        return emission.fitted(rows, weights_of(in_turn(rows, settings.states), settings.states) + 1e-3)
    return replace(emission, probabilities=drawn / drawn.sum(1, keepdim=True))


def start_poisson(outputs: Padded, settings: HiddenMarkovSettings, generator: torch.Generator) -> Emission:
    """Each state a group of near counts.

    Args:
        outputs: counts, NaN where missing.
        settings: states.
        generator: source of randomness.

    Returns:
        The emission to begin from.
    """
    emission = Poisson(torch.ones(settings.states, _features(outputs), dtype=torch.float64))
    rows = emission.rows(outputs)
    values = _checked(rows, settings, varies=False)
    groups = _groups(rows, values.to(torch.float64).sqrt(), settings, generator)
    fitted = emission.fitted(rows, weights_of(groups, settings.states))
    return replace(fitted, rates=fitted.rates.clamp(min=1e-3))


def start_bernoulli(outputs: Padded, settings: HiddenMarkovSettings, generator: torch.Generator) -> Emission:
    """Each state a group of near outputs.

    Args:
        outputs: 0 and 1, NaN where missing.
        settings: states and the prior.
        generator: source of randomness.

    Returns:
        The emission to begin from.
    """
    emission = Bernoulli(torch.full((settings.states, _features(outputs)), 0.5, dtype=torch.float64), settings.concentration)
    rows = emission.rows(outputs)
    values = _checked(rows, settings, varies=False).to(torch.float64)
    noise = 0.1 * torch.randn(values.shape, dtype=values.dtype, generator=generator)  # many rows are equal
    fitted = emission.fitted(rows, weights_of(_groups(rows, values + noise, settings, generator), settings.states))
    drawn = 0.1 * torch.rand(fitted.chances.shape, dtype=torch.float64, generator=generator)
    return replace(fitted, chances=(0.9 * fitted.chances + drawn).clamp(0.01, 0.99))


STARTS: dict[str, Callable[[Padded, HiddenMarkovSettings, torch.Generator], Emission]] = {
    "gaussian": start_gaussian,
    "mixture": start_mixture,
    "autoregressive": start_autoregressive,
    "categorical": start_categorical,
    "poisson": start_poisson,
    "bernoulli": start_bernoulli,
}
"""All emissions by name."""

MASKS: dict[str, Callable[[int, int], Tensor]] = {
    "full": lambda states, reach: torch.ones(states, states, dtype=torch.bool),
    "left-to-right": left_to_right,
    "banded": banded,
}
"""Which transitions are allowed."""


def start_dynamics(settings: HiddenMarkovSettings, inputs: Any, generator: torch.Generator) -> Dynamics:
    """A chain that rather stays where it is.

    Args:
        settings: states, structure, durations and the prior.
        inputs: known inputs `[batch, time, inputs]`, or `None`.
        generator: source of randomness.

    Returns:
        The dynamics to begin from.

    Raises:
        DataError: durations and inputs at once.
    """
    K = settings.states
    allowed = MASKS[settings.structure](K, settings.reach)
    drawn = torch.where(allowed, 1 + torch.rand(K, K, dtype=torch.float64, generator=generator), 0)
    first = torch.zeros(K, dtype=torch.float64)
    first[:1] = 1
    initial = first if settings.structure == "left-to-right" else torch.full((K,), 1 / K, dtype=torch.float64)
    if settings.longest:
        if inputs is not None:
            raise DataError("transitions cannot have explicit durations and be driven by inputs; leave one of both out")
        onward = drawn.clone().fill_diagonal_(0)
        onward = torch.where(onward.sum(1, keepdim=True) > 0, onward, torch.eye(K, dtype=torch.float64))
        return ExplicitDurations(
            initial,
            onward / onward.sum(1, keepdim=True),
            torch.full((K, settings.longest), 1 / settings.longest, dtype=torch.float64),
            settings.concentration,
        )
    transition = 0.5 * torch.eye(K, dtype=torch.float64) + 0.5 * drawn / drawn.sum(1, keepdim=True)
    if inputs is None:
        return Homogeneous(initial, transition, settings.concentration)
    return InputDriven(initial, torch.zeros(K, K, inputs.shape[-1], dtype=torch.float64), transition.log())


def _features(outputs: Padded) -> int:
    return 1 if outputs.data.dim() == 2 else outputs.data.shape[-1]

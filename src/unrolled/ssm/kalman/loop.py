r"""Filter and smoother as a plain loop over time: the definition that `compiled.py` is held to.

**Forward** (Kalman 1960; Durbin & Koopman 2012, sections 5.2 and 6.4). A state `N(a, P + κ P∞)` with `κ → ∞` meets one number `y = z'h + ε`,
`ε ~ N(0, σ²)`. With `v = y - z'a`, `M = P z`, `F = z'M + σ²`, `M∞ = P∞ z`, `F∞ = z'M∞`::

    F∞ > 0:  K = M∞ / F∞      J = (M - K F) / F∞      log p(y) = -log(F∞) / 2
    F∞ = 0:  K = M / F        J = 0                   log p(y) = -(log(2π F) + v² / F) / 2
    a <- a + K v      P <- P + F K K' - M K' - K M'      P∞ <- P∞ - F∞ K K'

and from step to step `a <- A a + B u`, `P <- A P A' + Q`, `P∞ <- A P∞ A'`. The first line leaves out `log(2πκ) / 2`: the likelihood of a diffuse
system is the integral over a flat prior.

**Backward** (de Jong 1989; Durbin & Koopman 2012, sections 4.4, 5.3 and 6.4). The outputs still to come say of a state `E[h] = a + P r`,
`Cov[h] = P - P N P` with `r = r₀ + r₁/κ`, `N = N₀ + N₁/κ + N₂/κ²`. Over one number, with `c₀ = 1/F` where `F∞ = 0` and `c₁ = 1/F∞` elsewhere::

    u₀ = c₀ v - K'r₀        r₀ <- r₀ + z u₀
    u₁ = c₁ v - K'r₁ - J'r₀   r₁ <- r₁ + z u₁
    N₀ <- N₀ - z (N₀K)' - (N₀K) z' + (c₀ + K'N₀K) z z'
    N₁ <- N₁ - z g' - g z' + (c₁ + K'N₁K + 2 J'N₀K) z z'                      g = N₁K + N₀J
    N₂ <- N₂ - z g' - g z' + (K'N₂K - F c₁² + 2 K'N₁J + J'N₀J) z z'           g = N₂K + N₁J

and from step to step `r <- A'r`, `N <- A'N A`. Nothing is inverted, so that covariances may be singular.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.ssm.kalman.entries import Entries
from unrolled.ssm.kalman.results import Filtered, Smoothed
from unrolled.ssm.kalman.system import LinearGaussian

DIFFUSE = 1e-10
"""A share of the infinite variance below this, beside the length of `z`, is rounding."""


class Belief(NamedTuple):
    """A Gaussian about the state of each series."""

    mean: Tensor
    covariance: Tensor
    diffuse: Tensor | None
    """The infinite part of the covariance."""
    rank: Tensor
    """How many states each series has still to fix, `[batch]`."""


class Taken(NamedTuple):
    """What the way back needs of a number that was taken; zero for series where it was missing."""

    z: Tensor
    v: Tensor
    gain: Tensor
    gain_next: Tensor
    """`J`."""
    finite: Tensor
    """`c₀`."""
    infinite: Tensor
    """`c₁`."""
    variance: Tensor
    """`F`."""


class Ahead(NamedTuple):
    """What the outputs still to come say: coefficients of powers of `1/κ`."""

    r: tuple[Tensor, Tensor]
    N: tuple[Tensor, Tensor, Tensor]


def filter_loop(system: LinearGaussian, series: Entries) -> Filtered:
    """The filter.

    Args:
        system: the model.
        series: its outputs.

    Returns:
        All of `Filtered`; differentiable.
    """
    return _forward(system, series)[0]


def both_loop(system: LinearGaussian, series: Entries) -> tuple[Filtered, Smoothed]:
    """The filter, then the smoother.

    Args:
        system: the model.
        series: its outputs.

    Returns:
        All of `Filtered` and of `Smoothed`; differentiable.
    """
    filtered, beliefs, taken = _forward(system, series)
    A, Q = system.transition, system.transition_covariance
    B, T, K = filtered.means.shape
    nothing, none = filtered.means.new_zeros(B, K), filtered.means.new_zeros(B, K, K)
    ahead = Ahead((nothing, nothing), (none, none, none))
    means, covariances, lagged = [], [], [none] * T
    for t in reversed(range(T)):
        belief, later = beliefs[t], ahead
        ahead = Ahead((ahead.r[0] @ A, ahead.r[1] @ A), (A.T @ ahead.N[0] @ A, A.T @ ahead.N[1] @ A, A.T @ ahead.N[2] @ A))
        mean, covariance = _look_back(belief, ahead)
        if t + 1 < T:
            left = later.N[0] @ A @ belief.covariance
            if belief.diffuse is not None:
                left = left + later.N[1] @ A @ belief.diffuse
            lagged[t + 1] = A @ covariance - Q @ left
        means.append(mean)
        covariances.append(covariance)
        for number in reversed(taken[t]):
            ahead = _untake(number, ahead, belief.diffuse is not None)
    inside = _inside(series)
    return filtered, Smoothed(
        filtered.log_likelihood,
        _stacked(means[::-1], inside),
        _stacked(covariances[::-1], inside),
        _stacked(lagged, inside),
    )


def advance(system: LinearGaussian, belief: Belief, shift: Tensor | None) -> Belief:
    """The state one step later, before anything is seen of it.

    Args:
        system: the model.
        belief: about the state now.
        shift: what the input adds, `[batch, state]`.

    Returns:
        The belief about the next state.
    """
    A, Q = system.transition, system.transition_covariance
    mean = belief.mean @ A.T
    diffuse = None if belief.diffuse is None else A @ belief.diffuse @ A.T
    return Belief(mean if shift is None else mean + shift, A @ belief.covariance @ A.T + Q, diffuse, belief.rank)


def take(belief: Belief, y: Tensor, z: Tensor, variance: Tensor) -> tuple[Belief, Tensor, Taken]:
    """Learn from one number.

    Args:
        belief: about the state before.
        y: the number, `[batch]`; NaN where it is missing.
        z: how it follows from the state, `[batch, state]`.
        variance: of its noise, `[batch]`.

    Returns:
        The belief after, `log p(y)`, and what the way back needs.
    """
    a, P = belief.mean, belief.covariance
    seen = ~y.isnan()
    v = torch.where(seen, y, 0) - torch.where(seen, (z * a).sum(1), 0)
    M = _times(P, z)
    F = (z * M).sum(1) + variance
    flat, one_over, infinite = torch.zeros_like(seen), torch.zeros_like(F), torch.zeros_like(F)
    away = torch.zeros_like(M)
    if belief.diffuse is not None:
        away = _times(belief.diffuse, z)
        infinite = (z * away).sum(1)
        flat = seen & (infinite > DIFFUSE * z.square().sum(1)) & (belief.rank > 0)
        one_over = torch.where(flat, 1 / torch.where(flat, infinite, 1), 0)
        infinite = torch.where(flat, infinite, 0)
    known = seen & (F > 0) & ~flat
    F = torch.where(known | flat, F, 0)
    inverse = torch.where(known, 1 / torch.where(known, F, 1), 0)
    gain = away * one_over.unsqueeze(1) + M * inverse.unsqueeze(1)
    gain_next = (M - gain * F.unsqueeze(1)) * one_over.unsqueeze(1)
    plain = torch.where(known, (math.log(2 * math.pi) + torch.where(known, F, 1).log() + v.square() * inverse) / -2, 0)
    told = torch.where(flat, torch.where(flat, infinite, 1).log() / -2, plain)
    cross = _outer(M, gain)
    covariance = P + _outer(gain * F.unsqueeze(1), gain) - cross - cross.mT
    diffuse, rank = belief.diffuse, belief.rank - flat.long()
    if diffuse is not None:
        diffuse = (diffuse - _outer(gain * infinite.unsqueeze(1), gain)) * (rank > 0).view(-1, 1, 1)
    after = Belief(a + gain * v.unsqueeze(1), covariance, diffuse, rank)
    return after, told, Taken(z, v, gain, gain_next, inverse, one_over, F)


def first_belief(system: LinearGaussian, batch: int) -> Belief:
    """The belief about the state of the first output.

    Args:
        system: the model.
        batch: how many series.

    Returns:
        The prior, once a series.
    """
    mean, covariance, diffuse = system.prior()
    K = system.states
    infinite = None if diffuse is None else diffuse.expand(batch, K, K)
    rank = torch.full((batch,), system.rank, device=mean.device)
    return Belief(mean.expand(batch, K), covariance.expand(batch, K, K), infinite, rank)


def _forward(system: LinearGaussian, series: Entries) -> tuple[Filtered, list[Belief], list[list[Taken]]]:
    B, T, D = series.values.shape
    belief, kept = first_belief(system, B), []
    before, told, taken = [], [], []
    for t in range(T):
        if t:
            belief = advance(system, belief, None if series.shift is None else series.shift[:, t])
            if belief.diffuse is not None and not bool((belief.rank > 0).any()):
                belief = belief._replace(diffuse=None)
        before.append(belief)
        numbers, sums = [], torch.zeros_like(series.values[:, t, 0])
        for i in range(D):
            z, variance = series.rows[:, i], series.variances[:, i]
            z, variance = (
                one.expand(B, *one.shape[1:]) if series.patterns is None else one[series.patterns[:, t]] for one in (z, variance)
            )
            belief, log_probability, number = take(belief, series.values[:, t, i], z, variance)
            sums = sums + log_probability
            numbers.append(number)
        told.append(sums)
        taken.append(numbers)
        kept.append(belief)
    inside = _inside(series)
    filtered = Filtered(
        torch.stack(told, 1) if T else series.values.new_zeros(B, 0),
        _stacked([one.mean for one in before], inside),
        _stacked([one.covariance for one in before], inside),
        _stacked([one.mean for one in kept], inside),
        _stacked([one.covariance for one in kept], inside),
        *((_infinite(before, inside), _infinite(kept, inside)) if system.rank else ()),
    )
    return filtered, kept, taken


def _look_back(belief: Belief, ahead: Ahead) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a state of which the belief says the past, `ahead` the future."""
    P, N = belief.covariance, ahead.N
    mean = belief.mean + _times(P, ahead.r[0])
    covariance = P - P @ N[0] @ P
    if belief.diffuse is not None:
        mean = mean + _times(belief.diffuse, ahead.r[1])
        cross = belief.diffuse @ N[1] @ P
        covariance = covariance - cross - cross.mT - belief.diffuse @ N[2] @ belief.diffuse
    return mean, covariance


def _untake(one: Taken, ahead: Ahead, diffuse: bool) -> Ahead:
    """What is still to come once a number is among it."""
    z, K, J = one.z, one.gain, one.gain_next
    (r0, r1), (N0, N1, N2) = ahead
    g0 = _times(N0, K)
    after = r0 + z * (one.finite * one.v - _dot(K, r0)).unsqueeze(1)
    nearer = _around(N0, z, g0, one.finite + _dot(K, g0))
    if not diffuse:
        return Ahead((after, r1), (nearer, N1, N2))
    g1, h0, g2, h1 = _times(N1, K), _times(N0, J), _times(N2, K), _times(N1, J)
    u1 = one.infinite * one.v - _dot(K, r1) - _dot(J, r0)
    s1 = one.infinite + _dot(K, g1) + 2 * _dot(J, g0)
    s2 = _dot(K, g2) - one.variance * one.infinite.square() + 2 * _dot(K, h1) + _dot(J, h0)
    return Ahead((after, r1 + z * u1.unsqueeze(1)), (nearer, _around(N1, z, g1 + h0, s1), _around(N2, z, g2 + h1, s2)))


def _around(N: Tensor, z: Tensor, g: Tensor, corner: Tensor) -> Tensor:
    cross = _outer(z, g)
    return N - cross - cross.mT + _outer(z * corner.unsqueeze(1), z)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(2)).squeeze(2)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(2) * right.unsqueeze(1)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1)


def _inside(series: Entries) -> Tensor:
    return torch.arange(series.values.shape[1], device=series.values.device) < series.lengths.unsqueeze(1)


def _stacked(steps: list[Tensor], inside: Tensor) -> Tensor:
    if not steps:
        raise AssertionError("a loop of no steps is not run")
    stacked = torch.stack(steps, 1)
    return stacked.where(inside.view(*inside.shape, *[1] * (stacked.dim() - 2)), 0)


def _infinite(beliefs: list[Belief], inside: Tensor) -> Tensor:
    none = torch.zeros_like(beliefs[0].covariance)
    return _stacked([none if one.diffuse is None else one.diffuse for one in beliefs], inside)

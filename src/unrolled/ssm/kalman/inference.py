"""Filter, smoother and log-likelihood of the linear-Gaussian model: the public functions, by the compiled kernel where it can run."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.ssm.kalman.compiled import both_compiled, can_run, filter_compiled, log_likelihood_compiled, smoother_compiled
from unrolled.ssm.kalman.entries import Entries, as_padded, check_inputs, entries
from unrolled.ssm.kalman.loop import both_loop, filter_loop
from unrolled.ssm.kalman.results import Filtered, Smoothed
from unrolled.ssm.kalman.system import LinearGaussian, check_system, symmetric


def kalman_filter(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None, *, plain: bool = False) -> Filtered:
    """The Kalman filter: each state given the outputs up to it, and the likelihood of the outputs.

    Args:
        system: the model.
        series: outputs `[batch, time, observed]`; NaN is missing, a single number or a whole row.
        inputs: `[batch, time, input]`, known everywhere, for a system that has any.
        plain: always by the loop that defines what is right.

    Returns:
        Means and covariances, and log-likelihoods; differentiable.

    Example:
        >>> level = LinearGaussian(*(torch.tensor([[x]]) for x in (1.0, 0.5, 1.0, 2.0)), torch.zeros(1), torch.ones(1, 1))
        >>> filtered = kalman_filter(level, torch.tensor([[[1.0], [float("nan")], [2.0]]]))
        >>> filtered.means.flatten()
        tensor([0.3333, 0.3333, 1.0909])
    """
    system, given = _given(system, series, inputs)
    if 0 in given.values.shape:
        return _no_steps(system, given)
    if plain or _wants_graph(system, given) or not can_run(system, given):
        return filter_loop(system, given)
    return filter_compiled(system, given)


def kalman_smoother(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None, *, plain: bool = False) -> Smoothed:
    """The fixed-interval smoother: each state given all outputs of its series. No covariance is inverted, so that all may be singular.

    Args:
        system: the model.
        series: outputs `[batch, time, observed]`; NaN is missing, a single number or a whole row.
        inputs: `[batch, time, input]`, known everywhere, for a system that has any.
        plain: always by the loop that defines what is right.

    Returns:
        Means, covariances and those from step to step; differentiable.
    """
    system, given = _given(system, series, inputs)
    if 0 in given.values.shape:
        none = _no_steps(system, given)
        return Smoothed(none.log_likelihood, none.means, none.covariances, none.covariances)
    if plain or _wants_graph(system, given) or not can_run(system, given):
        return both_loop(system, given)[1]
    return smoother_compiled(system, given)


def kalman_filter_and_smoother(
    system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None, *, plain: bool = False
) -> tuple[Filtered, Smoothed]:
    """Filter and smoother in one run, for both of their results.

    Args:
        system: the model.
        series: outputs `[batch, time, observed]`; NaN is missing, a single number or a whole row.
        inputs: `[batch, time, input]`, known everywhere, for a system that has any.
        plain: always by the loop that defines what is right.

    Returns:
        What `kalman_filter` and `kalman_smoother` give; differentiable.
    """
    system, given = _given(system, series, inputs)
    if 0 in given.values.shape:
        return kalman_filter(system, series, inputs), kalman_smoother(system, series, inputs)
    if plain or _wants_graph(system, given) or not can_run(system, given):
        return both_loop(system, given)
    return both_compiled(system, given)


def kalman_log_likelihood(
    system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None = None, *, plain: bool = False
) -> Float[Tensor, " batch"]:
    """The log-likelihood of each series; of a diffuse system the integral over a flat prior (the first `rank` numbers fix the state).

    Args:
        system: the model.
        series: outputs `[batch, time, observed]`; NaN is missing, a single number or a whole row.
        inputs: `[batch, time, input]`, known everywhere, for a system that has any.
        plain: always by the loop that defines what is right; the compiled kernel can be differentiated once, the loop as often as wanted.

    Returns:
        In nats; differentiable.
    """
    return likelihood_of(*_given(system, series, inputs), plain=plain)


def likelihood_of(system: LinearGaussian, given: Entries, *, plain: bool = False) -> Tensor:
    """The same of what has been checked and taken apart.

    Args:
        system: the model.
        given: its outputs.
        plain: always by the loop.

    Returns:
        `[batch]`, differentiable.
    """
    if 0 in given.values.shape:
        return given.values.new_zeros(len(given.values))
    if plain or not can_run(system, given):
        return filter_loop(system, given).log_likelihood
    return log_likelihood_compiled(system, given)


def _given(system: LinearGaussian, series: Tensor | Padded, inputs: Tensor | None) -> tuple[LinearGaussian, Entries]:
    system = symmetric(check_system(system))
    padded = as_padded(system, series)
    return system, entries(system, padded, check_inputs(system, padded, inputs))


def _wants_graph(system: LinearGaussian, given: Entries) -> bool:
    tensors: tuple[Any, ...] = (*system, *given)
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)


def _no_steps(system: LinearGaussian, given: Entries) -> Filtered:
    B, T, K = *given.values.shape[:2], system.states
    new = given.values.new_zeros
    infinite = new(B, T, K, K) if system.rank else None
    return Filtered(new(B, T), new(B, T, K), new(B, T, K, K), new(B, T, K), new(B, T, K, K), infinite, infinite)

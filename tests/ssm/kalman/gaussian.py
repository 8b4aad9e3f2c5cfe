"""The oracle: the joint Gaussian of all states and outputs of one series written out, and conditioned on what was seen."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.ssm.kalman import LinearGaussian

MISSING = float("nan")


def random_system(
    states: int, observed: int, *, inputs: int = 0, diffuse: int = 0, diagonal: bool = False, seed: int = 0
) -> LinearGaussian:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def covariance(size: int) -> Tensor:
        root = numbers(size, size)
        return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)

    noise = covariance(observed)
    return LinearGaussian(
        numbers(states, states) * 0.6 / states**0.5,
        covariance(states),
        numbers(observed, states),
        noise.diag().diag() if diagonal else noise,
        numbers(states),
        covariance(states),
        numbers(states, inputs) if inputs else None,
        numbers(observed, inputs) if inputs else None,
        torch.arange(states) < diffuse if diffuse else None,
    )


def random_series(batch: int, time: int, observed: int, *, missing: float = 0.3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(batch, time, observed, generator=generator, dtype=torch.float64)
    return torch.where(torch.rand(batch, time, observed, generator=generator) < missing, MISSING, data)


class Conditioned(NamedTuple):
    """The states of one series given all that was seen of it."""

    log_likelihood: float
    means: np.ndarray
    covariances: np.ndarray
    """`[time, time, state, state]`: between any two steps."""


def condition(system: LinearGaussian, series: np.ndarray, inputs: np.ndarray | None = None) -> Conditioned:
    """States `h = b + X δ + e`, outputs `y = d + C h + ε`: `δ`, the diffuse states at first, has a flat prior and is integrated out."""
    A, Q, C, R, m, P = (np.asarray(one) for one in system[:6])
    T, K = len(series), len(A)
    flat = np.zeros(K, bool) if system.diffuse is None else system.diffuse.numpy()
    m, P = np.where(flat, 0, m), P * np.outer(~flat, ~flat)
    means, spread, loads = np.zeros((T, K)), np.zeros((T, K, T, K)), np.zeros((T, K, flat.sum()))
    for t in range(T):
        if t == 0:
            means[0], spread[0, :, 0], loads[0] = m, P, np.eye(K)[:, flat]
            continue
        means[t] = A @ means[t - 1] + (0 if system.transition_input is None else system.transition_input.numpy() @ inputs[t])
        loads[t] = A @ loads[t - 1]
        for s in range(t):
            spread[t, :, s] = A @ spread[t - 1, :, s]
            spread[s, :, t] = spread[t, :, s].T
        spread[t, :, t] = A @ spread[t - 1, :, t - 1] @ A.T + Q
    seen = ~np.isnan(series.reshape(-1))
    big = np.kron(np.eye(T), C)[seen]
    flat_means, cov, load = means.reshape(-1), spread.reshape(T * K, T * K), loads.reshape(T * K, -1)
    offset = 0 if system.emission_input is None else (inputs @ system.emission_input.numpy().T).reshape(-1)[seen]
    v = series.reshape(-1)[seen] - big @ flat_means - offset
    S = big @ cov @ big.T + np.kron(np.eye(T), R)[np.ix_(seen, seen)]
    inverse, X = np.linalg.inv(S), big @ load
    information = X.T @ inverse @ X
    back = np.linalg.inv(information)
    delta = back @ X.T @ inverse @ v
    rest = v - X @ delta
    count = seen.sum() - flat.sum()
    log_likelihood = (
        -(count * math.log(2 * math.pi) + np.linalg.slogdet(S)[1] + np.linalg.slogdet(information)[1] + rest @ inverse @ rest) / 2
    )
    gain = cov @ big.T @ inverse
    remains = load - gain @ X
    found = flat_means + load @ delta + gain @ rest
    after = cov - gain @ big @ cov + remains @ back @ remains.T
    return Conditioned(float(log_likelihood), found.reshape(T, K), after.reshape(T, K, T, K).transpose(0, 2, 1, 3))

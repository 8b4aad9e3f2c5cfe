"""Equal to statsmodels and pykalman, and the published likelihood of the Nile."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.ssm.kalman import LinearGaussian, kalman_filter, kalman_log_likelihood, kalman_smoother

from .gaussian import random_series, random_system

NILE = Path(__file__).parents[3].parent / "shared" / "data" / "timeseries" / "Nile.csv"
EXACT = {"rtol": 1e-8, "atol": 1e-8}
TIME = 30


def nile() -> torch.Tensor:
    if not NILE.exists():
        pytest.skip("the series of the Nile is not here")
    with NILE.open() as file:
        return torch.tensor([float(row["value"]) for row in csv.DictReader(file)], dtype=torch.float64).view(1, -1, 1)


def by_statsmodels(system: LinearGaussian, row: np.ndarray) -> Any:
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    peer = KalmanSmoother(k_endog=system.observed, k_states=system.states, k_posdef=system.states)
    peer.bind(row.copy())
    peer["design"], peer["obs_cov"], peer["transition"] = (
        one.numpy() for one in (system.emission, system.emission_covariance, system.transition)
    )
    peer["selection"], peer["state_cov"] = np.eye(system.states), system.transition_covariance.numpy()
    flat = np.zeros(system.states, bool) if system.diffuse is None else system.diffuse.numpy()
    known = system.initial_covariance.numpy() * np.outer(~flat, ~flat)
    if system.rank:
        from statsmodels.tsa.statespace.initialization import Initialization

        assert flat.all()
        peer.initialize(Initialization(system.states, "diffuse"))
    else:
        peer.initialize_known(system.initial_mean.numpy(), known)
    return peer.smooth()


@pytest.mark.parametrize("diffuse", [False, True])
def test_statsmodels_finds_the_same(diffuse: bool) -> None:
    pytest.importorskip("statsmodels")
    system = random_system(3, 2, diffuse=3 if diffuse else 0, diagonal=diffuse)
    series = random_series(2, TIME, 2)
    filtered, smoothed = kalman_filter(system, series), kalman_smoother(system, series)
    for b in range(2):
        peer = by_statsmodels(system, series[b].numpy())
        told = peer.llf_obs.sum() + system.rank * math.log(2 * math.pi) / 2  # theirs counts the constant of the diffuse terms
        assert float(filtered.log_likelihood[b]) == pytest.approx(told, abs=1e-8)
        np.testing.assert_allclose(filtered.predicted_means[b], peer.predicted_state[:, :-1].T, **EXACT)
        np.testing.assert_allclose(filtered.means[b], peer.filtered_state.T, **EXACT)
        np.testing.assert_allclose(filtered.covariances[b], peer.filtered_state_cov.transpose(2, 0, 1), **EXACT)
        np.testing.assert_allclose(smoothed.means[b], peer.smoothed_state.T, **EXACT)
        np.testing.assert_allclose(smoothed.covariances[b], peer.smoothed_state_cov.transpose(2, 0, 1), **EXACT)
        if not diffuse:
            between = peer.smoothed_state_autocov[:, :, :-1].transpose(2, 0, 1)
            np.testing.assert_allclose(smoothed.lagged_covariances[b, 1:], between, **EXACT)


def test_pykalman_finds_the_same() -> None:
    pykalman = pytest.importorskip("pykalman")
    system = random_system(3, 2)
    series = random_series(1, TIME, 2)
    series[0, torch.isnan(series[0]).any(1)] = torch.nan  # it knows whole rows only
    given = [one.numpy() for one in (system.transition, system.emission, system.transition_covariance, system.emission_covariance)]
    peer = pykalman.KalmanFilter(
        *given, initial_state_mean=system.initial_mean.numpy(), initial_state_covariance=system.initial_covariance.numpy()
    )
    row = np.ma.masked_invalid(series[0].numpy())
    filtered, smoothed = kalman_filter(system, series), kalman_smoother(system, series)
    for (means, covariances), ours in ((peer.filter(row), filtered), (peer.smooth(row), smoothed)):
        np.testing.assert_allclose(ours.means[0], means, **EXACT)
        np.testing.assert_allclose(ours.covariances[0], covariances, **EXACT)
    assert float(filtered.log_likelihood) == pytest.approx(peer.loglikelihood(row), abs=1e-8)


def test_the_likelihood_of_the_nile() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    level = LinearGaussian(one, one * 1469.1, one, one * 15099, torch.zeros(1, dtype=torch.float64), one, diffuse=torch.tensor([True]))
    assert round(float(kalman_log_likelihood(level, nile())), 4) == -632.5456

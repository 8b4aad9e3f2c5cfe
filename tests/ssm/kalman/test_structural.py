"""Structural models, sampling and forecasts: statsmodels' likelihoods, the published fit of the Nile, the joint Gaussian."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman import (
    ARMA,
    Component,
    LocalLevel,
    LocalTrend,
    Regression,
    Seasonal,
    StructuralModel,
    TrigonometricSeasonal,
    forecast,
    kalman_smoother,
    sample,
    sample_states,
)
from unrolled.ssm.kalman.parametrise import STATIONARY

from .gaussian import condition, random_series, random_system
from .test_peers import nile

TIME = 40
LEVEL, SLOPE, SEASON, NOISE = 0.3, 0.02, 0.1, 0.5


def series_of(time: int = TIME) -> torch.Tensor:
    steps = torch.arange(time, dtype=torch.float64)
    noise = torch.randn(time, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (steps * 0.1 + torch.sin(steps * math.pi / 2) + noise).view(1, -1, 1)


STATSMODELS = {
    "level": (LocalLevel(), {"level": "local level"}, {"irregular": NOISE, "level": LEVEL}),
    "trend": (LocalTrend(), {"level": "local linear trend"}, {"irregular": NOISE, "level": LEVEL, "slope": SLOPE}),
    "smooth trend": (LocalTrend(smooth=True), {"level": "smooth trend"}, {"irregular": NOISE, "slope": SLOPE}),
    "seasonal": (
        LocalLevel() + Seasonal(4),
        {"level": "local level", "seasonal": 4},
        {"irregular": NOISE, "level": LEVEL, "seasonal": SEASON},
    ),
    "waves": (
        LocalLevel() + TrigonometricSeasonal(6, 2),
        {"level": "local level", "freq_seasonal": [{"period": 6, "harmonics": 2}]},
        {"irregular": NOISE, "level": LEVEL, "seasonal": SEASON},
    ),
    "all waves": (
        LocalLevel() + TrigonometricSeasonal(4),
        {"level": "local level", "freq_seasonal": [{"period": 4}]},
        {"irregular": NOISE, "level": LEVEL, "seasonal": SEASON},
    ),
    "autoregression": (
        LocalLevel() + ARMA(2),
        {"level": "local level", "autoregressive": 2},
        {"irregular": NOISE, "level": LEVEL, "shock": 0.4, "ar": [0.5, -0.2]},
    ),
}


@pytest.mark.parametrize("name", STATSMODELS)
def test_statsmodels_finds_the_same_likelihood(name: str) -> None:
    peers = pytest.importorskip("statsmodels.tsa.statespace.structural")
    components, theirs, values = STATSMODELS[name]
    model = StructuralModel(components, fixed=values)
    peer = peers.UnobservedComponents(series_of()[0, :, 0].numpy(), use_exact_diffuse=True, **theirs)
    told = peer.loglike(np.concatenate([np.atleast_1d(value) for value in values.values()]))
    rank = model.system.rank
    assert rank == model.free_parameters
    assert model.score(series_of()) == pytest.approx(told + rank * math.log(2 * math.pi) / 2, abs=1e-8)


def test_a_moving_average_is_that_of_statsmodels() -> None:
    sarimax = pytest.importorskip("statsmodels.tsa.statespace.sarimax")
    model = StructuralModel(ARMA(1, 2), irregular=False, fixed={"ar": [0.6], "ma": [0.4, 0.2], "shock": 1.5})
    peer = sarimax.SARIMAX(series_of()[0, :, 0].numpy(), order=(1, 0, 2))
    assert model.score(series_of()) == pytest.approx(peer.loglike([0.6, 0.4, 0.2, 1.5]), abs=1e-8)


def test_the_nile_is_fitted_to_the_printed_digits() -> None:
    model = StructuralModel(LocalLevel()).fit(nile())
    assert model.log_likelihood is not None and model.parameters is not None
    assert round(model.log_likelihood, 4) == -632.5456
    assert round(float(model.parameters["irregular"]), 1) == 15098.5
    assert round(float(model.parameters["level"]), 1) == 1469.2
    assert model.aic() == pytest.approx(2 * 632.5456 + 2 * 3, abs=1e-3)


def test_parts_add_up_and_regression_finds_its_coefficient() -> None:
    known = torch.randn(1, TIME, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    data = series_of() + 3 * known
    data[0, 5:8] = torch.nan
    model = StructuralModel(LocalTrend(smooth=True) + Seasonal(4) + Regression(1)).fit(data, known)
    assert model.parameters is not None
    assert float(model.parameters["coefficient"]) == pytest.approx(3, abs=0.5)
    parts = model.decompose(data, known)
    assert list(parts) == ["slope", "seasonal", "coefficient"]
    smoothed = model.smooth(data, known)
    whole = smoothed.means @ model.system.emission[0] + 1.0 * parts["coefficient"]
    torch.testing.assert_close(sum(parts.values()), whole)
    ahead = model.forecast(data, 3, known, future_inputs=torch.zeros(1, 3, 1))
    assert bool((ahead.lower < ahead.means).all()) and bool((ahead.means < ahead.upper).all())
    with pytest.raises(DataError, match="`future_inputs` must be"):
        model.forecast(data, 3, known)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model = StructuralModel(LocalTrend(damped=True) + ARMA(1) + Seasonal(4), fixed={"seasonal": 0.1}).fit(series_of(), iterations=5)
    model.save(tmp_path)
    again = StructuralModel.load(tmp_path)
    assert again.components == model.components and again.aic() == model.aic()
    assert again.score(series_of()) == model.score(series_of())
    assert float(again.system.transition_covariance[3, 3]) == 0.1


def test_a_name_that_is_taken_gets_a_number() -> None:
    model = StructuralModel(Seasonal(4) + Seasonal(7) + LocalLevel(), irregular=False)
    assert list(model.kinds()) == ["seasonal", "seasonal.2", "level"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Seasonal(1), "`period` must be at least 2, got 1"),
        (lambda: TrigonometricSeasonal(4, 3), r"`harmonics` must lie in 1..2"),
        (lambda: ARMA(0, 0), "not both 0"),
        (lambda: Regression(0), "at least 1"),
        (lambda: StructuralModel(()), "at least one component"),
        (lambda: StructuralModel(LocalLevel(), fixed={"levels": 1}), "did you mean `level`"),
        (lambda: StructuralModel(LocalLevel(), fixed={"level": [1, 2]}), "`fixed.level` must be one number, got 2"),
        (lambda: StructuralModel(LocalLevel(), fixed={"level": -1}), "`fixed.level` must be a variance, at least 0, got -1"),
        (lambda: StructuralModel(LocalTrend(damped=True), fixed={"damping": 3}), "`fixed.damping` must be from 0 to 1, got 3"),
        (lambda: StructuralModel(LocalTrend(damped=True), fixed={"damping": -0.5}), "`fixed.damping` must be from 0 to 1, got -0.5"),
        (lambda: StructuralModel(ARMA(1), fixed={"ar": 1.5}), "`fixed.ar` must be a stationary autoregression .*got 1.5"),
        (lambda: StructuralModel(ARMA(2), fixed={"ar": [0.5, 0.6]}), "`fixed.ar` must be a stationary autoregression .*got 0.5, 0.6"),
        (lambda: StructuralModel(Regression(1), fixed={"coefficient": math.nan}), "`fixed.coefficient` must be finite, got nan"),
        (lambda: StructuralModel(LocalLevel()).system, "must be fitted first"),
        (lambda: StructuralModel(LocalLevel(), fixed={"level": 1, "irregular": 1}).aic(), "must be fitted first"),
    ],
)
def test_what_makes_no_model_is_refused(make: type[Component], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_an_autoregression_is_stationary_where_its_roots_say_so() -> None:
    drawn = 1.5 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    said = [STATIONARY.allows(one) for one in drawn]
    assert said == [bool((abs(np.roots([1, *(-one).tolist()])) < 1).all()) for one in drawn]
    assert 0 < sum(said) < 300


def test_a_forecast_is_the_joint_gaussian_of_what_comes() -> None:
    system = random_system(2, 2, inputs=1)
    series, known = random_series(2, 4, 2), torch.randn(2, 7, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lengths = [4, 3]
    ahead = torch.stack([known[b, length : length + 3] for b, length in enumerate(lengths)])
    found = forecast(system, Padded(series, torch.tensor(lengths)), 3, known[:, :4], future_inputs=ahead, level=0.9)
    C, R = system.emission.numpy(), system.emission_covariance.numpy()
    for b, length in enumerate(lengths):
        row = np.concatenate([series[b, :length].numpy(), np.full((3, 2), np.nan)])
        whole = condition(system, row, known[b, : length + 3].numpy())
        means = whole.means[length:] @ C.T + known[b, length : length + 3].numpy() @ system.emission_input.numpy().T
        np.testing.assert_allclose(found.means[b], means, atol=1e-9)
        steps = np.arange(length, length + 3)
        np.testing.assert_allclose(found.covariances[b], C @ whole.covariances[steps, steps] @ C.T + R, atol=1e-9)
    share = torch.special.ndtr((found.upper - found.means) / found.covariances.diagonal(dim1=2, dim2=3).sqrt())
    torch.testing.assert_close(share, torch.full_like(share, 0.95))


def test_a_forecast_of_what_is_unknown_has_no_end() -> None:
    model = StructuralModel(LocalTrend(), fixed={"irregular": 1, "level": 1, "slope": 1})
    found = model.forecast(torch.ones(1, 1, 1), 2)
    assert bool(found.upper.isinf().all())
    assert bool(model.forecast(torch.ones(1, 2, 1), 2).upper.isfinite().all())


def test_samples_have_the_moments_of_the_model() -> None:
    system = random_system(2, 2)
    drawn = sample(system, 3, 40_000, generator=torch.Generator().manual_seed(0))
    whole = condition(system, np.full((3, 2), np.nan))
    torch.testing.assert_close(drawn.states.mean(0), torch.from_numpy(whole.means), atol=0.05, rtol=0)
    spread = drawn.outputs[:, 2].T.cov()
    expected = system.emission.numpy() @ whole.covariances[2, 2] @ system.emission.numpy().T + system.emission_covariance.numpy()
    np.testing.assert_allclose(spread, expected, rtol=0.05, atol=0.05)
    again = sample(system, 3, 40_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.outputs, drawn.outputs)


@pytest.mark.parametrize("diffuse", [0, 1])
def test_drawn_paths_have_the_moments_of_the_smoother(diffuse: int) -> None:
    system, series = random_system(2, 1, inputs=1, diffuse=diffuse), random_series(1, 4, 1)
    known = torch.ones(1, 4, 1, dtype=torch.float64)
    paths = sample_states(system, series, known, draws=20_000, generator=torch.Generator().manual_seed(0))[:, 0]
    smoothed = kalman_smoother(system, series, known)
    scale = float(smoothed.covariances.max()) ** 0.5
    torch.testing.assert_close(paths.mean(0), smoothed.means[0], atol=0.04 * scale, rtol=0)
    deviations = paths - smoothed.means[0]
    torch.testing.assert_close(deviations[:, 2].T @ deviations[:, 2] / 20_000, smoothed.covariances[0, 2], atol=0.06 * scale**2, rtol=0)
    torch.testing.assert_close(
        deviations[:, 2].T @ deviations[:, 1] / 20_000, smoothed.lagged_covariances[0, 2], atol=0.06 * scale**2, rtol=0
    )


def test_a_series_that_cannot_be_fitted_is_refused() -> None:
    for series, said in (
        (torch.ones(1, 1, 1), "must see more than"),
        (torch.full((1, 30, 1), 2.0), "every output must vary, got 2 everywhere"),
    ):
        with pytest.raises(DataError, match=said):
            StructuralModel(LocalLevel()).fit(series)

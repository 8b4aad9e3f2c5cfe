"""EM against pykalman, against the slope of the likelihood, and against itself on what is missing; frozen and structured entries; both ways of fitting."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman import LinearDynamicalSystem, LinearGaussian, Structure, kalman_log_likelihood, kalman_smoother, sample
from unrolled.ssm.kalman.em import expect, maximise
from unrolled.ssm.kalman.entries import as_padded

from .gaussian import random_series, random_system

TIME = 25


def one_step(
    system: LinearGaussian, series: Tensor | Padded, structure: Structure | None = None, inputs: Tensor | None = None
) -> LinearGaussian:
    padded = as_padded(system, series)
    return maximise(system, expect(system, padded, inputs, kalman_smoother(system, padded, inputs)), structure or Structure())


def test_a_step_is_that_of_pykalman() -> None:
    pykalman = pytest.importorskip("pykalman")
    system, series = random_system(3, 2), random_series(1, TIME, 2)
    series[0, torch.isnan(series[0]).any(1)] = torch.nan
    every = ["transition_matrices", "transition_covariance", "observation_matrices", "observation_covariance"]
    peer = pykalman.KalmanFilter(
        system.transition.numpy(),
        system.emission.numpy(),
        system.transition_covariance.numpy(),
        system.emission_covariance.numpy(),
        np.zeros(3),
        np.zeros(2),
        system.initial_mean.numpy(),
        system.initial_covariance.numpy(),
        em_vars=[*every, "initial_state_mean", "initial_state_covariance"],
    )
    peer = peer.em(np.ma.masked_invalid(series[0].numpy()), n_iter=1)
    theirs = (*(getattr(peer, name) for name in every), peer.initial_state_mean, peer.initial_state_covariance)
    for one, other in zip(one_step(system, series)[:6], theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "structure",
    [Structure(), Structure(("emission_covariance",), {"transition": torch.eye(2).bool()}, {"transition_covariance": "diagonal"})],
)
def test_the_likelihood_never_falls(structure: Structure) -> None:
    system, series = random_system(2, 3, inputs=1), random_series(3, TIME, 3, missing=0.4)
    inputs = torch.randn(3, TIME, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    told = []
    for _ in range(8):
        told.append(float(kalman_log_likelihood(system, series, inputs).sum()))
        before, system = system, one_step(system, series, structure, inputs)
        if structure.frozen:
            assert torch.equal(system.emission_covariance, before.emission_covariance)
            assert torch.equal(system.transition[0, 1], before.transition[0, 1])
            assert not bool(system.transition_covariance[0, 1])
    assert all(later > earlier for earlier, later in pairwise(told[1:]))


def test_where_em_rests_the_likelihood_is_flat() -> None:
    """A fixed point of EM with missing numbers has no slope: what fills them in is exact, and not only harmless."""
    true = random_system(1, 2)._replace(transition=torch.tensor([[0.8]], dtype=torch.float64))
    series = sample(true, 60, 4, generator=torch.Generator().manual_seed(0)).outputs
    series = torch.where(torch.rand(series.shape, generator=torch.Generator().manual_seed(1)) < 0.3, torch.nan, series)
    frozen = Structure(("initial_mean", "initial_covariance", "emission"))
    model = LinearDynamicalSystem(1, offset=False, structure=frozen, system=true).fit_by_gradient(series)
    assert torch.equal(model.system.emission, true.emission)
    for one, other in zip(one_step(model.system, series, frozen)[:4], model.system[:4], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    again = LinearDynamicalSystem(1, offset=False, structure=frozen, system=model.system).fit(series, iterations=5)
    assert abs(again.score(series) - model.score(series)) < 1e-6


def test_a_fit_finds_what_made_the_series() -> None:
    generator = torch.Generator().manual_seed(0)
    turn = torch.tensor([[0.9, -0.3], [0.3, 0.9]], dtype=torch.float64) * 0.98
    true = random_system(2, 3)._replace(transition=turn)
    series = sample(true, 200, 5, generator=generator).outputs + 7
    model = LinearDynamicalSystem(2).fit(series, generator=generator, iterations=30)
    reached = torch.linalg.eigvals(model.system.transition).abs()
    torch.testing.assert_close(reached, torch.linalg.eigvals(turn).abs(), atol=0.05, rtol=0)
    assert model.score(series) > -1.02 * abs(float(kalman_log_likelihood(true, series - 7).sum()))
    assert model.predict(series).shape == series.shape
    assert model.forecast(series, 4).means.shape == (5, 4, 3)
    assert model.sample(6, 2, generator=generator).outputs.shape == (2, 6, 3)
    assert model.history == sorted(model.history)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    series = random_series(2, TIME, 2)
    structure = Structure(("initial_mean",), {"transition": torch.eye(2).bool()}, {"emission_covariance": "diagonal"})
    model = LinearDynamicalSystem(2, structure=structure).fit(series, iterations=3)
    model.save(tmp_path / "model")
    again = LinearDynamicalSystem.load(tmp_path / "model")
    assert again.score(series) == model.score(series)
    assert (again.aic(), again.bic(), again.free_parameters) == (model.aic(), model.bic(), model.free_parameters)
    (tmp_path / "model" / "model.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        LinearDynamicalSystem.load(tmp_path / "model")


def test_what_cannot_be_fitted_is_refused() -> None:
    model = LinearDynamicalSystem(2)
    for series, said in (
        (torch.ones(1, 9, 1), "every output must vary, got 1 everywhere in output 0"),
        (torch.full((1, 9, 1), torch.nan), "must see more than 2 numbers, got 0"),
        (torch.ones(1, 1, 1), "must see more than 2 numbers, got 1"),
        (torch.cat([torch.randn(1, 9, 1), torch.full((1, 9, 1), torch.nan)], 2), "nothing but missing values in output 1"),
    ):
        with pytest.raises(DataError, match=said):
            model.fit(series)
    with pytest.raises(ConfigurationError, match="must be fitted first"):
        model.score(torch.ones(1, 2, 1))
    with pytest.raises(ConfigurationError, match="did you mean `transition`"):
        LinearDynamicalSystem(2, structure=Structure(("transitions",)))
    with pytest.raises(ConfigurationError, match="one of the forms full, diagonal, spherical, got `diag`"):
        LinearDynamicalSystem(2, structure=Structure((), None, {"transition_covariance": "diag"}))


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_columns_that_follow_from_others_end_in_a_sentence(factor: int, form: str) -> None:
    one = torch.randn(1, 60, 1, generator=torch.Generator().manual_seed(0)).double().cumsum(1)
    model = LinearDynamicalSystem(2, structure=Structure((), None, {"emission_covariance": form}))
    with pytest.raises(DataError, match="has become singular; try fewer states, `diagonal` covariances, or without a column"):
        model.fit(torch.cat([one, factor * one], 2))

"""Equal to dynamax, where it is installed: `pip install dynamax` (it brings JAX)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unrolled.core.padded import Padded
from unrolled.ssm.hmm.baum_welch import BaumWelchSettings, baum_welch
from unrolled.ssm.hmm.dynamics import Homogeneous
from unrolled.ssm.hmm.emissions import Categorical, Gaussian
from unrolled.ssm.hmm.inference import smooth, viterbi
from unrolled.ssm.hmm.pairs import two_slice
from unrolled.ssm.hmm.prediction import chain_scores
from unrolled.ssm.kalman import LinearGaussian, kalman_filter, kalman_smoother
from unrolled.ssm.kalman.em import Structure, expect, maximise
from unrolled.ssm.kalman.entries import as_padded

from .kalman.gaussian import random_series, random_system

EXACT = {"rtol": 1e-8, "atol": 1e-8}
K, D, TIME, SYMBOLS = 3, 2, 40, 5


@pytest.fixture(autouse=True)
def _in_double_precision() -> None:
    pytest.importorskip("dynamax")
    import jax

    jax.config.update("jax_enable_x64", True)


def numbers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def to_jax(tensor: torch.Tensor) -> Any:
    import jax.numpy

    return jax.numpy.asarray(tensor.numpy())


def rows_of(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(-1, keepdim=True)


def dynamics() -> Homogeneous:
    return Homogeneous(rows_of(numbers(K, seed=1).exp()), rows_of(numbers(K, K, seed=2).exp() + 2 * torch.eye(K)))


def test_a_hidden_markov_model() -> None:
    from dynamax.hidden_markov_model import hmm_posterior_mode, hmm_smoother

    emission = Gaussian(2 * numbers(K, D, seed=3), torch.ones(K, D, dtype=torch.float64))
    outputs = Padded(2 * numbers(1, TIME, D, seed=4), torch.tensor([TIME]))
    model = dynamics()
    scores, chain = chain_scores(model, emission, outputs), model.chain(None)
    ours, given = smooth(chain, scores), [to_jax(one) for one in (model.initial, model.transition, scores.data[0])]
    theirs = hmm_smoother(*given)
    np.testing.assert_allclose(ours.log_likelihood[0], theirs.marginal_loglik, **EXACT)
    np.testing.assert_allclose(ours.filtered.probabilities[0], theirs.filtered_probs, **EXACT)
    np.testing.assert_allclose(ours.probabilities[0], theirs.smoothed_probs, **EXACT)
    np.testing.assert_allclose(two_slice(chain, ours)[0, 1:].sum(0), theirs.trans_probs, **EXACT)
    assert viterbi(chain, scores).states[0].tolist() == np.asarray(hmm_posterior_mode(*given)).tolist()


def test_a_step_of_baum_welch() -> None:
    from dynamax.hidden_markov_model import CategoricalHMM

    emission, model = Categorical(rows_of(numbers(K, SYMBOLS, seed=5).exp())), dynamics()
    outputs = torch.randint(SYMBOLS, (2, TIME), generator=torch.Generator().manual_seed(6))
    # A concentration of 1 is no prior.
    peer = CategoricalHMM(
        K, 1, SYMBOLS, initial_probs_concentration=1.0, transition_matrix_concentration=1.0, emission_prior_concentration=1.0
    )
    parameters, properties = peer.initialize(
        initial_probs=to_jax(model.initial),
        transition_matrix=to_jax(model.transition),
        emission_probs=to_jax(emission.probabilities.unsqueeze(1)),
    )
    fitted: Any = peer.fit_em(parameters, properties, to_jax(outputs.unsqueeze(2)), num_iters=1, verbose=False)[0]
    padded = Padded(outputs, torch.full((2,), TIME))
    fit = baum_welch(model, emission, padded, settings=BaumWelchSettings(iterations=1, tolerance=0.0, repairs=0))
    np.testing.assert_allclose(fit.dynamics.parameters()["initial"], fitted.initial.probs, **EXACT)
    np.testing.assert_allclose(fit.dynamics.parameters()["transition"], fitted.transitions.transition_matrix, **EXACT)
    np.testing.assert_allclose(fit.emission.parameters()["probabilities"], fitted.emissions.probs[:, 0], **EXACT)


def peer_of(system: LinearGaussian) -> tuple[Any, Any, Any]:
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM

    peer = LinearGaussianSSM(K, D, has_dynamics_bias=False, has_emissions_bias=False)
    parameters, properties = peer.initialize(
        initial_mean=to_jax(system.initial_mean),
        initial_covariance=to_jax(system.initial_covariance),
        dynamics_weights=to_jax(system.transition),
        dynamics_covariance=to_jax(system.transition_covariance),
        emission_weights=to_jax(system.emission),
        emission_covariance=to_jax(system.emission_covariance),
    )
    return peer, parameters, properties


def test_a_linear_gaussian_system() -> None:
    system, series = random_system(K, D), random_series(1, TIME, D, missing=0)
    peer, parameters, _ = peer_of(system)
    theirs, filtered, smoothed = (
        peer.smoother(parameters, to_jax(series[0])),
        kalman_filter(system, series),
        kalman_smoother(system, series),
    )
    np.testing.assert_allclose(filtered.log_likelihood[0], theirs.marginal_loglik, **EXACT)
    for ours, other in (
        (filtered.means, theirs.filtered_means),
        (filtered.covariances, theirs.filtered_covariances),
        (smoothed.means, theirs.smoothed_means),
        (smoothed.covariances, theirs.smoothed_covariances),
    ):
        np.testing.assert_allclose(ours[0], other, **EXACT)


def test_a_step_of_em() -> None:
    system, series = random_system(K, D), random_series(1, TIME, D, missing=0)
    peer, parameters, properties = peer_of(system)
    fitted, _ = peer.fit_em(parameters, properties, to_jax(series), num_iters=1, verbose=False)
    padded = as_padded(system, series)
    ours = maximise(system, expect(system, padded, None, kalman_smoother(system, padded)), Structure())
    wanted = (
        (ours.transition, fitted.dynamics.weights),
        (ours.transition_covariance, fitted.dynamics.cov),
        (ours.emission, fitted.emissions.weights),
        (ours.emission_covariance, fitted.emissions.cov),
        (ours.initial_mean, fitted.initial.mean),
        (ours.initial_covariance, fitted.initial.cov),
    )
    for one, other in wanted:
        np.testing.assert_allclose(one, other, **EXACT)

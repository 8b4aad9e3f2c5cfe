"""Baum–Welch against hmmlearn, against a plain enumeration of one step, and by what it promises: it rises, stays where told, repairs, or says why not."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hmmlearn import hmm as peer

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded, pad
from unrolled.ssm.hmm import baum_welch as package_function
from unrolled.ssm.hmm.baum_welch import BaumWelchSettings, baum_welch
from unrolled.ssm.hmm.chain import Chain, banded, left_to_right
from unrolled.ssm.hmm.durations import ExplicitDurations
from unrolled.ssm.hmm.dynamics import Dynamics, Homogeneous, InputDriven
from unrolled.ssm.hmm.emissions import COVARIANCES, Bernoulli, Categorical, Gaussian, NormalInverseWishart, Poisson
from unrolled.ssm.hmm.inference import posterior_decode, smooth, viterbi
from unrolled.ssm.hmm.prediction import chain_scores
from unrolled.ssm.hmm.sampling import sample

K, D = 3, 2
LENGTHS = [25, 1, 40, 7]
ONCE = BaumWelchSettings(iterations=1, tolerance=0.0, repairs=0)
THRICE = replace(ONCE, iterations=3)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_of(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(-1, keepdim=True)


def dynamics_of(mask: torch.Tensor | None = None, **others: Any) -> Homogeneous:
    weights = random(K, K, seed=1).exp() + 3 * torch.eye(K, dtype=torch.float64)
    return Homogeneous(rows_of(random(K, seed=2).exp()), rows_of(weights if mask is None else weights * mask), **others)


def start(form: str) -> torch.Tensor:
    full = torch.eye(D, dtype=torch.float64).expand(K, D, D) + 0.1 * torch.ones(D, D, dtype=torch.float64)
    return {"spherical": full[:, 0, 0], "diagonal": full.diagonal(dim1=1, dim2=2), "tied": full[0], "full": full}[form].contiguous()


def gaussian(form: str = "full", **others: Any) -> Gaussian:
    return Gaussian(2 * random(K, D, seed=3), start(form), COVARIANCES[form], **others)


def drawn(dynamics: Dynamics, emission: Any, seed: int = 0, lengths: list[int] = LENGTHS) -> Padded:
    found = [sample(dynamics, emission, n, generator=torch.Generator().manual_seed(seed + n)).outputs[0] for n in lengths]
    return pad(found)


def flat(outputs: Padded) -> np.ndarray:
    rows = np.concatenate([part.numpy() for part in outputs.unpad()])
    return rows if rows.ndim == 2 else rows[:, None]


def peers() -> dict[str, tuple[Any, Any]]:
    """Each emission of ours beside hmmlearn's model with the same parameters, its default priors set aside."""
    found: dict[str, tuple[Any, Any]] = {}
    none = {"init_params": "", "n_iter": 3, "tol": -np.inf}
    names = {"spherical": "spherical", "diagonal": "diag", "tied": "tied", "full": "full"}
    for form, name in names.items():
        emission = gaussian(form)
        model = peer.GaussianHMM(K, name, covars_prior=0, covars_weight=0, min_covar=0, **none)
        model.means_, model.covars_ = emission.means.numpy().copy(), emission.covariances.numpy().copy()
        found[form] = emission, model
    symbols = Categorical(rows_of(random(K, 5, seed=4).exp()))
    model = peer.CategoricalHMM(K, **none)
    model.emissionprob_ = symbols.probabilities.numpy().copy()
    found["categorical"] = symbols, model
    counts = Poisson(random(K, D, seed=5).exp() * 3)
    model = peer.PoissonHMM(K, lambdas_prior=0.0, lambdas_weight=0.0, **none)
    model.lambdas_ = counts.rates.numpy().copy()
    found["poisson"] = counts, model
    for _, model in found.values():
        model.startprob_, model.transmat_ = dynamics_of().initial.numpy().copy(), dynamics_of().transition.numpy().copy()
    return found


def peer_parameters(model: Any) -> dict[str, Any]:
    names = {"means": "means_", "covariances": "_covars_", "probabilities": "emissionprob_", "rates": "lambdas_"}
    return {ours: getattr(model, theirs) for ours, theirs in names.items() if hasattr(model, theirs)}


@pytest.mark.parametrize("name", ["spherical", "diagonal", "tied", "full", "categorical", "poisson"])
def test_equals_hmmlearn(name: str) -> None:
    emission, model = peers()[name]
    dynamics = dynamics_of()
    outputs = drawn(dynamics, emission)
    values = flat(outputs)
    values = values.astype(int) if name in ("categorical", "poisson") else values
    scores = chain_scores(dynamics, emission, outputs)
    smoothed = smooth(dynamics.chain(None), scores)
    log_likelihood, posteriors = model.score_samples(values, LENGTHS)
    np.testing.assert_allclose(smoothed.log_likelihood.sum(), log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(smoothed.probabilities[scores.mask], posteriors, atol=1e-8)
    paths = viterbi(dynamics.chain(None), scores)
    best, states = model.decode(values, LENGTHS, algorithm="viterbi")
    np.testing.assert_allclose(paths.scores.sum(), best, rtol=1e-10)
    assert paths.states[scores.mask].tolist() == states.tolist()
    assert (
        posterior_decode(dynamics.chain(None), scores)[scores.mask].tolist() == model.decode(values, LENGTHS, algorithm="map")[1].tolist()
    )
    for when in (ONCE, THRICE):
        fit = baum_welch(dynamics, emission, outputs, settings=when)
        model = peers()[name][1]
        model.n_iter = when.iterations
        model.fit(values, LENGTHS)
        np.testing.assert_allclose(fit.log_likelihoods[:-1], list(model.monitor_.history)[-when.iterations :], rtol=1e-9)
        np.testing.assert_allclose(fit.dynamics.parameters()["transition"], model.transmat_, atol=1e-8)
        np.testing.assert_allclose(fit.dynamics.parameters()["initial"], model.startprob_, atol=1e-8)
        for parameter, expected in peer_parameters(model).items():
            expected = expected[:, 0] if name == "spherical" and parameter == "covariances" else expected
            np.testing.assert_allclose(fit.emission.parameters()[parameter], expected, atol=1e-8)


def test_one_step_by_enumeration() -> None:
    """Expected counts over all sequences of states, in plain Python."""
    chain, emission = dynamics_of(), Categorical(rows_of(random(K, 2, seed=4).exp()))
    sequences = [[0, 1, 1, 0], [1], [1, 0, 0]]
    pi, A, B = chain.initial.numpy(), chain.transition.numpy(), emission.probabilities.numpy()
    first, pairs, symbols = np.zeros(K), np.zeros((K, K)), np.zeros((K, 2))
    for sequence in sequences:
        joint = {}
        for path in itertools.product(range(K), repeat=len(sequence)):
            weight = pi[path[0]] * B[path[0], sequence[0]]
            for t in range(1, len(path)):
                weight *= A[path[t - 1], path[t]] * B[path[t], sequence[t]]
            joint[path] = weight
        total = sum(joint.values())
        for path, weight in joint.items():
            first[path[0]] += weight / total
            for t, state in enumerate(path):
                symbols[state, sequence[t]] += weight / total
                if t:
                    pairs[path[t - 1], state] += weight / total
    fit = baum_welch(chain, emission, pad([torch.tensor(sequence) for sequence in sequences]), settings=ONCE)
    for found, counts in zip(
        (*fit.dynamics.parameters().values(), fit.emission.parameters()["probabilities"]), (first, pairs, symbols), strict=True
    ):
        np.testing.assert_allclose(found, counts / counts.sum(-1, keepdims=True), rtol=1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("name", ["full", "diagonal", "tied", "spherical", "prior", "categorical", "poisson", "bernoulli"])
def test_rises_whatever_is_missing(name: str, missing: float) -> None:
    prior = NormalInverseWishart(torch.zeros(D).double(), 1.0, 2.0, torch.ones(D).double())
    table = {
        "prior": gaussian("full", prior=prior),
        "categorical": Categorical(rows_of(random(K, 5, seed=4).exp()), 1.5),
        "poisson": Poisson(random(K, D, seed=5).exp() * 3, 2.0, 0.5),
        "bernoulli": Bernoulli(torch.sigmoid(2 * random(K, D, seed=5)), 2.0),
    }
    emission = table[name] if name in table else gaussian(name)
    chain = dynamics_of(concentration=1.5)
    outputs = drawn(chain, emission)
    data = outputs.data.double()
    data[torch.rand(data.shape, generator=torch.Generator().manual_seed(8)) < missing] = torch.nan
    fit = baum_welch(chain, emission, Padded(data, outputs.lengths), settings=BaumWelchSettings(20, 0.0))
    assert (np.diff(fit.objectives) >= -1e-9 * abs(fit.objectives[-1])).all() and fit.objectives[-1] > fit.objectives[0] + 0.5
    assert len(fit.objectives) == 21 and fit.objectives[0] != fit.log_likelihoods[0]


def test_ragged_equals_padded_and_one_by_one() -> None:
    chain, emission = dynamics_of(), gaussian("full")
    outputs = drawn(chain, emission)
    longer = Padded(torch.cat([outputs.data, torch.full((4, 5, D), torch.nan).double()], 1), outputs.lengths)
    shuffled = Padded(outputs.data[[2, 0, 3, 1]], outputs.lengths[[2, 0, 3, 1]])
    expected = baum_welch(chain, emission, outputs, settings=THRICE)
    for other in (longer, shuffled):
        fit = baum_welch(chain, emission, other, settings=THRICE)
        for name, tensor in expected.emission.parameters().items():
            torch.testing.assert_close(fit.emission.parameters()[name], tensor, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(fit.dynamics.parameters(), expected.dynamics.parameters(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mask", [left_to_right(K), banded(K)])
def test_masks_hold(mask: torch.Tensor) -> None:
    chain = dynamics_of(mask.double(), concentration=2.0)
    fit = baum_welch(chain, gaussian(), drawn(chain, gaussian()), settings=THRICE)
    transition = fit.dynamics.parameters()["transition"]
    assert (transition[~mask] == 0).all() and (transition[mask] > 0).all()
    torch.testing.assert_close(transition.sum(1), torch.ones(K).double())


def test_frozen_transitions_stay() -> None:
    frozen = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])
    chain = dynamics_of(fixed_transition=frozen, fixed_initial=torch.tensor([True, True, True]))
    fit = baum_welch(chain, gaussian(), drawn(chain, gaussian()), settings=THRICE)
    found = fit.dynamics.parameters()
    assert torch.equal(found["transition"][frozen], chain.transition[frozen]) and torch.equal(found["initial"], chain.initial)
    assert not torch.isclose(found["transition"][~frozen], chain.transition[~frozen]).any()
    torch.testing.assert_close(found["transition"].sum(1), torch.ones(K).double())


def test_a_state_that_died_out_is_repaired() -> None:
    truth = gaussian("diagonal")
    outputs = drawn(dynamics_of(), truth, lengths=[200, 200])
    lost = replace(truth, means=truth.means.index_fill(0, torch.tensor([1]), 1e4))
    fit = baum_welch(dynamics_of(), lost, outputs, settings=BaumWelchSettings(100, 1e-8))
    assert [repair.state for repair in fit.repairs] == [1] and fit.repairs[0].iteration == 1
    best = baum_welch(dynamics_of(), truth, outputs, settings=BaumWelchSettings(100, 1e-8))
    assert fit.log_likelihoods[-1] > best.log_likelihoods[-1] - 5
    left = baum_welch(dynamics_of(), lost, outputs, settings=BaumWelchSettings(100, 1e-8, repairs=0))
    assert not left.repairs and left.log_likelihoods[-1] < best.log_likelihoods[-1] - 5


@dataclass(frozen=True)
class Wrong(Gaussian):
    """An M-step with a mistake in it."""

    def fitted(self, rows: Any, weights: torch.Tensor) -> Any:
        return replace(self, means=self.means + 1)


def test_a_fall_is_an_error_with_the_reason() -> None:
    emission = Wrong(*(getattr(gaussian(), name) for name in ("means", "covariances", "form")))
    with pytest.raises(
        DataError,
        match=r"must raise the objective, got -\d+\.\d+ after -\d+\.\d+ in iteration 1: the outputs are less likely under the emission",
    ):
        baum_welch(dynamics_of(), emission, drawn(dynamics_of(), gaussian()), settings=THRICE)


def test_what_cannot_be_fitted() -> None:
    chain, emission = dynamics_of(), gaussian()
    with pytest.raises(DataError, match="fitting needs outputs, got sequences without steps only"):
        baum_welch(chain, emission, Padded(torch.zeros(2, 3, D).double(), torch.tensor([0, 0])))
    with pytest.raises(DataError, match="fitting needs outputs, got missing ones only"):
        baum_welch(chain, emission, Padded(torch.full((2, 3, D), torch.nan).double(), torch.tensor([3, 2])))
    with pytest.raises(ConfigurationError, match="as many states, got 3 and 2"):
        baum_welch(chain, Poisson(torch.ones(2, 1).double()), Padded(torch.zeros(1, 3).double(), torch.tensor([3])))
    symbols = Categorical(torch.tensor([[1.0, 0.0]] * K).double())
    with pytest.raises(DataError, match="every sequence must be possible, got the log-likelihood -inf for sequence 1 .*concentration"):
        baum_welch(chain, symbols, pad([torch.tensor([0, 0]), torch.tensor([0, 1])]))
    assert package_function is baum_welch


# Input-driven transitions and explicit durations


def driven() -> InputDriven:
    return InputDriven(rows_of(random(K, seed=2).exp()), random(K, K, 2, seed=6), random(K, K, seed=7), penalty=0.1)


def test_driven_transitions_are_a_softmax_of_the_input() -> None:
    inputs = random(2, 5, 2, seed=8)
    chain = driven().chain(inputs)
    expected = torch.softmax(driven().bias[1] + driven().weights[1] @ inputs[1, 3], 0)
    torch.testing.assert_close(chain.transition[1, 3, 1], expected)


def test_driven_transitions_are_fitted() -> None:
    truth = InputDriven(
        torch.tensor([0.5, 0.5]).double(), torch.tensor([[[0.0], [3.0]], [[3.0], [0.0]]]).double(), torch.zeros(2, 2).double()
    )
    emission = Gaussian(torch.tensor([[-1.0], [1.0]]).double(), torch.ones(2, 1).double() * 0.2)
    inputs = random(8, 40, 1, seed=1)
    outputs = sample(truth, emission, 40, batch=8, inputs=inputs, generator=torch.Generator().manual_seed(0)).outputs
    lengths = torch.tensor([40] * 6 + [1, 30])
    begin = InputDriven(truth.initial, 0 * truth.weights, torch.tensor([[0.1, 0.0], [0.0, 0.1]]).double())
    fit = baum_welch(begin, emission, Padded(outputs, lengths), inputs=inputs, settings=BaumWelchSettings(3, 0.0))
    assert (np.diff(fit.objectives) >= -1e-9 * abs(fit.objectives[-1])).all()
    weights = fit.dynamics.parameters()["weights"][..., 0]
    torch.testing.assert_close(weights[:, 1] - weights[:, 0], torch.tensor([3.0, -3.0]).double(), atol=1.0, rtol=0)
    with pytest.raises(DataError, match=r"driven by inputs need \[batch, time, 1\] of them, got none"):
        baum_welch(begin, emission, Padded(outputs, lengths))


def test_driven_without_effect_is_the_ordinary_chain() -> None:
    chain = dynamics_of()
    outputs = drawn(chain, gaussian())
    same = InputDriven(chain.initial, torch.zeros(K, K, 1).double(), chain.transition.log(), penalty=0.0, steps=100)
    nothing = torch.zeros(*outputs.data.shape[:2], 1).double()
    ours, expected = (baum_welch(d, gaussian(), outputs, inputs=x, settings=ONCE) for d, x in ((same, nothing), (chain, None)))
    np.testing.assert_allclose(ours.log_likelihoods[0], expected.log_likelihoods[0], rtol=1e-12)
    torch.testing.assert_close(
        ours.dynamics.chain(nothing[:, :1]).transition[0, 0], expected.dynamics.parameters()["transition"], atol=1e-4, rtol=1e-4
    )


def durations(longest: int = 3) -> ExplicitDurations:
    onward = rows_of(random(K, K, seed=1).exp().fill_diagonal_(0))
    return ExplicitDurations(rows_of(random(K, seed=2).exp()), onward, rows_of(random(K, longest, seed=3).exp()))


def stays(path: tuple[int, ...], truth: ExplicitDurations) -> float:
    """The probability of a sequence of states: the sum over how its last stay would have gone on."""
    runs = [(state, len(list(group))) for state, group in itertools.groupby(path)]
    weight = float(truth.initial[runs[0][0]])
    for place, (state, length) in enumerate(runs):
        lasts = truth.durations[state]
        last = place == len(runs) - 1
        weight *= float(lasts[length - 1 :].sum()) if last else float(lasts[length - 1]) if length <= len(lasts) else 0.0
        if not last:
            weight *= float(truth.transition[state, runs[place + 1][0]])
    return weight


def test_durations_by_enumeration() -> None:
    truth, emission = durations(), Categorical(rows_of(random(K, 2, seed=4).exp()))
    outputs = torch.tensor([[0, 1, 1, 0, 1]])
    likelihoods = {
        path: stays(path, truth) * float(emission.probabilities[list(path), outputs[0]].prod())
        for path in itertools.product(range(K), repeat=5)
    }
    scores = chain_scores(truth, emission, Padded(outputs, torch.tensor([5])))
    found = smooth(truth.chain(None), scores)
    np.testing.assert_allclose(found.log_likelihood.exp(), sum(likelihoods.values()), rtol=1e-10)
    by_state = found.probabilities[0].view(5, K, 3).sum(2)
    for t in range(5):
        for state in range(K):
            share = sum(weight for path, weight in likelihoods.items() if path[t] == state) / sum(likelihoods.values())
            np.testing.assert_allclose(by_state[t, state], share, atol=1e-12)


def test_durations_are_fitted() -> None:
    sharp = torch.zeros(2, 6).double()
    sharp[0, 2], sharp[1, 5] = 1.0, 1.0
    truth = ExplicitDurations(torch.tensor([0.5, 0.5]).double(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), sharp)
    emission = Gaussian(torch.tensor([[-1.0], [1.0]]).double(), torch.full((2, 1), 0.3).double())
    outputs = drawn(truth, emission, lengths=[150, 90, 1])
    begin = replace(truth, durations=torch.full((2, 6), 1 / 6).double())
    fit = baum_welch(begin, emission, outputs, settings=BaumWelchSettings(15, 0.0))
    assert (np.diff(fit.objectives) >= -1e-9 * abs(fit.objectives[-1])).all()
    assert fit.dynamics.parameters()["durations"].argmax(1).tolist() == [2, 5]
    with pytest.raises(DataError, match="every row of `durations` must sum to 1, got 0.5"):
        replace(truth, durations=sharp / 2).check()


def test_a_chain_of_ones_own_steps() -> None:
    """Explicit durations that are geometric are an ordinary chain."""
    stay = 0.6
    geometric = stay ** torch.arange(60).double() * (1 - stay)
    truth = ExplicitDurations(
        torch.tensor([0.3, 0.7], dtype=torch.float64), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), rows_of(geometric.expand(2, 60))
    )
    chain = Chain(truth.initial, torch.tensor([[stay, 1 - stay], [1 - stay, stay]], dtype=torch.float64))
    scores = Padded(random(2, 8, 2), torch.tensor([8, 5]))
    expected = smooth(chain, scores)
    found = smooth(truth.chain(None), Padded(scores.data[..., truth.owner], scores.lengths))
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.probabilities.view(2, 8, 2, 60).sum(3), expected.probabilities, rtol=1e-8, atol=1e-8)

"""Sampling, prediction, the step of time and the model object, against the filter and against counting."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm import (
    FULL,
    Autoregressive,
    Categorical,
    ExplicitDurations,
    Gaussian,
    HiddenMarkovModel,
    HiddenMarkovStep,
    Homogeneous,
    InputDriven,
    filter,
    predict,
    sample,
    smooth,
)
from unrolled.ssm.hmm.prediction import by_kind, chain_scores
from unrolled.ssm.hmm.start import group

D = 2


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_of(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(-1, keepdim=True)


CHAIN = Homogeneous(torch.tensor([0.9, 0.1]).double(), torch.tensor([[0.75, 0.25], [0.125, 0.875]]).double())
DYNAMICS: dict[str, Any] = {
    "chain": CHAIN,
    "driven": InputDriven(CHAIN.initial, random(2, 2, 1, seed=1), CHAIN.transition.log()),
    "durations": ExplicitDurations(CHAIN.initial, torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), rows_of(random(2, 3).exp())),
}
EMISSIONS: dict[str, Any] = {
    "gaussian": Gaussian(random(2, D), torch.eye(D).double().expand(2, D, D), FULL),
    "categorical": Categorical(torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.1, 0.8]]).double()),
    "autoregressive": Autoregressive(0.4 * random(2, D, 1 + 2 * D, seed=3), torch.eye(D).double().expand(2, D, D), FULL),
}
DYNAMIC = pytest.mark.parametrize("dynamics", DYNAMICS.values(), ids=DYNAMICS)
EMISSION = pytest.mark.parametrize("emission", EMISSIONS.values(), ids=EMISSIONS)


def given(dynamics: Any, time: int, batch: int = 3, seed: int = 2) -> torch.Tensor | None:
    return random(batch, time, 1, seed=seed) if isinstance(dynamics, InputDriven) else None


@DYNAMIC
@EMISSION
def test_step_by_step_is_the_filter(dynamics: Any, emission: Any) -> None:
    inputs = given(dynamics, 7)
    outputs = sample(dynamics, emission, 7, batch=3, inputs=inputs, generator=torch.Generator().manual_seed(0)).outputs.double()
    outputs[1, 3] = torch.nan
    padded = Padded(outputs, torch.tensor([7, 7, 7]))
    whole = filter(dynamics.chain(inputs), chain_scores(dynamics, emission, padded))
    model = HiddenMarkovStep(dynamics, emission)
    state = model.initial_state(3, None if inputs is None else inputs[:, 0])
    for t in range(7):
        found, state = model.step(outputs[:, t], state, None if inputs is None else inputs[:, t])
        torch.testing.assert_close(found.probabilities, by_kind(dynamics, whole.probabilities[:, t]))
        torch.testing.assert_close(found.evidence, whole.evidence[:, t])


@DYNAMIC
def test_prediction_is_the_filter_over_missing_outputs(dynamics: Any) -> None:
    emission, lengths = EMISSIONS["gaussian"], torch.tensor([4, 0, 2])
    outputs = random(3, 4, D, seed=5)
    past, future = given(dynamics, 4), given(dynamics, 3, seed=6)
    found = predict(dynamics, emission, Padded(outputs, lengths), 3, inputs=None if past is None else (past, future))
    for row, length in enumerate(lengths.tolist()):
        longer = torch.cat([outputs[row, :length], torch.full((3, D), torch.nan).double()]).unsqueeze(0)
        padded = Padded(longer, torch.tensor([length + 3]))
        inputs = None if past is None else torch.cat([past[row, :length], future[row]]).unsqueeze(0)
        expected = filter(dynamics.chain(inputs), chain_scores(dynamics, emission, padded)).probabilities[0, length:]
        torch.testing.assert_close(found.states[row], by_kind(dynamics, expected))
    states = found.states[0, 2]
    mean = sum(p * m for p, m in zip(states, emission.means, strict=True))
    second = sum(p * (m**2 + 1) for p, m in zip(states, emission.means, strict=True))
    torch.testing.assert_close(found.mean[0, 2], mean)
    torch.testing.assert_close(found.variance[0, 2], second - mean**2)


def test_prediction_that_looks_back_is_drawn() -> None:
    emission = EMISSIONS["autoregressive"]
    outputs = Padded(random(2, 6, D, seed=5), torch.tensor([6, 3]))
    found = predict(CHAIN, emission, outputs, 2, draws=4000, generator=torch.Generator().manual_seed(0))
    for row, length in ((0, 6), (1, 3)):
        design = torch.cat([torch.ones(1).double(), outputs.data[row, length - 1], outputs.data[row, length - 2]])
        mean = found.states[row, 0] @ (emission.coefficients @ design)
        assert (found.mean[row, 0] - mean).abs().max() < 0.1


@DYNAMIC
def test_samples_have_the_chances_of_the_model(dynamics: Any) -> None:
    emission = EMISSIONS["categorical"]
    inputs = None if not isinstance(dynamics, InputDriven) else random(1, 4, 1, seed=2).expand(4000, 4, 1)
    drawn = sample(dynamics, emission, 4, batch=4000, inputs=inputs, generator=torch.Generator().manual_seed(0))
    again = sample(dynamics, emission, 4, batch=4000, inputs=inputs, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn.outputs, again.outputs)
    nothing = Padded(torch.full((1, 4), -1), torch.tensor([4]))
    chain = dynamics.chain(None if inputs is None else inputs[:1])
    expected = by_kind(dynamics, smooth(chain, chain_scores(dynamics, emission, nothing)).probabilities[0])
    counted = torch.nn.functional.one_hot(drawn.states, 2).double().mean(0)
    assert (counted - expected).abs().max() < 0.04
    symbols = torch.nn.functional.one_hot(drawn.outputs, 3).double().mean(0)
    assert (symbols - expected @ emission.probabilities).abs().max() < 0.04
    assert sample(dynamics, emission, 0, batch=2, inputs=None if inputs is None else inputs[:2, :0]).outputs.shape == (2, 0)


def three_levels(count: int = 4, time: int = 60) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([-4.0, 0.0, 4.0])[torch.randint(3, (count, time // 6), generator=generator)].repeat_interleave(6, 1)
    return list((levels + torch.randn(levels.shape, generator=generator)).double().unsqueeze(2))


SETTINGS: dict[str, dict[str, Any]] = {
    **{form: {"covariance": form} for form in ("spherical", "diagonal", "tied", "full")},
    "mixture": {"emission": "mixture"},
    "autoregressive": {"emission": "autoregressive"},
    "left-to-right": {"structure": "left-to-right"},
    "banded": {"structure": "banded", "covariance": "full"},
    "durations": {"longest": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_fit_save_and_load(name: str, tmp_path: Path) -> None:
    outputs = three_levels()
    model = HiddenMarkovModel(states=3, iterations=8, restarts=1, **SETTINGS[name])
    fit = model.fit(outputs)
    assert fit.objectives[-1] > fit.objectives[0]
    assert model.score(outputs) == pytest.approx(fit.log_likelihoods[-1])
    model.save(tmp_path / "m")
    same = HiddenMarkovModel.load(tmp_path / "m")
    assert same.score(outputs) == model.score(outputs) and same.settings == model.settings
    assert torch.equal(same.decode(outputs).states, model.decode(outputs).states)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]


def test_levels_are_found() -> None:
    model = HiddenMarkovModel(states=3)
    outputs = three_levels()
    model.fit(outputs)
    assert sorted(model.emission.mean().flatten().tolist()) == pytest.approx([-4, 0, 4], abs=0.4)
    assert model.posterior(outputs).data.shape == (4, 60, 3)
    assert model.predict(outputs, 5).mean.shape == (4, 5, 1)
    drawn = model.sample(30, 2, seed=1)
    assert drawn.outputs.shape == (2, 30, 1) and torch.equal(drawn.outputs, model.sample(30, 2, seed=1).outputs)
    found, _ = model.stepper().step(outputs[0][:1], model.stepper().initial_state(1))
    torch.testing.assert_close(found.evidence.sum(), torch.tensor(model.score(outputs[0][:1])).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["categorical", "poisson", "bernoulli"])
def test_counts_and_symbols_are_fitted(kind: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(2, (3, 20), generator=generator).repeat_interleave(5, 1)
    table = {
        "categorical": torch.where(torch.rand(3, 100, generator=generator) < 0.9, levels, 2),
        "poisson": torch.poisson(1 + 9 * levels.double(), generator=generator).unsqueeze(2),
        "bernoulli": torch.bernoulli((0.1 + 0.8 * levels.double()).unsqueeze(2).expand(3, 100, 3), generator=generator),
    }
    outputs = list(table[kind])
    model = HiddenMarkovModel(states=2, emission=kind, iterations=40)
    model.fit(outputs)
    states = model.decode(outputs).states
    right = (states == levels).double().mean().item()
    assert max(right, 1 - right) > 0.9
    model.save(tmp_path)
    assert HiddenMarkovModel.load(tmp_path).score(outputs) == model.score(outputs)


def test_inputs_drive_the_fit(tmp_path: Path) -> None:
    outputs = three_levels()
    inputs = random(4, 60, 2)
    model = HiddenMarkovModel(states=3, iterations=2, restarts=1)
    model.fit(outputs, inputs)
    assert isinstance(model.dynamics, InputDriven)
    assert model.predict(outputs, 2, inputs=(inputs, inputs[:, :2])).mean.shape == (4, 2, 1)
    model.save(tmp_path)
    assert HiddenMarkovModel.load(tmp_path).score(outputs, inputs) == model.score(outputs, inputs)


def test_criteria_count_what_is_fitted() -> None:
    model = HiddenMarkovModel(dynamics=CHAIN, emission=EMISSIONS["gaussian"])
    outputs = random(10, D)
    assert model.free_parameters == 1 + 2 + 2 * D + 2 * 3
    assert model.aic(outputs) == pytest.approx(2 * 13 - 2 * model.score(outputs))
    assert model.bic(outputs) == pytest.approx(13 * np.log(10) - 2 * model.score(outputs))


def test_what_became_zero_was_fitted_as_well(tmp_path: Path) -> None:
    outputs = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    model = HiddenMarkovModel(states=3, emission="categorical", iterations=100, tolerance=0, restarts=1)
    fit = model.fit(outputs)
    assert fit.dynamics.free_parameters + fit.emission.free_parameters < model.free_parameters == 2 + 3 * 2 + 3 * 2
    assert model.aic() == pytest.approx(2 * 14 - 2 * fit.log_likelihoods[-1])
    assert model.bic() == pytest.approx(14 * np.log(9) - 2 * fit.log_likelihoods[-1])
    model.save(tmp_path)
    again = HiddenMarkovModel.load(tmp_path)
    assert (again.free_parameters, again.aic(), again.bic()) == (14, model.aic(), model.bic())
    for one in (model, again):
        one.fit(outputs)
        assert one.free_parameters == 14
        assert one.bic() == pytest.approx(model.bic())
    with pytest.raises(ConfigurationError, match="was not fitted"):
        HiddenMarkovModel(dynamics=fit.dynamics, emission=fit.emission).aic()
    with pytest.raises(DataError, match="must be fitted first"):
        HiddenMarkovModel(states=2).aic()


def test_more_states_do_not_look_better_by_bic() -> None:
    outputs = three_levels()
    found = {}
    for states in (2, 3, 4):
        model = HiddenMarkovModel(states=states, iterations=30)
        model.fit(outputs)
        found[states] = model.bic(outputs)
    assert min(found, key=found.__getitem__) == 3


def test_groups_are_found() -> None:
    values = torch.cat([random(50, 2) + 10 * place for place in range(3)])
    groups = group(values, 3, torch.Generator().manual_seed(0))
    assert sorted(torch.bincount(groups).tolist()) == [50, 50, 50]
    assert len(set(group(torch.zeros(5, 1).double(), 3, torch.Generator().manual_seed(0)).tolist())) == 1


def test_bad_input_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`state` is not an option; did you mean `states`?"):
        HiddenMarkovModel(state=2)
    with pytest.raises(ConfigurationError, match="both `dynamics` and `emission`"):
        HiddenMarkovModel(dynamics=CHAIN)
    with pytest.raises(DataError, match="must be fitted first; call `fit`"):
        HiddenMarkovModel().score(random(3, 1))
    with pytest.raises(DataError, match="fitting 2 states needs at least 4 outputs, got 1; use fewer states or more data"):
        HiddenMarkovModel().fit(random(1, 1))
    with pytest.raises(DataError, match="every feature must vary, got 3 throughout in feature 1"):
        HiddenMarkovModel().fit(torch.stack([random(20), torch.full((20,), 3.0).double()], 1))
    with pytest.raises(DataError, match="needs at least 4 outputs, got 0"):
        HiddenMarkovModel().fit(torch.full((20, 1), torch.nan).double())
    with pytest.raises(DataError, match="every row of `transition` must sum to 1"):
        HiddenMarkovModel(dynamics=Homogeneous(CHAIN.initial, torch.ones(2, 2).double()), emission=EMISSIONS["gaussian"])
    with pytest.raises(RunError, match="must hold a saved model"):
        HiddenMarkovModel.load(tmp_path / "none")
    model = HiddenMarkovModel(dynamics=CHAIN, emission=EMISSIONS["gaussian"])
    model.save(tmp_path)
    told = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(told | {"format": 99}))
    with pytest.raises(RunError, match="of format 1, got 'hmm' of format 99"):
        HiddenMarkovModel.load(tmp_path)


@dataclass(frozen=True)
class Own(Gaussian):
    """An emission that we do not know."""


def test_parts_of_ones_own_are_not_saved(tmp_path: Path) -> None:
    known = EMISSIONS["gaussian"]
    model = HiddenMarkovModel(dynamics=CHAIN, emission=Own(known.means, known.covariances, known.form))
    with pytest.raises(RunError, match="got Own; save its tensors by yourself"):
        model.save(tmp_path)


@pytest.mark.parametrize("emission", ["gaussian", "mixture", "autoregressive"])
def test_a_variance_that_ended_at_its_floor_is_told(emission: str) -> None:
    counts = torch.tensor([0.0, 0, 0, 1, 2, 5])[torch.randint(6, (100,), generator=torch.Generator().manual_seed(0))]
    for outputs, said in ((counts, "`emission=poisson` for these counts"), (counts - 0.5, "fewer states, or a larger `floor`")):
        model = HiddenMarkovModel(states=2, emission=emission, restarts=1, iterations=50)
        fit = model.fit(outputs.unsqueeze(1))
        variances = model.emission.components.covariances if emission == "mixture" else model.emission.covariances
        small = (variances.view(2, -1) < 1e-4).any(1).sum()
        assert small
        (note,) = model.notes(outputs.unsqueeze(1))
        assert f"a variance of {small} of 2 states ended at its floor" in note
        assert note.endswith(said)
        assert fit.emission.at_floor().sum() == small
    model = HiddenMarkovModel(states=2, emission=emission, restarts=1, iterations=5)
    model.fit(three_levels())
    assert model.notes(three_levels()) == []


def test_a_full_covariance_is_at_its_floor_in_any_direction() -> None:
    line = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)).double() * torch.ones(1, 2)
    for covariance, small in (("full", 2), ("tied", 2), ("diagonal", 0)):
        model = HiddenMarkovModel(states=2, covariance=covariance, restarts=1, iterations=3)
        model.fit(line)
        assert int(model.emission.at_floor().sum()) == small
    poisson = HiddenMarkovModel(states=2, emission="poisson", restarts=1, iterations=3)
    poisson.fit(line.abs().round())
    assert poisson.notes(line.abs().round()) == []

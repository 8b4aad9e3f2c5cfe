"""Emissions against scipy's densities, their M-step against its own definition (nothing near is better), missing entries against marginals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm.emissions import (
    COVARIANCES,
    FULL,
    Autoregressive,
    Bernoulli,
    Categorical,
    Emission,
    Gaussian,
    GaussianMixture,
    NormalInverseWishart,
    Poisson,
)
from unrolled.ssm.hmm.emissions import moments as moments_module
from unrolled.ssm.hmm.emissions.covariance import at_least
from unrolled.ssm.hmm.rows import Rows, pack, unpack

K, D = 3, 2
FORMS = tuple(COVARIANCES)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariances(form: str, count: int = K, features: int = D) -> torch.Tensor:
    roots = random(count, features, features, seed=5)
    full = roots @ roots.transpose(1, 2) + 0.3 * torch.eye(features, dtype=torch.float64)
    table = {"spherical": full[:, 0, 0], "diagonal": full.diagonal(dim1=1, dim2=2), "tied": full[0], "full": full}
    return table[form].clone()


def rows_of(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(-1, keepdim=True)


def gaussian(form: str = "full", count: int = K, **others: Any) -> Gaussian:
    return Gaussian(random(count, D), covariances(form, count), COVARIANCES[form], **others)


def autoregressive(form: str = "full") -> Autoregressive:
    return Autoregressive(0.4 * random(K, D, 1 + 2 * D, seed=3), covariances(form), COVARIANCES[form])


PRIOR = NormalInverseWishart(torch.tensor([0.5, -0.5]).double(), 2.0, 3.0, torch.tensor([1.0, 2.0]).double())
EMISSIONS: dict[str, Any] = {
    **{f"gaussian-{form}": gaussian(form) for form in FORMS},
    **{f"gaussian-{form}-prior": gaussian(form, prior=PRIOR) for form in FORMS},
    **{f"autoregressive-{form}": autoregressive(form) for form in FORMS},
    "categorical": Categorical(rows_of(random(K, 4).exp())),
    "categorical-prior": Categorical(rows_of(random(K, 4).exp()), 3.0),
    "poisson": Poisson(random(K, D).exp()),
    "poisson-prior": Poisson(random(K, D).exp(), 2.0, 1.5),
    "bernoulli": Bernoulli(torch.sigmoid(random(K, D))),
    "bernoulli-prior": Bernoulli(torch.sigmoid(random(K, D)), 2.0),
    "mixture": GaussianMixture(rows_of(random(K, 2).exp()), gaussian("full", 2 * K)),
}
ALL = pytest.mark.parametrize("emission", EMISSIONS.values(), ids=EMISSIONS)


def outputs_of(emission: Any, seed: int = 1, *, missing: float = 0.0, longest: int = 14) -> Padded:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([9, 0, longest, 1])
    count = int(lengths.max()) * len(lengths)
    drawn = emission.draw(torch.randint(K, (count,), generator=generator), None, generator)
    data = drawn.view(len(lengths), -1, *drawn.shape[1:]).double()
    data[torch.rand(data.shape, generator=generator) < missing] = torch.nan
    return Padded(data, lengths)


def scored_by_scipy(emission: Any, data: np.ndarray, row: int, t: int, k: int) -> float:  # noqa: PLR0911
    """The log-density of what was seen of one output, by another library."""
    y = data[row, t]
    if isinstance(emission, Categorical):
        return 0.0 if np.isnan(y) else float(emission.probabilities[k, int(y)].log())
    seen = ~np.isnan(y)
    if isinstance(emission, Autoregressive):
        if t < 2 or np.isnan(data[row, t - 2 : t + 1]).any():
            return 0.0
        center = emission.coefficients[k].numpy() @ np.concatenate([[1.0], data[row, t - 1], data[row, t - 2]])
        return float(scipy.stats.multivariate_normal(center, matrix(emission, k)).logpdf(y))
    if not seen.any():
        return 0.0
    if isinstance(emission, Poisson):
        return float(scipy.stats.poisson(emission.rates[k].numpy()[seen]).logpmf(y[seen]).sum())
    if isinstance(emission, Bernoulli):
        return float(scipy.stats.bernoulli(emission.chances[k].numpy()[seen]).logpmf(y[seen]).sum())
    if isinstance(emission, GaussianMixture):
        inner, parts = emission.components, range(2 * k, 2 * k + 2)
        weights = emission.weights[k].log().tolist()
        return float(np.logaddexp.reduce([w + scored_by_scipy(inner, data, row, t, part) for w, part in zip(weights, parts, strict=True)]))
    return float(scipy.stats.multivariate_normal(emission.means[k].numpy()[seen], matrix(emission, k)[seen][:, seen]).logpdf(y[seen]))


def matrix(emission: Any, k: int) -> np.ndarray:
    kept, form = emission.covariances, emission.form.name
    table = {
        "spherical": lambda: kept[k] * torch.eye(D).double(),
        "diagonal": lambda: torch.diag(kept[k]),
        "tied": lambda: kept + 0,
        "full": lambda: kept[k],
    }
    return table[form]().numpy()


@ALL
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_scores_are_the_densities_of_what_was_seen(emission: Any, missing: float) -> None:
    outputs = outputs_of(emission, missing=missing)
    scores = emission.log_likelihood(outputs).data
    data = outputs.data.numpy()
    for row, length in enumerate(outputs.lengths.tolist()):
        for t in range(length):
            expected = [scored_by_scipy(emission, data, row, t, k) for k in range(K)]
            np.testing.assert_allclose(scores[row, t], expected, rtol=1e-9, atol=1e-9)
    assert (scores[~outputs.mask] == 0).all()


def objective(emission: Any, rows: Rows, weights: torch.Tensor) -> float:
    return float((weights * emission.scores(rows)).sum() + emission.log_prior())


def moved(emission: Any, name: str, tensor: torch.Tensor, scale: float, seed: int) -> Any:
    """The emission with one parameter a little elsewhere, where it may be."""
    noise = scale * random(*tensor.shape, seed=seed)
    if (
        name.endswith("covariances")
        and tensor.dim() > 1
        and tensor.shape[-1] == tensor.shape[-2]
        and emission_form(emission) in ("tied", "full")
    ):
        fresh = tensor + noise + noise.transpose(-1, -2)
    elif name in ("probabilities", "weights"):
        fresh = rows_of(tensor * noise.exp())
    elif name in ("means", "coefficients", "components.means"):
        fresh = tensor + noise
    else:
        fresh = (tensor * noise.exp()).clamp(max=1 - 1e-9) if name == "chances" else tensor * noise.exp()
    return emission.with_parameters({name: fresh})


def emission_form(emission: Any) -> str:
    inner = emission.components if isinstance(emission, GaussianMixture) else emission
    return inner.form.name if hasattr(inner, "form") else ""


@ALL
def test_the_m_step_is_a_maximum(emission: Any) -> None:
    """Nothing near gives more expected log-likelihood and log-prior; a mixture's is a maximum of its own inner bound, so that it only may not fall."""
    rows = emission.rows(outputs_of(emission, seed=2))
    weights = random(len(rows.values), K, seed=9).softmax(1)
    fitted = emission.fitted(rows, weights)
    best = objective(fitted, rows, weights)
    assert best > objective(emission, rows, weights)
    if isinstance(emission, GaussianMixture):
        return
    for name, tensor in fitted.parameters().items():
        for seed in range(4):
            for scale in (1e-1, 1e-3):
                assert objective(moved(fitted, name, tensor, scale, seed), rows, weights) <= best + 1e-9


@ALL
def test_em_with_missing_entries_rises(emission: Any) -> None:
    """For one state the objective is the log-likelihood itself: EM may only raise it, and the fixed point is a maximum of it."""
    rows = emission.rows(outputs_of(emission, seed=3, missing=0.3, longest=60))
    weights = torch.zeros(len(rows.values), K, dtype=torch.float64)
    weights[:, 0] = 1
    before = objective(emission, rows, weights)
    for _ in range(30):
        emission = emission.fitted(rows, weights)
        after = objective(emission, rows, weights)
        assert after >= before - 1e-9 * abs(before)
        before = after
    for name, tensor in emission.parameters().items():
        for seed in range(3):
            change = objective(moved(emission, name, tensor, 1e-3, seed), rows, weights) - before
            assert change < 1e-3


def test_missing_entries_of_a_full_gaussian_by_a_plain_loop() -> None:
    emission = gaussian("full")
    outputs = outputs_of(emission, missing=0.4)
    rows = emission.rows(outputs)
    weights = random(len(rows.values), K, seed=7).softmax(1)
    fitted = emission.fitted(rows, weights)
    data = pack(outputs).numpy()
    for k in range(K):
        mean, cov = emission.means[k].numpy(), emission.covariances[k].numpy()
        total, first, second = 0.0, np.zeros(D), np.zeros((D, D))
        for y, w in zip(data, weights[:, k].tolist(), strict=True):
            o, m = ~np.isnan(y), np.isnan(y)
            if not o.any():
                continue
            filled, extra = y.copy(), np.zeros((D, D))
            gain = cov[np.ix_(m, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
            filled[m] = mean[m] + gain @ (y[o] - mean[o])
            extra[np.ix_(m, m)] = cov[np.ix_(m, m)] - gain @ cov[np.ix_(o, m)]
            total, first, second = total + w, first + w * filled, second + w * (np.outer(filled, filled) + extra)
        np.testing.assert_allclose(fitted.means[k], first / total, rtol=1e-9)
        np.testing.assert_allclose(fitted.covariances[k], second / total - np.outer(first, first) / total**2, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_plain_and_compiled_agree(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for states, features in ((K, D), (8, 4), (9, 5)):
        emission = Gaussian(random(states, features), covariances(form, states, features), COVARIANCES[form])
        values = 2 * random(5000, features, seed=4)
        rows = Rows(values, emission.rows(Padded(values.unsqueeze(0), torch.tensor([5000]))).places)
        weights = random(5000, states, seed=6).softmax(1)
        assert moments_module.takes(values)
        compiled = emission.scores(rows), emission.fitted(rows, weights)
        with monkeypatch.context() as patched:
            patched.setattr(moments_module, "takes", lambda *tensors: False)
            plain = emission.scores(rows), emission.fitted(rows, weights)
        torch.testing.assert_close(compiled[0], plain[0], rtol=1e-11, atol=1e-11)
        for name, tensor in plain[1].parameters().items():
            torch.testing.assert_close(compiled[1].parameters()[name], tensor, rtol=1e-11, atol=1e-11)


@ALL
def test_draws_have_the_moments(emission: Any) -> None:
    states = torch.arange(K).repeat_interleave(4000)
    drawn = emission.draw(states, None, torch.Generator().manual_seed(0))
    drawn = torch.nn.functional.one_hot(drawn, 4) if isinstance(emission, Categorical) else drawn
    by_state = drawn.double().view(K, 4000, -1)
    spread = emission.variance().sqrt()
    assert ((by_state.mean(1) - emission.mean()).abs() < 5 * spread / 4000**0.5 + 1e-9).all()
    assert (by_state.var(1) / emission.variance() - 1).abs().max() < 0.25


@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_frozen_entries_stay_and_the_rest_is_the_best_beside_them(form: str) -> None:
    frozen = torch.tensor([[True, False], [False, False], [True, True]])
    emission = gaussian(form, fixed={"means": frozen, "covariances": torch.tensor(True)})
    rows = emission.rows(outputs_of(emission, seed=2))
    weights = random(len(rows.values), K, seed=9).softmax(1)
    fitted = emission.fitted(rows, weights)
    assert torch.equal(fitted.means[frozen], emission.means[frozen]) and torch.equal(fitted.covariances, emission.covariances)
    for seed in range(5):
        other = fitted.means + 1e-2 * random(K, D, seed=seed) * ~frozen
        assert objective(replace(fitted, means=other), rows, weights) < objective(fitted, rows, weights)
    assert emission.free_parameters == 3


def test_frozen_symbols() -> None:
    probabilities = torch.tensor([[0.2, 0.3, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25]]).double()
    frozen = torch.tensor([[True, False, False, False], [True, True, True, True]])
    emission = Categorical(probabilities, fixed={"probabilities": frozen})
    rows = emission.rows(Padded(torch.tensor([[0, 1, 1, 1, 2, 3]]), torch.tensor([6])))
    fitted = emission.fitted(rows, torch.ones(6, 2).double())
    torch.testing.assert_close(fitted.probabilities[0], torch.tensor([0.2, 0.6, 0.2, 0.0]).double())
    assert torch.equal(fitted.probabilities[1], probabilities[1]) and emission.free_parameters == 1


def test_a_floor_is_the_best_covariance_above_it() -> None:
    emission = gaussian("full", floor=0.5)
    rows = emission.rows(Padded(random(1, 40, 2) * torch.tensor([1.0, 0.1]), torch.tensor([40])))
    weights = torch.ones(40, K).double()
    fitted = emission.fitted(rows, weights)
    assert torch.linalg.eigvalsh(fitted.covariances).min() > 0.5 - 1e-12
    for seed in range(5):
        noise = 0.05 * random(K, D, D, seed=seed)
        other = at_least(fitted.covariances + noise + noise.transpose(1, 2), 0.5, independent=False)
        assert objective(replace(fitted, covariances=other), rows, weights) < objective(fitted, rows, weights)


def test_a_state_without_weight_stays() -> None:
    for emission in EMISSIONS.values():
        if emission.log_prior() != 0:
            continue
        rows = emission.rows(outputs_of(emission))
        fitted = emission.fitted(rows, torch.zeros(len(rows.values), K).double())
        for name, tensor in emission.parameters().items():
            torch.testing.assert_close(fitted.parameters()[name], tensor)


def test_a_covariance_that_collapses_is_said() -> None:
    emission = replace(gaussian("full"), covariances=torch.zeros(K, D, D).double())
    with pytest.raises(DataError, match="covariance of state 0 is not positive definite any more.*`floor`"):
        emission.log_likelihood(outputs_of(gaussian("full")))


def test_pack_and_unpack() -> None:
    padded = Padded(random(3, 4, 2), torch.tensor([2, 0, 4]))
    torch.testing.assert_close(unpack(pack(padded), padded.lengths, 4)[padded.mask], padded.data[padded.mask])


def padded_of(*values: Any) -> Padded:
    return Padded(torch.tensor([values]), torch.tensor([len(values)]))


@pytest.mark.parametrize(
    ("emission", "outputs", "said"),
    [
        (EMISSIONS["categorical"], padded_of(0, 4), "symbols must be whole numbers from 0 to 3, or negative where missing, got 4"),
        (EMISSIONS["categorical"], padded_of(0.5), "symbols must be whole numbers from 0 to 3, or negative where missing, got 0.5"),
        (EMISSIONS["poisson"], padded_of([1.0, -1.0]), "counts must be whole numbers from 0 on, or NaN where missing, got -1"),
        (EMISSIONS["bernoulli"], padded_of([1.0, 0.5]), "outputs must be 0 or 1, or NaN where missing, got 0.5"),
        (EMISSIONS["gaussian-full"], padded_of([1.0, 2.0, 3.0]), r"outputs must be \[batch, time, 2\], got \(1, 1, 3\)"),
        (
            EMISSIONS["gaussian-full"],
            padded_of([0.0, 1.0], [1.0, float("inf")]),
            r"must be finite.* got \[1.0, inf\] in sequence 0, step 1",
        ),
    ],
)
def test_outputs_that_cannot_be(emission: Emission, outputs: Padded, said: str) -> None:
    with pytest.raises(DataError, match=said):
        emission.rows(outputs)


def test_parameters_that_cannot_be() -> None:
    bad = torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double().expand(K, D, D)
    with pytest.raises(
        DataError, match="must be positive definite, got the smallest eigenvalue -1 in state 0; add a small number to the diagonal"
    ):
        Gaussian(random(K, D), bad, FULL).check()
    with pytest.raises(DataError, match="`covariances` must be above 0, got 0; no state"):
        replace(gaussian("diagonal"), covariances=torch.zeros(K, D).double()).check()
    with pytest.raises(DataError, match=r"form full must have the shape \(3, 2, 2\), got \(3, 2\)"):
        replace(gaussian("full"), covariances=torch.ones(K, D).double()).check()
    with pytest.raises(DataError, match="every row of `probabilities` must sum to 1, got 2 in row 0"):
        Categorical(torch.ones(2, 2).double()).check()
    with pytest.raises(ConfigurationError, match="`concentration` must be at least 1, got 0.5"):
        Categorical(torch.ones(2, 2).double() / 2, 0.5).check()
    for emission in EMISSIONS.values():
        emission.check()

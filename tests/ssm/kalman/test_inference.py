"""Filter, smoother and likelihood against the joint Gaussian, statsmodels, pykalman, finite differences, and the kernel against its own loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman import LinearGaussian, compiled, kalman_filter, kalman_filter_and_smoother, kalman_log_likelihood, kalman_smoother

from .gaussian import condition, random_series, random_system

TIME = 5
EXACT = {"rtol": 1e-9, "atol": 1e-9}
SYSTEMS = {
    "one number": {"states": 1, "observed": 1},
    "correlated noise": {"states": 2, "observed": 3},
    "independent noise": {"states": 3, "observed": 2, "diagonal": True},
    "inputs": {"states": 2, "observed": 2, "inputs": 2},
    "diffuse": {"states": 2, "observed": 1, "diffuse": 2},
    "partly diffuse": {"states": 3, "observed": 2, "diffuse": 2, "inputs": 1},
}


def batch_of(observed: int, inputs: int, batch: int = 3) -> tuple[Padded, Tensor | None]:
    lengths = torch.tensor([TIME, TIME - 1, TIME])[:batch]
    known = torch.randn(batch, TIME, inputs, generator=torch.Generator().manual_seed(5), dtype=torch.float64) if inputs else None
    return Padded(random_series(batch, TIME, observed, missing=0.2, seed=2), lengths), known


def made(name: str) -> tuple[LinearGaussian, Padded, Tensor | None]:
    system = random_system(**SYSTEMS[name])
    return system, *batch_of(system.observed, system.inputs)


@pytest.mark.parametrize("plain", [True, False], ids=["loop", "kernel"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_all_is_what_the_joint_gaussian_says(name: str, plain: bool) -> None:
    system, series, inputs = made(name)
    filtered, smoothed = kalman_filter(system, series, inputs, plain=plain), kalman_smoother(system, series, inputs, plain=plain)
    for b, (row, length) in enumerate(zip(series.data, series.lengths.tolist(), strict=True)):
        known = None if inputs is None else inputs[b, :length].numpy()
        whole = condition(system, row[:length].numpy(), known)
        assert float(filtered.log_likelihood[b]) == pytest.approx(whole.log_likelihood, abs=1e-9)
        assert float(smoothed.log_likelihood[b]) == pytest.approx(whole.log_likelihood, abs=1e-9)
        steps = np.arange(length)
        np.testing.assert_allclose(smoothed.means[b, :length], whole.means, **EXACT)
        np.testing.assert_allclose(smoothed.covariances[b, :length], whole.covariances[steps, steps], **EXACT)
        np.testing.assert_allclose(smoothed.lagged_covariances[b, 1:length], whole.covariances[steps[1:], steps[:-1]], **EXACT)
        for t in range(3 if system.rank else 0, length):
            part = condition(system, row[: t + 1].numpy(), None if known is None else known[: t + 1])
            np.testing.assert_allclose(filtered.means[b, t], part.means[t], **EXACT)
            np.testing.assert_allclose(filtered.covariances[b, t], part.covariances[t, t], **EXACT)
    past = ~series.mask
    for one in (*filtered, *smoothed[1:]):
        assert one is None or not bool(one[past].any())


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_kernel_is_its_loop(name: str) -> None:
    system = random_system(**SYSTEMS[name])
    lengths = torch.arange(20) % (TIME + 1)
    series = Padded(random_series(20, TIME, system.observed, seed=4), lengths)
    inputs = torch.randn(20, TIME, system.inputs, dtype=torch.float64) if system.inputs else None
    for by in (kalman_filter, kalman_smoother):
        for one, other in zip(by(system, series, inputs), by(system, series, inputs, plain=True), strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)
    for plain in (True, False):
        together = kalman_filter_and_smoother(system, series, inputs, plain=plain)
        apart = [by(system, series, inputs, plain=plain) for by in (kalman_filter, kalman_smoother)]
        for one, other in zip((*together[0], *together[1]), (*apart[0], *apart[1]), strict=True):
            assert one is other is None or torch.equal(one, other)


def test_the_kernel_for_one_number_of_states_is_that_for_any(monkeypatch: pytest.MonkeyPatch) -> None:
    system, series, inputs = made("partly diffuse")
    expected = kalman_smoother(system, series, inputs)
    monkeypatch.setattr(compiled, "MUCH_WORK", 1)
    for one, other in zip(kalman_smoother(system, series, inputs), expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_score_is_the_gradient_of_the_loop(name: str) -> None:
    system, series, inputs = made(name)
    leaves = [
        one.clone().requires_grad_() if one is not None and one.is_floating_point() else one for one in (*system, series.data, inputs)
    ]
    asked = [one for one in leaves if one is not None and one.requires_grad]
    weights = torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64)
    found = []
    for plain in (True, False):
        told = kalman_log_likelihood(LinearGaussian(*leaves[:-2]), Padded(leaves[-2], series.lengths), leaves[-1], plain=plain)
        found.append(torch.autograd.grad(told @ weights, asked))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other.nan_to_num(), one.nan_to_num(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("plain", [True, False], ids=["loop", "kernel"])
def test_the_gradient_is_that_of_finite_differences(plain: bool) -> None:
    system, series, inputs = made("partly diffuse")
    covariances = {name for name in LinearGaussian._fields if name.endswith("covariance")}

    def likelihood(*parameters: Tensor) -> Tensor:
        named = dict(zip(LinearGaussian._fields, parameters, strict=False))
        given = {name: one @ one.T if name in covariances else one for name, one in named.items()}
        short = Padded(series.data[:2, :3], torch.tensor([3, 2]))
        return kalman_log_likelihood(LinearGaussian(**given, diffuse=system.diffuse), short, inputs[:2, :3], plain=plain).sum()

    assert torch.autograd.gradcheck(likelihood, [one.clone().requires_grad_() for one in system[:-1]], fast_mode=True)


def test_smoothed_means_can_be_differentiated() -> None:
    system, series, _ = made("correlated noise")
    level = system.transition.clone().requires_grad_()
    kalman_smoother(system._replace(transition=level), series).means.sum().backward()
    assert level.grad is not None and bool(level.grad.any())


def test_a_longer_pad_and_company_change_nothing() -> None:
    system, series, inputs = made("partly diffuse")
    wide = Padded(torch.nn.functional.pad(series.data, (0, 0, 0, 4), value=7.0), series.lengths)
    known = torch.nn.functional.pad(inputs, (0, 0, 0, 4), value=torch.nan)
    whole, longer = kalman_smoother(system, series, inputs), kalman_smoother(system, wide, known)
    for one, other in zip(whole[1:], longer[1:], strict=True):
        torch.testing.assert_close(other[:, :TIME], one, rtol=0, atol=0)
        assert not bool(other[:, TIME:].any())
    for b in range(3):
        alone = kalman_smoother(system, Padded(series.data[b : b + 1], series.lengths[b : b + 1]), inputs[b : b + 1])
        for one, other in zip(whole, alone, strict=True):
            torch.testing.assert_close(other[0], one[b], **EXACT)


def test_nothing_seen_tells_nothing() -> None:
    system = random_system(2, 2)
    none = torch.full((2, 4, 2), torch.nan, dtype=torch.float64)
    found = kalman_smoother(system, Padded(none, torch.tensor([4, 0])))
    assert found.log_likelihood.tolist() == [0, 0]
    torch.testing.assert_close(found.means[0, 1], system.transition @ system.initial_mean, **EXACT)
    assert kalman_smoother(system, none[:, :0]).means.shape == (2, 0, 2)
    assert kalman_filter(system, none[:0]).means.shape == (0, 4, 2)


def test_single_precision_stays_so() -> None:
    system, series, _ = made("correlated noise")
    small = LinearGaussian(*(None if one is None else one.float() for one in system))
    found = kalman_smoother(small, series)
    assert found.means.dtype == torch.float32
    torch.testing.assert_close(found.means, kalman_smoother(system, series).means.float(), rtol=1e-4, atol=1e-4)


def test_without_a_compiler_the_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    system, series, _ = made("correlated noise")
    expected = kalman_filter(system, series, plain=True)
    monkeypatch.setattr(compiled, "kernel", lambda states=None: None)
    torch.testing.assert_close(kalman_filter(system, series).means, expected.means, rtol=0, atol=0)


def test_singular_noise_is_welcome() -> None:
    system = random_system(3, 2)._replace(emission_covariance=torch.zeros(2, 2, dtype=torch.float64))
    system = system._replace(transition_covariance=torch.diag(torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)))
    row = torch.randn(1, TIME, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    row[0, 1:, 1] = torch.nan
    whole = condition(system, row[0].numpy())
    for plain in (True, False):
        found = kalman_smoother(system, row, plain=plain)
        assert float(found.log_likelihood[0]) == pytest.approx(whole.log_likelihood, abs=1e-8)
        np.testing.assert_allclose(found.means[0], whole.means, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"transition_covariance": torch.tensor([[1.0, 2.0], [2.0, 1.0]])},
            r"`transition_covariance` must be a covariance .*got one of -1",
        ),
        ({"emission_covariance": -torch.eye(2)}, "`emission_covariance` must be a covariance"),
        ({"initial_covariance": torch.tensor([[1.0, 0.5], [0.0, 1.0]])}, r"must be symmetric, got 0.5 at \[0, 1\]"),
        ({"transition": torch.eye(3)}, r"`transition` must have the shape \(2, 2\).*got \(3, 3\)"),
        ({"transition": torch.full((2, 2), torch.nan)}, "`transition` must be finite, got nan"),
        ({"emission": torch.eye(2).float()}, "`emission` must have the type of `transition`, torch.float64, got torch.float32"),
    ],
)
def test_what_makes_no_model_is_refused(changes: dict[str, Tensor], said: str) -> None:
    changes = {name: one if name == "emission" else one.double() for name, one in changes.items()}
    with pytest.raises(DataError, match=said):
        kalman_filter(random_system(2, 2)._replace(**changes), random_series(1, 3, 2))


def test_what_is_no_series_is_refused() -> None:
    system, series = random_system(2, 2, inputs=1), random_series(2, 4, 2)
    known = torch.zeros(2, 4, 1)
    for given, inputs, said in (
        (series[0], known, r"must be \[batch, time, 2\].*got \(4, 2\)"),
        (series.nan_to_num() + torch.inf, known, "finite or NaN"),
        (Padded(series, torch.tensor([4, 9])), known, "must lie in 0..4"),
        (series, None, "`inputs` must be .* got none"),
        (series, known[:, :3], r"got the shape \(2, 3, 1\)"),
        (series, known * torch.nan, "must be known everywhere"),
    ):
        with pytest.raises(DataError, match=said):
            kalman_filter(system, given, inputs)
    with pytest.raises(DataError, match="`inputs` must be .* 0 inputs"):
        kalman_filter(random_system(2, 2), series, known)

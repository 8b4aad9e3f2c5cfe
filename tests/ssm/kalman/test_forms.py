"""The other forms of filter and smoother agree with the first: Rauch–Tung–Striebel, square root, parallel over time, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman import (
    Filtered,
    KalmanStep,
    LinearGaussian,
    kalman_filter,
    kalman_log_likelihood,
    kalman_smoother,
    parallel_filter,
    parallel_smoother,
    rts_smoother,
    square_root_filter,
    square_root_smoother,
)

from .gaussian import random_series, random_system

SAME = {"rtol": 1e-8, "atol": 1e-8}
TIME = 13


def case(inputs: int = 2) -> tuple[LinearGaussian, Padded, Tensor | None]:
    lengths = torch.tensor([TIME, 1, 0, 6, TIME - 1])
    known = torch.randn(5, TIME, inputs, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return random_system(3, 2, inputs=inputs), Padded(random_series(5, TIME, 2), lengths), known if inputs else None


@pytest.mark.parametrize("inputs", [0, 2])
@pytest.mark.parametrize("form", [square_root_filter, parallel_filter])
def test_filters_agree(form: type, inputs: int) -> None:
    for one, other in zip(form(*case(inputs)), kalman_filter(*case(inputs)), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, **SAME)


@pytest.mark.parametrize("inputs", [0, 2])
@pytest.mark.parametrize("form", [rts_smoother, square_root_smoother, parallel_smoother])
def test_smoothers_agree(form: type, inputs: int) -> None:
    for one, other in zip(form(*case(inputs)), kalman_smoother(*case(inputs)), strict=True):
        torch.testing.assert_close(one, other, **SAME)


def test_the_parallel_form_has_the_same_gradient() -> None:
    system, series, inputs = case()
    slopes = []
    for form in (parallel_filter, kalman_filter):
        leaf = system.transition.clone().requires_grad_()
        form(system._replace(transition=leaf), series, inputs).log_likelihood.sum().backward()
        slopes.append(leaf.grad)
    torch.testing.assert_close(*slopes, **SAME)


def test_roots_hold_where_covariances_break() -> None:
    """An output that is almost exact: in single precision the covariance of the plain filter is no covariance any more."""
    system = random_system(3, 1)._replace(emission_covariance=torch.full((1, 1), 1e-9, dtype=torch.float64))
    system = system._replace(transition=torch.eye(3, dtype=torch.float64), transition_covariance=1e-9 * torch.eye(3, dtype=torch.float64))
    series = random_series(1, 30, 1, missing=0)
    small = LinearGaussian(*(None if one is None else one.float() for one in system))
    rooted, exact = square_root_filter(small, series.float()), kalman_filter(system, series)
    assert float(torch.linalg.eigvalsh(rooted.covariances[0].double()).min()) > -1e-12
    torch.testing.assert_close(rooted.covariances.double(), exact.covariances, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("diffuse", [0, 2])
def test_step_by_step_is_the_whole(diffuse: int) -> None:
    system = random_system(3, 2, inputs=2, diffuse=diffuse)
    series, inputs = random_series(4, TIME, 2), torch.randn(4, TIME, 2, dtype=torch.float64)
    whole = kalman_filter(system, series, inputs)
    model = KalmanStep(system)
    state = model.initial_state(4)
    torch.testing.assert_close(state.mean, whole.predicted_means[:, 0], **SAME)
    for t in range(TIME):
        output, state = model.step((series[:, t], inputs[:, t]), state)
        torch.testing.assert_close(output.mean, whole.means[:, t], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(output.covariance, whole.covariances[:, t], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(output.log_likelihood, whole.log_likelihoods[:, t], rtol=1e-7, atol=1e-7)
    with pytest.raises(DataError, match="must be given 2 inputs, as the system has, got 0"):
        model.step(series[:, 0], state)


def test_a_state_can_be_picked_and_repeated() -> None:
    """As a beam or a batch that shrinks does it."""
    from unrolled.core.state import select_state

    system, series = random_system(2, 1), random_series(3, 4, 1)
    model = KalmanStep(system)
    _, state = model.step(series[:, 0], model.initial_state(3))
    picked, _ = model.step(series[[2, 0], 1], select_state(state, torch.tensor([2, 0])))
    whole = kalman_filter(system, series[[2, 0]])
    torch.testing.assert_close(picked.mean, whole.means[:, 1], **SAME)


def test_what_a_form_cannot_do_is_said() -> None:
    system, series = random_system(2, 1, diffuse=1), random_series(1, 4, 1)
    for form in (rts_smoother, square_root_filter, square_root_smoother, parallel_filter, parallel_smoother):
        with pytest.raises(DataError, match="proper prior, got diffuse states; use `kalman_"):
            form(system, series)
    still = random_system(2, 1)
    still = still._replace(transition=torch.zeros_like(still.transition), transition_covariance=torch.zeros_like(still.transition))
    with pytest.raises(DataError, match="must invert predicted covariances"):
        rts_smoother(still, series)
    assert isinstance(kalman_filter(still, series), Filtered)
    assert bool(kalman_log_likelihood(still, series).isfinite().all())

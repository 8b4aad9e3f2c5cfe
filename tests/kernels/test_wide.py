"""Products over all steps at once, against torch in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unrolled.kernels import wide
from unrolled.kernels.wide import has_bfloat16_products, multiply

SHAPES = ((70, 333, 1000), (129, 1025, 77), (33, 2051, 160), (1100, 1, 1000), (8, 4100, 33))
"""Rows, what is summed over, columns: beside and across whole vectors, panels, runs and stretches."""


def drawn(rows: int, columns: int, turned: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    matrix = torch.randn(columns, rows).t() if turned else torch.randn(rows, columns)
    return matrix.to(dtype)


def rounded(matrix: Tensor) -> Tensor:
    return matrix.bfloat16().double()


def relative(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each product that is not torch's, whether it may be rounded."""
    calls: list[bool] = []
    library = wide._library

    def watched(dtype: torch.dtype, bfloat16: bool) -> object:
        calls.append(bfloat16)
        return library(dtype, bfloat16)

    monkeypatch.setattr(wide, "_library", watched)
    return calls


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_as_near_as_torch(turned: tuple[bool, bool], threads: int, counted: list[bool]) -> None:
    torch.set_num_threads(threads)
    for rows, count, columns in SHAPES:
        left, right = drawn(rows, count, turned[0]), drawn(count, columns, turned[1])
        exact = left.double() @ right.double()
        # Sums of at most 256 numbers, then of these: no worse however many there are.
        assert relative(multiply(left, right), exact) < 4e-7
        brief = multiply(left, right, bfloat16=True)
        assert brief.dtype == torch.float32
        assert relative(brief, rounded(left) @ rounded(right)) < 4e-7, "what is multiplied is rounded, and nothing else"
        torch.testing.assert_close(multiply(left.double(), right.double()), exact, rtol=1e-12, atol=1e-12)
    assert counted == [False, True, False] * len(SHAPES)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_columns_of_a_wider_matrix(bfloat16: bool, counted: list[bool]) -> None:
    whole, right = torch.randn(300, 200).float(), torch.randn(90, 400).float()
    for left in (whole[:, 50:140], whole.t()[50:140].t()):
        exact = rounded(left) @ rounded(right) if bfloat16 else left.double() @ right.double()
        assert relative(multiply(left, right, bfloat16=bfloat16), exact) < 4e-7
    assert len(counted) == 2


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_nan_and_infinity_stay_in_their_row(bad: float, bfloat16: bool) -> None:
    left, right = torch.randn(300, 101).float(), torch.randn(101, 70).float().abs() + 1
    left[7, 100] = bad
    found = multiply(left, right, bfloat16=bfloat16)
    assert not found[7].isfinite().any()
    assert found.isfinite().sum() == 299 * 70


@pytest.mark.parametrize(
    "make",
    [
        lambda: (torch.randn(3, 4), torch.randn(4, 5)),
        lambda: (torch.randn(0, 4), torch.randn(4, 5)),
        lambda: (torch.randn(300, 200)[:, ::2], torch.randn(100, 90)),
        lambda: (torch.randn(300, 100).bfloat16(), torch.randn(100, 90).bfloat16()),
    ],
    ids=["small", "empty", "neither rows nor columns side by side", "another type"],
)
def test_what_is_left_to_torch(make: Callable[[], tuple[Tensor, Tensor]], counted: list[bool]) -> None:
    left, right = make()
    assert torch.equal(multiply(left, right, bfloat16=True), left @ right)
    assert not counted


def test_the_same_work_gives_the_same_bits() -> None:
    torch.set_num_threads(2)
    left, right = torch.randn(400, 300).float(), torch.randn(300, 170).float()
    assert len({multiply(left, right).numpy().tobytes() for _ in range(5)}) == 1


def test_without_a_compiler_it_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "_library", lambda dtype, bfloat16: None)
    left, right = torch.randn(400, 300), torch.randn(300, 170)
    assert torch.equal(multiply(left, right), left @ right)
    assert not has_bfloat16_products()

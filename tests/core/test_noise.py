"""Masks: how often they keep, and that they do not depend on how rows are shared out."""

from __future__ import annotations

import pytest
import torch

from unrolled.core.noise import Noise


def seeded(**share: int) -> Noise:
    return Noise(torch.Generator().manual_seed(3), **share)


@pytest.mark.parametrize("keep", [0.0, 1e-9, 0.003, 0.5, 0.98, 1.0])
def test_as_many_are_kept_as_the_probability_says(keep: float) -> None:
    count = 200_000
    mask = seeded().shared((count,), keep, torch.zeros(1))
    deviation = (keep * (1 - keep) * count) ** 0.5
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(mask.sum().item() - keep * count) <= 5 * deviation + count / (1 << 16)


def test_neighbours_are_independent() -> None:
    mask = 2 * seeded().shared((400_000,), 0.5, torch.zeros(1)) - 1
    for lag in range(1, 9):
        assert abs((mask[lag:] * mask[:-lag]).mean().item()) < 5 / len(mask) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_share_has_its_rows_of_the_whole(dtype: torch.dtype) -> None:
    like = torch.zeros(1, dtype=dtype)
    whole = seeded().rows((5, 3, 7), 0.6, like)
    share = seeded(first_row=2, total_rows=5).rows((2, 3, 7), 0.6, like)
    assert whole.dtype == dtype and torch.equal(share, whole[2:4])


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 0)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert seeded().shared(shape, 0.5, torch.zeros(1)).shape == shape

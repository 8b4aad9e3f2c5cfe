"""Padded batches: lengths are the input form, masks are derived."""

import pytest
import torch

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded, check_lengths, pad


def test_pad_and_back() -> None:
    rows = [torch.ones(3, 2), torch.zeros(0, 2), torch.full((1, 2), 5.0)]
    padded = pad(rows)
    assert padded.data.shape == (3, 3, 2) and padded.lengths.tolist() == [3, 0, 1]
    assert all(torch.equal(a, b) for a, b in zip(padded.unpad(), rows, strict=True))


def test_mask_follows_lengths() -> None:
    assert Padded(torch.zeros(2, 3), torch.tensor([2, 0])).mask.tolist() == [[True, True, False], [False, False, False]]


def test_nothing_to_pad() -> None:
    with pytest.raises(DataError, match="at least one sequence, got none"):
        pad([])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([1, 2, 3]), "must be 2 integers"),
        (torch.tensor([1.0, 2.0]), "must be 2 integers"),
        (torch.tensor([1, 5]), "must lie in 0..4"),
        (torch.tensor([-1, 2]), "must lie in 0..4"),
    ],
)
def test_lengths_that_do_not_fit(lengths: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_lengths(lengths, 2, 4)

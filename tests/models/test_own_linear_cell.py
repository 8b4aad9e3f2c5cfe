"""A linear cell of a person's own, which `Recurrence` may ask for its coefficients in the place of steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.models.cell_choice import in_full_precision
from unrolled.nn.cell import HiddenState
from unrolled.nn.linear_cell import Coefficients, LinearCell
from unrolled.nn.recurrence import Recurrence


class Leaky(LinearCell):
    """Its `lerp` refuses mixed types."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = torch.nn.Linear(input_size, hidden_size)

    def coefficients(self, xs: Tensor) -> Coefficients:
        new = self.from_input(xs)
        return Coefficients(
            HiddenState(torch.full_like(new, 0.5)), HiddenState(torch.lerp(self.from_input.weight[:, 0].expand_as(new), new, 0.5))
        )


class Broken(Leaky):
    """Whose coefficients have no values."""

    def coefficients(self, xs: Tensor) -> Coefficients:
        raise ValueError("a b")


def test_it_computes_in_its_own_precision() -> None:
    cell, xs = in_full_precision(Leaky)(3, 4), torch.randn(2, 5, 3)
    wanted, _ = Recurrence(cell, plain=True)(xs)
    with torch.autocast("cpu", torch.bfloat16):
        for plain in (True, False):
            outputs, _ = Recurrence(cell, plain=plain)(xs.bfloat16())
            assert outputs.dtype == torch.float32
            torch.testing.assert_close(outputs, wanted, rtol=0.02, atol=0.02)


def test_its_errors_are_told_as_its_own() -> None:
    cell = in_full_precision(Broken)(3, 4)
    with pytest.raises(
        ConfigurationError, match=r"^`coefficients` of your cell `Broken` must end without an error: ValueError: a b \(.*, line \d+\)$"
    ):
        Recurrence(cell)(torch.randn(2, 5, 3))

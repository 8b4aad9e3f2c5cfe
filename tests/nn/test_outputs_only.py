"""A recurrence that owes no final state may run over the padding; its outputs and gradients are the same."""

from __future__ import annotations

import pytest
import torch

from unrolled.core.padded import Padded
from unrolled.nn.cells import CELLS
from unrolled.nn.recurrence import Bidirectional, Recurrence, Stacked

LENGTHS = torch.tensor([5, 0, 3, 1, 5])


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize("reverse", [False, True])
def test_outputs_and_gradients_are_those_with_a_state(name: str, reverse: bool) -> None:
    torch.manual_seed(0)
    cell = CELLS[name](3, 4).double()
    data = torch.randn(5, 6, 3, dtype=torch.float64)
    data[0, 5] = torch.nan  # padding may hold anything
    found = []
    for outputs_only in (False, True):
        cell.zero_grad()
        outputs, _state = Recurrence(cell, reverse=reverse, outputs_only=outputs_only)(Padded(data, LENGTHS))
        outputs.data.square().sum().backward()
        found.append([outputs.data, *[p.grad.clone() for p in cell.parameters()]])
        assert (outputs.data[1] == 0).all() and (outputs.data[2, 3:] == 0).all()
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain)


def test_the_kernel_is_called_once() -> None:
    cell = CELLS["lstm"](3, 4)
    calls = []
    whole = cell.whole
    cell.whole = lambda xs, state: calls.append(xs.shape) or whole(xs, state)  # type: ignore[method-assign]
    Recurrence(cell, outputs_only=True)(Padded(torch.randn(5, 6, 3), LENGTHS))
    assert calls == [(5, 6, 3)]


def test_stacks_and_both_directions() -> None:
    torch.manual_seed(0)
    cells = [CELLS["lstm"](*sizes) for sizes in ((3, 4), (3, 4), (8, 2))]
    xs = Padded(torch.randn(5, 6, 3), LENGTHS)
    one, other = (
        Stacked(Bidirectional(*cells[:2], outputs_only=only), Recurrence(cells[2], outputs_only=only))(xs)[0] for only in (False, True)
    )
    torch.testing.assert_close(one.data, other.data)

"""Sequences behind one another in a row: no output and no gradient knows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.nn import packing
from unrolled.nn.cell import HiddenState, RecurrentMask
from unrolled.nn.cells import GRU, LSTM, RecurrentDropout
from unrolled.nn.packing import Packing, pack
from unrolled.nn.recurrence import Recurrence

LENGTHS = torch.tensor([30, 0, 17, *[1, 2, 3, 0, 4, 9] * 40])


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[Packing | None]:
    """What was laid out, in order."""
    found: list[Packing | None] = []
    monkeypatch.setattr(packing, "pack", lambda *args, **kwargs: found.append(pack(*args, **kwargs)) or found[-1])
    return found


def a_batch(dtype: torch.dtype = torch.float64, features: int = 3) -> torch.Tensor:
    data = torch.randn(len(LENGTHS), 31, features, dtype=dtype)
    data[torch.arange(31) >= LENGTHS.unsqueeze(1)] = torch.nan  # padding may hold anything
    return data.requires_grad_()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (lambda: LSTM(3, 8), 1),
        (lambda: LSTM(3, 8), 30),
        pytest.param(lambda: GRU(3, 40), 1, id="compiled"),
    ],
)
def test_outputs_and_gradients_are_those_with_a_row_each(
    packed: list[Packing | None], make: Callable[[], LSTM | GRU], reverse: bool, scale: float
) -> None:
    torch.manual_seed(0)
    cell, data = make().double(), a_batch()
    with torch.no_grad():
        # Gates of an LSTM between sequences are closed whatever the state before says.
        for name, parameter in cell.named_parameters():
            parameter.mul_(scale if name == "from_hidden.weight" else 1)
    found = []
    for layer in (Recurrence(cell, reverse=reverse, outputs_only=True), Recurrence(cell, reverse=reverse, plain=True)):
        cell.zero_grad()
        data.grad = None
        outputs = layer(Padded(data, LENGTHS))[0].data
        (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum().backward()
        found.append([outputs, data.grad, *[p.grad.clone() for p in cell.parameters()]])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain)
    assert len(packed) == 1 and packed[0] is not None
    assert packed[0].take.shape[1] < 60 < len(LENGTHS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_vendor_kernel_in_short_formats(packed: list[Packing | None], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cell, data = LSTM(3, 8), a_batch(torch.float32).detach()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        fast = Recurrence(cell, outputs_only=True)(Padded(data, LENGTHS))[0].data
    with torch.no_grad():
        plain = Recurrence(cell, plain=True)(Padded(data, LENGTHS))[0].data
    assert packed[0] is not None
    torch.testing.assert_close(fast.float(), plain, atol=1e-5 if dtype == torch.float32 else 0.03, rtol=0)


@pytest.mark.parametrize("reverse", [False, True])
def test_every_step_has_a_place_of_its_own_and_a_break_before_the_next(reverse: bool) -> None:
    found = pack(LENGTHS, 33, reverse=reverse, hidden_size=64)
    assert found is not None
    steps, rows = found.take.shape
    assert steps == 30
    inside = (torch.arange(33) < LENGTHS.unsqueeze(1)).flatten()
    places = found.put[inside]
    assert (found.put[~inside] == steps * rows).all()
    assert torch.equal(found.take.flatten()[places], inside.nonzero()[:, 0]) and len(places.unique()) == len(places)
    assert not found.between.flatten()[places].any() and int((~found.between).sum()) == len(places)
    owner = torch.where(found.between, -1, found.take // 33)
    behind, ahead = owner[:-1], owner[1:]
    assert not ((behind != ahead) & (behind >= 0) & (ahead >= 0)).any()
    # Each is read in one go, in the direction asked for.
    step = found.take % 33
    assert (step[1:] - step[:-1])[(behind == ahead) & (behind >= 0)].unique().tolist() == [-1 if reverse else 1]


@pytest.mark.parametrize("lengths", [[], [0, 0], [5] * 40, [1], [7, 6, 7, 6]])
def test_rows_are_left_as_they_are_where_nothing_is_won(lengths: list[int]) -> None:
    assert pack(torch.tensor(lengths, dtype=torch.long), max(lengths, default=0), reverse=False, hidden_size=256) is None


def test_who_wants_a_state_or_has_one_gets_a_row_each(packed: list[Packing | None]) -> None:
    cell, data = LSTM(3, 8).double(), Padded(a_batch(), LENGTHS)
    state = Recurrence(cell)(data)[1]
    assert torch.isfinite(state.h).all()
    Recurrence(cell, outputs_only=True)(data, state)
    Recurrence(cell, outputs_only=True)(data, resets=torch.zeros(len(LENGTHS), 31, dtype=torch.bool))
    Recurrence(RecurrentDropout(cell, 0.5), outputs_only=True)(data)
    assert packed == []
    Recurrence(cell, outputs_only=True)(data)
    assert len(packed) == 1


def test_who_traces_a_layer_sees_a_row_each(packed: list[Packing | None], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, data = Recurrence(LSTM(3, 8), outputs_only=True), torch.randn(len(LENGTHS), 31, 3)
    expected = layer(Padded(data, LENGTHS))[0].data
    monkeypatch.setattr(packing, "is_transformed", lambda: True)
    torch.testing.assert_close(layer(Padded(data, LENGTHS))[0].data, expected)
    assert len(packed) == 1


class Trees(GRU):
    """Its output is no tensor."""

    def step(self, x: Tensor, state: HiddenState, fixed: RecurrentMask | None = None) -> tuple[Any, HiddenState]:
        output, after = super().step(x, state, fixed)
        return {"one": output, "two": output.sin().unflatten(-1, (8, 5))}, after


class Rows(GRU):
    """Each row begins with a state of its own."""

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(torch.linspace(-1, 1, batch_size * 40).view(batch_size, 40))


class Whole(GRU):
    """Has a faster way of its own."""

    def whole(self, xs: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        return xs[..., :1].expand(-1, -1, 40), state


def test_cells_that_cannot_be_laid_out(packed: list[Packing | None]) -> None:
    """A small one is not compiled, rows begin in states of their own, or another way is faster."""
    data = Padded(a_batch(torch.float32).detach(), LENGTHS)
    for cell, laid_out in ((GRU(3, 8), 0), (Rows(3, 40), 1)):
        found, expected = (Recurrence(cell, **how)(data)[0].data for how in ({"outputs_only": True}, {"plain": True}))
        torch.testing.assert_close(found, expected)
        assert len(packed) == laid_out
    inside = (torch.arange(31) < LENGTHS.unsqueeze(1)).unsqueeze(-1)
    found = Recurrence(Whole(3, 40), outputs_only=True)(data)[0].data
    torch.testing.assert_close(found, torch.where(inside, data.data[..., :1], 0).expand(-1, -1, 40))
    assert len(packed) == 1


def test_outputs_may_be_trees(packed: list[Packing | None]) -> None:
    cell, data = Trees(3, 40), Padded(a_batch(torch.float32).detach(), LENGTHS)
    found, expected = (Recurrence(cell, **how)(data)[0].data for how in ({"outputs_only": True}, {"plain": True}))
    torch.testing.assert_close(found, expected)
    assert packed[0] is not None


def test_a_learned_beginning_counts(packed: list[Packing | None]) -> None:
    class Learned(GRU):
        def initial_state(self, batch_size: int) -> HiddenState:
            return HiddenState(self.start.expand(batch_size, -1))

    cell, data = Learned(3, 40), Padded(a_batch(torch.float32).detach(), LENGTHS)
    cell.start = torch.nn.Parameter(torch.linspace(-1, 1, 40))
    gradients = []
    for how in ({"outputs_only": True}, {"plain": True}):
        cell.zero_grad()
        Recurrence(cell, **how)(data)[0].data.square().sum().backward()
        gradients.append(cell.start.grad.clone())
    torch.testing.assert_close(*gradients)
    assert packed[0] is not None


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("make", [lambda: LSTM(3, 8), pytest.param(lambda: GRU(3, 40), id="compiled")])
def test_what_is_not_finite_stays_in_its_sequence(packed: list[Packing | None], make: Callable[[], LSTM | GRU], wrong: float) -> None:
    torch.manual_seed(0)
    cell, data = make().double(), a_batch().detach()
    data[2, 5] = wrong
    found = [layer(Padded(data, LENGTHS))[0].data for layer in (Recurrence(cell, outputs_only=True), Recurrence(cell, plain=True))]
    assert packed[0] is not None
    torch.testing.assert_close(*found, equal_nan=True)
    assert not found[0][2].isfinite().all() and found[0][3:].isfinite().all()

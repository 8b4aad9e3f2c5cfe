"""Sequences behind one another in a row: no output and no gradient knows of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from unrolled.core.padded import Padded
from unrolled.nn import packing
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


def test_a_cell_that_is_not_compiled_is_laid_out_once(packed: list[Packing | None]) -> None:
    layer, data = Recurrence(GRU(3, 8), outputs_only=True), Padded(a_batch(torch.float32).detach(), LENGTHS)
    expected = Recurrence(layer.cell, plain=True)(data)[0].data
    for _ in range(3):
        torch.testing.assert_close(layer(data)[0].data, expected)
    assert len(packed) == 1


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_sequence(packed: list[Packing | None], wrong: float) -> None:
    torch.manual_seed(0)
    cell, data = LSTM(3, 8).double(), a_batch().detach()
    data[2, 5] = wrong
    found = [layer(Padded(data, LENGTHS))[0].data for layer in (Recurrence(cell, outputs_only=True), Recurrence(cell, plain=True))]
    assert packed[0] is not None
    torch.testing.assert_close(*found, equal_nan=True)
    assert not found[0][2].isfinite().all() and found[0][3:].isfinite().all()

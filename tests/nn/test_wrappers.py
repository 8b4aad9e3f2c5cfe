"""Recurrent dropout and zoneout: what is drawn, when, and what it does to a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import named_leaves
from unrolled.nn.cell import Cell, HiddenState, RecurrentMask
from unrolled.nn.cells import CELLS, GRU, LSTM, FeedForward, LSTMState, RecurrentDropout, Zoneout
from unrolled.nn.recurrence import Recurrence, Stacked

INPUT, HIDDEN, TIME, BATCH = 3, 4, 6, 5
LINEAR = ["mingru", "minlstm", "linear-recurrent-unit"]
MASKABLE = [name for name in CELLS if name not in ["feed-forward", *LINEAR]]


def seeded(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


def mask_of(shape: tuple[int, ...], keep: float, generator: torch.Generator) -> Tensor:
    return Noise(generator).shared(shape, keep, torch.zeros((), dtype=torch.float64))


@pytest.fixture
def xs() -> Tensor:
    return torch.randn(BATCH, TIME, INPUT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def lstm() -> LSTM:
    torch.manual_seed(2)
    return LSTM(INPUT, HIDDEN).double()


def same(got: Any, wanted: Any, **tolerance: float) -> None:
    torch.testing.assert_close(dict(named_leaves(got)), dict(named_leaves(wanted)), **tolerance)


class ShowsMask(Cell):
    """Puts out the mask it is given."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.input_size = self.hidden_size = hidden_size

    def step(self, x: Tensor, state: HiddenState, fixed: RecurrentMask | None = None) -> tuple[Tensor, HiddenState]:
        return (torch.ones_like(x) if fixed is None else fixed.mask), state


class Forgets(Cell):
    """Its new state is its input, whatever the old one was."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.input_size = self.hidden_size = hidden_size

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        return x, HiddenState(x)


# -- recurrent dropout ----------------------------------------------------------------------------------------------


def test_the_mask_is_fixed_through_time_and_fresh_for_each_sequence() -> None:
    layer = Recurrence(RecurrentDropout(ShowsMask(200), 0.3))
    noise = seeded()
    first, _ = layer(torch.zeros(50, 3, 200), noise=noise)
    second, _ = layer(torch.zeros(50, 3, 200), noise=noise)
    assert (first == first[:, :1]).all()
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    # 10,000 draws: 4 standard deviations of the share are 0.018.
    assert (first[:, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert first[:, 0].mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", MASKABLE)
def test_the_mask_reaches_the_products_and_nothing_else(name: str) -> None:
    """With the mask at zero the products see no state; what is carried on by a gate still is."""
    torch.manual_seed(3)
    cell = CELLS[name](INPUT, HIDDEN).double()
    state = type(cell.initial_state(BATCH))(*(torch.rand(BATCH, HIDDEN).double() for _ in cell.initial_state(1)))
    x, zero = torch.randn(BATCH, INPUT).double(), RecurrentMask(torch.zeros(BATCH, HIDDEN).double())
    masked, _ = cell.step(x, state, zero)
    with torch.no_grad():
        for parameter_name, parameter in cell.named_parameters():
            if "from_hidden" in parameter_name and parameter.dim() == 2:
                parameter.zero_()
    without, _ = cell.step(x, state)
    torch.testing.assert_close(masked, without)


def test_training_equals_a_loop_with_the_mask_by_hand(lstm: LSTM, xs: Tensor) -> None:
    outputs, final = Recurrence(RecurrentDropout(lstm, 0.4))(xs, noise=seeded(7))
    mask = RecurrentMask(mask_of((BATCH, HIDDEN), 0.6, torch.Generator().manual_seed(7)) / 0.6)
    state = lstm.initial_state(BATCH)
    for t in range(TIME):
        gates = lstm.from_input(xs[:, t]) + (state.h * mask.mask) @ lstm.from_hidden.weight.T
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        state = LSTMState(torch.sigmoid(o) * torch.tanh(c), c)
        torch.testing.assert_close(outputs[:, t], state.h)
    same(final, state)


@pytest.mark.parametrize("name", MASKABLE)
def test_evaluation_and_probability_zero_are_the_cell_itself(name: str, xs: Tensor) -> None:
    cell = CELLS[name](INPUT, HIDDEN).double()
    wanted = Recurrence(cell)(xs)
    same(Recurrence(RecurrentDropout(cell, 0.5)).eval()(xs), wanted)
    same(Recurrence(RecurrentDropout(cell, 0.0)).train()(xs), wanted)
    assert not torch.allclose(Recurrence(RecurrentDropout(cell, 0.5)).train()(xs, noise=seeded())[0], wanted[0])


def test_the_faster_way_is_taken_in_evaluation_only(lstm: LSTM, xs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    whole = lstm.whole
    monkeypatch.setattr(lstm, "whole", lambda *given: calls.append(1) or whole(*given))
    layer = Recurrence(RecurrentDropout(lstm, 0.5))
    layer(xs)
    assert not calls
    layer.eval()(xs)
    assert calls
    assert Zoneout(lstm, {"h": 0.1}).whole(xs, lstm.initial_state(BATCH)) is None


# -- zoneout --------------------------------------------------------------------------------------------------------


def test_zoneout_keeps_the_right_share_and_draws_anew_each_step() -> None:
    torch.manual_seed(4)
    xs, start = torch.randn(50, 20, 100), HiddenState(torch.randn(50, 100))
    outputs, final = Recurrence(Zoneout(Forgets(100), {"h": 0.2}))(xs, start, noise=seeded())
    before = torch.cat([start.h[:, None], outputs[:, :-1]], 1)
    kept, new = outputs == before, outputs == xs
    assert (kept ^ new).all() and torch.equal(final.h, outputs[:, -1])
    # 100,000 draws: 4 standard deviations of the share are 0.005.
    assert kept.float().mean().item() == pytest.approx(0.2, abs=0.006)
    assert kept.float().mean(1).std() < 0.15 and not torch.equal(kept[:, 0], kept[:, 1]) and not torch.equal(kept[0], kept[1])


def test_zoneout_training_equals_a_loop_by_hand(lstm: LSTM, xs: Tensor) -> None:
    outputs, final = Recurrence(Zoneout(lstm, {"h": 0.3, "c": 0.6}))(xs, noise=seeded(5))
    generator = torch.Generator().manual_seed(5)
    old_h, old_c = (mask_of((BATCH, TIME, HIDDEN), p, generator) for p in (0.3, 0.6))
    h, c = lstm.initial_state(BATCH)
    for t in range(TIME):
        _, (new_h, new_c) = lstm.step(xs[:, t], LSTMState(h, c))
        h, c = old_h[:, t] * h + (1 - old_h[:, t]) * new_h, old_c[:, t] * c + (1 - old_c[:, t]) * new_c
        torch.testing.assert_close(outputs[:, t], h)
    same(final, LSTMState(h, c))


def test_zoneout_evaluation_is_the_expectation(lstm: LSTM, xs: Tensor) -> None:
    outputs, final = Recurrence(Zoneout(lstm, {"h": 0.3, "c": 0.6})).eval()(xs)
    h, c = lstm.initial_state(BATCH)
    for t in range(TIME):
        _, (new_h, new_c) = lstm.step(xs[:, t], LSTMState(h, c))
        h, c = 0.3 * h + 0.7 * new_h, 0.6 * c + 0.4 * new_c
        torch.testing.assert_close(outputs[:, t], h)
    same(final, LSTMState(h, c))


def test_one_step_of_evaluation_is_the_mean_of_training(lstm: LSTM) -> None:
    many, state = 40_000, LSTMState(*torch.ones(2, 40_000, HIDDEN).double())
    x = torch.ones(many, 1, INPUT).double()
    layer = Recurrence(Zoneout(lstm, {"h": 0.25}))
    with torch.no_grad():
        mean = layer(x, state, noise=seeded())[0].mean(0)
        torch.testing.assert_close(mean, layer.eval()(x[:1], LSTMState(*(s[:1] for s in state)))[0][0], rtol=0, atol=0.02)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(CELLS))
def test_the_ends_of_the_probability(name: str, training: bool, xs: Tensor) -> None:
    torch.manual_seed(6)
    cell = CELLS[name](INPUT, HIDDEN).double()
    start = type(cell.initial_state(1))(*(torch.rand(BATCH, HIDDEN).double() for _ in cell.initial_state(1)))
    parts = start._fields
    lengths = torch.tensor([6, 1, 0, 3, 2])
    never = Recurrence(Zoneout(cell, dict.fromkeys(parts, 0.0))).train(training)
    same(never(xs, start), Recurrence(cell, plain=True)(xs, start), rtol=0, atol=0)
    always = Recurrence(Zoneout(cell, dict.fromkeys(parts, 1.0))).train(training)
    outputs, final = always(Padded(xs, lengths), start)
    same(final, start, rtol=0, atol=0)
    if name != "linear-recurrent-unit":  # its output is no part of its state
        torch.testing.assert_close(outputs.data[0], start[0][:1].expand(TIME, HIDDEN), rtol=0, atol=0)


def test_only_the_named_part_is_zoned_out(lstm: LSTM, xs: Tensor) -> None:
    start = LSTMState(*torch.rand(2, BATCH, HIDDEN).double())
    _, final = Recurrence(Zoneout(lstm, {"c": 1.0}))(xs, start)
    assert torch.equal(final.c, start.c) and not torch.allclose(final.h, start.h)


# -- both, and several processes ------------------------------------------------------------------------------------

NOISY: dict[str, Callable[[], Cell]] = {
    "recurrent-dropout": lambda: RecurrentDropout(LSTM(INPUT, HIDDEN), 0.5),
    "zoneout": lambda: Zoneout(LSTM(INPUT, HIDDEN), {"h": 0.5, "c": 0.5}),
    "both": lambda: Zoneout(RecurrentDropout(LSTM(INPUT, HIDDEN), 0.5), {"h": 0.5, "c": 0.5}),
    "the other way round": lambda: RecurrentDropout(Zoneout(GRU(INPUT, HIDDEN), {"h": 0.5}), 0.5),
    "zoneout twice": lambda: Zoneout(Zoneout(LSTM(INPUT, HIDDEN), {"h": 0.5}), {"c": 0.5}),
}


@pytest.mark.parametrize("name", list(NOISY))
def test_processes_draw_what_one_would(name: str, xs: Tensor) -> None:
    """Each process keeps its rows of the masks of the global batch, layer after layer."""
    torch.manual_seed(8)
    below, above = NOISY[name]().double(), RecurrentDropout(GRU(HIDDEN, HIDDEN), 0.5).double()
    layer = Stacked(Recurrence(below), Recurrence(above))
    wanted, _ = layer(xs, noise=seeded(9))
    for begin, end in ((0, 2), (2, 5), (0, 5)):
        part = Noise(torch.Generator().manual_seed(9), first_row=begin, total_rows=BATCH)
        torch.testing.assert_close(layer(xs[begin:end], noise=part)[0], wanted[begin:end])
    assert not torch.allclose(layer(xs, noise=seeded(10))[0], wanted)


@pytest.mark.parametrize("name", list(NOISY))
def test_noise_in_reverse_with_lengths_and_resets(name: str, xs: Tensor) -> None:
    torch.manual_seed(8)
    layer = Recurrence(NOISY[name]().double(), reverse=True)
    resets = torch.zeros(BATCH, TIME, dtype=torch.bool)
    resets[0, 3] = True
    outputs, final = layer(Padded(xs, torch.tensor([6, 0, 3, 1, 2])), resets=resets, noise=seeded())
    assert torch.isfinite(outputs.data).all() and (outputs.data[1] == 0).all() and final.h.shape == (BATCH, HIDDEN)


def test_both_equal_a_loop_by_hand(lstm: LSTM, xs: Tensor) -> None:
    outputs, _ = Recurrence(Zoneout(RecurrentDropout(lstm, 0.4), {"h": 0.3}))(xs, noise=seeded(5))
    generator = torch.Generator().manual_seed(5)
    mask = RecurrentMask(mask_of((BATCH, HIDDEN), 0.6, generator) / 0.6)
    old = mask_of((BATCH, TIME, HIDDEN), 0.3, generator)
    state = lstm.initial_state(BATCH)
    for t in range(TIME):
        _, new = lstm.step(xs[:, t], state, mask)
        state = LSTMState(old[:, t] * state.h + (1 - old[:, t]) * new.h, new.c)
        torch.testing.assert_close(outputs[:, t], state.h)


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5])
def test_recurrent_dropout_needs_a_probability_below_one(probability: float, lstm: LSTM) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RecurrentDropout(lstm, probability)
    assert str(refused.value) == f"`probability` must be at least 0 and below 1, got {probability}"


@pytest.mark.parametrize("wrap", [lambda cell: cell, lambda cell: Zoneout(cell, {"y": 0.1})])
def test_recurrent_dropout_needs_a_cell_that_masks(wrap: Callable[[Cell], Cell]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RecurrentDropout(wrap(FeedForward(nn.Linear(7, 4), 3, 4)), 0.5)
    assert str(refused.value) == (
        "recurrent dropout needs a cell that can mask its state, and `FeedForward.step` has no third argument; write "
        "`step(self, x, state, fixed=None)` and give the state's products `seen(state.h, fixed)`"
    )


@pytest.mark.parametrize("name", LINEAR)
def test_recurrent_dropout_needs_a_product_of_the_state(name: str) -> None:
    cell = CELLS[name](INPUT, HIDDEN)
    with pytest.raises(ConfigurationError) as refused:
        RecurrentDropout(cell, 0.5)
    assert str(refused.value) == (
        f"recurrent dropout masks what the products of a step see of its state, and `{type(cell).__name__}` has no such product; "
        "use zoneout, or dropout between layers"
    )


def test_recurrent_dropout_once_only(lstm: LSTM) -> None:
    with pytest.raises(ConfigurationError, match="^this cell has recurrent dropout already; wrap it once$"):
        RecurrentDropout(Zoneout(RecurrentDropout(lstm, 0.5), {"h": 0.1}), 0.5)


def test_zoneout_knows_the_parts_of_the_state(lstm: LSTM) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Zoneout(RecurrentDropout(lstm, 0.5), {"cell": 0.5})
    assert str(refused.value) == "the state of `LSTM` has no part `cell` to zone out; known: `c`, `h`"


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_zoneout_needs_a_probability(probability: float, lstm: LSTM) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Zoneout(lstm, {"h": probability})
    assert str(refused.value) == f"the zoneout of `h` must be between 0 and 1, got {probability}"


def test_a_network_of_the_wrong_size_says_so() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Recurrence(FeedForward(nn.Linear(7, 5), 3, 4))(torch.randn(2, 3, 3))
    assert str(refused.value) == "`network` must give [2, 4], the size it is fed back with, got [2, 5]"

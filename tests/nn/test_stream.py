"""Single steps: compiled where they can be, the cell's own elsewhere, with the same results and never with weights of before."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.state import map_state, named_leaves
from unrolled.kernels import NoCompiler
from unrolled.nn import compiled, stream
from unrolled.nn.cell import Cell, HiddenState
from unrolled.nn.cells import CELLS, GRU, LSTM, RecurrentDropout, Zoneout
from unrolled.nn.dropout import LockedDropout
from unrolled.nn.recurrence import Recurrence, Stacked

INPUT, HIDDEN = 70, 40
"""Enough parameters to be compiled, and neither as wide as vectors are."""


class OwnCell(Cell):
    """What a user may write: matrices that are not transposed, a dictionary as state, a part of it without features, masks, a pass-through."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.scale = input_size, hidden_size, 1.0
        self.mix = nn.Parameter(torch.randn(input_size + hidden_size, hidden_size) / 5)
        self.read, self.shift = nn.Linear(hidden_size, 7), nn.Linear(1, hidden_size, bias=False)
        self.register_buffer("level", torch.rand(2, hidden_size))

    output_size = 7  # type: ignore[assignment]

    def initial_state(self, batch_size: int) -> dict[str, Any]:
        nothing = self.zeros(batch_size, self.hidden_size)
        return {"h": nothing, "age": self.zeros(batch_size), "seen": (nothing > 1, self.zeros(batch_size, 2, 3))}

    def step(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        level: Any = self.level
        both = torch.cat([x, state["h"]], -1) @ self.mix
        h = torch.tanh(self.scale * both + level[1] * self.shift.weight[:, 0].exp()) / (1 + state["age"].unsqueeze(-1))
        h = torch.where(state["seen"][0], h / 2, h)
        return self.read(h), {"h": h, "age": state["age"] + 1, "seen": (h > 0.1, state["seen"][1])}


MAKERS: dict[str, Callable[[int, int], Cell]] = {
    **CELLS,
    "own": OwnCell,
    "recurrent-dropout": lambda i, h: RecurrentDropout(LSTM(i, h), 0.4),
    "zoneout": lambda i, h: Zoneout(LSTM(i, h), {"h": 0.3, "c": 0.5}),
}
QUICK = ("gru", "own", "layer-norm-lstm")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each step of a layer so far, whether it was compiled."""
    ways: list[bool] = []
    run = stream.run_step

    def watched(*arguments: Any) -> Any:
        result = run(*arguments)
        ways.append(result is not None)
        return result

    monkeypatch.setattr(stream, "run_step", watched)
    return ways


def make(name: str, dtype: torch.dtype = torch.float64) -> Cell:
    """A cell whose every parameter is random: a bias at zero would hide a mistake."""
    torch.manual_seed(0)
    cell = MAKERS[name](INPUT, HIDDEN).to(dtype).eval()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return cell


def same(got: Any, wanted: Any, **tolerance: float) -> None:
    got, wanted = dict(named_leaves(got)), dict(named_leaves(wanted))
    assert got.keys() == wanted.keys()
    for path in wanted:
        torch.testing.assert_close(got[path], wanted[path], **tolerance)


def agree(cell: Cell, **tolerance: float) -> None:
    """A step from some state, by either way."""
    like = cell.zeros()
    with torch.no_grad():
        x, state = torch.randn(2, cell.input_size, dtype=like.dtype), map_state(torch.zeros_like, cell.initial_state(2))
        _, state = cell.step(x, state)
        got, wanted = Recurrence(cell).step(x, state), cell.step(x, state)
    same(got, wanted, **tolerance)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MAKERS])
def test_a_stream_equals_the_steps_of_the_cell(name: str, taken: list[bool]) -> None:
    cell = make(name)
    layer = Recurrence(cell)
    with torch.inference_mode():
        for batch in (1, 2, 5, 19):
            state = wanted_state = cell.initial_state(batch)
            for x in torch.randn(batch, 4, INPUT, dtype=torch.float64).unbind(1):  # strided where there are many rows
                before = map_state(torch.clone, state)
                output, after = layer.step(x, state)
                same(state, before, rtol=0, atol=0)
                wanted, wanted_state = cell.step(x, wanted_state)
                state = after
                same((output, state), (wanted, wanted_state), rtol=1e-11, atol=1e-12)
                assert type(state) is type(wanted_state) and (output is getattr(state, "h", None)) == (
                    wanted is getattr(wanted_state, "h", 0)
                )
    assert taken == [True] * 16


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_does_not_depend_on_the_others(threads: int, taken: list[bool]) -> None:
    """To the last bit, whatever the batch and the threads."""
    cell = make("lstm", torch.float32)
    layer, x = Recurrence(cell), torch.randn(37, INPUT)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with torch.inference_mode():
        state = map_state(torch.randn_like, cell.initial_state(37))
        all_rows = layer.step(x, state)
        for row in (0, 17, 36):
            alone = layer.step(x[row : row + 1], map_state(lambda leaf, row=row: leaf[row : row + 1], state))
            same(alone, map_state(lambda leaf, row=row: leaf[row : row + 1], all_rows), rtol=0, atol=0)
    torch.set_num_threads(before)
    assert all(taken)


# -- weights that change --------------------------------------------------------------------------------------------


def by_optimizer(cell: Cell) -> None:
    optimizer = torch.optim.Adam(cell.parameters(), lr=0.1)
    x, state = torch.randn(3, INPUT, dtype=cell.zeros().dtype), cell.initial_state(3)
    cell.step(x, state)[0].square().sum().backward()
    optimizer.step()


def by_loading(cell: Cell) -> None:
    cell.load_state_dict({name: value + 0.1 for name, value in cell.state_dict().items()})


def behind_the_back_of_autograd(cell: Cell) -> None:
    for parameter in cell.parameters():
        parameter.data.mul_(1.5)


def by_numpy(cell: Cell) -> None:
    for parameter in cell.parameters():
        parameter.detach().numpy()[...] *= 1.5


def under_inference_mode(cell: Cell) -> None:
    with torch.inference_mode():
        for parameter in cell.parameters():
            parameter.mul_(1.5)


def by_other_memory(cell: Cell) -> None:
    for parameter in cell.parameters():
        parameter.data = 1.5 * parameter.data


def by_other_parameters(cell: Cell) -> None:
    for part in cell.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(1.5 * parameter.detach()))


def by_other_parts(cell: Cell) -> None:
    for name, part in list(cell.named_children()):
        other = copy.deepcopy(part)
        by_numpy(other)  # type: ignore[arg-type]
        setattr(cell, name, other)


def by_another_order_in_memory(cell: Cell) -> None:
    for parameter in cell.parameters():
        if parameter.dim() == 2 and parameter.shape[0] == parameter.shape[1]:
            parameter.data = parameter.data.t()


def by_another_type(cell: Cell) -> None:
    cell.float()


CHANGES = (
    by_optimizer,
    by_loading,
    behind_the_back_of_autograd,
    by_numpy,
    under_inference_mode,
    by_other_memory,
    by_other_parameters,
    by_other_parts,
    by_another_order_in_memory,
    by_another_type,
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["gru", "own"])
def test_a_change_of_weights_is_seen_at_once(name: str, change: Callable[[Cell], None], taken: list[bool]) -> None:
    cell = make(name)
    agree(cell)
    change(cell)
    agree(cell)
    by_numpy(cell)
    agree(cell)
    assert taken[0] and (all(taken) or change is by_another_order_in_memory)


def test_weights_made_under_inference_mode(taken: list[bool]) -> None:
    with torch.inference_mode():
        cell = make("gru")
        agree(cell)
        for parameter in cell.parameters():
            parameter.mul_(2)
        agree(cell)
    assert all(taken)


def test_a_changed_attribute_counts(taken: list[bool]) -> None:
    cell = make("own")
    agree(cell)
    cell.scale = 2.0
    agree(cell)
    assert all(taken)


def test_a_parameter_that_is_added_or_taken_away_counts(taken: list[bool]) -> None:
    cell: Any = make("gru")
    bias = cell.from_input.bias
    agree(cell)
    cell.from_input.bias = None
    agree(cell)
    cell.candidate_from_hidden.bias = nn.Parameter(torch.ones_like(bias[:HIDDEN]))
    agree(cell)
    cell.from_input.bias = bias
    agree(cell)
    assert all(taken)


def test_weights_that_are_computed(taken: list[bool]) -> None:
    cell: Any = make("gru")
    nn.utils.parametrizations.weight_norm(cell.from_input)
    agree(cell)
    by_numpy(cell)
    agree(cell)
    assert all(taken)


def test_tied_weights_and_untied_ones(taken: list[bool]) -> None:
    cell: Any = make("own")
    cell.again = cell.read
    agree(cell)
    cell.again = copy.deepcopy(cell.read)
    agree(cell)
    assert all(taken)


def test_copies_have_weights_of_their_own(taken: list[bool]) -> None:
    cell = make("gru")
    agree(cell)
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        by_numpy(other)
        agree(other)
        agree(cell)
    assert all(taken)


def test_nothing_keeps_a_cell_alive(taken: list[bool]) -> None:
    cell = make("gru")
    agree(cell)
    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None and all(taken)


# -- who calls ------------------------------------------------------------------------------------------------------


def test_two_threads_at_once(taken: list[bool]) -> None:
    cell, steps = make("layer-norm-lstm", torch.float32), 300
    layer, xs = Recurrence(cell), torch.randn(2, steps, 3, INPUT)
    found: dict[int, Any] = {}

    def read(place: int) -> None:
        with torch.inference_mode():
            state = cell.initial_state(3)
            for x in xs[place]:
                _, state = layer.step(x, state)
            found[place] = state

    read(0), read(1)
    wanted = dict(found)
    threads = [threading.Thread(target=read, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(found, wanted, rtol=0, atol=0)
    assert all(taken)


def test_gradients_are_the_cell_s_own_matter(taken: list[bool]) -> None:
    cell = make("gru")
    layer, x, state = Recurrence(cell), torch.randn(2, INPUT, dtype=torch.float64), cell.initial_state(2)
    output, _ = layer.step(x, state)
    output.sum().backward()
    assert not taken[-1] and cell.zeros().requires_grad is False and next(cell.parameters()).grad is not None
    cell.requires_grad_(False)
    assert not layer.step(x, state)[0].requires_grad and taken[-1], "nothing wants a gradient"
    assert layer.step(x.clone().requires_grad_(), state)[0].requires_grad and not taken[-1]
    assert layer.step(x, HiddenState(state.h.clone().requires_grad_()))[0].requires_grad and not taken[-1]
    with torch.no_grad():
        layer.step(x.clone().requires_grad_(), state)
    assert taken[-1]


def test_what_torch_traces_or_transforms(taken: list[bool]) -> None:
    cell = make("gru").requires_grad_(False)
    layer, x, state = Recurrence(cell), torch.randn(4, INPUT, dtype=torch.float64), cell.initial_state(4)
    wanted = cell.step(x, state)[0]

    def step(x: Tensor, h: Tensor) -> Tensor:
        return layer.step(x, HiddenState(h))[0]

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(torch.vmap(lambda x, h: step(x[None], h[None])[0])(x, state.h), wanted)
        _, tangent = torch.func.jvp(lambda x: step(x, state.h), (x,), (torch.ones_like(x),))
        assert tangent.abs().sum() > 0
        traced = torch.jit.trace(step, (x, state.h), check_trace=False)
        same(traced(2 * x, state.h), cell.step(2 * x, state)[0])
    assert not any(taken)


def test_half_precision_around_it(taken: list[bool]) -> None:
    cell = make("gru", torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output, _ = Recurrence(cell).step(torch.randn(2, INPUT).bfloat16(), cell.initial_state(2))
    assert taken == [False] and output.dtype == torch.float32


def test_who_looks_inside_sees_every_step(taken: list[bool]) -> None:
    cell: Any = make("gru")
    agree(cell)
    seen: list[int] = []
    handle = cell.from_input.register_forward_hook(lambda *_: seen.append(1))
    agree(cell)
    assert taken == [True, False] and len(seen) == 3
    handle.remove()
    agree(cell)
    assert taken[-1]


def test_small_cells_and_plain_layers_are_not_compiled(taken: list[bool]) -> None:
    small = GRU(4, 4)
    with torch.no_grad():
        Recurrence(small).step(torch.randn(1, 4), small.initial_state(1))
        cell = make("gru")
        Recurrence(cell, plain=True).step(torch.randn(1, INPUT, dtype=torch.float64), cell.initial_state(1))
        assert taken == [False]
        output, state = Recurrence(cell).step(torch.randn(0, INPUT, dtype=torch.float64), cell.initial_state(0))
    assert output.shape == state.h.shape == (0, HIDDEN) and taken == [False, False]


def test_a_stack_streams_layer_by_layer(taken: list[bool]) -> None:
    stack = Stacked(LockedDropout(0.5), Recurrence(make("gru")), LockedDropout(0.5), Recurrence(GRU(HIDDEN, HIDDEN).double())).eval()
    xs = torch.randn(3, 5, INPUT, dtype=torch.float64)
    with torch.inference_mode():
        wanted, last = stack(xs)
        state = stack.initial_state(3)
        for place, x in enumerate(xs.unbind(1)):
            output, state = stack.step(x, state)
            same(output, wanted[:, place], rtol=1e-11, atol=1e-12)
        same(state, last, rtol=1e-11, atol=1e-12)
    assert taken == [True] * 10


class Sorting(Cell):
    """A step with an operation that no kernel has."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.mix = nn.Linear(input_size + hidden_size, hidden_size)

    def step(self, x: Any, state: Any) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, state.h], -1))).sort(-1).values
        return h, HiddenState(h)


def test_an_unknown_operation_is_said_once(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_told", set())
    cell = Sorting(2 * HIDDEN, HIDDEN)
    with pytest.warns(UserWarning, match=r"single steps of `Sorting` are not compiled.*sort"):
        agree(cell)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree(cell)
    assert taken == [False, False]


def test_without_a_compiler(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*arguments: Any) -> Any:
        raise NoCompiler("no C++ compiler was found")

    monkeypatch.setattr(compiled, "_told", set())
    monkeypatch.setattr(stream, "SingleStep", nothing)
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler"):
        agree(make("gru"))
    assert taken == [False]

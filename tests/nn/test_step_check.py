"""A cell that owes something is told what, before anything else goes wrong."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.core.padded import Padded
from unrolled.nn import compiled
from unrolled.nn.cell import Cell, HiddenState
from unrolled.nn.cells import GRU, LSTM, LSTMState, RecurrentDropout, Zoneout
from unrolled.nn.recurrence import Recurrence, Stacked
from unrolled.nn.step_check import checked_output_size
from unrolled.nn.stream import take_step
from unrolled.nn.unroll import Sequences
from unrolled.nn.ways import way_of, ways_in_words

SMALL, LARGE = 8, 64
"""Too small to be compiled, and large enough."""


class Owing(Cell):
    """A right step, until `spoiled` is another one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.input_size = self.hidden_size = size
        self.mix = nn.Linear(2 * size, size)

    def spoiled(self, h: Tensor) -> Any:
        return h, HiddenState(h)

    def step(self, x: Any, state: Any) -> Any:
        return self.spoiled(torch.tanh(self.mix(torch.cat([x, state.h], -1))))


class OutputAlone(Owing):
    def spoiled(self, h: Tensor) -> Any:
        return h


class Three(Owing):
    def spoiled(self, h: Tensor) -> Any:
        return h, HiddenState(h), None


class Twice(Owing):
    def spoiled(self, h: Tensor) -> Any:
        return torch.cat([h, h], -1), HiddenState(h)


class Summed(Owing):
    def spoiled(self, h: Tensor) -> Any:
        return h.sum(-1), HiddenState(h)


class OwnWidth(Twice):
    @property
    def output_size(self) -> int:
        return 3 * self.hidden_size


class BareState(Owing):
    def spoiled(self, h: Tensor) -> Any:
        return h, h


class OtherState(Owing):
    def spoiled(self, h: Tensor) -> Any:
        return h, LSTMState(h, h)


class NoState(Owing):
    def spoiled(self, h: Tensor) -> Any:
        return h, 7


WORDS = {
    OutputAlone: r"`step` of the cell `OutputAlone` must give back a pair, the output and the new state, got a tensor \[3, SIZE\]",
    Three: "a pair, the output and the new state, got 3 things",
    Twice: r"an output \[batch, SIZE\], as its `hidden_size` says, got \[3, DOUBLE\]; say another width as `output_size`",
    Summed: r"an output \[batch, SIZE\], as its `hidden_size` says, got \[3\]",
    OwnWidth: r"as its `output_size` says, got \[3, DOUBLE\]",
    BareState: "a state of the same parts as `initial_state` does, `h`, got one tensor",
    OtherState: "`h`, got `c`, `h`",
    NoState: "`h`, got `int`",
}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("cell", WORDS, ids=lambda cell: cell.__name__)
def test_what_a_step_gives_back_is_checked(cell: type[Owing], size: int) -> None:
    words = WORDS[cell].replace("SIZE", str(size)).replace("DOUBLE", str(2 * size))
    layer = Recurrence(cell(size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that nothing is compiled is not what is wrong
        for plain in (False, True):
            layer.plain = plain
            with pytest.raises(ConfigurationError, match=words):
                layer(torch.randn(3, 5, size))
        layer.plain = False
        with torch.no_grad(), pytest.raises(ConfigurationError, match=words):
            layer.step(torch.randn(3, size), layer.initial_state(3))


def test_a_pair_may_be_a_list() -> None:
    class Listed(Owing):
        def spoiled(self, h: Tensor) -> Any:
            return [h, HiddenState(h)]

    torch.manual_seed(0)
    right, listed = Owing(SMALL), Listed(SMALL)
    listed.load_state_dict(right.state_dict())
    xs = torch.randn(3, 5, SMALL)
    torch.testing.assert_close(Recurrence(listed)(xs)[0], Recurrence(right)(xs)[0])


def test_what_fails_by_itself_is_not_said_to_be_slow() -> None:
    class Failing(Owing):
        def spoiled(self, h: Tensor) -> Any:
            return h @ h, HiddenState(h)

    layer = Recurrence(Failing(LARGE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=f"3x{LARGE}"):
            layer(torch.randn(3, 5, LARGE))
        with torch.no_grad(), pytest.raises(RuntimeError, match=f"3x{LARGE}"):
            layer.step(torch.randn(3, LARGE), layer.initial_state(3))


def test_a_state_of_other_parts_is_no_fault_of_the_cell() -> None:
    given = LSTMState(torch.zeros(3, SMALL), torch.zeros(3, SMALL))
    with pytest.raises(UserError, match="`state` must have the parts that `initial_state` of `Owing` gives, `h`, got `c`, `h`"):
        Recurrence(Owing(SMALL))(torch.randn(3, 5, SMALL), given)


@pytest.mark.parametrize("wrap", [lambda cell: Zoneout(cell, {"h": 0.1}), lambda cell: RecurrentDropout(cell, 0.1)])
@pytest.mark.parametrize("cell", [OutputAlone, Twice])
def test_of_a_cell_within_another_the_inner_one_is_named(cell: type[Owing], wrap: Any) -> None:
    class Owes(cell):  # type: ignore[misc, valid-type]
        def step(self, x: Any, state: Any, fixed: Any = None) -> Any:
            return super().step(x, state)

    with pytest.raises(ConfigurationError, match="of the cell `Owes` must give back"):
        Recurrence(wrap(Owes(SMALL)))(torch.randn(3, 5, SMALL))


def test_a_single_step_is_checked() -> None:
    with torch.no_grad(), pytest.raises(ConfigurationError, match="of the cell `Twice` must give back an output"):
        take_step(Twice(SMALL), torch.randn(3, SMALL), HiddenState(torch.zeros(3, SMALL)))


def test_a_cell_without_a_size() -> None:
    class Sizeless(Owing):
        def __init__(self) -> None:
            super().__init__(SMALL)
            del self.hidden_size

    with pytest.raises(ConfigurationError, match="the cell `Sizeless` must say how wide it is, found no size; set `self.hidden_size`"):
        Recurrence(Sizeless())


def test_what_is_no_cell() -> None:
    with pytest.raises(ConfigurationError, match=r"must be derived from `unrolled.nn.Cell`, got LSTMCell"):
        checked_output_size(nn.LSTMCell(2, 3))


# --- Which way --------------------------------------------------------------------------------------------------------


def test_the_way_is_shown() -> None:
    layer = Recurrence(GRU(LARGE, LARGE), reverse=True)
    assert way_of(layer.cell) is None
    assert ways_in_words(layer) == ""
    assert "reverse" in repr(layer)
    assert "by" not in repr(layer).partition("\n")[2].partition("(cell)")[0]
    layer(torch.randn(2, 3, LARGE))
    assert way_of(layer.cell) == "compiled"
    assert ways_in_words(layer) == "GRU: a compiled loop"
    assert "reverse, by a compiled loop" in repr(layer)
    assert way_of(layer.cell, training=False) is None
    layer.eval().plain = True
    layer(torch.randn(2, 3, LARGE))
    assert way_of(layer.cell) == "compiled"
    assert "reverse, plain, by one step after the other" in repr(layer)


def test_ways_of_several_cells() -> None:
    stack = Stacked(Recurrence(LSTM(SMALL, SMALL)), Recurrence(LSTM(SMALL, SMALL)))
    stack(torch.randn(2, 3, SMALL))
    assert way_of(stack.layers[0].cell) == "whole"  # type: ignore[union-attr, arg-type]
    assert ways_in_words(stack) == ""
    both = Stacked(*stack.layers, Recurrence(GRU(SMALL, SMALL)))  # type: ignore[arg-type]
    both(torch.randn(2, 3, SMALL))
    assert ways_in_words(both) == "LSTM: its own form for all steps; GRU: one step after the other"


def test_of_a_wrapped_cell_the_inner_one_is_told() -> None:
    layer = Recurrence(Zoneout(GRU(SMALL, SMALL), {"h": 0.1}))
    layer(torch.randn(2, 3, SMALL))
    assert ways_in_words(layer) == "GRU: one step after the other"


def test_sequences_behind_one_another_have_a_way_too() -> None:
    lengths = torch.tensor([40, *[5] * 30])
    xs = Padded(torch.randn(31, 40, LARGE), lengths)
    for cell, way in ((GRU(LARGE, LARGE), "compiled"), (LSTM(LARGE, LARGE), "whole")):
        layer = Recurrence(cell, outputs_only=True)
        layer(xs)
        assert way_of(cell) == way
    layer.eval()(xs, layer.initial_state(31))  # not behind one another, but over the padding
    assert way_of(cell, training=False) == "whole"


def test_a_cell_that_was_refused_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sorting(Owing):
        def spoiled(self, h: Tensor) -> Any:
            return h.sort(-1).values, HiddenState(h)

    monkeypatch.setattr(compiled, "_told", set())
    cell = Sorting(LARGE)
    xs = torch.randn(2, 3, LARGE)
    assert compiled.workload_of(cell, xs, Sequences(xs, None, None)) is not None
    with pytest.warns(UserWarning, match="`Sorting` is unrolled step by step"):
        Recurrence(cell)(xs)
    assert compiled.workload_of(cell, xs, Sequences(xs, None, None)) is None
    assert way_of(cell) == "steps"

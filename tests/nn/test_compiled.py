"""Which way a recurrence takes: compiled where it can be, the plain loop elsewhere, with the same results."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import map_state, named_leaves
from unrolled.kernels import NoCompiler, has_bfloat16_products
from unrolled.nn import compiled
from unrolled.nn.cell import Cell, HiddenState, Workload
from unrolled.nn.cells import CELLS, GRU, LSTM, Elman, PeepholeLSTM, RecurrentDropout, ResetAfterGRU, Zoneout
from unrolled.nn.recurrence import Bidirectional, Recurrence
from unrolled.nn.unroll import Sequences

HIDDEN = 40
"""Enough parameters to be compiled."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each unrolling so far, whether it was compiled."""
    ways: list[bool] = []
    run = compiled.run_compiled

    def watched(*arguments: Any) -> Any:
        result = run(*arguments)
        ways.append(result is not None)
        return result

    monkeypatch.setattr("unrolled.nn.recurrence.run_compiled", watched)
    return ways


def close(one: Any, other: Any) -> None:
    map_state(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5), one, other)


def gradients(layer: Recurrence, xs: Any, **given: Any) -> list[Tensor | None]:
    layer.zero_grad()
    data = xs.data if isinstance(xs, Padded) else xs
    data.grad = None
    outputs, final = layer(xs, **given)
    (outputs.data.square().sum() + sum(leaf.sin().sum() for _, leaf in named_leaves(final))).backward()
    return [data.grad.clone(), *[parameter.grad for parameter in layer.parameters()]]


@pytest.mark.parametrize("name", ["gru", "peephole-lstm", *[pytest.param(name, marks=pytest.mark.slow) for name in CELLS]])
def test_equals_the_plain_loop(name: str, taken: list[bool]) -> None:
    cell = CELLS[name](HIDDEN, HIDDEN)
    xs = Padded(torch.randn(3, 6, HIDDEN, requires_grad=True), torch.tensor([6, 0, 4]))
    resets = torch.zeros(3, 6, dtype=torch.bool)
    resets[0, 3] = resets[2, 0] = True
    ways = Recurrence(cell), Recurrence(cell, plain=True)
    close(*[layer(xs, resets=resets) for layer in ways])
    for ours, plain in zip(*[gradients(layer, xs, resets=resets) for layer in ways], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    if name not in ("lstm", "reset-after-gru", "elman", "elman-relu", "mingru"):  # these have a vendor's kernel, or few parameters
        assert taken and all(taken)


@pytest.mark.parametrize("wrap", [lambda cell: RecurrentDropout(cell, 0.3), lambda cell: Zoneout(cell, {"h": 0.2, "c": 0.1})])
def test_noise_of_a_sequence_and_of_each_step(wrap: Any, taken: list[bool]) -> None:
    cell, xs = wrap(LSTM(HIDDEN, HIDDEN)).train(), torch.randn(2, 5, HIDDEN)
    ours, plain = (Recurrence(cell, plain=plain)(xs, noise=Noise(torch.Generator().manual_seed(1))) for plain in (False, True))
    close(ours, plain)
    assert taken == [True]


def test_both_directions(taken: list[bool]) -> None:
    layer, xs = Bidirectional(GRU(HIDDEN, HIDDEN), GRU(HIDDEN, HIDDEN)), Padded(torch.randn(2, 5, HIDDEN), torch.tensor([5, 2]))
    ours = layer(xs)
    layer.forwards.plain = layer.backwards.plain = True
    plain = layer(xs)
    close((ours[0].data, ours[1]), (plain[0].data, plain[1]))
    assert taken == [True, True]


def exactly(cell: Cell, xs: Tensor) -> list[Tensor]:
    """Outputs and all gradients by the plain loop in float64."""
    return outputs_and_gradients(Recurrence(copy.deepcopy(cell).double(), plain=True), xs.detach().double())


def outputs_and_gradients(layer: Recurrence, xs: Tensor, *, autocast: bool = False) -> list[Tensor]:
    data = xs.detach().clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs, final = layer(data)
    loss = outputs.double().square().sum() + sum(leaf.double().sin().sum() for _, leaf in named_leaves(final))
    loss.backward()
    return [outputs.detach(), *[leaf.grad for leaf in (data, *layer.parameters())]]


def check_errors(ours: list[Tensor], plain: list[Tensor], wanted: list[Tensor]) -> None:
    for found, theirs, exact in zip(ours, plain, wanted, strict=True):
        assert (found - exact).norm() <= 2 * (theirs - exact).norm()


BRIEF = ["gru", "peephole-lstm", pytest.param("layer-norm-lstm", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", BRIEF)
def test_half_precision_around_it(name: str, taken: list[bool]) -> None:
    cell, xs = CELLS[name](64, 64), torch.randn(8, 20, 64)
    ours, plain = (outputs_and_gradients(Recurrence(cell, plain=way), xs, autocast=True) for way in (False, True))
    assert taken == [True] and ours[0].dtype == torch.float32
    check_errors(ours, plain, exactly(cell, xs))
    precisely = outputs_and_gradients(Recurrence(cell), xs)
    for found, near in zip(ours, precisely, strict=True):
        assert torch.equal(found, near) is not has_bfloat16_products(), "products of bfloat16 where the processor has them"
    with torch.autocast("cpu", torch.bfloat16):
        Recurrence(cell)(xs.bfloat16())
    assert taken == [True] * 3


@pytest.mark.parametrize("name", BRIEF)
def test_cells_of_half_precision(name: str, taken: list[bool]) -> None:
    cell, xs = CELLS[name](64, 64).bfloat16(), torch.randn(8, 20, 64).bfloat16()
    ours, plain = (outputs_and_gradients(Recurrence(cell, plain=way), xs) for way in (False, True))
    assert taken == [True]
    assert {part.dtype for part in ours} == {torch.bfloat16}
    check_errors(ours, plain, exactly(cell, xs))
    outputs, final = Recurrence(cell)(Padded(xs, torch.tensor([20, 3] * 4)), resets=torch.rand(8, 20) < 0.1)
    assert {outputs.data.dtype, *[leaf.dtype for _, leaf in named_leaves(final)]} == {torch.bfloat16}
    assert taken == [True] * 2


def test_half_precision_without_such_products_is_single_precision(monkeypatch: pytest.MonkeyPatch, taken: list[bool]) -> None:
    monkeypatch.setattr(compiled, "has_bfloat16_products", lambda: False)
    cell, xs = GRU(64, 64), torch.randn(8, 20, 64)
    found, wanted = outputs_and_gradients(Recurrence(cell), xs, autocast=True), outputs_and_gradients(Recurrence(cell), xs)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))
    brief = copy.deepcopy(cell).bfloat16()
    outputs, _ = Recurrence(brief)(xs.bfloat16())
    wide, _ = Recurrence(brief.float())(xs.bfloat16().float())
    assert torch.equal(outputs, wide.bfloat16())
    assert all(taken)


def test_small_cells_are_not_compiled(taken: list[bool]) -> None:
    Recurrence(GRU(4, 4))(torch.randn(2, 3, 4))
    assert taken == [False]


def test_what_torch_transforms_is_not_compiled(taken: list[bool]) -> None:
    cell, xs = PeepholeLSTM(HIDDEN, HIDDEN), torch.randn(2, 3, HIDDEN)
    layer = Recurrence(cell)
    plain = Recurrence(cell, plain=True)

    def read(x: Tensor) -> Tensor:
        return layer(x.unsqueeze(0))[0].sum(-1)

    close(torch.vmap(read)(xs).squeeze(1), plain(xs)[0].sum(-1))
    _, tangent = torch.func.jvp(lambda x: layer(x)[0], (xs,), (torch.ones_like(xs),))
    _, expected = torch.func.jvp(lambda x: plain(x)[0], (xs,), (torch.ones_like(xs),))
    close(tangent, expected)
    assert not any(taken)


def test_a_second_derivative(taken: list[bool]) -> None:
    cell, xs = GRU(HIDDEN, HIDDEN), torch.randn(1, 3, HIDDEN, requires_grad=True)
    found = []
    for plain in (False, True):
        (first,) = torch.autograd.grad(Recurrence(cell, plain=plain)(xs)[0].square().sum(), xs, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), list(cell.parameters())))
    close(tuple(found[0]), tuple(found[1]))
    assert taken == [True]


def test_who_looks_inside_sees_every_step(taken: list[bool]) -> None:
    cell, seen = GRU(HIDDEN, HIDDEN), []
    cell.from_input.register_forward_hook(lambda *_: seen.append(1))
    Recurrence(cell)(torch.randn(2, 3, HIDDEN))
    assert taken == [False] and len(seen) == 3


class Sorting(Cell):
    """A step with an operation that no loop has."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.mix = nn.Linear(input_size + hidden_size, hidden_size)

    def step(self, x: Any, state: Any) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, state.h], -1))).sort(-1).values
        return h, HiddenState(h)


def test_an_unknown_operation_is_said_once(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_told", set())
    layer = Recurrence(Sorting(2 * HIDDEN, HIDDEN))
    with pytest.warns(UserWarning, match=r"`Sorting` is unrolled step by step.*sort"):
        layer(torch.randn(2, 3, 2 * HIDDEN))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(2, 3, 2 * HIDDEN))
    assert taken == [False, False]


def no_compiler(*arguments: Any) -> Any:
    raise NoCompiler("no C++ compiler was found")


def test_without_a_compiler(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_told", set())
    monkeypatch.setattr(compiled, "make_loop", no_compiler)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        Recurrence(GRU(HIDDEN, HIDDEN))(torch.randn(2, 3, HIDDEN))
    assert taken == [False]


class Scaled(Cell):
    """A number among its attributes is part of what is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size = self.hidden_size = 2 * HIDDEN
        self.mix, self.scale = nn.Linear(2 * HIDDEN, 2 * HIDDEN), 1.0

    def step(self, x: Any, state: Any) -> Any:
        h = torch.tanh(self.mix(state.h) + self.scale * x)
        return h, HiddenState(h)


def test_a_changed_attribute_counts(taken: list[bool]) -> None:
    cell, xs = Scaled(), torch.randn(2, 3, 2 * HIDDEN)
    first = Recurrence(cell)(xs)[0]
    cell.scale = 2.0
    close(Recurrence(cell)(xs)[0], Recurrence(cell, plain=True)(xs)[0])
    assert not torch.allclose(first, Recurrence(cell)(xs)[0]) and all(taken)


def test_what_is_compiled_keeps_no_cell_alive(taken: list[bool]) -> None:
    cell = GRU(HIDDEN, HIDDEN)
    Recurrence(cell)(torch.randn(1, 2, HIDDEN))[0].sum().backward()
    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None and taken == [True]


@pytest.mark.parametrize("wrap", [lambda cell: cell, lambda cell: RecurrentDropout(cell, 0.3)])
def test_torch_s_kernel_is_taken_where_it_is_the_faster_one(wrap: Any, taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a rule alone: a narrow LSTM's for up to four lengths, torch's form of the GRU never; in bfloat16 only where the processor has its products."""
    (lstm, gru), xs = (wrap(kind(HIDDEN, HIDDEN)).eval() for kind in (LSTM, ResetAfterGRU)), torch.randn(6, 8, HIDDEN)
    few, many = torch.tensor([8, 8, 5, 3, 5, 2]), torch.tensor([8, 7, 5, 3, 4, 2])
    for cell, given, compiled_ones in ((lstm, xs, 0), (lstm, Padded(xs, few), 0), (lstm, Padded(xs, many), 1), (gru, xs, 1)):
        taken.clear()
        ours, plain = (Recurrence(cell, plain=plain)(given) for plain in (False, True))
        assert taken == [True] * compiled_ones
        close((ours[0].data, ours[1]), (plain[0].data, plain[1]))
    wide = wrap(LSTM(HIDDEN, 256)).eval()
    for products in (False, True):
        monkeypatch.setattr("unrolled.nn.recurrence.has_bfloat16_products", lambda products=products: products)
        for wanted, compiled_ones in ((True, 2), (False, 1)):
            taken.clear()
            with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(wanted):
                for cell in (lstm, gru, wide):
                    Recurrence(cell)(Padded(xs, few))
            assert taken == [True] * products * compiled_ones


@pytest.mark.parametrize(
    ("units", "work", "ours"),
    [
        *[(units, Workload(16, 1, gradients=True), units >= 192) for units in (64, 128, 191, 192, 1024)],
        *[(128, Workload(rows, 1, gradients=True), rows >= 96) for rows in (1, 95, 96, 500)],
        (95, Workload(500, 1, gradients=True), False),
        *[(units, Workload(64, 1, gradients=True, of_inputs=True), False) for units in (64, 256, 640, 1024)],
        *[
            (units, Workload(64, 1, True, of_inputs, bfloat16=True), units >= 128)
            for units in (64, 127, 128, 1024)
            for of_inputs in (False, True)
        ],
        *[(units, Workload(32, 1, bfloat16=True), units >= 1024) for units in (64, 256, 640, 1023, 1024)],
        *[(units, Workload(2, 1, some, some), units >= 256) for units in (64, 191, 255, 256, 1024) for some in (False, True)],
        *[(units, Workload(3, 1, some, some), units >= 640) for units in (256, 639, 640, 1024) for some in (False, True)],
        *[(1024, Workload(rows, 1, some, some), rows <= 32) for rows in (1, 32, 33, 500) for some in (False, True)],
        *[(64, Workload(16, runs, wanted), runs > 4) for runs in (1, 4, 5) for wanted in (False, True)],
    ],
)
def test_which_lstms_are_compiled(units: int, work: Workload, ours: bool) -> None:
    assert LSTM(2, units).prefers_whole(work) is not ours
    assert not any(kind(2, units).prefers_whole(work) for kind in (Elman, ResetAfterGRU))


@pytest.mark.parametrize("without", ["compiler", "secrecy", "device"])
def test_where_nothing_is_compiled_padding_costs_one_call(without: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a compiler, where somebody looks into the cell, and on a GPU."""
    cell, calls, whole = LSTM(HIDDEN, 256), [], LSTM.whole
    xs = Padded(torch.randn(5, 8, HIDDEN), torch.tensor([8, 7, 5, 4, 2]))
    assert not cell.prefers_whole(Workload(5, 5, gradients=True)), "else nothing is asked here"
    if without == "compiler":
        monkeypatch.setattr(compiled, "make_loop", no_compiler)
        monkeypatch.setattr(compiled, "_told", set())
        with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
            Recurrence(cell)(xs)
    elif without == "secrecy":
        cell.register_forward_hook(lambda *given: None)
    else:
        monkeypatch.setattr(Tensor, "is_cpu", False)
    monkeypatch.setattr(LSTM, "whole", lambda *given: calls.append(given) or whole(*given))
    layer = Recurrence(cell, outputs_only=True)
    outputs, _ = layer(xs)
    close(outputs.data, Recurrence(cell, plain=True)(xs)[0].data)
    assert len(calls) == 1


def test_what_a_workload_is() -> None:
    xs = torch.randn(3, 4, HIDDEN)

    def of(cell: Cell, data: Tensor = xs, lengths: Tensor | None = None) -> Workload | None:
        return compiled.workload_of(cell, data, Sequences(data, lengths, None))

    cell = LSTM(HIDDEN, HIDDEN)
    assert of(cell) == Workload(3, 1, gradients=True)
    assert of(cell, lengths=torch.tensor([4, 2, 1])) == Workload(3, 3, gradients=True)
    wanted = xs.clone().requires_grad_()
    assert of(cell, wanted) == Workload(3, 1, gradients=True, of_inputs=True)
    frozen = LSTM(HIDDEN, HIDDEN).requires_grad_(False)
    assert of(frozen) == Workload(3, 1)
    assert of(frozen, wanted) == Workload(3, 1, gradients=True, of_inputs=True)
    with torch.no_grad():
        assert of(cell, wanted) == Workload(3, 1)
    brief = has_bfloat16_products()
    assert of(LSTM(HIDDEN, HIDDEN).bfloat16(), xs.bfloat16()) == Workload(3, 1, gradients=True, bfloat16=brief)
    with torch.autocast("cpu", torch.bfloat16):
        assert of(cell) == Workload(3, 1, gradients=True, bfloat16=brief)
        assert of(LSTM(HIDDEN, HIDDEN).double(), xs.double()) == Workload(3, 1, gradients=True)
    assert of(LSTM(2, 2), torch.randn(3, 4, 2)) is None


def test_rows_are_counted_behind_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Workload] = []
    monkeypatch.setattr(LSTM, "prefers_whole", lambda cell, work: asked.append(work) or True)
    Recurrence(LSTM(HIDDEN, HIDDEN), outputs_only=True)(Padded(torch.randn(60, 40, HIDDEN), torch.tensor([40] * 4 + [4] * 56)))
    assert len(asked) == 1 and asked[0].rows < 30


def test_that_there_is_no_compiler_is_said_of_torch_s_kernels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_told", set())
    monkeypatch.setattr(compiled, "make_loop", no_compiler)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        Recurrence(ResetAfterGRU(HIDDEN, HIDDEN))(torch.randn(2, 3, HIDDEN))


def test_an_lstm_is_told_what_is_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Workload] = []
    monkeypatch.setattr(LSTM, "prefers_whole", lambda cell, work: asked.append(work) or True)
    layer, xs = Recurrence(LSTM(HIDDEN, HIDDEN)), torch.randn(6, 8, HIDDEN)
    layer(Padded(xs, torch.tensor([8, 8, 5, 3, 5, 2])))
    with torch.no_grad():
        layer(xs[:2])
    layer(xs.clone().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        layer(xs.clone().requires_grad_())
    assert asked[:3] == [Workload(6, 4, gradients=True), Workload(2, 1), Workload(6, 1, gradients=True, of_inputs=True)]
    assert asked[3:] == [Workload(6, 1, bfloat16=True)] * has_bfloat16_products()

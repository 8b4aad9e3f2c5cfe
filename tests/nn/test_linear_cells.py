"""Cells that are linear in their state: against the papers' equations in numpy, and all steps at once against one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError
from unrolled.core.padded import Padded
from unrolled.core.state import map_state, named_leaves
from unrolled.nn import parallel
from unrolled.nn.cell import HiddenState
from unrolled.nn.cells import CELLS, LinearRecurrentUnit, MinGRU, MinLSTM
from unrolled.nn.compiled import run_compiled
from unrolled.nn.linear_cell import Coefficients, ComplexState, LinearCell
from unrolled.nn.recurrence import Bidirectional, Recurrence, Stacked
from unrolled.nn.unroll import Sequences, run_steps

BATCH, TIME, INPUT, HIDDEN = 3, 40, 4, 5


class Leaky(LinearCell):
    """What a user would write: a leak of its own for each unit, and an output that is read from the state."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input, self.leak = nn.Linear(input_size, hidden_size), nn.Parameter(torch.zeros(hidden_size))

    def coefficients(self, xs: Tensor) -> Coefficients:
        leak = torch.sigmoid(self.leak)
        return Coefficients(HiddenState(1 - leak), HiddenState(leak * torch.tanh(self.from_input(xs))))

    def read(self, states: HiddenState, xs: Tensor) -> Tensor:
        return states.h.sin()


MAKERS: dict[str, Callable[[int, int], LinearCell]] = {
    "mingru": MinGRU,
    "mingru of any sign": lambda i, h: MinGRU(i, h, positive=False),
    "minlstm": MinLSTM,
    "minlstm of any sign": lambda i, h: MinLSTM(i, h, positive=False),
    "linear-recurrent-unit": LinearRecurrentUnit,
    "linear-recurrent-unit without gates": lambda i, h: LinearRecurrentUnit(i, h, gated=False),
    "own": Leaky,
}


def make(name: str, dtype: torch.dtype = torch.float64, sizes: tuple[int, int] = (INPUT, HIDDEN)) -> Any:
    torch.manual_seed(0)
    cell = MAKERS[name](*sizes).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return cell.to(dtype)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_state(cell: LinearCell) -> Any:
    return map_state(lambda leaf: drawn(*leaf.shape, seed=2).to(leaf.dtype), cell.initial_state(BATCH))


XS = drawn(BATCH, TIME, INPUT)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each unrolling so far that nothing was compiled for, whether it was by a scan."""
    ways: list[bool] = []

    def watched(*given: Any) -> Any:
        result = parallel.run_parallel(*given)
        ways.append(result is not None)
        return result

    monkeypatch.setattr("unrolled.nn.recurrence.run_parallel", watched)
    return ways


# -- the equations of the papers, row by row and step by step --------------------------------------------------------


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def g(a: np.ndarray) -> np.ndarray:
    return np.array([x + 0.5 if x >= 0 else 1 / (1 + math.exp(-x)) for x in a])


def arrays(cell: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in cell.named_parameters()}


def check_loop(cell: LinearCell, step: Callable[..., tuple[np.ndarray, tuple[np.ndarray, ...]]]) -> None:
    start = some_state(cell)
    for plain in (True, False):
        outputs, final = Recurrence(cell, plain=plain)(XS, start)
        for row in range(BATCH):
            state = tuple(part[row].numpy() for part in start)
            for t in range(TIME):
                output, state = step(XS[row, t].numpy(), *state)
                np.testing.assert_allclose(outputs[row, t].detach().numpy(), output, rtol=1e-9, atol=1e-9)
            for part, wanted in zip(final, state, strict=True):
                np.testing.assert_allclose(part[row].detach().numpy(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("positive", [True, False])
def test_mingru_loop(positive: bool) -> None:
    cell = make("mingru" if positive else "mingru of any sign")
    p = arrays(cell)
    (u_z, u_h), (b_z, b_h) = np.split(p["from_input.weight"], 2), np.split(p["from_input.bias"], 2)

    def step(x: np.ndarray, h: np.ndarray) -> Any:
        z, candidate = sigmoid(u_z @ x + b_z), u_h @ x + b_h
        new = (1 - z) * h + z * (g(candidate) if positive else candidate)
        return new, (new,)

    check_loop(cell, step)


@pytest.mark.parametrize("positive", [True, False])
def test_minlstm_loop(positive: bool) -> None:
    cell = make("minlstm" if positive else "minlstm of any sign")
    p = arrays(cell)
    (u_f, u_i, u_h), (b_f, b_i, b_h) = np.split(p["from_input.weight"], 3), np.split(p["from_input.bias"], 3)

    def step(x: np.ndarray, h: np.ndarray) -> Any:
        f, i, candidate = sigmoid(u_f @ x + b_f), sigmoid(u_i @ x + b_i), u_h @ x + b_h
        new = f / (f + i) * h + i / (f + i) * (g(candidate) if positive else candidate)
        return new, (new,)

    check_loop(cell, step)


def complex_weights(cell: LinearRecurrentUnit) -> tuple[np.ndarray, ...]:
    """λ, the scaled B, C, D."""
    p = arrays(cell)
    lam = np.exp(-np.exp(p["decay"]) + 1j * np.exp(p["turn"]))
    b_re, b_im = np.split(p["from_input.weight"], 2)
    c_re, minus_c_im = np.split(p["from_state.weight"], 2, axis=1)
    return lam, np.exp(p["scale"])[:, None] * (b_re + 1j * b_im), c_re - 1j * minus_c_im, p["skip.weight"]


@pytest.mark.parametrize("gated", [True, False])
def test_linear_recurrent_unit_loop(gated: bool) -> None:
    cell = make("linear-recurrent-unit" + ("" if gated else " without gates"))
    (lam, b, c, d), p = complex_weights(cell), arrays(cell)

    def step(x: np.ndarray, real: np.ndarray, imaginary: np.ndarray) -> Any:
        s = lam * (real + 1j * imaginary) + b @ x
        y = (c @ s).real + d @ x
        if gated:
            bent = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in y])
            value, gate = np.split(p["mix.weight"] @ bent + p["mix.bias"], 2)
            y = value * sigmoid(gate)
        return y, (s.real, s.imag)

    check_loop(cell, step)


def test_linear_recurrent_unit_is_a_convolution_with_powers() -> None:
    """y_t = Re(C Σ_k λ^(t - k) B x_k) + D x_t from a state of zero: no step is taken."""
    cell = make("linear-recurrent-unit without gates")
    lam, b, c, d = complex_weights(cell)
    xs = XS.numpy()
    powers = lam ** np.arange(TIME)[:, None]
    states = np.stack([sum(powers[t - k] * (xs[:, k] @ b.T) for k in range(t + 1)) for t in range(TIME)], 1)
    for plain in (True, False):
        outputs, _ = Recurrence(cell, plain=plain)(XS)
        np.testing.assert_allclose(outputs.detach().numpy(), (states @ c.T).real + xs @ d.T, rtol=1e-9, atol=1e-9)


def test_a_fresh_linear_recurrent_unit() -> None:
    """λ on the ring with squared radii evenly spread; states of unit size for inputs of unit size, however long they last."""
    torch.manual_seed(0)
    cell = LinearRecurrentUnit(8, 2000, radii=(0.4, 0.9), largest_phase=1.5, gated=False)
    keep, _ = cell.coefficients(torch.zeros(1, 8))
    lam = torch.complex(*keep)
    assert 0.4 <= lam.abs().min() < 0.41 and 0.89 < lam.abs().max() <= 0.9
    assert 0 <= lam.angle().min() < 0.01 and 1.49 < lam.angle().max() <= 1.5
    assert lam.abs().square().mean().item() == pytest.approx((0.4**2 + 0.9**2) / 2, abs=0.01)
    with torch.no_grad():
        _, (real, imaginary) = Recurrence(cell)(torch.randn(4, 60, 8))
    sizes = (real.square() + imaginary.square()).mean(0)
    order = lam.abs().argsort()
    assert sizes[order[:500]].mean().item() == pytest.approx(1, abs=0.1) == sizes[order[-500:]].mean().item()


@pytest.mark.parametrize("size", [30.0, -30.0])
def test_a_linear_recurrent_unit_is_stable_whatever_its_parameters(size: float) -> None:
    cell = LinearRecurrentUnit(INPUT, HIDDEN)
    with torch.no_grad():
        cell.decay.fill_(size)
        cell.turn.fill_(3.0)
    keep, _ = cell.coefficients(torch.zeros(1, INPUT))
    assert torch.hypot(*keep).max() <= 1 and torch.isfinite(torch.stack(keep)).all()


@pytest.mark.parametrize(
    "options", [{"radii": (0.5, 0.5)}, {"radii": (-0.1, 0.5)}, {"radii": (0.1, 1.5)}, {"largest_phase": 0.0}, {"largest_phase": 7.0}]
)
def test_rings_that_there_are_not(options: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^`(radii` must be two numbers in 0…1 that ascend|largest_phase` must lie in 0…2π, 0 excluded), got "
    ):
        LinearRecurrentUnit(INPUT, HIDDEN, **options)


# -- gates at their ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_gates_at_their_ends_in_float32(name: str, size: float) -> None:
    cell = make(name, torch.float32)
    xs = (size * XS.float()).requires_grad_()
    outputs, final = Recurrence(cell)(xs)
    wanted, last = Recurrence(make(name), plain=True)(xs.double())
    torch.testing.assert_close(outputs.double(), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(final.h.double(), last.h, rtol=1e-4, atol=1e-4)
    outputs.sum().backward()
    assert torch.isfinite(xs.grad).all() and all(torch.isfinite(parameter.grad).all() for parameter in cell.parameters())


def test_a_gate_that_is_nearly_shut_remembers_under_autocast() -> None:
    """1 - update is 0.999 here, which bfloat16 cannot tell from 1."""
    cell = MinGRU(1, 1)
    with torch.no_grad():
        cell.from_input.weight.zero_()
        cell.from_input.bias.copy_(torch.tensor([math.log(0.001 / 0.999), 0.0]))
    for plain in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            _, final = Recurrence(cell, plain=plain)(torch.zeros(1, 1000, 1), HiddenState(torch.ones(1, 1)))
        assert final.h.item() == pytest.approx(0.999**1000 * 0.5 + 0.5, abs=0.01)


# -- all steps at once -----------------------------------------------------------------------------------------------


def results(layer: Recurrence, xs: Tensor, lengths: Tensor | None, resets: Tensor | None) -> list[Tensor]:
    """Outputs, last state, and the gradients of input, first state and parameters."""
    data = xs.detach().clone().requires_grad_()
    start = map_state(lambda leaf: leaf.requires_grad_(), some_state(layer.cell))
    given = data if lengths is None else Padded(data, lengths)
    outputs, final = layer(given, start, resets=resets)
    parts = [outputs if lengths is None else outputs.data, *[leaf for _, leaf in named_leaves(final)]]
    loss = sum((part * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in parts)
    wanted = [data, *start, *layer.parameters()]
    return [part.detach() for part in parts] + list(torch.autograd.grad(loss, wanted, materialize_grads=True))


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("marked", [False, True])
def test_at_once_equals_one_by_one(name: str, reverse: bool, marked: bool, taken: list[bool]) -> None:
    cell = make(name)
    lengths, resets = torch.tensor([17, 0, TIME]), torch.zeros(BATCH, TIME, dtype=torch.bool)
    resets[0, [0, 5, 16]] = resets[2, [20, 21, TIME - 1]] = True
    xs = XS.clone()
    if marked:
        xs[0, 17:] = torch.nan
    given = (xs, lengths, resets) if marked else (xs, None, None)
    found, wanted = (results(Recurrence(cell, plain=plain, reverse=reverse), *given) for plain in (False, True))
    assert taken == [True]
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("marked", [False, True])
def test_coefficients_that_do_not_depend_on_the_input(marked: bool) -> None:
    class Decays(Leaky):
        def coefficients(self, xs: Tensor) -> Coefficients:
            return Coefficients(HiddenState(torch.sigmoid(self.leak)), HiddenState(self.leak + 1))

    cell = Decays(INPUT, HIDDEN).double()
    given = (XS, torch.tensor([17, 0, TIME]), None) if marked else (XS, None, None)
    found, wanted = (results(Recurrence(cell, plain=plain), *given) for plain in (False, True))
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain)


def test_restarts_begin_with_the_initial_state() -> None:
    """Which need not be zero."""

    class Begins(Leaky):
        def initial_state(self, batch_size: int) -> HiddenState:
            return HiddenState(self.zeros(batch_size, self.hidden_size) + 3)

    cell = Begins(INPUT, HIDDEN).double()
    resets = torch.rand(BATCH, TIME) < 0.2
    ours, plain = (Recurrence(cell, plain=plain)(XS, resets=resets) for plain in (False, True))
    torch.testing.assert_close(ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mingru", "minlstm", "linear-recurrent-unit", "own"])
def test_compiled_equals_at_once(name: str) -> None:
    """Of a size that is compiled."""
    cell, xs = make(name, torch.float32, (80, 64)), torch.randn(2, 30, 80)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(0.2)
    given = Sequences(xs, torch.tensor([30, 11]), None), cell.initial_state(2), None
    at_once = parallel.run_parallel(cell, *given)
    compiled = run_compiled(cell, xs, *given, None)
    plain = run_steps(cell, xs, *given, None)
    assert at_once is not None and compiled is not None
    for found in (at_once, compiled):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_layers_upon_layers_in_both_directions(taken: list[bool]) -> None:
    def layer(plain: bool) -> Stacked:
        both = Bidirectional(make("mingru"), make("minlstm"))
        above = Recurrence(make("linear-recurrent-unit", sizes=(2 * HIDDEN, HIDDEN)), plain=plain)
        both.forwards.plain = both.backwards.plain = plain
        return Stacked(both, above)

    xs = Padded(XS, torch.tensor([TIME, 3, 0]))
    (ours, state), (wanted, last) = layer(False)(xs), layer(True)(xs)
    assert taken == [True] * 3
    torch.testing.assert_close(ours.data, wanted.data)
    torch.testing.assert_close(dict(named_leaves(state)), dict(named_leaves(last)))


def test_who_looks_into_the_steps_sees_each(taken: list[bool]) -> None:
    cell, calls = make("mingru"), []
    hook = cell.from_input.register_forward_hook(lambda *_: calls.append(1))
    Recurrence(cell)(XS)
    assert taken == [False] and len(calls) == TIME
    hook.remove()
    Recurrence(cell)(XS)
    assert taken == [False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cells_of_half_precision_carry_more(dtype: torch.dtype) -> None:
    xs = XS.to(dtype)
    for name in ("mingru", "linear-recurrent-unit"):
        cell = make(name).to(dtype)
        outputs, final = Recurrence(cell)(xs)
        assert {outputs.dtype, *[leaf.dtype for _, leaf in named_leaves(final)]} == {dtype}
        wanted, _ = Recurrence(make(name).to(dtype).double(), plain=True)(xs.double())
        torch.testing.assert_close(outputs.double(), wanted, rtol=0.1, atol=0.1)


# -- what torch transforms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mingru", "linear-recurrent-unit"])
def test_second_derivatives(name: str) -> None:
    cell = make(name, sizes=(2, 2))
    xs = drawn(2, 5, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda xs: Recurrence(cell)(xs)[0], xs, fast_mode=True)


def test_gradients_of_each_row(taken: list[bool]) -> None:
    cell = make("linear-recurrent-unit")
    weights = {f"cell.{name}": value.detach() for name, value in cell.named_parameters()}

    def loss(weights: dict[str, Tensor], xs: Tensor) -> Tensor:
        return torch.func.functional_call(Recurrence(cell), weights, (xs.unsqueeze(0),))[0].square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, XS)
    assert taken and all(taken)
    for row in range(BATCH):
        outputs, _ = Recurrence(cell, plain=True)(XS[row : row + 1])
        wanted = torch.autograd.grad(outputs.square().sum(), list(cell.parameters()))
        for ours, one in zip(found.values(), wanted, strict=True):
            torch.testing.assert_close(ours[row], one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mingru", "minlstm", "linear-recurrent-unit"])
def test_export_has_few_operations(name: str) -> None:
    layer = Recurrence(CELLS[name](INPUT, HIDDEN)).eval()
    xs = torch.randn(2, 256, INPUT)
    program = torch.export.export(layer, (xs,))
    assert len(program.graph.nodes) < 600
    torch.testing.assert_close(program.module()(xs), layer(xs))


def test_a_complex_state_has_names() -> None:
    state = make("linear-recurrent-unit").initial_state(2)
    assert isinstance(state, ComplexState) and [path for path, _ in named_leaves(state)] == ["real", "imaginary"]


def test_the_plain_loop_cuts_its_input_at_once() -> None:
    """The gradient of each slice by itself is as large as the whole input: the time for all grew with the square of the steps."""
    xs = XS.clone().requires_grad_()
    outputs, _ = Recurrence(make("mingru"), plain=True)(xs)
    seen, open_ones = set(), [outputs.grad_fn]
    while open_ones:
        node = open_ones.pop()
        if node is not None and node not in seen:
            seen.add(node)
            open_ones += [above for above, _ in node.next_functions]
    names = [node.name() for node in seen]
    assert names.count("UnbindBackward0") == 1 and "SelectBackward0" not in names


class TwoParts(NamedTuple):
    """Two real vectors, which are no complex numbers."""

    slow: Tensor
    fast: Tensor


class TwoSpeeds(LinearCell):
    """Keeps its input for long, and for a short time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.input_size = self.hidden_size = size
        self.rate = nn.Parameter(torch.tensor(0.5))

    def initial_state(self, batch_size: int) -> TwoParts:
        return TwoParts(*self.zeros(2, batch_size, self.hidden_size).unbind())

    def coefficients(self, xs: Tensor) -> Coefficients:
        return Coefficients(TwoParts(self.rate, self.rate**4), TwoParts(xs, 2 * xs))

    def read(self, states: Any, xs: Tensor) -> Tensor:
        return states.slow + states.fast


def test_parts_that_are_no_complex_numbers_do_not_meet() -> None:
    xs, lengths = torch.randn(2, 20, 3), torch.tensor([20, 11])
    outputs = Recurrence(TwoSpeeds(3))(Padded(xs, lengths))[0].data
    slow = fast = torch.zeros(2, 3)
    for t in range(20):
        slow, fast = 0.5 * slow + xs[:, t], 0.5**4 * fast + 2 * xs[:, t]
        inside = (t < lengths).unsqueeze(1)
        torch.testing.assert_close(outputs[:, t], torch.where(inside, slow + fast, 0))


def test_a_step_of_its_own_is_the_one_that_counts() -> None:
    class Louder(MinGRU):
        def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
            output, after = super().step(x, state)
            return 100 * output, after

    cell, xs = Louder(3, 4), torch.randn(2, 5, 3)
    torch.testing.assert_close(Recurrence(cell)(xs)[0], Recurrence(cell, plain=True)(xs)[0])


def test_what_is_not_finite_ends_at_a_reset() -> None:
    cell, xs, resets = MinGRU(3, 4), torch.randn(1, 12, 3), torch.zeros(1, 12, dtype=torch.bool)
    xs[0, 3], resets[0, 6] = torch.nan, True
    outputs = Recurrence(cell)(xs, resets=resets)[0]
    assert outputs[0, 3:6].isnan().all() and outputs[0, 6:].isfinite().all()
    torch.testing.assert_close(outputs, Recurrence(cell, plain=True)(xs, resets=resets)[0], equal_nan=True)

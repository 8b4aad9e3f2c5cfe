"""The compiled loop, run by torch, against the plain loop: outputs, last state and all gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.state import State, map_state, named_leaves
from unrolled.kernels import direction
from unrolled.kernels.graph import LoopProgram, Unsupported
from unrolled.kernels.loop_torch import TorchLoop
from unrolled.kernels.recurrence import CompiledStep
from unrolled.kernels.structure import Unrolling
from unrolled.nn.cell import Cell, HiddenState, Noisy
from unrolled.nn.cells import CELLS, GRU, LSTM, LayerNormLSTM, RecurrentDropout, Zoneout

from .cells import HIDDEN, INPUT, MADE, Context, Drifting, Made, TwoStates
from .conftest import as_function, by_plain_loop, drawn_state, largest_difference, results_and_gradients

B, T = 3, 5

ALL: dict[str, Callable[[], Cell]] = {**{name: (lambda make=make: make(INPUT, HIDDEN)) for name, make in CELLS.items()}, **MADE}


def unrolling(cell: Cell, *, lengths: bool = False, resets: bool = False, gradient: bool = True, **more: Any) -> Unrolling:
    for parameter in cell.parameters():
        parameter.data += torch.randn_like(parameter) / 4
    fixed = {"mask": torch.rand(B, HIDDEN), "memory": torch.randn(B, HIDDEN, requires_grad=gradient)}
    return Unrolling(
        inputs=torch.randn(B, T, INPUT, requires_grad=gradient),
        state=drawn_state(cell, B, gradient),
        fixed=fixed if isinstance(cell, Context | Drifting) else None,
        parameters=dict(cell.named_parameters()),
        lengths=torch.tensor([2, T, 0]) if lengths else None,
        resets=torch.rand(B, T) < 0.4 if resets else None,
        restart=drawn_state(cell, B, gradient) if resets else None,
    )._replace(**more)


def compiled(cell: Cell) -> CompiledStep:
    return CompiledStep(as_function(cell), TorchLoop)


def differences(cell: Cell, given: Unrolling) -> float:
    wanted = results_and_gradients(lambda given: by_plain_loop(cell, given), given)
    found = results_and_gradients(compiled(cell).unroll, given)
    return max(largest_difference([*found[0]], [*wanted[0]]), largest_difference(found[1], wanted[1]))


@pytest.mark.parametrize("marked", [False, True], ids=["whole", "lengths-resets"])
@pytest.mark.parametrize("name", ALL)
def test_equals_the_plain_loop(name: str, marked: bool) -> None:
    cell = ALL[name]()
    assert differences(cell, unrolling(cell, lengths=marked, resets=marked)) < 1e-12


@pytest.mark.parametrize("name", ["gru", "layer-norm-lstm", "Norms", "Context", "TwoStates"])
def test_stretch_by_stretch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direction, "AHEAD_BYTES", 0)
    monkeypatch.setattr(direction, "AHEAD_ROWS", 2 * B)
    stretches: list[int] = []

    class Watched(TorchLoop):
        def __call__(self, arrays: Sequence[Tensor], time: int, batch: int) -> None:
            stretches.append(time)
            super().__call__(arrays, time, batch)

    cell = ALL[name]()
    given = unrolling(cell, lengths=True, resets=True)
    wanted = results_and_gradients(lambda given: by_plain_loop(cell, given), given)
    found = results_and_gradients(CompiledStep(as_function(cell), Watched).unroll, given)
    assert max(largest_difference([*found[0]], [*wanted[0]]), largest_difference(found[1], wanted[1])) < 1e-12
    assert stretches[:3] == [1, 2, 2]


@pytest.mark.parametrize("more", [{"lengths": True}, {"resets": True}], ids=["lengths", "resets"])
@pytest.mark.parametrize("make", [GRU, LSTM, LayerNormLSTM])
def test_lengths_or_resets_alone(make: Callable[[int, int], Cell], more: dict[str, bool]) -> None:
    cell = make(INPUT, HIDDEN)
    assert differences(cell, unrolling(cell, **more)) < 1e-12


def around_lstm(zoneout: float) -> Cell:
    return Zoneout(RecurrentDropout(LSTM(INPUT, HIDDEN), 0.4), {"h": 0.2, "c": zoneout})


@pytest.mark.parametrize("make", [lambda: around_lstm(0.5), lambda: RecurrentDropout(GRU(INPUT, HIDDEN), 0.5)], ids=["zoneout", "dropout"])
@pytest.mark.parametrize("marked", [False, True], ids=["whole", "lengths-resets"])
def test_noise_of_the_wrappers(make: Callable[[], Cell], marked: bool) -> None:
    cell, noise = make(), Noise(torch.Generator().manual_seed(0))
    given = unrolling(cell, lengths=marked, resets=marked)
    step_noise = cell.step_noise(B, T, noise)
    inputs = given.inputs if step_noise is None else Noisy(given.inputs, step_noise)
    assert differences(cell, given._replace(fixed=cell.fixed(B, noise), inputs=inputs)) < 1e-12


def test_the_padding_may_hold_anything() -> None:
    cell = GRU(INPUT, HIDDEN)
    given = unrolling(cell, lengths=True)
    with torch.no_grad():
        given.inputs[0, 2:] = torch.nan
        given.inputs[2] = torch.inf
    assert differences(cell, given) < 1e-12


@pytest.mark.parametrize("name", ["lstm", "Choices", "Norms"])
def test_nan_and_infinity_go_where_the_plain_loop_lets_them(name: str) -> None:
    cell = ALL[name]()
    given = unrolling(cell)
    with torch.no_grad():
        given.inputs[0, 2, 0] = torch.nan
        given.inputs[1, 1, 0] = torch.inf
    found, wanted = compiled(cell).unroll(given)[0], by_plain_loop(cell, given)[0]
    torch.testing.assert_close(found, wanted, equal_nan=True)
    assert name == "Choices" or (found[0].isnan().any() and not found[2].isnan().any())


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("time", [1, 2, 9])
def test_one_trace_serves_every_batch_and_time(batch: int, time: int) -> None:
    cell = LSTM(INPUT, HIDDEN)
    steps = compiled(cell)
    for rows, length in ((2, 3), (batch, time)):
        given = Unrolling(
            torch.randn(rows, length, INPUT, requires_grad=True), drawn_state(cell, rows), parameters=dict(cell.named_parameters())
        )
        found, wanted = results_and_gradients(steps.unroll, given), results_and_gradients(lambda given: by_plain_loop(cell, given), given)
        assert max(largest_difference([*found[0]], [*wanted[0]]), largest_difference(found[1], wanted[1])) < 1e-12
    assert len(steps._plans) == 1


@pytest.mark.parametrize("name", ["gru", "layer-norm-lstm", "Norms", "Choices", "Context"])
def test_gradcheck(name: str) -> None:
    cell = ALL[name]()
    given = unrolling(cell, lengths=True, resets=True)
    names = list(given.parameters)
    leaves = [leaf for _, leaf in named_leaves((given.inputs, given.state, given.fixed, given.restart))]
    steps = compiled(cell)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        trees = [map_state(lambda _: next(rest), tree) for tree in (given.inputs, given.state, given.fixed, given.restart)]
        values = Unrolling(trees[0], trees[1], trees[2], dict(zip(names, rest, strict=True)), given.lengths, given.resets, trees[3])
        return tuple(leaf for tree in steps.unroll(values) for _, leaf in named_leaves(tree))

    assert torch.autograd.gradcheck(function, (*leaves, *given.parameters.values()), fast_mode=True)


def test_a_learned_beginning() -> None:
    cell = GRU(INPUT, HIDDEN)
    learned = nn.Parameter(torch.randn(HIDDEN))
    given = unrolling(cell)
    gradients = []
    for unroll in (compiled(cell).unroll, lambda given: by_plain_loop(cell, given)):
        outputs, _ = unroll(given._replace(state=HiddenState(learned.expand(B, -1))))
        gradients.append(torch.autograd.grad(outputs.square().sum(), [learned, *cell.parameters()]))
    assert largest_difference([*gradients[0]], [*gradients[1]]) < 1e-12


@pytest.mark.parametrize("frozen", ["inputs", "state", "parameters", "one parameter"])
def test_only_the_gradients_that_are_wanted(frozen: str) -> None:
    cell = LSTM(INPUT, HIDDEN)
    given = unrolling(cell)
    if frozen == "inputs":
        given.inputs.requires_grad_(False)
    elif frozen == "state":
        given = given._replace(state=map_state(Tensor.detach, given.state))
    else:
        for parameter in [*cell.parameters()][: 1 if frozen == "one parameter" else None]:
            parameter.requires_grad_(False)
    assert differences(cell, given) < 1e-12


@pytest.mark.parametrize("looks_at", ["last state", "one output", "outputs"])
def test_only_the_gradients_that_come_in(looks_at: str) -> None:
    cell = TwoStates()
    given = unrolling(cell)

    def gradients(unroll: Callable[[Unrolling], tuple[State, State]]) -> list[Tensor | None]:
        outputs, after = unroll(given)
        loss = {"last state": after.cell, "one output": outputs[:, 1], "outputs": outputs}[looks_at].square().sum()
        return list(torch.autograd.grad(loss, [given.inputs, given.state.trace, *cell.parameters()], allow_unused=True))

    assert largest_difference(gradients(compiled(cell).unroll), gradients(lambda given: by_plain_loop(cell, given))) < 1e-12


def test_backward_twice_and_for_some_inputs() -> None:
    cell = GRU(INPUT, HIDDEN)
    given = unrolling(cell)
    loss = compiled(cell).unroll(given)[0].sin().sum()
    first = torch.autograd.grad(loss, [given.inputs, *cell.parameters()], retain_graph=True)
    second = torch.autograd.grad(loss, given.inputs)[0]
    assert torch.equal(first[0], second)


@pytest.mark.parametrize("name", ["gru", "TwoStates", "Context"])
def test_gradients_of_gradients(name: str) -> None:
    cell = ALL[name]()
    given = unrolling(cell, lengths=True)
    leaves = [given.inputs, *cell.parameters()]
    # The state before the first step comes from a parameter, by which a gradient may take two ways.
    first_state = map_state(lambda leaf: leaf + 2 * leaves[1].sum(), given.state)

    def second(unroll: Callable[[Unrolling], tuple[State, State]]) -> list[Tensor | None]:
        loss = sum(leaf.sin().sum() for tree in unroll(given._replace(state=first_state)) for _, leaf in named_leaves(tree))
        first = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        penalty = sum(gradient.square().sum() for gradient in first if gradient is not None)
        return [*first, *torch.autograd.grad(penalty, leaves, allow_unused=True, retain_graph=True)]

    assert largest_difference(second(compiled(cell).unroll), second(lambda given: by_plain_loop(cell, given))) < 1e-12


def test_many_gradients_at_once() -> None:
    cell = GRU(INPUT, HIDDEN)
    given = unrolling(cell)
    outputs, wanted = compiled(cell).unroll(given)[0], by_plain_loop(cell, given)[0]
    incoming = torch.randn(4, *outputs.shape)
    leaves = [given.inputs, *cell.parameters()]
    found = torch.autograd.grad(outputs, leaves, incoming, is_grads_batched=True)
    assert largest_difference([*found], [*torch.autograd.grad(wanted, leaves, incoming, is_grads_batched=True)]) < 1e-12


def test_without_gradients_nothing_is_kept() -> None:
    written: list[LoopProgram] = []

    def make(program: LoopProgram) -> TorchLoop:
        written.append(program)
        return TorchLoop(program)

    cell = LSTM(INPUT, HIDDEN)
    given = unrolling(cell)
    with torch.no_grad():
        outputs, after = CompiledStep(as_function(cell), make).unroll(given)
        wanted, _ = by_plain_loop(cell, given)
    assert not outputs.requires_grad and not after.h.requires_grad
    assert largest_difference([outputs], [wanted]) < 1e-12
    (program,) = written
    assert [node.width for node in program.streams_out] == [HIDDEN]


@pytest.mark.parametrize("name", ["gru", "layer-norm-lstm", "Norms"])
def test_bfloat16_is_as_near_as_its_plain_loop(name: str) -> None:
    cell = ALL[name]()
    exact = unrolling(cell, gradient=False)
    outputs, _ = by_plain_loop(cell, exact)
    cell.bfloat16()
    brief = exact._replace(
        inputs=exact.inputs.bfloat16().requires_grad_(),
        state=map_state(Tensor.bfloat16, exact.state),
        parameters=dict(cell.named_parameters()),
    )
    assert differences(cell, brief) < 0.05
    found, plain = compiled(cell).unroll(brief)[0], by_plain_loop(cell, brief)[0]
    assert found.dtype == torch.bfloat16
    assert (found - outputs).norm() < 2 * (plain - outputs).norm()


def test_the_last_state_may_be_written_to() -> None:
    cell = GRU(INPUT, HIDDEN)
    given = unrolling(cell)
    gradients = []
    for unroll in (compiled(cell).unroll, lambda given: by_plain_loop(cell, given)):
        outputs, after = unroll(given)
        gradients.append(torch.autograd.grad(outputs.sin().sum() + after.h.mul_(2).cos().sum(), given.inputs)[0])
    assert largest_difference([gradients[0]], [gradients[1]]) < 1e-12


def test_what_is_written_to_outputs_never_makes_a_wrong_gradient() -> None:
    cell = GRU(INPUT, HIDDEN)
    outputs, after = compiled(cell).unroll(unrolling(cell))
    with torch.no_grad():
        outputs.mul_(2)
    with pytest.raises(RuntimeError, match="modified (by an )?inplace"):
        (outputs.sum() + after.h.sum()).backward()


class Dice(Made):
    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        h = torch.tanh(self.hidden(state.h) + torch.rand(HIDDEN))
        return h, HiddenState(h)


class Undifferentiable(Made):
    """The forward direction is easy, the backward one is not."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        return state.h, HiddenState(self.hidden(state.h).max(-1, keepdim=True)[0] * state.h)


@pytest.mark.parametrize(("cell", "word"), [(Dice, "aten.rand"), (Undifferentiable, "aten.max")])
def test_what_is_not_supported_is_named_at_every_call(cell: Callable[[], Cell], word: str) -> None:
    made = cell()
    steps = compiled(made)
    for _ in range(2):
        with pytest.raises(Unsupported, match=word):
            steps.unroll(unrolling(made))

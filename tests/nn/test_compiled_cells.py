"""What people write into a step, and what becomes of it: compiled with the same results, or said once why not; never something else."""

from __future__ import annotations

import copy
import pickle
import random
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from unrolled.core.state import State
from unrolled.kernels import NoCompiler, Unsupported
from unrolled.kernels.loop_torch import TorchLoop
from unrolled.nn import compiled
from unrolled.nn.cell import Cell, HiddenState
from unrolled.nn.cells import GRU, LSTM
from unrolled.nn.recurrence import Recurrence

HIDDEN = 64
"""Enough parameters to be compiled."""


@pytest.fixture(autouse=True)
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is asked here is asked of the front end: loops run by torch do, and need not be built."""
    monkeypatch.setattr(compiled, "make_loop", TorchLoop)
    monkeypatch.setattr(compiled, "_told", set())
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(dtype)


class Written(Cell):
    """A cell whose step does something odd to the sum of its products, which is a parameter of the test."""

    def __init__(self, change: Callable[..., Tensor], **attributes: Any) -> None:
        super().__init__()
        self.input_size = self.hidden_size = HIDDEN
        self.input, self.hidden = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.change = change
        for name, value in attributes.items():
            setattr(self, name, value)

    def step(self, x: Any, state: Any) -> Any:
        h = torch.tanh(self.change(self, self.input(x) + self.hidden(state.h), state.h))
        return h, HiddenState(h)


def results(layer: Recurrence, xs: Tensor) -> list[Tensor]:
    """Outputs, last state and gradients."""
    layer.zero_grad()
    outputs, final = layer(xs)
    leaves = [leaf for leaf in [xs, *layer.parameters()] if leaf.requires_grad]
    given = torch.autograd.grad(outputs.square().sum() + final.h.sin().sum(), leaves, allow_unused=True) if leaves else []
    return [outputs, final.h, *[torch.zeros(()) if gradient is None else gradient for gradient in given]]


def same_results(cell: Cell, xs: Tensor | None = None) -> bool:
    """Compiled or not, the results are those of the plain loop; whether it was compiled."""
    xs = torch.randn(2, 4, HIDDEN, requires_grad=True) if xs is None else xs
    found = []
    for plain in (False, True):
        torch.manual_seed(1)
        found.append(results(Recurrence(cell, plain=plain), xs))
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    known = compiled._known.get(cell)
    return known is not None and known.reason is None and any(step._plans and not _failed(step) for step in known.steps.values())


def _failed(step: Any) -> bool:
    return any(isinstance(plan, Exception) for plan in step._plans.values())


# --- What cannot be compiled ----------------------------------------------------------------------------------------


def chooses(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    return a if a.sum() > 0 else -a


def writes_to_a_list(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    cell.seen.append(a)  # type: ignore[operator,union-attr]
    return a


def remembers(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    cell.last = a  # type: ignore[assignment]
    return a


def counts(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    cell.count += 1  # type: ignore[operator]
    return a


def writes_to_a_parameter(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    with torch.no_grad():
        cell.hidden.bias.add_(0.0)
    return a


TABLE = torch.linspace(0, 1, HIDDEN, dtype=torch.float64)

REFUSED: dict[str, tuple[Callable[..., Tensor], str]] = {
    "choice": (chooses, r"depends on the elements of a tensor \(test_compiled_cells.py, line \d+\)"),
    "item": (lambda cell, a, h: a * cell.hidden.bias.sum().item(), "depends on the elements of a tensor"),
    "rand": (
        lambda cell, a, h: a + torch.rand_like(a),
        r"`torch.rand_like` \(random numbers inside the step\) \(test_compiled_cells.py, line",
    ),
    "rand of no row": (lambda cell, a, h: a + torch.rand(HIDDEN), r"`torch.rand` \(random numbers"),
    "dropout": (lambda cell, a, h: F.dropout(a, 0.5), "random numbers"),
    "bernoulli": (lambda cell, a, h: a * torch.empty_like(a).bernoulli_(0.5), "random numbers"),
    "normal": (lambda cell, a, h: a + torch.empty(HIDDEN).normal_(), "random numbers"),
    "rows": (lambda cell, a, h: a * len(a), "depends on the number of rows"),
    "batch": (lambda cell, a, h: a - a.mean(0), r"`torch.mean` \(over the batch\)"),
    "a tensor from outside": (lambda cell, a, h: a + TABLE, "neither a parameter nor a buffer of the cell .*register_buffer"),
    "numpy": (lambda cell, a, h: torch.from_numpy(a.detach().numpy()) + a, "outside of torch"),
    "parameter": (writes_to_a_parameter, "in place"),
    "type": (lambda cell, a, h: torch.complex(a, a).abs(), "complex"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_said_and_is_right(name: str) -> None:
    change, words = REFUSED[name]
    with pytest.warns(UserWarning, match=f"`Written` is unrolled step by step, which is slow: no compiled form of .*{words}"):
        assert not same_results(Written(change))


def test_random_numbers_of_python_are_no_constants() -> None:
    before = random.getstate()
    with pytest.warns(UserWarning, match="is another one each time"):
        Recurrence(Written(lambda cell, a, h: a * random.random()))(torch.randn(1, 2, HIDDEN))
    assert random.getstate() != before


@pytest.mark.parametrize(
    ("change", "attributes", "name"),
    [(remembers, {}, "last"), (counts, {"count": 0}, "count"), (writes_to_a_list, {"seen": []}, "seen")],
)
def test_a_step_that_changes_its_cell_is_not_compiled_and_the_cell_sees_no_trace(change: Any, attributes: Any, name: str) -> None:
    cell = Written(change, **attributes)
    with pytest.warns(UserWarning, match=f"changes attributes of its cell .`{name}`"):
        assert not same_results(cell)
    left = getattr(cell, name)
    assert left == 8 if name == "count" else all(type(tensor) is Tensor for tensor in (left if name == "seen" else [left]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not same_results(cell)


def test_a_tensor_among_the_attributes_is_no_constant() -> None:
    cell = Written(lambda cell, a, h: a * cell.scale, scale=torch.randn(HIDDEN))
    with pytest.warns(UserWarning, match="register_buffer"):
        same_results(cell)
    cell.scale = torch.randn(HIDDEN)
    same_results(cell)


def test_a_state_of_integers_is_named() -> None:
    class Counter(Written):
        def initial_state(self, batch_size: int) -> HiddenState:
            return HiddenState(torch.zeros(batch_size, HIDDEN, dtype=torch.long))

        def step(self, x: Any, state: Any) -> Any:
            return self.input(x) * state.h, HiddenState(state.h + 1)

    with pytest.warns(UserWarning, match="a state of type torch.int64"):
        final = Recurrence(Counter(chooses))(torch.randn(1, 3, HIDDEN))[1]
    assert final.h.eq(3).all()


# --- What can -------------------------------------------------------------------------------------------------------


class Straight(torch.autograd.Function):
    """Its gradient is its own, as of a straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 3 * ctx.saved_tensors[0].cos()


def scaled_gradient(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    a = a + 0
    if a.requires_grad:
        a.register_hook(lambda gradient: gradient * 2)
    return a


def without_gradient(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(h)
    return a * gate


COMPILED: dict[str, Callable[..., Tensor]] = {
    "detach": lambda cell, a, h: a + h.detach() / 2 + cell.hidden.bias.detach(),
    "no gradient": without_gradient,
    "own gradient": lambda cell, a, h: Straight.apply(a) + a,
    "hook": scaled_gradient,
    "list of numbers": lambda cell, a, h: a * torch.tensor([1.0, 2.0] * (HIDDEN // 2)),
}


@pytest.mark.parametrize("name", COMPILED)
def test_what_is_compiled_is_right(name: str) -> None:
    assert same_results(Written(COMPILED[name]))


def keep(cell: Written, a: Tensor, h: Tensor) -> Tensor:
    return a


def tied(cell: Written) -> None:
    cell.hidden.weight = cell.input.weight


WEIGHTS: dict[str, Callable[[Written], Any]] = {
    "weight norm": lambda cell: parametrizations.weight_norm(cell.hidden),
    "tied": tied,
    "one frozen": lambda cell: cell.hidden.weight.requires_grad_(False),
    "all frozen": lambda cell: cell.requires_grad_(False),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_every_kind(name: str) -> None:
    cell = Written(keep)
    WEIGHTS[name](cell)
    assert same_results(cell)
    assert same_results(cell, torch.randn(2, 3, HIDDEN))


def test_two_cells_share_a_parameter() -> None:
    first, second = Written(keep), Written(keep)
    second.hidden.weight = first.hidden.weight
    xs = torch.randn(2, 3, HIDDEN)
    found = []
    for plain in (False, True):
        outputs = Recurrence(second, plain=plain)(Recurrence(first, plain=plain)(xs)[0])[0]
        found.append(torch.autograd.grad(outputs.square().sum(), first.hidden.weight)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "xs",
    [
        lambda: torch.randn(1, 1, HIDDEN).expand(3, 4, HIDDEN),
        lambda: torch.randn(3, 1, HIDDEN, requires_grad=True).expand(3, 4, HIDDEN),
        lambda: torch.randn(HIDDEN, 3, 5).permute(1, 2, 0),
        lambda: torch.randn(6, 10, 2 * HIDDEN, requires_grad=True)[::2, ::3, ::2],
    ],
)
def test_inputs_lie_in_memory_as_they_like(xs: Callable[[], Tensor]) -> None:
    assert same_results(Written(keep), xs())


# --- Attributes -----------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[Any, Callable[..., Tensor], Callable[[Any], Any]]] = {
    # An attribute, a step that uses it, and what it becomes (or `None` where it is changed in its place).
    "tuple": ((1.0, 2.0), lambda cell, a, h: a * cell.it[0], lambda it: (3.0,)),
    "list": ([1.0, 2.0], lambda cell, a, h: a * cell.it[0], lambda it: it.__setitem__(0, 3.0)),
    "dictionary": ({"a": 1.0}, lambda cell, a, h: a * cell.it["a"], lambda it: it.update(a=3.0)),
    "object": (types.SimpleNamespace(a=1.0), lambda cell, a, h: a * cell.it.a, lambda it: setattr(it, "a", 3.0)),
    "function of torch": (torch.tanh, lambda cell, a, h: cell.it(a), lambda it: torch.relu),
    "function": (lambda a: a * 2, lambda cell, a, h: cell.it(a), lambda it: lambda a: a * 3),
    "module": (nn.Tanh(), lambda cell, a, h: cell.it(a), lambda it: nn.Sigmoid()),
    "number": (1.0, lambda cell, a, h: a * cell.it, lambda it: 3.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_attribute_counts(name: str) -> None:
    first, change, become = CHANGES[name]
    cell = Written(change, it=first)
    assert same_results(cell)
    new = become(cell.it)
    if new is not None:
        cell.it = new
    assert same_results(cell)


def test_a_number_that_changes_at_every_call_is_not_compiled_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_SETTINGS", 2)
    cell, xs = Written(lambda cell, a, h: a * cell.temperature), torch.randn(1, 2, HIDDEN)

    def anneal() -> None:
        for step in range(5):
            cell.temperature = 1 + step / 10
            torch.testing.assert_close(Recurrence(cell)(xs)[0], Recurrence(cell, plain=True)(xs)[0])

    with pytest.warns(UserWarning, match=r"attributes change from call to call \(`temperature`; see `register_buffer`"):
        anneal()
    assert len(compiled._known[cell].steps) == 2


def test_what_cannot_be_copied_is_not_compiled() -> None:
    import threading

    with pytest.warns(UserWarning, match="a cell that cannot be copied"):
        assert not same_results(Written(keep, lock=threading.Lock()))


# --- Around it ------------------------------------------------------------------------------------------------------


def test_second_derivatives_outlive_the_cell() -> None:
    xs = torch.randn(1, 3, HIDDEN, requires_grad=True)
    layer = Recurrence(GRU(HIDDEN, HIDDEN))
    wanted = Recurrence(layer.cell, plain=True)(xs)[0]
    outputs = layer(xs)[0]
    del layer
    found = []
    for each in (outputs, wanted):
        (first,) = torch.autograd.grad(each.square().sum(), xs, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), xs)[0])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("reason", [Unsupported("something"), NoCompiler("none")])
def test_a_backward_pass_that_cannot_be_made_late_is_the_plain_one(monkeypatch: pytest.MonkeyPatch, reason: Exception) -> None:
    made: list[Any] = []

    def some(program: Any) -> Any:
        made.append(program)
        if len(made) > 2:
            raise reason
        return TorchLoop(program)

    monkeypatch.setattr(compiled, "make_loop", some)
    cell, xs = GRU(HIDDEN, HIDDEN), torch.randn(2, 3, HIDDEN)
    found = [torch.autograd.grad(Recurrence(cell, plain=plain)(xs)[1].h.sum(), [*cell.parameters()]) for plain in (False, True)]
    assert len(made) == 3
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_checkpoints() -> None:
    cell, xs = Written(keep), torch.randn(2, 3, HIDDEN, requires_grad=True)
    found = []
    for reentrant in (False, True, None):
        layer = Recurrence(cell, plain=reentrant is None)
        outputs = layer(xs)[0] if reentrant is None else checkpoint(lambda xs, layer=layer: layer(xs)[0], xs, use_reentrant=reentrant)
        cell.zero_grad()
        outputs.square().sum().backward()
        found.append(cell.hidden.weight.grad.clone())
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


def test_threads_at_once() -> None:
    cell = Written(keep)
    batches = [torch.randn(2, 3 + place, HIDDEN) for place in range(8)]

    def gradient(xs: Tensor, plain: bool = False) -> Tensor:
        layer = Recurrence(cell, plain=plain)
        return torch.autograd.grad(layer(xs)[0].square().sum(), cell.hidden.weight)[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(gradient, batches))
    for xs, ours in zip(batches, found, strict=True):
        torch.testing.assert_close(ours, gradient(xs, plain=True))


def test_a_cell_is_copied_and_pickled_as_before() -> None:
    cell, xs = GRU(HIDDEN, HIDDEN), torch.randn(2, 3, HIDDEN)
    outputs = Recurrence(cell)(xs)[0]
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert vars(other).keys() == vars(GRU(HIDDEN, HIDDEN)).keys()
        torch.testing.assert_close(Recurrence(other)(xs)[0], outputs)


def test_nothing_grows_with_the_number_of_calls() -> None:
    cell, plans = GRU(HIDDEN, HIDDEN), []
    layer = Recurrence(cell)
    for call in range(40):
        xs = torch.randn(1 + call % 5, 1 + call % 7, HIDDEN)
        layer(xs)[0].sum().backward()
        (steps,) = compiled._known[cell].steps.values()
        (plan,) = steps._plans.values()
        plans.append((len(plan._tracer.graph._made), len(plan._backwards)))
    assert len(set(plans[1:])) == 1


def test_exported_it_is_the_plain_loop() -> None:
    layer, xs, others = Recurrence(GRU(HIDDEN, HIDDEN)), torch.randn(2, 3, HIDDEN), torch.randn(2, 3, HIDDEN)
    exported = torch.export.export(layer, (xs,)).module()
    torch.testing.assert_close(exported(others)[0], layer(others)[0])


def test_exported_it_asks_for_no_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice by their number would be a bound of the exported program."""
    monkeypatch.setattr(LSTM, "prefers_whole", lambda *given: pytest.fail("asked"))
    layer, xs, others = Recurrence(LSTM(HIDDEN, HIDDEN)).eval(), torch.randn(2, 3, HIDDEN), torch.randn(2, 3, HIDDEN)
    exported = torch.export.export(layer, (xs,)).module()
    torch.testing.assert_close(exported(others)[0], Recurrence(layer.cell, plain=True)(others)[0])


def test_traced_by_torch_it_is_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a real trace sizes are tensors, which the types that are checked in tests forbid.
    cell = GRU(HIDDEN, HIDDEN)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    Recurrence(cell)(torch.randn(1, 2, HIDDEN))
    assert cell not in compiled._known


class Crossed(Cell):
    """Gives its state in another order than it begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size = self.hidden_size = HIDDEN
        self.mix = torch.nn.Linear(HIDDEN, HIDDEN)

    def initial_state(self, batch_size: int) -> State:
        return {"slow": self.zeros(batch_size, HIDDEN), "fast": self.zeros(batch_size, HIDDEN)}

    def step(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        fast = torch.tanh(self.mix(state["fast"]) + x)
        return fast + state["slow"], {"fast": fast, "slow": 0.9 * state["slow"] + 0.1 * fast}


def test_states_are_known_by_name_not_by_order() -> None:
    cell = Crossed()
    xs = torch.randn(3, 5, HIDDEN)
    (outputs, final), (wanted, last) = Recurrence(cell)(xs), Recurrence(cell, plain=True)(xs)
    assert cell in compiled._known
    torch.testing.assert_close(outputs, wanted)
    torch.testing.assert_close(final, last)
    with torch.no_grad():
        state = plain = cell.initial_state(3)
        for x in xs.unbind(1):
            output, state = Recurrence(cell).step(x, state)
            right, plain = cell.step(x, plain)
            torch.testing.assert_close(output, right)
            torch.testing.assert_close(state, plain)

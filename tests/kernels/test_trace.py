"""Tracing: what is translated and how, and what is refused by which name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unrolled.kernels.graph import Node, Unsupported, ordered
from unrolled.kernels.structure import Unrolling, describe
from unrolled.kernels.trace import BATCHES, Tracer
from unrolled.nn.cell import Cell, HiddenState
from unrolled.nn.cells import GRU

from .cells import HIDDEN, INPUT, Made
from .conftest import as_function, by_plain_loop, drawn_state, largest_difference, results_and_gradients
from .test_compiled_loop import compiled

Function = Callable[[Tensor, Tensor], Tensor]


def cell_of(function: Function) -> Cell:
    class Of(Made):
        def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
            h = torch.tanh(function(self.hidden(state.h) + self.input(x), self.vector))
            return h, HiddenState(h)

    return Of()


def tracer(cell: Cell, batch: int = 2, time: int = 3) -> Tracer:
    given = Unrolling(
        torch.randn(batch, time, cell.input_size, requires_grad=True), drawn_state(cell, batch), parameters=dict(cell.named_parameters())
    )
    return Tracer(as_function(cell), given, describe(given)[0])


def count(nodes: list[Node], operation: str) -> int:
    return sum(node.operation == operation for node in nodes)


def test_the_published_gru_and_its_gradients() -> None:
    traced = tracer(GRU(INPUT, HIDDEN))
    forward = traced.forward()
    nodes = ordered([*forward.outputs, *forward.after])
    assert forward.outputs == forward.after
    assert (count(nodes, "product"), count(nodes, "sigmoid"), count(nodes, "tanh")) == (3, 2, 1)
    backward = traced.backward(forward, [True])
    nodes = ordered([node for node in backward.gradients if node is not None], nodes)
    assert (count(nodes, "product"), count(nodes, "outer"), count(nodes, "row_sum")) == (3, 3, 1)
    assert not {"sigmoid", "tanh", "exp"} & {node.operation for node in nodes}


def test_a_trace_knows_neither_batch_nor_time() -> None:
    cell = GRU(INPUT, HIDDEN)
    given = [
        Unrolling(torch.randn(*size, INPUT), cell.initial_state(size[0]), parameters=dict(cell.named_parameters()))
        for size in [(2, 3), (5, 1)]
    ]
    assert describe(given[0])[0] == describe(given[1])[0]
    assert describe(given[0]._replace(lengths=torch.tensor([1, 2])))[0] != describe(given[0])[0]
    with torch.no_grad():
        assert not any(leaf.gradient for leaf in describe(given[0])[0].leaves)


def test_neither_trace_nor_loop_depends_on_the_modes_around_them() -> None:
    cell = GRU(INPUT, HIDDEN).float()
    given = Unrolling(torch.randn(2, 3, INPUT).float(), cell.initial_state(2), parameters=dict(cell.named_parameters()))
    steps = compiled(cell)
    with torch.autocast("cpu", torch.bfloat16):
        found = steps.unroll(given)[0]
        gradients = torch.autograd.grad(found.sum(), [*cell.parameters()])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inferred = steps.unroll(given)[0]
    wanted = by_plain_loop(cell, given)[0]
    assert found.dtype == torch.float32
    assert (
        largest_difference([found, inferred, *gradients], [wanted, wanted, *torch.autograd.grad(wanted.sum(), [*cell.parameters()])]) < 1e-6
    )


SUPPORTED: dict[str, Function] = {
    "a product of heads": lambda a, v: (a.view(-1, 2, 2) @ v.view(2, 2)).reshape(-1, 4),
    "a block-diagonal product": lambda a, v: torch.einsum("bhi,hij->bhj", a.view(-1, 2, 2), torch.stack([v.view(2, 2)] * 2)).reshape(-1, 4),
    "einsum": lambda a, v: torch.einsum("bi,ij->bj", a, torch.outer(v, v)),
    "a product with a vector": lambda a, v: (a @ v).unsqueeze(1) * a,
    "a running sum": lambda a, v: torch.cumsum(torch.softmax(a, -1), -1),
    "in place": lambda a, v: (a * 2).add_(v).mul_(2).masked_fill_(a > 0.5, 0.3).tanh_(),
    "a tensor of numbers": lambda a, v: a * torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "triangles": lambda a, v: a @ v.view(2, 2).repeat(2, 2).tril(),
    "group norm": lambda a, v: F.group_norm(a, 2),
    "gates": lambda a, v: F.glu(torch.cat([a, v * a], -1), -1) + F.prelu(a, v),
    "hyperbolic": lambda a, v: torch.sinh(a) + torch.cosh(a) + torch.exp2(a) + torch.log2(a.abs() + 0.1) + a.tan(),
    "shrunk": lambda a, v: F.softshrink(a) + F.hardshrink(a) + F.tanhshrink(a) + F.threshold(a, 0.1, 0.2) + F.celu(a),
    "between": lambda a, v: torch.lerp(a, a * v, a.sigmoid()) + torch.lerp(a, v, v) + torch.logaddexp(a, v),
    "spread": lambda a, v: a.std(-1, keepdim=True) + F.normalize(a, dim=-1) + a.var(-1, unbiased=False, keepdim=True),
    "bounds": lambda a, v: torch.clamp(a, -v.abs(), v.abs()) + a.clamp(max=0.4) + a.clamp_min(-0.4),
    "not a number": lambda a, v: torch.nan_to_num(a) + torch.where(torch.isnan(a) | torch.isinf(a), a, 2 * a),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_supported(name: str) -> None:
    cell = cell_of(SUPPORTED[name])
    given = Unrolling(torch.randn(3, 4, INPUT, requires_grad=True), drawn_state(cell, 3), parameters=dict(cell.named_parameters()))
    found, wanted = (
        results_and_gradients(compiled(cell).unroll, given),
        results_and_gradients(lambda given: by_plain_loop(cell, given), given),
    )
    assert max(largest_difference([*found[0]], [*wanted[0]]), largest_difference(found[1], wanted[1])) < 1e-12


REFUSED: dict[str, tuple[Function, str]] = {
    "a mean over the batch": (lambda a, v: a - a.mean(0), "aten.mean"),
    "batch norm": (lambda a, v: F.batch_norm(a, None, None, training=True), "aten"),
    "the number of rows": (lambda a, v: a / len(a), "number of rows"),
    "rows among each other": (lambda a, v: a + a.flip(0), "aten.flip"),
    "rows one further": (lambda a, v: a + a.roll(1, 0), "aten.roll"),
    "rows as columns": (lambda a, v: a + a.t().reshape(-1, 4), "aten"),
    "a row of all": (lambda a, v: a + a[:1], "aten"),
    "all in a row": (lambda a, v: (a.reshape(-1) * 2).view(-1, 4), "aten.view"),
    "dropout": (lambda a, v: F.dropout(a), "aten.bernoulli_"),
    "a decision": (lambda a, v: a if a.sum() > 0 else -a, "depends on the elements of a tensor"),
    "largest by place": (lambda a, v: a.max(-1, keepdim=True)[0] * a, "aten.max"),
    "sorting": (lambda a, v: a.sort(-1)[0], "aten.sort"),
    "an unknown function": (lambda a, v: torch.lgamma(a.abs() + 1), "aten.lgamma"),
    "a product of rows": (lambda a, v: a @ (a.t() @ a), "sum over the rows"),
    "a view written to": (lambda a, v: _half_written(a * 2), "in place"),
    "a view of a view": (lambda a, v: _written_below(a * 2), "aten.mul_ .in place"),
    "written to another": (lambda a, v: a + _written_beside(a), "aten.add .in place"),
    "a new value behind its back": (lambda a, v: _replaced(a * 2), "an assignment to `data`"),
    "a question that is caught": (lambda a, v: _asked(a), "depends on the elements of a tensor"),
    "an error of its own": (lambda a, v: a.view(-1, 3), "RuntimeError|aten.view"),
}


def _half_written(a: Tensor) -> Tensor:
    a[:, :2].mul_(2)
    return a


def _written_below(a: Tensor) -> Tensor:
    seen = a.view(-1, 2, 2).view(-1, 4)
    a.mul_(2)
    return seen


def _written_beside(a: Tensor) -> Tensor:
    with torch.no_grad():
        first, second = a * 2, a * 3
        torch.add(first, 1, out=second)
        return first + second


def _replaced(a: Tensor) -> Tensor:
    a.data = a * 3
    return a


def _asked(a: Tensor) -> Tensor:
    try:
        return a * a.sum().item()
    except Exception:
        return a


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    function, word = REFUSED[name]
    cell = cell_of(function)
    with pytest.raises(Unsupported, match=word):
        compiled(cell).unroll(Unrolling(torch.randn(2, 3, INPUT), drawn_state(cell, 2), parameters=dict(cell.named_parameters())))


def test_a_state_that_changes_its_form_is_refused() -> None:
    class Growing(Made):
        def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
            return x, HiddenState(torch.cat([state.h, x], -1))

    with pytest.raises(Unsupported, match=r"\[4\] to torch.float64 \[7\]"):
        tracer(Growing()).forward()


def test_integers_and_the_length_that_stands_for_the_batch_are_refused() -> None:
    cell = GRU(BATCHES[0], 2)
    with pytest.raises(Unsupported, match=str(BATCHES[0])):
        tracer(cell)
    cell = GRU(INPUT, HIDDEN)
    given = Unrolling(torch.zeros(2, 3, INPUT, dtype=torch.int64), cell.initial_state(2), parameters=dict(cell.named_parameters()))
    with pytest.raises(Unsupported, match="int64"):
        Tracer(as_function(cell), given, describe(given)[0])

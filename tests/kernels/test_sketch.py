"""Sketches: what is said of operations beside torch is what torch itself does, and a trace loads nothing that takes a second."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from unrolled.kernels.decompose import OWN
from unrolled.kernels.forecast import RULES, forecast
from unrolled.kernels.graph import Unsupported
from unrolled.kernels.lower import operation_name
from unrolled.nn.cell import HiddenState
from unrolled.nn.cells import CELLS

from .cells import HIDDEN, INPUT, Made
from .test_trace import cell_of, tracer

SINGLE: tuple[Callable[[Tensor], Tensor], ...] = (
    *(
        F.gelu,
        lambda a: F.gelu(a, approximate="tanh"),
        F.logsigmoid,
        F.silu,
        lambda a: F.elu(a, 0.7),
        lambda a: F.softplus(a, 2.0, 1.0),
        F.mish,
        F.selu,
    ),
    *(lambda a: F.leaky_relu(a, 0.2), F.hardtanh, F.relu, torch.sign, torch.abs, torch.sigmoid, torch.tanh, lambda a: 1 - a),
    *(lambda a: torch.sub(a, a.cos(), alpha=3), lambda a: torch.rsub(a, 2, alpha=3), lambda a: a.masked_fill(a > 0.1, 0.5)),
    *(
        lambda a: torch.addcmul(a, a, a.sin(), value=0.3),
        lambda a: torch.addcdiv(a, a, a.exp(), value=0.3),
        lambda a: torch.where(a > 0, a, 2),
    ),
    *(lambda a: a.clamp(-0.3), lambda a: a.clamp(-a.abs(), a.abs() / 2), lambda a: (a.abs() + 0.1) ** a, lambda a: 2**a, lambda a: a > 0),
    *(lambda a: (a > 0) & ~(a > 1), lambda a: torch.where(a > 0, 0.1, 0.2), lambda a: a.lerp(-a, 0.3), lambda a: a.isnan() | a.isinf()),
)

SHAPED: tuple[Callable[[Tensor], Tensor], ...] = (
    *(lambda a: a.softmax(1), lambda a: a.log_softmax(-1), lambda a: a.logsumexp(-1), lambda a: a.logsumexp(-1, keepdim=True)),
    *(lambda a: F.layer_norm(a, a.shape[1:]), lambda a: F.layer_norm(a, a.shape[2:], a[0, 0], a[1, 0]), lambda a: a.norm(dim=-1)),
    *(lambda a: a.norm(dim=(0, 2), keepdim=True), lambda a: a[..., :1].norm(dim=-1), lambda a: a.norm(), lambda a: a.norm(1, -1)),
    *(lambda a: F.glu(a, 1), lambda a: a[:, 1:3] * a[:, :1], lambda a: a.select(1, 2), lambda a: a.transpose(0, 1) * 2, torch.sum),
    *(lambda a: a.sum((0, -1)), lambda a: a.mean(1, keepdim=True), lambda a: a.amax(1), lambda a: a.amin((0, 1), keepdim=True)),
    *(
        lambda a: torch.cat([a, a.sin()], 1),
        lambda a: torch.stack([a, a], -1),
        lambda a: torch.stack([a, a], 0),
        lambda a: a.repeat(2, 1, 3, 1),
    ),
    *(
        lambda a: F.pad(a, (1, 2, 0, -1)),
        lambda a: a.flip(1),
        lambda a: a.roll(1, 1),
        lambda a: a @ a.transpose(1, 2),
        lambda a: a[0] @ a[0].t(),
    ),
    *(lambda a: torch.addmm(a[0, 0], a[0], a[0].t() @ a[0]), lambda a: a + a[:1, :1] + a[..., :1].transpose(1, 2)[:, :, :1]),
    *(
        lambda a: (
            a + a.new_zeros(a.shape[2]) + a.new_ones(()) + torch.zeros_like(a) + torch.ones_like(a.t()).t() if a.dim() == 2 else a * 1
        ),
    ),
    *(
        lambda a: a + torch.zeros(4, dtype=a.dtype) + torch.ones(4),
        lambda a: a + torch.full((4,), 2.0, dtype=a.dtype),
        lambda a: a.expand(3, 4, 4),
    ),
)


class Compared(TorchDispatchMode):
    """Compares what is said of each operation with what torch does on real numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.own: set[Any] = set()
        self.foretold: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, result = operation_name(func), func(*args, **kwargs)
        if isinstance(result, Tensor) and not func._schema.is_mutable:
            bare = torch.utils._pytree.tree_map_only(Tensor, lambda one: one.to("meta"), (args, kwargs))
            told = forecast(name, *bare)
            if told is not None:
                assert (told.shape, told.dtype) == (result.shape, result.dtype), name
                # How the result lies where operands lie differently decides nothing but which views of it are refused.
                if all(isinstance(part, Tensor) and part.shape == result.shape for part in args):
                    assert told.stride() == result.stride(), name
                self.foretold.add(name)
        if func in OWN:
            mine = OWN[func](*args, **kwargs)
            for one, other in zip(*[[part] if isinstance(part, Tensor) else part for part in (mine, result)], strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    wide = (one.reshape(other.shape).double(), other.double())
                    torch.testing.assert_close(*wide, rtol=CLOSE[other.dtype], atol=CLOSE[other.dtype], equal_nan=True)
                    assert one.dtype == other.dtype
            self.own.add(func)
        return result


CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02, torch.bool: 0}
"""Single precision is inside of what is of half precision."""


def compared(function: Callable[[Tensor], Tensor], x: Tensor) -> Compared:
    with Compared() as compared:
        result = function(x.detach().requires_grad_())
        if result.dtype.is_floating_point and result.requires_grad:
            result.backward(torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape))
    return compared


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_said_of_operations_is_what_torch_does(dtype: torch.dtype) -> None:
    seen = Compared()
    for function in SINGLE:
        odd = torch.tensor([0.0, -0.0, torch.nan, 1e-8, -30.0, 30.0], dtype=dtype)
        for x in (torch.randn(3, 5).t(), torch.randn(()), odd):
            found = compared(function, x.to(dtype))
            seen.own |= found.own
            seen.foretold |= found.foretold
    for function in SHAPED:
        for x in (torch.randn(3, 4, 4), torch.randn(4, 3, 4).transpose(0, 1)):
            found = compared(function, x.to(dtype))
            seen.own |= found.own
            seen.foretold |= found.foretold
    # Of those that no function above leads to, most are made by other ways, the rest are tested by what they are translated to.
    assert len(seen.own) > 20 and len(seen.foretold) > 35, (OWN.keys() - seen.own, RULES.keys() - seen.foretold)


@pytest.mark.parametrize("name", CELLS)
def test_a_trace_loads_no_compiler_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These take most of two seconds, in a process that has not loaded them; what is loaded already is imported again all the same."""
    imported = builtins.__import__

    def watched(module: str, *rest: Any, **given: Any) -> Any:
        assert not module.startswith(("sympy", "torch._dynamo", "torch._inductor", "torch.fx.experimental", "torch.export")), module
        return imported(module, *rest, **given)

    traced = tracer(CELLS[name](INPUT, HIDDEN))
    monkeypatch.setattr(builtins, "__import__", watched)
    traced.backward(traced.forward(), [True])


def test_what_a_step_keeps_of_its_trace_says_what_it_is() -> None:
    kept: list[Tensor] = []

    def keep(a: Tensor, v: Tensor) -> Tensor:
        kept.append(a)
        assert (a.device.type, a.dtype, list(a.shape[1:])) == ("cpu", torch.float64, [HIDDEN])
        return a

    tracer(cell_of(keep)).forward()
    assert repr(kept[0]).startswith("Sketch([") and repr(kept[0]).endswith("4], dtype=torch.float64)")
    with pytest.raises(RuntimeError, match=r"`aten.add` of a tensor that a step kept while it was traced"):
        _ = kept[0] + 1


def test_numbers_of_a_tensor_of_numbers_may_be_asked_for() -> None:
    def scaled(a: Tensor, v: Tensor) -> Tensor:
        factor = torch.tensor([1.0, 2.0])
        return a * (factor[1] * 3).item() if factor[0] > 0 else -a

    (output,) = tracer(cell_of(scaled)).forward().outputs
    (product,) = output.nodes
    assert (product.operation, product.operands[1]) == ("mul", 6.0)


def test_a_question_that_is_caught_last_of_all_is_refused() -> None:
    class Asking(Made):
        def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
            h = torch.tanh(self.input(x) + self.hidden(state.h))
            with contextlib.suppress(Exception):
                h.sum().item()
            return h, HiddenState(h)

    with pytest.raises(Unsupported, match="depends on the elements"):
        tracer(Asking()).forward()


def test_modes_end_with_the_trace() -> None:
    class Broken(Made):
        def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
            raise ValueError("broken")

    with pytest.raises(Exception, match="broken"):
        tracer(Broken()).forward()
    assert torch.ones(2).sum().item() == 2

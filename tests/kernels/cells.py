"""Cells that no one would train: each leans on one corner of the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unrolled.core.state import State
from unrolled.nn.cell import Cell, HiddenState

INPUT, HIDDEN = 3, 4


class Made(Cell):
    """A cell of the sizes of these tests, with one matrix of each form."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.hidden_size = INPUT, HIDDEN
        self.input, self.hidden = nn.Linear(INPUT, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.both = nn.Parameter(torch.randn(INPUT + HIDDEN, HIDDEN) / 2)
        self.vector = nn.Parameter(torch.randn(HIDDEN))
        self.scalar = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Any, state: State, fixed: State = None) -> tuple[Any, State]:
        return self.step(x, state) if fixed is None else self.step(x, state, fixed)


class Products(Made):
    """Products of products, of which some depend on the state and some do not."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        both = self.input(x) * self.hidden(state.h)
        h = torch.tanh(self.hidden(torch.tanh(self.hidden(both))) + self.hidden(self.input(x)))
        return h, HiddenState(h)


class Columns(Made):
    """Slices with gaps, concatenations, flips, and columns that are moved about."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        mixed = torch.cat([x, state.h, x[:, :1]], -1)[:, : INPUT + HIDDEN] @ self.both
        first, second = mixed.split([1, 3], -1)
        h = torch.cat([second[:, ::2], first * second[:, 1:2], mixed[:, 2, None]], -1)
        h = torch.tanh(h.flip(-1) + torch.stack([h[:, 0], h[:, 1], h[:, 3], h[:, 2]], -1) + F.pad(second[:, :2], (1, 1)))
        return h, HiddenState(torch.roll(h, 1, -1))


class Norms(Made):
    """Reductions over features: layer norm, softmax, length, mean, variance, largest."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        a = F.layer_norm(self.hidden(state.h) + self.input(x), (HIDDEN,), self.vector, self.hidden.bias)
        weights = torch.softmax(a, -1) + torch.log_softmax(a * self.scalar, -1)
        length = a.norm(dim=-1, keepdim=True) + state.h.var(-1, keepdim=True) + x.mean(-1, keepdim=True)
        h = torch.tanh(weights * a.amax(-1, keepdim=True) / (1 + length)) + F.rms_norm(a, (HIDDEN,))
        return h * torch.logsumexp(a, -1, keepdim=True), HiddenState(torch.tanh(h))


class Heads(Made):
    """Features of two axes: softmax and layer norm of each head, and a mean over heads."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        heads = (self.hidden(state.h) + self.input(x)).view(-1, 2, 2)
        heads = F.layer_norm(heads, (2,), self.vector[:2]) * torch.softmax(heads, -1) * self.vector.view(2, 2)
        heads = heads + heads.mean(1, keepdim=True) * heads[:, :, :1] + self.vector[2:, None]
        h = torch.tanh(heads.reshape(len(x), HIDDEN))
        return h, HiddenState(h * heads.sum((1, 2))[:, None].sigmoid())


class Choices(Made):
    """Comparisons, where, clamps and masks."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        a = self.hidden(state.h) + self.input(x)
        a = torch.where((a > self.vector) | ~(state.h < 0.2), a.clamp(-0.5, 0.8), 2 * a)
        a = torch.maximum(a, -self.vector).masked_fill(state.h.abs() > 1, 0.1) + torch.minimum(a, state.h) + a.relu()
        h = torch.where(x[:, :1] >= 0, torch.tanh(a), state.h) + torch.where(a > 0, 0.1, -0.1)
        return h, HiddenState(h)


class Functions(Made):
    """Many functions of single elements."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        a = self.hidden(state.h) + self.input(x)
        b = F.gelu(a) + F.gelu(a, approximate="tanh") + F.silu(a) + F.elu(a) + F.softplus(a) + F.leaky_relu(a) + F.hardtanh(a)
        b = b + F.mish(a) + F.logsigmoid(a) + F.hardswish(a) + F.selu(a) + F.softsign(a) + F.relu6(a)
        c = (
            (a.square() + 0.5).sqrt()
            + (a**2 + 1).rsqrt()
            + (a.abs() + 1).log()
            + a.sin() * a.cos()
            + (-a.abs()).exp()
            + a**3
            + 1 / (a**2 + 2)
        )
        d = (
            torch.erf(a)
            + torch.expm1(a / 3)
            + torch.log1p(a**2)
            + (a.abs() + 0.1) ** self.scalar
            + 2.0 ** (a / 4)
            + torch.lerp(a, b, self.scalar)
        )
        h = torch.tanh((b + c - d) * 0.3) + torch.addcmul(a, a, self.vector, value=0.5) - torch.sub(a, self.vector, alpha=2)
        return h, HiddenState(torch.tanh(h))


class Remembered(NamedTuple):
    cell: Tensor
    trace: Tensor


class TwoStates(Made):
    """Two states of different sizes, neither of them the output, which is a projection."""

    def initial_state(self, batch_size: int) -> Remembered:
        return Remembered(self.zeros(batch_size, HIDDEN), self.zeros(batch_size, 2))

    def step(self, x: Tensor, state: Remembered) -> tuple[Tensor, Remembered]:
        cell = torch.sigmoid(self.input(x)) * state.cell + torch.tanh(self.hidden(state.cell)) * state.trace[:, :1]
        trace = 0.9 * state.trace + cell[:, 1:3]
        return torch.tanh(self.hidden(torch.tanh(cell))) + self.vector, Remembered(cell, trace)


class SharedWeights(Made):
    """A matrix that is used twice, transposed, sliced and normalised."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        weight = self.hidden.weight / self.hidden.weight.norm(dim=1, keepdim=True) * self.vector[:, None].exp()
        a = state.h @ weight + torch.tanh(state.h @ weight.t()) @ self.both[INPUT:] + x @ self.both[:INPUT]
        h = torch.tanh(a + self.scalar * F.linear(a, torch.softmax(self.hidden.weight[:, :], -1)))
        return h, HiddenState(h)


class Bare(Made):
    """No parameter is used at all."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        h = 0.5 * state.h + F.pad(x, (0, HIDDEN - INPUT)) * state.h.sum(-1, keepdim=True)
        return h - 1, HiddenState(h)


class Shifting(Made):
    """A shift register of two inputs: the output is what was seen two steps ago."""

    @property
    def output_size(self) -> int:
        return INPUT

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        return self.zeros(batch_size, INPUT), self.zeros(batch_size, INPUT)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return state[1], (x, state[0])


class Swapping(Made):
    """Two parts that change places, and a third that is never touched."""

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        return {name: self.zeros(batch_size, HIDDEN) for name in ("a", "b", "still")}

    def step(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.hidden(state["b"]) * state["still"], {
            "a": state["b"],
            "b": torch.tanh(state["a"] + self.input(x)),
            "still": state["still"],
        }


class Twins(Made):
    """Two parts of the state that become the same, and an output made of the state before."""

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        return self.zeros(batch_size, HIDDEN), self.zeros(batch_size, HIDDEN)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = torch.tanh(self.hidden(state[0]) + state[1] * self.input(x))
        return self.hidden(state[0] * state[1]), (h, h)


class ManyOutputs(Made):
    """Outputs in a tree: rows of two axes, a number a row, marks, the input itself, and one that is the same at every step."""

    def step(self, x: Tensor, state: HiddenState) -> tuple[State, HiddenState]:
        h = torch.tanh(self.input(x) + self.hidden(state.h))
        outputs = {
            "heads": h.view(-1, 2, 2),
            "energy": h.square().sum(-1),
            "marks": h > 0,
            "x": x,
            "same": self.vector.expand(len(x), -1),
            "h": h,
        }
        return outputs, HiddenState(h)


class Projected(Made):
    """An LSTM with a projection, whose gates are cut out of one function of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(INPUT + 2, 3 * HIDDEN)
        self.down = nn.Linear(HIDDEN, 2, bias=False)

    @property
    def output_size(self) -> int:
        return 2

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        return self.zeros(batch_size, 2), self.zeros(batch_size, HIDDEN)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        forget, new, out = torch.sigmoid(self.gates(torch.cat([state[0], x], -1))).chunk(3, -1)
        cell = forget * state[1] + (1 - forget) * (2 * new - 1)
        h = self.down(out * torch.tanh(cell))
        return h, (h, cell)


class Context(Made):
    """Something fixed for the whole sequence, through a product, and by itself."""

    def step(self, x: Tensor, state: HiddenState, fixed: dict[str, Tensor]) -> tuple[Tensor, HiddenState]:
        h = torch.tanh(self.input(x) + self.hidden(state.h * fixed["mask"]) + self.hidden(fixed["memory"]) * self.vector)
        return h + self.hidden(torch.tanh(fixed["memory"]) * x[:, :1]), HiddenState(h)


class Passed(Context):
    """What is fixed comes out as it is, at every step."""

    def step(self, x: Tensor, state: HiddenState, fixed: dict[str, Tensor]) -> tuple[Tensor, HiddenState]:
        return fixed["memory"], super().step(x, state, fixed)[1]


class Drifting(Made):
    """What is fixed is added at every step, and nothing else happens."""

    def step(self, x: Tensor, state: HiddenState, fixed: dict[str, Tensor]) -> tuple[Tensor, HiddenState]:
        return state.h, HiddenState(state.h + fixed["memory"])


class Counting(Made):
    """A state of marks beside one of numbers."""

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"h": self.zeros(batch_size, HIDDEN), "seen": self.zeros(batch_size, HIDDEN) > 0}

    def step(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = torch.where(state["seen"], state["h"] / 2, torch.tanh(self.input(x) + self.hidden(state["h"])))
        return h, {"h": h, "seen": state["seen"] | (h > 0.3)}


MADE: dict[str, Callable[[], Any]] = {
    cell.__name__: cell
    for cell in (
        *(Products, Columns, Norms, Heads, Choices, Functions, TwoStates, SharedWeights, Bare, Shifting, Swapping, Twins),
        *(ManyOutputs, Projected, Context, Passed, Drifting, Counting),
    )
}

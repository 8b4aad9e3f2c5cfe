"""Cells put together at random from what a step may do: a list of instructions, each on values that are there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from unrolled.core.noise import Noise
from unrolled.core.state import State
from unrolled.nn.cell import Cell, Noisy

WIDTHS = (1, 2, 3, 5, 17, 33, 65)
BUILDING_BATCH = 2


class Instruction(NamedTuple):
    """What is done, to which values (numbers of those there are, round and round), and a number that means something else for each."""

    name: str
    first: int
    second: int
    number: int


class Recipe(NamedTuple):
    """All that a random cell is made of; weights come of a seed."""

    widths: tuple[int, ...]
    """Of what may be drawn from: products, and all below."""
    input_size: int
    states: tuple[int, ...]
    """Widths of the numbers that are carried."""
    marks: int
    """Width of the marks that are carried; none where it is 0."""
    fixed: int
    noise: int
    """Widths of what holds for the sequence, and of the noise of each step; none where it is 0."""
    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]
    """Which values come out."""
    endings: tuple[int, ...]
    """How each part of the state comes of a value."""


class RandomCell(Cell):
    """Does what a recipe says."""

    def __init__(self, recipe: Recipe, seed: int, *, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        self.recipe, self.input_size, self.hidden_size = recipe, recipe.input_size, max((1, *recipe.states))
        self.made = nn.ParameterDict()
        self.generator: torch.Generator | None = torch.Generator().manual_seed(seed)
        self.place = 0
        rows = BUILDING_BATCH
        with torch.no_grad():
            x = self.zeros(rows, recipe.input_size)
            noisy = Noisy(x, self.zeros(rows, recipe.noise)) if recipe.noise else x
            output, _ = self.step(noisy, self.initial_state(rows), self.drawn_fixed(rows))
        self.width = output.shape[-1] if isinstance(output, Tensor) else 0
        self.generator = None

    @property
    def output_size(self) -> int:
        return self.width

    def fixed(self, batch_size: int, noise: Noise) -> State:
        return self.drawn_fixed(batch_size)

    def step_noise(self, batch_size: int, time: int, noise: Noise) -> State:
        return self.drawn_noise(batch_size, time)

    def initial_state(self, batch_size: int) -> State:
        state = {f"state {place}": self.zeros(batch_size, width) for place, width in enumerate(self.recipe.states)}
        return {**state, "marks": self.zeros(batch_size, self.recipe.marks) > 0} if self.recipe.marks else state

    def drawn_fixed(self, batch_size: int) -> Tensor | None:
        return torch.randn(batch_size, self.recipe.fixed) if self.recipe.fixed else None

    def drawn_noise(self, batch_size: int, time: int) -> Tensor | None:
        return torch.randn(batch_size, time, self.recipe.noise) if self.recipe.noise else None

    def one_of(self, functions: tuple[Any, ...], number: int) -> Any:
        return functions[number % (len(functions) - self.smooth * JUMPING[id(functions)])]

    def forward(self, x: Any, state: State, fixed: State = None) -> tuple[Any, State]:
        return self.step(x, state, fixed)

    def parameter(self, *shape: int, scale: float = 1.0) -> Tensor:
        """The next one: drawn while the cell is built, found there afterwards."""
        name = str(self.place)
        self.place += 1
        if self.generator is not None:
            drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale
            self.made[name] = nn.Parameter(drawn.to(torch.get_default_dtype()))
        return self.made[name]

    def matrix(self, rows: int, columns: int) -> Tensor:
        return self.parameter(rows, columns, scale=0.7 * rows**-0.5)

    def fitted(self, value: Tensor, width: int) -> Tensor:
        """The value itself or the nearest thing of that width."""
        return (
            value
            if value.shape[1] in (width, 1)
            else value[:, :width]
            if value.shape[1] > width
            else value @ self.matrix(value.shape[1], width)
        )

    def step(self, x: Any, state: dict[str, Tensor], fixed: Tensor | None = None) -> tuple[State, State]:
        self.place = 0
        before = [state[f"state {place}"] for place in range(len(self.recipe.states))]
        values = [x.x, x.noise] if isinstance(x, Noisy) else [x]
        values += before + ([] if fixed is None else [fixed]) + ([state["marks"].to(values[0].dtype)] if self.recipe.marks else [])
        for name, first, second, number in self.recipe.instructions:
            values.append(INSTRUCTIONS[name](self, values[first % len(values)], values[second % len(values)], number))
        after = {}
        for place, (old, width, ending) in enumerate(zip(before, self.recipe.states, self.recipe.endings, strict=False)):
            after[f"state {place}"] = self.ended(old, values[-1 - place % len(values)], width, ending)
        if self.recipe.marks:
            new = self.fitted(values[-1], self.recipe.marks) > 0.2
            after["marks"] = state["marks"] ^ new if self.recipe.endings[-1] % 2 else new.expand_as(state["marks"])
        outputs = {str(place): shaped(values[number % len(values)], number) for place, number in enumerate(self.recipe.outputs)}
        # Alone, an output has features; among several it may be one number a row.
        return (outputs["0"].view(*outputs["0"].shape, *[1] * (outputs["0"].dim() == 1)) if len(outputs) == 1 else outputs), after

    def ended(self, old: Tensor, value: Tensor, width: int, ending: int) -> Tensor:
        """The new part of the state, which never grows without bound."""
        new = torch.tanh(self.fitted(value, width)).expand_as(old)
        return (new, torch.lerp(old, new, 0.3), old + 0.1 * (new - old), torch.roll(old, 1, -1) * 0.5 + new / 2, old)[ending % 5]


def shaped(value: Tensor, number: int) -> Tensor:
    """An output of one, two or three axes, or marks."""
    if number % 7 == 0:
        return value.sum(-1)
    if number % 7 == 1:
        return value.unsqueeze(1)
    return value > 0 if number % 7 == 2 else value


# --- Instructions ---------------------------------------------------------------------------------------------------

Do = Callable[[RandomCell, Tensor, Tensor, int], Tensor]

UNARY: tuple[Callable[[Tensor], Tensor], ...] = (
    *(torch.sigmoid, torch.tanh, torch.relu, torch.neg, torch.abs, torch.sin, torch.cos, torch.erf),
    *(F.gelu, F.silu, F.elu, F.softplus, F.leaky_relu, F.hardtanh, F.mish, F.logsigmoid, F.hardswish, F.selu, F.softsign, F.relu6),
    *(
        lambda a: a.clamp(-0.5, 0.8),
        lambda a: (a.abs() + 0.3).sqrt(),
        lambda a: (a.square() + 0.3).rsqrt(),
        lambda a: (a.abs() + 0.3).log(),
    ),
    *(lambda a: a.clamp(max=2).exp(), lambda a: torch.expm1(a.clamp(max=1)), lambda a: torch.log1p(a.abs()), lambda a: 1 / (a.abs() + 0.4)),
    *(lambda a: a**3 / 5, lambda a: 2.0 ** -a.abs(), lambda a: (a.abs() + 0.2) ** 0.7, lambda a: F.gelu(a, approximate="tanh")),
    *(lambda a: a.detach() * 0.5 + a, lambda a: a.detach().cos(), lambda a: 1 - a, lambda a: a * 1, lambda a: a + 0, lambda a: a * a),
    *(torch.zeros_like, lambda a: torch.full_like(a, 0.3), lambda a: a.nan_to_num()),
    *(torch.sign, lambda a: torch.where(a > 0, 0.1, -0.2)),
)

BINARY: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    *(torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda a, b: a / (b.abs() + 0.5), lambda a, b: torch.lerp(a, b, 0.3)),
    *(lambda a, b: torch.addcmul(a, a, b, value=0.5), lambda a, b: (a.abs() + 0.1) ** b.tanh(), lambda a, b: torch.sub(a, b, alpha=2)),
    *(lambda a, b: torch.lerp(a, b, torch.sigmoid(a)), lambda a, b: torch.where(a > b, a, b / 2), lambda a, b: a.masked_fill(b > 0.3, 0.1)),
    *(lambda a, b: torch.where((a > 0) & ~(b < 0.2) | (a == b), a, -b), lambda a, b: (a >= b).to(a.dtype)),
)

JUMPING = {id(UNARY): 2, id(BINARY): 4}
"""So many at the end of each have jumps, where a rounding error may be of any size."""

REDUCED: tuple[Callable[[Tensor], Tensor], ...] = (
    *(lambda a: a.sum(-1, keepdim=True) / 3, lambda a: a.mean(-1, keepdim=True), lambda a: a.amax(-1, keepdim=True)),
    *(lambda a: a.amin(-1, keepdim=True), lambda a: a.logsumexp(-1, keepdim=True), lambda a: (a.norm(dim=-1) + 0.1)[:, None]),
    *(
        lambda a: (a + 0.1).square().mean(1)[:, None],
        lambda a: a.var(-1, keepdim=True, correction=0),
        lambda a: a.std(-1, correction=0)[:, None] + 0.1,
    ),
)

WHOLE: tuple[Callable[[Tensor], Tensor], ...] = (
    *(
        lambda a: a.softmax(-1),
        lambda a: a.log_softmax(-1) / 3,
        lambda a: F.layer_norm(a, a.shape[1:]),
        lambda a: F.rms_norm(a, a.shape[1:]),
    ),
    *(
        lambda a: a - a.mean(-1, keepdim=True),
        lambda a: a / (1 + a.norm(dim=-1, keepdim=True)),
        lambda a: a * a.amax(-1, keepdim=True).tanh(),
    ),
    *(lambda a: a.flip(-1), lambda a: a.roll(1, -1), lambda a: torch.cat([a[:, 1:], a[:, :1]], -1), lambda a: F.softmin(a, -1)),
    lambda a: a.view(-1, 1, a.shape[1]).expand(-1, 2, -1).reshape(len(a), -1)[:, : a.shape[1]],
)


def product(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    width = cell.recipe.widths[number % len(cell.recipe.widths)]
    weight = cell.matrix(a.shape[1], width)
    result = F.linear(a, weight.t()) if number % 2 else a @ weight
    return result + cell.parameter(width) if number % 3 else result


def product_of_both(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    both = torch.cat([a, b], -1)
    return both @ cell.matrix(both.shape[1], cell.recipe.widths[number % len(cell.recipe.widths)])


def gates(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    """A product of which parts are used in different ways."""
    width = a.shape[1]
    opened, new, out = (a @ cell.matrix(width, 3 * width) + cell.parameter(3 * width)).chunk(3, -1)
    return torch.sigmoid(opened) * torch.tanh(new) + (out if number % 2 else a)


def there_and_back(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    weight = cell.matrix(a.shape[1], 3)
    weight = torch.softmax(weight, -1) if number % 3 == 0 else weight
    return torch.tanh(a @ weight) @ weight.t()


def by_vector(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    vector = cell.parameter(1 if number % 5 == 0 else a.shape[1])
    return (a * vector, a + vector, vector - a, torch.maximum(a, -vector), torch.where(a > vector, a, vector))[number % 5]


def by_number(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    scalar = cell.parameter()
    return a * scalar if number % 2 else torch.lerp(a, -a, scalar)


def cut(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    start = number % a.shape[1]
    return (a[:, start:], a[:, : start + 1], a[:, :: start % 3 + 1], a[:, start : start + 1])[number % 4]


def join(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    return (torch.cat([a, b], -1), torch.cat([b, a, a[:, :1]], -1), F.pad(a, (1, number % 2)), torch.stack([a, a], 1).flatten(1))[
        number % 4
    ][:, :70]


def heads(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    """The same for each of several heads."""
    count = max(count for count in (1, 2, 3, 5) if a.shape[1] % count == 0)
    parts = a.view(len(a), count, -1)
    done = (parts.softmax(-1), parts + parts.mean(1, keepdim=True), parts * parts.sum(-1, keepdim=True).tanh(), parts.transpose(1, 2))[
        number % 4
    ]
    return done.reshape(len(a), -1)


def both(cell: RandomCell, a: Tensor, b: Tensor, number: int) -> Tensor:
    return cell.one_of(BINARY, number)(a, cell.fitted(b, a.shape[1]))


INSTRUCTIONS: dict[str, Do] = {
    **{
        function.__name__: function
        for function in (product, product_of_both, gates, there_and_back, by_vector, by_number, cut, join, heads, both)
    },
    "single": lambda cell, a, b, number: cell.one_of(UNARY, number)(a),
    "reduced": lambda cell, a, b, number: REDUCED[number % len(REDUCED)](a),
    "whole": lambda cell, a, b, number: WHOLE[number % len(WHOLE)](a),
}


def recipes(most: int = 8) -> st.SearchStrategy[Recipe]:
    """Random recipes.

    Args:
        most: so many instructions at most.
    """
    numbers = st.integers(0, 120)
    width = st.sampled_from(WIDTHS)
    instruction = st.builds(Instruction, st.sampled_from(sorted(INSTRUCTIONS)), numbers, numbers, numbers)
    none_or_width = st.sampled_from((0, 0, 0, 1, 3, 17))
    return st.builds(
        Recipe,
        widths=st.lists(width, min_size=1, max_size=3).map(tuple),
        input_size=st.sampled_from((1, 3, 17)),
        states=st.lists(width, min_size=0, max_size=3).map(tuple),
        marks=st.sampled_from((0, 0, 0, 1, 5)),
        fixed=none_or_width,
        noise=none_or_width,
        instructions=st.lists(instruction, min_size=1, max_size=most).map(tuple),
        outputs=st.lists(numbers, min_size=1, max_size=2).map(tuple),
        endings=st.lists(numbers, min_size=3, max_size=3).map(tuple),
    )

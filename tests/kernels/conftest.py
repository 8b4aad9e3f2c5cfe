"""Everything small and in float64, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core.state import State, map_state, named_leaves
from unrolled.kernels.structure import Unrolling
from unrolled.nn.cell import Cell
from unrolled.nn.unroll import Sequences, run_steps


@pytest.fixture(autouse=True)
def small_and_exact() -> Iterator[None]:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


def as_function(cell: Cell) -> Callable[..., tuple[State, State]]:
    """The step of a cell as the compiler takes it."""

    def step(x: State, state: State, fixed: State, parameters: Mapping[str, Tensor]) -> tuple[State, State]:
        return torch.func.functional_call(cell, dict(parameters), (x, state, fixed))

    return step


def by_plain_loop(cell: Cell, given: Unrolling) -> tuple[State, State]:
    """The definition, `run_steps`."""
    data = next(leaf for _, leaf in named_leaves(given.inputs))
    return run_steps(cell, given.inputs, Sequences(data, given.lengths, given.resets), given.state, given.restart, given.fixed)


def drawn_state(cell: Cell, batch: int, gradient: bool = True) -> State:
    def draw(leaf: Tensor) -> Tensor:
        if leaf.dtype == torch.bool:
            return torch.rand(leaf.shape) < 0.3
        return (torch.randn_like(leaf) / 2).requires_grad_(gradient)

    return map_state(draw, cell.initial_state(batch))


def tensors_of(given: Unrolling) -> list[Tensor]:
    """Every tensor of which a gradient is wanted."""
    trees: list[Any] = [given.inputs, given.state, given.fixed, given.restart, dict(given.parameters)]
    return [leaf for tree in trees for _, leaf in named_leaves(tree) if leaf.requires_grad]


def results_and_gradients(unroll: Callable[[Unrolling], tuple[State, State]], given: Unrolling) -> tuple[list[Tensor], list[Tensor | None]]:
    """What comes out, leaf by leaf, and the gradients of a number that looks at every element of it in another way."""
    results = [leaf for tree in unroll(given) for _, leaf in named_leaves(tree)]
    loss = torch.zeros(())
    for place, leaf in enumerate(results):
        if leaf.requires_grad:
            weights = torch.linspace(-1, 2 + place, leaf.numel(), dtype=leaf.dtype).view(leaf.shape).sin()
            loss = loss + (leaf * weights).sum() + (leaf * leaf.cos()).sum() / 3
    leaves = tensors_of(given)
    if not (leaves and loss.requires_grad):
        return results, [None] * len(leaves)
    return results, list(torch.autograd.grad(loss, leaves, allow_unused=True))


def largest_difference(first: list[Tensor | None], second: list[Tensor | None]) -> float:
    """Over all tensors, relative to the size of each; none is as good as zeros."""
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if a is None or b is None:
            worst = max(worst, 0.0 if a is b else float((b if a is None else a).abs().max()))  # type: ignore[union-attr]
            continue
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = a.detach().double(), b.detach().double()
        worst = max(worst, float((a - b).abs().max() / (1 + b.abs().max()))) if a.numel() else worst
    return worst

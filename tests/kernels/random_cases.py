"""What a random cell is unrolled over: batch, time, every pattern of lengths, resets, what wants a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from unrolled.core.state import State, map_state, named_leaves
from unrolled.kernels.structure import Unrolling
from unrolled.nn.cell import Noisy

from .random_cells import RandomCell


class Case(NamedTuple):
    """Everything but the cell."""

    batch: int
    time: int
    lengths: str
    """A key of `LENGTHS`."""
    resets: bool
    frozen: tuple[str, ...]
    """What wants no gradient: `inputs`, `state`, `parameters`."""
    looks_at: str
    """Where gradients come in: `outputs`, `state`, `both`."""
    odd: float
    """What some inputs are: 0 is nothing special, else NaN or infinity."""
    seed: int


LENGTHS = {
    "none": lambda batch, time: None,
    "full": lambda batch, time: torch.full((batch,), time),
    "zero": lambda batch, time: torch.zeros(batch, dtype=torch.long),
    "any": lambda batch, time: torch.randint(0, time + 1, (batch,)),
    "falling": lambda batch, time: torch.randint(0, time + 1, (batch,)).sort(descending=True).values,
}


def cases(longest: int = 7, widest: int = 40) -> st.SearchStrategy[Case]:
    """Random cases.

    Args:
        longest: steps at most.
        widest: rows at most.
    """
    return st.builds(
        Case,
        batch=st.one_of(st.sampled_from((1, 2, 3)), st.integers(1, widest)),
        time=st.integers(1, longest),
        lengths=st.sampled_from(("none", *LENGTHS)),
        resets=st.booleans(),
        frozen=st.sampled_from(((), (), (), ("inputs",), ("parameters",), ("state", "inputs"))),
        looks_at=st.sampled_from(("both", "both", "outputs", "state")),
        odd=st.sampled_from((0.0, 0.0, 0.0, 0.0, math.nan, math.inf, -math.inf)),
        seed=st.integers(0, 1000),
    )


def unrolling_of(cell: RandomCell, case: Case) -> Unrolling:
    """What the cell is unrolled over in a case, drawn from the seed of the case."""
    torch.manual_seed(case.seed)
    batch, time = case.batch, case.time
    xs = torch.randn(batch, time, cell.input_size, requires_grad="inputs" not in case.frozen)
    noise = cell.drawn_noise(batch, time)
    if case.odd:
        xs.data[torch.rand(batch, time, 1).expand_as(xs) < 0.2] = case.odd
    for parameter in cell.parameters():
        parameter.requires_grad_("parameters" not in case.frozen)
    return Unrolling(
        inputs=xs if noise is None else Noisy(xs, noise),
        state=drawn(cell, batch, "state" not in case.frozen),
        fixed=map_state(lambda leaf: leaf.requires_grad_("inputs" not in case.frozen), cell.drawn_fixed(batch)),
        parameters=dict(cell.named_parameters()),
        lengths=LENGTHS[case.lengths](batch, time),
        resets=torch.rand(batch, time) < 0.3 if case.resets else None,
        restart=drawn(cell, batch, "state" not in case.frozen) if case.resets else None,
    )


def drawn(cell: RandomCell, batch: int, gradient: bool) -> State:
    def draw(leaf: Tensor) -> Tensor:
        return torch.rand(leaf.shape) < 0.4 if leaf.dtype == torch.bool else (torch.randn_like(leaf) / 2).requires_grad_(gradient)

    return map_state(draw, cell.initial_state(batch))


Results = tuple[list[Tensor], list[Tensor | None]]
"""Outputs and last state, leaf by leaf, and gradients."""


def results_of(unroll: Callable[[Unrolling], tuple[State, State]], given: Unrolling, looks_at: str = "both") -> Results:
    """What comes out, and the gradients of a number that looks at each element in another way."""
    outputs, state = ([leaf for _, leaf in named_leaves(tree)] for tree in unroll(given))
    seen = {"outputs": outputs, "state": state, "both": outputs + state}[looks_at]
    loss = torch.zeros((), dtype=torch.float64)
    for place, leaf in enumerate(seen):
        if leaf.requires_grad:
            weights = torch.linspace(-1, 2 + place, leaf.numel(), dtype=leaf.dtype).view(leaf.shape).sin()
            loss = loss + (leaf * weights + leaf.cos() / 3).sum()
    trees = (given.inputs, given.state, given.fixed, given.restart, dict(given.parameters))
    leaves = [leaf for tree in trees for _, leaf in named_leaves(tree) if leaf.requires_grad]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True) if leaves and loss.requires_grad else [None] * len(leaves)
    return outputs + state, list(gradients)


def assert_same(found: Results, wanted: Results, tolerance: float = 1e-9) -> None:
    """All tensors, to so much of the size of each; no gradient is as good as zeros. NaN and infinity are where they should be."""
    assert len(found[1]) == len(wanted[1])
    for ours, theirs in zip(found[0] + found[1], wanted[0] + wanted[1], strict=True):  # type: ignore[operator]
        if ours is None or theirs is None:
            assert ours is theirs or (theirs if ours is None else ours).nan_to_num(0).eq(0).all()  # type: ignore[union-attr]
            continue
        size = theirs[theirs.isfinite()].detach().double().abs()
        within = tolerance * (1 + float(size.max() if size.numel() else 0))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=within, equal_nan=True)

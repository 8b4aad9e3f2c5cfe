"""Cells made at random, compiled and by the plain loop: outputs, last state and all gradients, whatever the sizes, lengths and resets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.core.state import map_state, named_leaves
from unrolled.kernels import Unsupported, make_loop
from unrolled.kernels.compiler import Compiler, system_compiler
from unrolled.kernels.loop_cpp import CompiledLoop
from unrolled.kernels.loop_torch import TorchLoop
from unrolled.kernels.recurrence import CompiledStep
from unrolled.kernels.structure import Unrolling
from unrolled.nn import compiled
from unrolled.nn.recurrence import Recurrence, Stacked

from .conftest import as_function, by_plain_loop
from .random_cases import Case, assert_same, cases, results_of, unrolling_of
from .random_cells import Instruction, RandomCell, Recipe, recipes

search = partial(
    settings,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)


@contextmanager
def where_supported() -> Iterator[None]:
    """Another example where a cell would have to be cut into too many pieces; all else that a recipe holds can be compiled."""
    try:
        yield
    except Unsupported as reason:
        if "pieces" not in str(reason):
            raise
        assume(False)


def check(recipe: Recipe, case: Case, make: Any) -> None:
    cell = RandomCell(recipe, case.seed)
    over = unrolling_of(cell, case)
    with where_supported():
        found = results_of(CompiledStep(as_function(cell), make).unroll, over, case.looks_at)
    assert_same(found, results_of(lambda over: by_plain_loop(cell, over), over, case.looks_at))


@search(max_examples=6)
@given(recipes(), cases())
def test_in_torch(recipe: Recipe, case: Case) -> None:
    check(recipe, case, TorchLoop)


@search(max_examples=3)
@given(recipes(5), cases())
def test_in_machine_code(recipe: Recipe, case: Case) -> None:
    check(recipe, case, make_loop)


def test_columns_of_columns_that_the_loop_reads() -> None:
    # Found by the slow test below: columns of a stream that was itself columns of something were looked for below it.
    names = ("product_of_both", "by_vector", "both", "there_and_back", "whole", "gates", "reduced", "product", "product", "cut")
    numbers = (
        (68, 7, 6),
        (49, 88, 79),
        (64, 84, 38),
        (68, 40, 31),
        (15, 83, 14),
        (74, 88, 76),
        (4, 64, 45),
        (41, 97, 44),
        (86, 61, 46),
        (71, 50, 53),
    )
    instructions = tuple(Instruction(name, *three) for name, three in zip(names, numbers, strict=True))
    recipe = Recipe((5, 33, 1), 17, (1,), marks=0, fixed=1, noise=1, instructions=instructions, outputs=(87,), endings=(77, 24, 84))
    check(recipe, Case(3, 5, "falling", resets=False, frozen=(), looks_at="both", odd=0.0, seed=537), TorchLoop)


@pytest.mark.slow
@search(max_examples=300)
@given(recipes(12), cases())
def test_many_in_torch(recipe: Recipe, case: Case) -> None:
    check(recipe, case, TorchLoop)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@search(max_examples=100)
@given(recipes(12), cases())
def test_many_in_machine_code(recipe: Recipe, case: Case) -> None:
    check(recipe, case, make_loop)


@pytest.mark.slow
@search(max_examples=3)
@given(recipes(3), cases(5000, 2).filter(lambda case: case.time > 4000))
def test_long_sequences(recipe: Recipe, case: Case) -> None:
    check(recipe, case._replace(odd=0.0), make_loop)


# --- Single precision -----------------------------------------------------------------------------------------------


def errors(found: list[Tensor | None], exact: list[Tensor | None]) -> tuple[float, float]:
    """How far results are from the exact ones, and how large these are."""
    pairs = [(ours, theirs) for ours, theirs in zip(found, exact, strict=True) if ours is not None and theirs is not None]
    pairs = [(ours.double(), theirs.double()) for ours, theirs in pairs]
    return sum(float((ours - theirs).square().sum()) for ours, theirs in pairs) ** 0.5, sum(
        float(t.square().sum()) for _, t in pairs
    ) ** 0.5


def check_single(recipe: Recipe, case: Case) -> None:
    """The error is at most twice that of the plain loop in single precision."""
    cell = RandomCell(recipe._replace(marks=0), case.seed, smooth=True)
    over = unrolling_of(cell, case._replace(odd=0.0))
    exact = results_of(lambda over: by_plain_loop(cell, over), over, case.looks_at)

    def shorter(leaf: Tensor) -> Tensor:
        return leaf.detach().float().requires_grad_(leaf.requires_grad) if leaf.is_floating_point() else leaf

    cell.float()
    trees = (map_state(shorter, tree) for tree in (over.inputs, over.state, over.fixed, over.restart))
    inputs, state, fixed, restart = trees
    brief = Unrolling(inputs, state, fixed, dict(cell.named_parameters()), over.lengths, over.resets, restart)
    plain = results_of(lambda over: by_plain_loop(cell, over), brief, case.looks_at)
    found = results_of(CompiledStep(as_function(cell), make_loop).unroll, brief, case.looks_at)
    for kind in (0, 1):
        (ours, size), (theirs, _) = errors([*found[kind]], [*exact[kind]]), errors([*plain[kind]], [*exact[kind]])
        assert ours <= 2 * theirs + 3e-7 * (1 + size)


@search(max_examples=3)
@given(recipes(4), cases())
def test_in_single_precision(recipe: Recipe, case: Case) -> None:
    check_single(recipe, case)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@search(max_examples=60)
@given(recipes(8), cases(12))
def test_many_in_single_precision(recipe: Recipe, case: Case) -> None:
    check_single(recipe, case)


# --- Threads, stacks, finite differences ----------------------------------------------------------------------------


@pytest.mark.slow
@search(max_examples=8)
@given(recipes(6), cases())
def test_threads_make_no_difference(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, case: Case) -> None:
    # Work is split at once, however little it is.
    compiler = Compiler((*system_compiler().command, "-DENOUGH_WORK=1"), tmp_path_factory.mktemp("kernels"))
    cell = RandomCell(recipe, case.seed)
    over, found = unrolling_of(cell, case._replace(odd=0.0)), []
    steps = CompiledStep(as_function(cell), partial(CompiledLoop, compiler=compiler))
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        with where_supported():
            found.append(results_of(steps.unroll, over, case.looks_at))
    torch.set_num_threads(1)
    for first, second in zip(found[1][0] + found[1][1], found[2][0] + found[2][1], strict=True):  # type: ignore[operator]
        assert first is second or torch.equal(first, second), "the same to the last bit"
    assert_same(found[1], found[0], 1e-11)
    assert_same(found[3], found[0], 1e-11)


@search(max_examples=2)
@given(recipes(4), recipes(4), cases())
def test_stacks_in_both_directions(below: Recipe, above: Recipe, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "LEAST", 0)
        patch.setattr(compiled, "make_loop", TorchLoop)
        first = RandomCell(below._replace(outputs=(4,)), case.seed)
        second = RandomCell(above._replace(outputs=(4,), input_size=first.output_size), case.seed + 1)
        xs = torch.randn(case.batch, case.time, first.input_size, requires_grad=True)
        lengths = torch.randint(0, case.time + 1, (case.batch,))
        found = []
        for plain in (False, True):
            torch.manual_seed(case.seed)
            layers = Stacked(Recurrence(first, plain=plain), Recurrence(second, plain=plain, reverse=True))
            outputs, state = layers(Padded(xs, lengths), resets=torch.rand(case.batch, case.time) < 0.3)
            leaves = [xs, *layers.parameters()]
            loss = outputs.data.sin().sum() + sum(leaf.sum() for _, leaf in named_leaves(state) if leaf.requires_grad)
            wanted = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else []
            found.append(([outputs.data, *[leaf for _, leaf in named_leaves(state)]], list(wanted)))
        assert_same(*found)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_rows_and_no_steps(shape: tuple[int, int]) -> None:
    recipe = Recipe((5,), 3, (5,), 0, 0, 0, (Instruction("product_of_both", 0, 1, 0),), (4,), (0, 0, 0))
    outputs, state = Recurrence(RandomCell(recipe, 0))(torch.randn(*shape, 3))
    assert outputs.shape[:2] == shape and state["state 0"].shape == (shape[0], 5)


@pytest.mark.slow
@search(max_examples=6)
@given(recipes(4), cases(3, 3))
def test_finite_differences(recipe: Recipe, case: Case) -> None:
    cell = RandomCell(recipe._replace(marks=0, outputs=(4,)), case.seed, smooth=True)
    over = unrolling_of(cell, case._replace(odd=0.0, frozen=()))
    steps = CompiledStep(as_function(cell), make_loop)
    names, trees = list(over.parameters), (over.inputs, over.state, over.fixed, over.restart)
    leaves = [leaf for tree in trees for _, leaf in named_leaves(tree)]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        given = [map_state(lambda _: next(rest), tree) for tree in trees]
        values = Unrolling(*given[:3], dict(zip(names, rest, strict=True)), over.lengths, over.resets, given[3])
        return tuple(leaf for tree in steps.unroll(values) for _, leaf in named_leaves(tree) if leaf.requires_grad)

    needing = [leaf.requires_grad_() for leaf in (*leaves, *over.parameters.values())]
    with where_supported():
        outputs = function(*needing)
    if outputs:
        assert torch.autograd.gradcheck(function, needing, fast_mode=True, atol=1e-4)


# --- Found by the tests above ---------------------------------------------------------------------------------------

PLAIN = Case(batch=2, time=3, lengths="none", resets=False, frozen=(), looks_at="both", odd=0.0, seed=0)

FOUND: dict[str, tuple[Recipe, Callable[[Case], Case]]] = {
    "nothing is carried, so that the loop has nothing to do": (
        Recipe((1,), 1, (), 0, 0, 0, (Instruction("both", 0, 0, 0),), (0,), (0, 0, 0)),
        lambda case: case,
    ),
    "a gradient that is zero, summed over the batch": (
        Recipe(
            *((1,), 1, (1,), 0, 1, 1),
            instructions=(
                *(Instruction("both", 90, 12, 12), Instruction("gates", 55, 94, 84), Instruction("both", 92, 94, 14)),
                *(Instruction("both", 90, 12, 12), Instruction("both", 30, 108, 10), Instruction("both", 96, 73, 8)),
                *(Instruction("both", 0, 0, 0), Instruction("both", 27, 0, 0)),
            ),
            outputs=(0,),
            endings=(0, 0, 0),
        ),
        lambda case: case,
    ),
    "columns of which there are none": (
        Recipe((17,), 3, (), 0, 0, 1, (Instruction("whole", 1, 0, 9), Instruction("join", 2, 0, 12)), (4,), (0, 0, 0)),
        lambda case: case,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_by_chance(name: str) -> None:
    recipe, change = FOUND[name]
    check(recipe, change(PLAIN), TorchLoop)

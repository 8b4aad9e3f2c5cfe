"""The compiled loop against the loop of torch's own operations: programs of the package's cells, and programs made at random."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from unrolled.kernels.build import Graph
from unrolled.kernels.compiler import Compiler, system_compiler
from unrolled.kernels.graph import POINTWISE, REDUCTIONS, Carried, Kind, LoopProgram, Node, ordered
from unrolled.kernels.loop_cpp import CompiledLoop
from unrolled.kernels.loop_torch import TorchLoop
from unrolled.kernels.recurrence import CompiledStep
from unrolled.kernels.structure import Unrolling
from unrolled.nn.cells import CELLS

TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5}


@dataclass
class Run:
    """Arrays for a program, and how to run it on them."""

    program: LoopProgram
    time: int
    batch: int
    seed: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        program, rows = self.program, (self.batch,)
        ins, outs = len(program.streams_in), len(program.streams_out)
        shapes: list[tuple[int, ...]] = [(self.time, self.batch) for _ in range(ins + outs)]
        shapes += [rows if node.kind is Kind.ROWS else () for node in program.arrays[ins + outs :]]
        self.arrays = []
        for node, shape in zip(program.arrays, shapes, strict=True):
            scale = node.shape[-1] ** -0.5 if len(node.shape) == 2 else 1.0
            array = torch.randn(*shape, *node.shape, generator=generator, dtype=torch.float64) * scale
            if node.shape == (1,):
                array = array.abs() + 0.1  # a variance, as often as not
            self.arrays.append(array > 0.4 if node.dtype == torch.bool else array.to(node.dtype))
        self.written = [*range(ins, ins + outs), *range(len(self.arrays) - len(program.states), len(self.arrays))]

    def results(self, loop: Any) -> list[Tensor]:
        """What the loop writes; memory that it leaves alone would hold 77."""
        arrays = [array.clone() for array in self.arrays]
        for place in self.written:
            arrays[place].fill_(77)
        loop(arrays, self.time, self.batch)
        for place, array in enumerate(arrays):
            assert place in self.written or same(array, self.arrays[place]), f"array {place} is only read"
        return [arrays[place] for place in self.written]


def same(left: Tensor, right: Tensor) -> bool:
    return torch.equal(left.nan_to_num(1234.5), right.nan_to_num(1234.5)) if left.is_floating_point() else torch.equal(left, right)


def check(program: LoopProgram, loop: CompiledLoop, time: int, batch: int, tolerance: float | None = None) -> None:
    run = Run(program, time, batch)
    tolerance = TOLERANCE[run.arrays[0].dtype if run.arrays[0].is_floating_point() else torch.float64] if tolerance is None else tolerance
    for got, wanted in zip(run.results(loop), run.results(TorchLoop(program)), strict=True):
        size = 1 + (wanted.nan_to_num(0, 0, 0).abs().max().item() if wanted.is_floating_point() else 0)
        torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * size, equal_nan=True)


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    # Work is split at once, so that small programs are run by several threads too.
    return Compiler((*system_compiler().command, "-DENOUGH_WORK=1"), tmp_path_factory.mktemp("kernels"))


# --- Programs made at random ----------------------------------------------------------------------------------------

UNARY = ("neg", "abs", "sign", "square", "relu", "sqrt", "exp", "sigmoid", "tanh", "erf", "sin", "cos", "expm1", "log1p")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
COMPARED = tuple(name for name, known in POINTWISE.items() if known.boolean and known.operands == 2 and not name.startswith("logical"))


class Maker:
    """Puts a program together, node by node, from all that a loop may hold."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.random, self.dtype, self.graph = random.Random(seed), dtype, Graph()
        self.widths = [1, *self.random.sample([2, 5, 16, 17, 40], 2)]
        self.count = 0
        self.streams = [self.leaf(self.width()) for _ in range(2)] + [self.leaf(self.width(), torch.bool)]
        self.constants = [self.leaf(self.width())]
        self.befores = [self.leaf(self.width()) for _ in range(self.random.randint(1, 3))]
        self.shared: list[Node] = []
        self.rows: list[Node] = [*self.streams, *self.constants, *self.befores]

    def width(self) -> int:
        return self.random.choice(self.widths)

    def leaf(self, width: int, dtype: torch.dtype | None = None) -> Node:
        self.count += 1
        return self.graph.leaf(f"leaf {self.count}", Kind.ROWS, (width,), dtype or self.dtype)

    def vector(self, *shape: int) -> Node:
        self.count += 1
        self.shared.append(self.graph.leaf(f"shared {self.count}", Kind.SHARED, shape, self.dtype))
        return self.shared[-1]

    def some(self, fits: Callable[[Node], bool]) -> Node | None:
        found = [node for node in self.rows if fits(node)]
        return self.random.choice(found[-12:] if self.random.random() < 0.7 else found) if found else None

    def number_rows(self, width: int | None = None) -> Node:
        wanted = [width] if width else self.widths
        found = self.some(lambda node: node.dtype == self.dtype and node.width in wanted)
        return found or self.graph.fill(0.5, width or 1, self.dtype)

    def operand(self, width: int) -> Any:
        kind = self.random.randrange(5)
        if kind == 0:
            return self.random.choice([0.5, -1.25, 2])
        if kind == 1:
            return self.vector(self.random.choice([width, 1]))
        return self.number_rows(self.random.choice([width, width, 1]))

    def mask(self, width: int) -> Node:
        found = self.some(lambda node: node.dtype == torch.bool and node.width in (1, width))
        return found or self.graph.rows("gt", (self.number_rows(width), 0.1), width, torch.bool)

    def add(self) -> None:
        ways: list[Callable[[], Node]] = [
            self.unary, self.binary, self.binary, self.binary, self.product, self.product, self.slice, self.join, self.reduce, self.choose, self.compare,
            self.spread,
        ]  # fmt: skip
        self.rows.append(self.random.choice(ways)())

    def unary(self) -> Node:
        of = self.number_rows()
        name = self.random.choice(UNARY)
        if name in ("sqrt", "log1p"):
            of = self.graph.rows("abs", (of,), of.width, self.dtype)
        if name in ("exp", "square", "expm1"):
            of = self.graph.rows("tanh", (of,), of.width, self.dtype)
        return self.graph.rows(name, (of,), of.width, self.dtype)

    def binary(self) -> Node:
        of = self.number_rows()
        operands = [of, self.operand(of.width)]
        self.random.shuffle(operands)
        return self.graph.rows(self.random.choice(BINARY), operands, of.width, self.dtype)

    def product(self) -> Node:
        of, width, turned = self.number_rows(), self.width(), self.random.random() < 0.5
        matrix = self.vector(*((width, of.width) if turned else (of.width, width)))
        return self.graph.rows("product", (of, matrix), width, self.dtype, turned)

    def slice(self) -> Node:
        width = self.width()
        of = self.some(lambda node: node.width > width)
        if of is None:
            return self.product()
        return self.graph.rows("slice", (of,), width, of.dtype, self.random.randint(0, of.width - width))

    def join(self) -> Node:
        parts = [self.number_rows() for _ in range(self.random.randint(2, 3))]
        width = sum(part.width for part in parts)
        self.widths.append(width)
        return self.graph.rows("concatenate", parts, width, self.dtype)

    def reduce(self) -> Node:
        return self.graph.rows(self.random.choice(REDUCTIONS), (self.number_rows(),), 1, self.dtype)

    def choose(self) -> Node:
        of = self.number_rows()
        return self.graph.rows("where", (self.mask(of.width), of, self.operand(of.width)), of.width, self.dtype)

    def compare(self) -> Node:
        of = self.number_rows()
        made = self.graph.rows(self.random.choice(COMPARED), (of, self.operand(of.width)), of.width, torch.bool)
        if self.random.random() < 0.5:
            return self.graph.rows("logical_not", (made,), of.width, torch.bool)
        return self.graph.rows("convert", (made,), of.width, self.dtype) if self.random.random() < 0.5 else made

    def spread(self) -> Node:
        return self.graph.rows("expand", (self.number_rows(1),), self.width(), self.dtype)

    def program(self, size: int) -> LoopProgram:
        for _ in range(size):
            self.add()
        states = []
        for before in self.befores:
            after = self.some(lambda node, before=before: (node.width, node.dtype) == (before.width, before.dtype)) or before
            # Bounded, so that no difference grows; now and then as it is, even a leaf.
            keeps = self.random.random() < 0.2
            states.append(Carried(before, after if keeps else self.graph.rows("tanh", (after,), after.width, self.dtype)))
        results = [state.after for state in states]
        outs = self.random.sample(self.rows, min(3, len(self.rows))) + self.random.sample(results, 1)
        outs = list(dict.fromkeys(outs))
        leaves = [*self.streams, *self.constants, *self.befores]
        return LoopProgram(
            tuple(self.streams), tuple(outs), tuple(self.constants), tuple(self.shared), tuple(states), tuple(ordered([*outs, *results], leaves)),
            self.random.random() < 0.5,
        )  # fmt: skip


def check_random(seed: int, compiler: Compiler) -> None:
    program = Maker(seed, torch.float64).program(14)
    loop = CompiledLoop(program, compiler=compiler)
    for threads, time, batch in ((1, 1, 1), (1, 2, 3), (2, 3, 33), (3, 3, 5)):
        torch.set_num_threads(threads)
        check(program, loop, time, batch)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_are_what_torch_computes(seed: int, compiler: Compiler) -> None:
    check_random(seed, compiler)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 150))
def test_more_random_programs_are_what_torch_computes(seed: int, compiler: Compiler) -> None:
    check_random(seed, compiler)


# --- Programs of cells ----------------------------------------------------------------------------------------------

INPUT = 5


def programs_of(name: str, hidden: int, dtype: torch.dtype, *, marked: bool = False) -> list[LoopProgram]:
    """Forward and backward."""
    cell = CELLS[name](INPUT, hidden).to(dtype)
    made: list[LoopProgram] = []

    def make(program: LoopProgram) -> TorchLoop:
        made.append(program)
        return TorchLoop(program)

    def step(x: Any, state: Any, fixed: Any, parameters: Any) -> Any:
        return functional_call(cell, dict(parameters), (x, state))

    unrolling = Unrolling(
        torch.randn(2, 2, INPUT, dtype=dtype, requires_grad=True), cell.initial_state(2), None, dict(cell.named_parameters())
    )
    if marked:
        marks = torch.tensor([[True, False], [False, True]])
        unrolling = unrolling._replace(lengths=torch.tensor([1, 2]), resets=marks, restart=cell.initial_state(2))
    CompiledStep(step, make).unroll(unrolling)
    assert len(made) == 2 and made[1].reverse
    return made


KNOWN = ("gru", "lstm", "peephole-lstm", "layer-norm-lstm", "coupled-lstm", "minimal-gated")
OTHERS = tuple(CELLS.keys() - KNOWN)


@pytest.mark.parametrize("name", ["gru", "layer-norm-lstm"])
def test_programs_of_cells_are_what_torch_computes(name: str, compiler: Compiler) -> None:
    for program in programs_of(name, 33, torch.float64, marked=True):
        loop = CompiledLoop(program, compiler=compiler)
        for threads, time, batch in ((1, 3, 1), (1, 1, 64), (2, 3, 33), (2, 2, 3), (3, 2, 16)):
            torch.set_num_threads(threads)
            check(program, loop, time, batch)


@pytest.mark.slow
@pytest.mark.parametrize("marked", [False, True], ids=["whole", "lengths and resets"])
@pytest.mark.parametrize("hidden", [1, 7, 33, 48, 100, 650])
@pytest.mark.parametrize("name", [*KNOWN, *OTHERS])
def test_programs_of_all_cells_and_sizes_are_what_torch_computes(name: str, hidden: int, marked: bool, compiler: Compiler) -> None:
    for program in programs_of(name, hidden, torch.float64, marked=marked):
        loop = CompiledLoop(program, compiler=compiler)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for time, batch in ((1, 1), (4, 3), (3, 16), (2, 33), (1, 64)):
                check(program, loop, time, batch)


def exact(program: LoopProgram) -> LoopProgram:
    """The same program in float64."""
    new: dict[Node, Node] = {}

    def turned(node: Node) -> Node:
        if node not in new:
            operands = tuple(
                turned(operand) if isinstance(operand, Node) and node in program.nodes else operand for operand in node.operands
            )
            new[node] = replace(node, operands=operands, dtype=torch.bool if node.dtype == torch.bool else torch.float64)
        return new[node]

    def all_of(nodes: Sequence[Node]) -> tuple[Node, ...]:
        return tuple(turned(node) for node in nodes)

    states = tuple(Carried(turned(state.before), turned(state.after)) for state in program.states)
    nodes = all_of(program.nodes)
    return LoopProgram(
        all_of(program.streams_in),
        all_of(program.streams_out),
        all_of(program.constants),
        all_of(program.shared),
        states,
        nodes,
        program.reverse,
    )


@pytest.mark.parametrize(
    "name", ["gru", pytest.param("lstm", marks=pytest.mark.slow), pytest.param("layer-norm-lstm", marks=pytest.mark.slow)]
)
def test_float32_is_as_near_to_float64_as_torch_is(name: str, compiler: Compiler) -> None:
    # One row of whole vectors reads the matrices where they lie, by one to eight vectors of columns at a time.
    for program, (threads, batch) in itertools.product(programs_of(name, 160, torch.float32), ((1, 1), (2, 1), (3, 1), (2, 8))):
        torch.set_num_threads(threads)
        run = Run(program, 30, batch)
        with_torch, compiled = run.results(TorchLoop(program)), run.results(CompiledLoop(program, compiler=compiler))
        run.arrays = [array.double() if array.is_floating_point() else array for array in run.arrays]
        run.program = exact(program)
        for wanted, near, got in zip(run.results(TorchLoop(run.program)), with_torch, compiled, strict=True):
            assert (got - wanted).norm() <= 2 * (near - wanted).norm() + 1e-9 * wanted.norm()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_work_gives_the_same_bits(threads: int, compiler: Compiler) -> None:
    torch.set_num_threads(threads)
    program = programs_of("layer-norm-lstm", 40, torch.float32)[0]
    loop = CompiledLoop(program, compiler=compiler)
    for batch in (1, 20):
        run = Run(program, 20, batch)
        first = run.results(loop)
        for _ in range(5):
            assert all(torch.equal(*pair) for pair in zip(first, run.results(loop), strict=True))


def test_nan_and_infinity_stay_in_their_row(compiler: Compiler) -> None:
    program = programs_of("gru", 20, torch.float32)[0]
    loop, run = CompiledLoop(program, compiler=compiler), Run(program, 4, 3)
    clean = run.results(loop)[0]
    for bad in (float("nan"), float("inf"), -float("inf")):
        run.arrays[0][1, 2, 3:] = bad
        got, wanted = run.results(loop)[0], run.results(TorchLoop(program))[0]
        assert torch.equal(got[:, :2], clean[:, :2]) and torch.equal(got[0], clean[0])
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    run.arrays[0][1, 2, 3:] = float("nan")
    assert run.results(loop)[0][1:, 2].isnan().any(-1).all()


def test_no_step_and_no_row_leave_the_state_as_it_is(compiler: Compiler) -> None:
    program = programs_of("gru", 20, torch.float64)[0]
    loop = CompiledLoop(program, compiler=compiler)
    run = Run(program, 0, 3)
    assert torch.equal(run.results(loop)[-1], run.arrays[-2])
    loop(Run(program, 2, 0).arrays, 2, 0)


def test_products_in_bfloat16_are_rounded_where_they_multiply(compiler: Compiler) -> None:
    program = programs_of("gru", 40, torch.float32)[0]
    run = Run(program, 6, 16)
    exactly = run.results(TorchLoop(program))
    got = run.results(CompiledLoop(program, bfloat16_products=True, compiler=compiler))
    for near, wanted in zip(got, exactly, strict=True):
        error = ((near - wanted).norm() / wanted.norm()).item()
        assert 1e-5 < error < 1e-2, "rounded to 8 bits, and nothing worse"

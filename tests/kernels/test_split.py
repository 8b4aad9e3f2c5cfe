"""What goes where: the parts of a program, and the algorithms by which it is divided."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from unrolled.kernels.build import Graph
from unrolled.kernels.cut import cheapest_cut
from unrolled.kernels.evaluate import Evaluation, Size
from unrolled.kernels.graph import Kind, Node, ordered
from unrolled.kernels.loop_torch import TorchLoop
from unrolled.kernels.plan import Plan
from unrolled.kernels.segments import Piece, pieces_of, segmented
from unrolled.kernels.split import Parts
from unrolled.kernels.structure import Unrolling, describe
from unrolled.nn.cell import Cell
from unrolled.nn.cells import CELLS, GRU, FeedForward, LayerNormLSTM

from .cells import Projected, TwoStates
from .conftest import as_function, drawn_state

D, H = 3, 4


def plan_of(cell: Cell, **more: torch.Tensor) -> Plan:
    given = Unrolling(
        torch.randn(2, 5, cell.input_size, requires_grad=True), drawn_state(cell, 2), parameters=dict(cell.named_parameters()), **more
    )
    return Plan(as_function(cell), given, describe(given)[0], TorchLoop)


def back_of(plan: Plan) -> Parts:
    return plan.backward(tuple(True for _ in plan.forward.outputs)).direction.parts


def widths(nodes: tuple[Node, ...]) -> list[int]:
    return sorted(node.shape[-1] for node in nodes)


def products(nodes: tuple[Node, ...]) -> list[tuple[int, int]]:
    return sorted((node.operands[0].width, node.width) for node in nodes if node.operation == "product")


def test_the_published_gru() -> None:
    plan = plan_of(GRU(D, H))
    ahead, back = plan.ahead.parts, back_of(plan)
    assert products(ahead.program.nodes) == [(H, H), (H, 2 * H)]
    assert widths(ahead.program.streams_in) == [3 * H]  # the product of the input; its bias is added in the loop
    assert widths(ahead.program.streams_out) == [H, H, H, H]  # two gates, the candidate, the state
    assert widths(ahead.program.shared) == [H, H, H, H, H]  # two matrices, the bias in three parts
    assert products(back.program.nodes) == [(H, H), (2 * H, H)]
    assert widths(back.program.streams_out) == [H, 3 * H]  # reset ∘ h, and the gradients of all that is summed in the gates
    assert not back.before
    assert {"sigmoid", "tanh"}.isdisjoint(node.operation for node in back.program.nodes)


@pytest.mark.parametrize(
    ("name", "stored"), [("lstm", 6), ("gru", 4), ("elman", 1), ("coupled-lstm", 5), ("reset-after-gru", 5), ("minimal-gated", 3)]
)
def test_what_is_stored_of_each_step(name: str, stored: int) -> None:
    # An LSTM: four gates, c, and h, which is the output. The GRU of torch needs the product of its candidate beside three gates and h.
    assert sum(widths(plan_of(CELLS[name](D, H)).ahead.parts.program.streams_out)) == stored * H


def test_what_the_state_does_not_need_is_done_outside() -> None:
    projected = plan_of(TwoStates()).ahead.parts
    assert products(projected.program.nodes) == [(H, H)]
    assert sorted(node.operation for node in projected.results if node.kind is Kind.ROWS)[:1] == ["add"]
    joined = plan_of(FeedForward.two_layers(D, H))
    assert products(joined.ahead.parts.program.nodes) == [(H, H), (H, H)]
    assert products(back_of(joined).program.nodes) == [(H, H), (H, H)]


def test_sums_are_made_in_the_loop_where_nothing_else_needs_their_terms() -> None:
    back = back_of(plan_of(LayerNormLSTM(D, H)))
    # The gains of both norms of the sums and the bias that they share; the gain and the bias of the norm of c.
    assert widths(back.sums) == [H, H, 4 * H, 4 * H, 4 * H]
    assert len(back.program.states) == 2 + 5
    assert widths(back.program.streams_out) == [4 * H, 4 * H]


def test_gates_cut_out_of_one_function_are_computed_one_by_one() -> None:
    program = plan_of(Projected()).ahead.parts.program
    assert {node.operands[0].operation for node in program.nodes if node.operation == "slice"} <= {"input", "product"}
    assert [node.width for node in program.nodes if node.operation == "sigmoid"] == [H, H, H]


def random_graph(generator: random.Random, size: int) -> list[Node]:
    graph = Graph()
    nodes = [graph.leaf(f"leaf {place}", Kind.ROWS, (generator.randint(1, 6),), torch.float32) for place in range(3)]
    for _ in range(size):
        operands = generator.sample(nodes, generator.randint(1, 2))
        operation = generator.choice(["add", "product", "concatenate"])
        nodes.append(graph.rows(operation, operands, generator.randint(1, 6), torch.float32, len(nodes)))
    return nodes


@pytest.mark.parametrize("seed", range(60))
def test_the_cheapest_cut_against_all_cuts(seed: int) -> None:
    generator = random.Random(seed)
    nodes = random_graph(generator, 7)
    uses = generator.sample(nodes[3:], 3)

    def given(node: Node) -> bool:
        return node.operation in ("input", "product")

    def enough(cut: set[Node]) -> bool:
        pending = [node for node in uses if node not in cut]
        while pending:
            node = pending.pop()
            if given(node):
                return False
            pending += [operand for operand in node.nodes if operand not in cut]
        return True

    found = cheapest_cut(uses, cost=lambda node: node.width, given=given, anywhere=lambda node: False)
    cheapest = min(
        sum(node.width for node in cut)
        for count in range(len(nodes) + 1)
        for cut in itertools.combinations(nodes, count)
        if enough(set(cut))
    )
    assert enough(set(found)) and sum(node.width for node in found) == cheapest


@pytest.mark.parametrize("seed", range(20))
def test_segmented_rows_are_the_same_rows(seed: int) -> None:
    generator, graph = random.Random(seed), Graph()
    leaves = [graph.leaf(f"leaf {place}", Kind.ROWS, (width,), torch.float64) for place, width in enumerate((6, 6, 1, 4))]
    vector = graph.leaf("vector", Kind.SHARED, (6,), torch.float64)
    nodes = leaves[:2]
    for _ in range(12):
        wide = [node for node in nodes if node.width == 6]
        made = generator.choice(["add", "mul", "tanh", "cut", "join", "bias", "sum"])
        if made in ("add", "mul"):
            nodes.append(graph.pointwise(made, (generator.choice(wide), generator.choice([*wide, leaves[2]])), 6, torch.float64))
        elif made == "tanh":
            nodes.append(graph.pointwise("tanh", (generator.choice(wide),), 6, torch.float64))
        elif made == "bias":
            nodes.append(graph.pointwise("add", (generator.choice(wide), vector), 6, torch.float64))
        elif made == "cut":
            start = generator.randint(0, 4)
            nodes.append(graph.rows("slice", (generator.choice(wide),), 2, torch.float64, start))
        elif made == "join":
            narrow = [node for node in nodes if node.width == 2]
            if narrow:
                nodes.append(graph.rows("concatenate", (generator.choice(narrow), leaves[3]), 6, torch.float64))
        else:
            nodes.append(graph.rows("sum", (generator.choice(wide),), 1, torch.float64))
            nodes.append(graph.pointwise("mul", (nodes[-1], vector), 6, torch.float64))
    results = nodes[-3:]
    new = segmented(graph, results, leaves)
    values = {node: torch.randn(5, *node.shape) if node.kind is Kind.ROWS else torch.randn(node.shape) for node in [*leaves, vector]}
    size = Size(1, 5, torch.device("cpu"))
    for before, after in zip(results, new, strict=True):
        runs = [Evaluation((), [node]) for node in (before, after)]
        first, second = (run([values[node] for node in run.given], size)[0] for run in runs)
        torch.testing.assert_close(first, second)
    order = ordered(new, leaves)
    whole = {operand for node in order if node.operation != "slice" for operand in node.nodes} | set(new)
    for node in order:
        assert node.operation != "slice" or node.operands[0].operation in ("input", "sum") or node.operands[0] in whole


def test_pieces_of_one_another_are_stored_once() -> None:
    graph = Graph()
    a, b, c = (graph.leaf(name, Kind.ROWS, (width,), torch.float64) for name, width in (("a", 2), ("b", 3), ("c", 4)))
    whole, part = graph.concatenate([a, b, c]), graph.concatenate([b, c])
    sliced = graph.slice(c, 1, 2)
    left, pieces = pieces_of([part, b, whole, sliced, a])
    assert left == [whole, sliced]
    assert pieces == [Piece(0, 2, 7), Piece(0, 2, 3), Piece(0, 0, 9), Piece(1, 0, 2), Piece(0, 0, 2)]

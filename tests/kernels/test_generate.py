"""The plan of a step and what is written from it; that it computes the right thing is tested with the compiled loop."""

from __future__ import annotations

import pytest
import torch

from unrolled.kernels.build import Graph
from unrolled.kernels.generate import source
from unrolled.kernels.generate_plan import Plan
from unrolled.kernels.generate_values import FUNCTIONS
from unrolled.kernels.generate_values import REDUCTIONS as WRITTEN_REDUCTIONS
from unrolled.kernels.graph import POINTWISE, REDUCTIONS, Carried, Kind, LoopProgram, Node, Unsupported, ordered


class Cell:
    """A few lines of a step, by hand."""

    def __init__(self, hidden: int = 20, dtype: torch.dtype = torch.float32) -> None:
        self.graph, self.hidden, self.dtype = Graph(), hidden, dtype
        self.shared: list[Node] = []
        self.x, self.h = (self.graph.leaf(name, Kind.ROWS, (hidden,), dtype) for name in "xh")

    def do(self, name: str, *operands: object) -> Node:
        width = max(operand.shape[0] for operand in operands if isinstance(operand, Node))
        return self.graph.rows(name, operands, width, self.dtype)

    def product(self, rows: Node, width: int = 0) -> Node:
        width = width or self.hidden
        self.shared.append(self.graph.leaf(f"W{len(self.shared)}", Kind.SHARED, (width, rows.width), self.dtype))
        return self.graph.rows("product", (rows, self.shared[-1]), width, self.dtype, True)

    def sum(self, rows: Node) -> Node:
        return self.graph.rows("sum", (rows,), 1, self.dtype)

    def program(self, after: Node, *outs: Node) -> LoopProgram:
        nodes = tuple(ordered([after, *outs], [self.x, self.h]))
        return LoopProgram((self.x,), outs or (after,), (), tuple(self.shared), (Carried(self.h, after),), nodes)


def test_every_operation_is_written() -> None:
    assert FUNCTIONS.keys() == POINTWISE.keys() - {"where", "convert"}
    assert WRITTEN_REDUCTIONS.keys() == set(REDUCTIONS)


def test_a_step_without_dependent_products_is_one_phase_and_needs_no_memory() -> None:
    cell = Cell()
    gates = cell.product(cell.h, 60)
    first, second, third = (cell.graph.slice(gates, start, 20) for start in (0, 20, 40))
    after = cell.do("add", cell.do("mul", cell.do("sigmoid", first), cell.h), cell.do("mul", cell.do("tanh", second), third))
    plan = Plan(cell.program(after))
    assert len(plan.phases) == 1
    assert plan.spare == []
    (stage,) = plan.phases[0].stages
    (group,) = stage.groups
    assert [segment.start for segment in group.segments] == [0, 20, 40], "columns of one matrix, made together"


def test_a_product_of_what_the_step_computes_is_a_phase_of_its_own() -> None:
    cell = Cell()
    reset = cell.do("sigmoid", cell.do("add", cell.x, cell.product(cell.h)))
    plan = Plan(cell.program(cell.do("tanh", cell.product(cell.do("mul", reset, cell.h)))))
    assert len(plan.phases) == 2
    assert [node.operation for _, node in plan.spare] == ["mul"], "only what the second product multiplies is kept"


def test_cheap_values_of_what_is_there_are_computed_where_they_are_used() -> None:
    cell = Cell()
    late = cell.do("mul", cell.do("sub", 1, cell.x), cell.h)
    inner = cell.do("tanh", cell.product(cell.h))
    plan = Plan(cell.program(cell.do("add", late, cell.product(inner))))
    assert len(plan.phases) == 2
    assert [node.operation for _, node in plan.spare] == ["tanh"]


def test_a_reduction_needs_all_that_it_reduces_but_no_memory_for_it() -> None:
    cell = Cell()
    whole = cell.graph.concatenate([cell.do("square", cell.h), cell.do("mul", cell.h, cell.x)])
    after = cell.do("mul", cell.h, cell.do("rsqrt", cell.sum(whole)))
    plan = Plan(cell.program(after))
    assert len(plan.phases) == 2
    assert all(node.width == 1 for _, node in plan.spare)
    assert [len(phase.combined) for phase in plan.phases] == [0, 1]


def test_what_only_products_read_is_put_together_where_they_read_it() -> None:
    cell = Cell()
    both = cell.graph.concatenate([cell.do("tanh", cell.h), cell.x])
    plan = Plan(cell.program(cell.do("tanh", cell.product(both))))
    (factors,) = plan.phases[1].factors
    assert [(place.pointer.rstrip("0123456789"), width) for place, width in factors.parts] == [("spare", 20), ("in", 20)]


def test_a_state_among_the_streams_is_kept_once() -> None:
    cell = Cell()
    after = cell.do("tanh", cell.product(cell.h))
    assert Plan(cell.program(after)).carried[0].pointer == "out0"
    other = cell.do("add", after, 1.0)
    assert Plan(cell.program(after, other)).carried[0].pointer == "after0"


def test_leaves_may_be_made_elsewhere_by_any_operation() -> None:
    cell = Cell()
    made = cell.graph.concatenate([cell.x, cell.x])
    after = cell.do("tanh", cell.graph.rows("slice", (made,), 20, torch.float32, 10))
    program = LoopProgram((made,), (after,), (), (), (Carried(cell.h, after),), tuple(ordered([after], [made])))
    assert len(Plan(program).phases) == 1


def test_other_types_are_not_supported() -> None:
    cell = Cell(dtype=torch.float16)
    with pytest.raises(Unsupported, match="float16"):
        source(cell.program(cell.do("tanh", cell.h)))
    mixed = Cell()
    with pytest.raises(Unsupported, match="float32 and .*float64"):
        source(mixed.program(mixed.h, mixed.graph.rows("convert", (mixed.h,), 20, torch.float64)))
    double = Cell(dtype=torch.float64)
    with pytest.raises(Unsupported, match="bfloat16"):
        source(double.program(double.do("tanh", double.h)), bfloat16_products=True)


def test_an_unknown_operation_is_named() -> None:
    cell = Cell()
    with pytest.raises(Unsupported, match="gamma"):
        source(cell.program(cell.do("gamma", cell.h)))


def test_what_changes_from_step_to_step_is_fetched_before_it_is_used() -> None:
    cell = Cell()
    after = cell.do("tanh", cell.do("add", cell.x, cell.product(cell.h)))
    text = source(cell.program(after))
    assert "__builtin_prefetch(s.in0 + row * 20L + 0 + unit, 0, 2);" in text
    assert "__builtin_prefetch(s.out0 + row * 20L + 0 + unit, 1, 2);" in text
    assert text.index("Stage::fetch(") < text.index("Stage::template multiply_all<vectors>(s, tile"), "while there is something to multiply"
    alone = Cell()
    assert "__builtin_prefetch(s." not in source(alone.program(alone.do("tanh", alone.do("add", alone.x, alone.h))))


def test_the_text_depends_on_nothing_but_the_program() -> None:
    def made() -> str:
        cell = Cell()
        return source(cell.program(cell.do("tanh", cell.product(cell.h))))

    assert made() == made()

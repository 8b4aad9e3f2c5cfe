"""`unrolled bench kernels`: a table for people, figures for programs, one sentence for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from unrolled.cli.bench_tables import memory_table, ratio_table
from unrolled.nn.cells import GRU
from unrolled.tasks import kernel_fresh
from unrolled.tasks.kernel_bench import MODES, SHAPES, Held, Line, Measured, geometric_means, held_to, plan, prepare, race, take_turn
from unrolled.tasks.kernel_fresh import PeakMemory, ask, first_use
from unrolled.tasks.kernel_limits import Limits, least_milliseconds, measure_limits

from .conftest import Command


def line(batch: int = 1, mode: str = "training", cell: str = "gru") -> Line:
    return Line(mode, cell, 1, batch, 4)


def test_ratios_are_geometric_means() -> None:
    lines = [Measured(line(1), {"compiled": 2.0, "other": 4.0}), Measured(line(2), {"compiled": 1.0, "other": 8.0})]
    assert geometric_means(lines) == {("training", "gru", 1, "other"): pytest.approx(4.0)}


def test_contestants_take_turns() -> None:
    order: list[str] = []
    times = race({name: lambda name=name: order.append(name) for name in "ab"}, 2, least=0)
    assert order == ["a", "b", *"aabb" * 2] and set(times) == {"a", "b"}, "once for all, then in each turn one that does not count"


def test_a_slow_plain_loop_has_three_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"compiled": iter([1000.0, 200.0, 300.0, 900.0, 100.0]), "plain loop": iter([3000.0, 1500.0, 2000.0])}
    warmed: list[bool] = []
    works = {name: lambda: None for name in taken}
    names = {work: name for name, work in works.items()}

    def turn(work: object, least: float, *, warm: bool) -> float:
        warmed.extend([warm] if names[work] == "plain loop" else [])
        return next(taken[names[work]])

    monkeypatch.setattr("unrolled.tasks.kernel_bench.take_turn", turn)
    assert race(works, 5) == {"compiled": 300.0, "plain loop": 2000.0}
    assert warmed == [True, False, False]


def test_a_turn_is_as_many_runs_as_take_a_while() -> None:
    runs: list[int] = []
    milliseconds = take_turn(lambda: runs.append(len(runs)), 0.01, warm=True)
    assert len(runs) > 2 and milliseconds * (len(runs) - 1) >= 10, "the first does not count"


def test_what_is_measured() -> None:
    every = plan(["gru", "lstm"], MODES, None, [2, 1])
    assert {(one.batch, one.hidden) for one in every if one.mode == "training"} == set(SHAPES)
    assert {(one.batch, one.hidden) for one in every if one.mode == "streaming"} == {(1, 256)}
    assert {one.batch for one in every if one.mode == "bf16-training"} == {16, 32, 64}
    assert len(every) == len(set(every)) == 2 * 2 * (4 + 4 + 1 + 3 + 3)
    asked = plan(["gru"], ["streaming", "bf16-inference"], [(3, 8), (5, 8)], [1])
    assert asked == [Line("streaming", "gru", 1, 1, 8), Line("bf16-inference", "gru", 1, 3, 8), Line("bf16-inference", "gru", 1, 5, 8)]
    assert all(one.hidden < 650 for one in plan(["gru"], MODES, None, [1], quick=True))


def test_all_ways_of_a_cell_are_the_same_cell() -> None:
    contest = prepare(line(2), GRU, steps=3)
    assert list(contest.works) == ["compiled", "plain loop", "nn.GRU"]
    gradients = []
    for name in ("compiled", "plain loop"):
        contest.works[name]()
        assert contest.xs.grad is not None
        gradients.append(contest.xs.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6) and gradients[0].abs().sum() > 0
    half = prepare(line(2, "bf16-training"), GRU, steps=3)
    assert list(half.works) == ["compiled", "fp32"]
    assert list(prepare(line(2, "inference", "lstm"), GRU, steps=3).works) == ["compiled", "nn.LSTM"], "its plain loop is never taken"


def test_the_least_time_counts_each_product_once() -> None:
    """The published GRU of size 4: 3 × 16 numbers for the input, 3 × 16 for the state; two operations each, ten steps."""
    limits = Limits(products=1e3, reading=1e4)
    cell = GRU(4, 4)
    assert least_milliseconds(cell, "inference", 2, 10, limits) == pytest.approx(2 * 2 * 10 * 96)
    assert least_milliseconds(cell, "training", 2, 10, limits) == pytest.approx(3 * 2 * 2 * 10 * 96)
    assert least_milliseconds(cell, "streaming", 1, 10, limits) == pytest.approx(4 * 10 * 96 / 10)
    assert least_milliseconds(cell, "inference", 1, 10, limits) == pytest.approx(2 * 10 * 48 + 4 * 10 * 48 / 10)
    assert least_milliseconds(cell, "inference", 1, 10, Limits(1e3, None)) is None


def test_this_machine_has_limits() -> None:
    limits = measure_limits()
    assert limits.products > 1e8 and limits.reading is not None and 1e8 < limits.reading < 1e13


def test_the_table_marks_what_is_missed() -> None:
    lines = [Measured(line(), {"compiled": 1.0, "plain loop": 3.9, "JAX": 2.5})]
    table = ratio_table(lines, {("training", "gru"): {"JAX": Held(2)}})
    assert [list(column.cells) for column in table.columns[3:]] == [["3.90 !", "2.50  "], ["≥ 4, aim 6", "≥ 2"]]
    assert held_to("training", "mine") == {"plain loop": Held(3, 5)}
    memory = memory_table([PeakMemory("gru", "nn.GRU", 1, 2, 3, 12.0, 10.0), PeakMemory("gru", "nn.GRU", 1, 2, 3, 0.0, 0.0)])
    assert list(memory.columns[-1].cells) == ["1.20 !", "nan  "]


def test_a_table_and_the_same_as_figures(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_fresh, "ask", lambda job, _: {"seconds": 2.0, "megabytes": 3.0 if job["of"] == "gru" else 4.0})
    few = ("bench", "kernels", "--cell=gru", "--shape=2x40", "--rounds=1", "--threads=1")
    before = torch.get_num_threads()
    table = command(*few)
    assert table.returncode == 0, table.stderr
    for word in ("times as fast", "nn.GRU", "plain loop", "share of the machine's own limit", "first use", "memory of a training step"):
        assert word in table.stdout
    assert "5 measurements, about" in table.stderr and "3/3" in table.stderr
    found = json.loads(command(*few, "--json").stdout)
    assert [(one["mode"], one["batch"], one["hidden"]) for one in found["lines"]] == [
        ("training", 2, 40),
        ("inference", 2, 40),
        ("streaming", 1, 40),
    ]
    assert {ratio["against"] for ratio in found["ratios"]} == {"plain loop", "nn.GRU"} and all(one["ratio"] > 0 for one in found["ratios"])
    assert found["memory"][0]["ratio"] == 0.75 and found["first_use"][0]["cold"] == 2.0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--cell=grue", "got `grue`; did you mean `gru`"),
        ("--cell=my:Cell", "give `--trust`"),
        ("--mode=learning", "got `learning`"),
        ("--shape=16", "such as 16x256, got `16`"),
        ("--threads=0", "--threads"),
    ],
)
def test_what_cannot_be_measured(option: str, sentence: str, command: Command) -> None:
    done = command("bench", "kernels", option)
    assert done.returncode == 2 and sentence in done.stderr and not done.stdout
    assert done.stderr.count("\n") == 1


def test_memory_of_a_process_of_its_own() -> None:
    job = {"measure": "memory", "of": "nn.LSTM", "threads": 1, "batch": 16, "hidden": 256, "steps": 100}
    megabytes = ask(job, {})["megabytes"]
    if megabytes is None:
        pytest.skip("this system does not tell")
    activations = 16 * 100 * 256 * 4 / 2**20
    assert 4 * activations < megabytes < 40 * activations, "four gates are kept at least"


@pytest.mark.slow
def test_the_second_first_use_builds_nothing(tmp_path: Path) -> None:
    found = first_use("gru", 1, (2, 48))
    assert 0 < found.cached < found.cold

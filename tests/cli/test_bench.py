"""`unrolled bench kernels`: a table for people, figures for programs, one sentence for what cannot be."""

from __future__ import annotations

import json

import pytest

from unrolled.tasks.kernel_bench import Measured, geometric_means, race

from .conftest import Command


def test_ratios_are_geometric_means() -> None:
    lines = [Measured("gru", "training", 1, 4, 2.0, {"other": 4.0}), Measured("gru", "training", 2, 4, 1.0, {"other": 8.0})]
    assert geometric_means(lines) == {("gru", "training", "other"): pytest.approx(4.0)}


def test_contestants_take_turns() -> None:
    order: list[str] = []
    times = race({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == ["a", "b", "a", "b", "a", "b"] and set(times) == {"a", "b"}


def test_a_table_and_the_same_as_figures(command: Command) -> None:
    few = ("bench", "kernels", "--cell=gru", "--shape=2x40", "--mode=inference", "--mode=streaming", "--rounds=1")
    table = command(*few)
    assert table.returncode == 0, table.stderr
    assert "times as fast" in table.stdout and "nn.GRU" in table.stdout and "plain loop" in table.stdout
    found = json.loads(command(*few, "--json").stdout)
    assert [(line["mode"], line["batch"], line["hidden"]) for line in found["lines"]] == [("inference", 2, 40), ("streaming", 1, 40)]
    assert {ratio["against"] for ratio in found["ratios"]} == {"plain loop", "nn.GRU"} and all(
        ratio["ratio"] > 0 for ratio in found["ratios"]
    )


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--cell=grue", "got `grue`; did you mean `gru`"), ("--mode=learning", "got `learning`"), ("--shape=16", "such as 16x256, got `16`")],
)
def test_what_cannot_be_measured(option: str, sentence: str, command: Command) -> None:
    done = command("bench", "kernels", option)
    assert done.returncode == 2 and sentence in done.stderr and not done.stdout

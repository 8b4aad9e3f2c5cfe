"""Each processor against a plain-Python loop over the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.decode import Forbid, MinP, Processor, RepetitionPenalty, Temperature, TopK, TopP

Row = list[float]
rows = st.lists(st.one_of(st.integers(-4, 4).map(float), st.floats(-20, 20, width=32)), min_size=1, max_size=9)
"""Integers make ties."""
NO_HISTORY = torch.zeros(1, 0, dtype=torch.long)


def run(processor: Processor, row: Row, history: list[int] | None = None) -> Row:
    """One row through a processor, which may not change its input."""
    logits = torch.tensor([row])
    before = logits.clone()
    result = processor(logits, torch.tensor([history or []], dtype=torch.long))
    assert torch.equal(logits.nan_to_num(), before.nan_to_num())
    assert result.shape == logits.shape and result.dtype == logits.dtype
    return list(result[0].tolist())


def float32(row: Row) -> Row:
    return list(torch.tensor(row).tolist())


def by_rank(row: Row) -> list[int]:
    """Ids from the likeliest on, ties by id."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))


def softmax(row: Row) -> Row:
    greatest = max(row)
    weights = [math.exp(x - greatest) for x in row]
    return [w / sum(weights) for w in weights]


def kept(result: Row) -> set[int]:
    return {i for i, x in enumerate(result) if x > -math.inf}


@given(rows, st.integers(1, 12))
def test_top_k_keeps_the_first_k_by_rank(row: Row, k: int) -> None:
    result = run(TopK(k), row)
    assert kept(result) == set(by_rank(row)[:k])
    assert all(result[i] == float32(row)[i] for i in kept(result))


@given(rows, st.floats(0, 1))
def test_top_p_keeps_the_smallest_nucleus(row: Row, p: float) -> None:
    result = run(TopP(p), row)
    probability, order = softmax(float32(row)), by_rank(float32(row))
    sums = [sum(probability[i] for i in order[: n + 1]) for n in range(len(order))]
    chosen = kept(result)
    n = len(chosen)
    assert chosen == set(order[:n]) and n >= 1
    assert sums[n - 1] >= p - 1e-9, "the kept ones reach p"
    if n > 1:
        assert sums[n - 2] < p + 1e-9, "one fewer would not"


def test_top_p_one_keeps_everything_however_the_sums_are_rounded() -> None:
    row = [0.0] * 3 + [-40.0] * 50
    assert run(TopP(1.0), row) == row


def test_top_p_that_is_reached_exactly_needs_no_further_token() -> None:
    assert kept(run(TopP(0.5), [0.0, 0.0])) == {0}


@given(rows, st.floats(0, 1))
def test_min_p_keeps_what_is_likely_beside_the_likeliest(row: Row, p: float) -> None:
    row = float32(row)
    chosen, probability = kept(run(MinP(p), row)), softmax(row)
    for i, x in enumerate(probability):
        if abs(x - p * max(probability)) > 1e-5 * max(probability):
            assert (i in chosen) == (x >= p * max(probability))
    assert chosen


@given(rows, st.floats(0.1, 10), st.lists(st.integers(0, 8), max_size=20))
def test_repetition_penalty_lowers_each_seen_token_once(row: Row, penalty: float, history: list[int]) -> None:
    history = [i for i in history if i < len(row)]
    wanted = [x if i not in history else x / penalty if x > 0 else x * penalty for i, x in enumerate(float32(row))]
    assert run(RepetitionPenalty(penalty), row, history) == pytest.approx(wanted, rel=1e-5)


@given(rows, st.floats(0.01, 100))
def test_temperature_gives_the_softmax_of_the_quotient(row: Row, value: float) -> None:
    row = float32(row)
    result = softmax(run(Temperature(value), row))
    assert result == pytest.approx(softmax([x / value for x in row]), rel=1e-3, abs=1e-5)


@given(rows)
def test_temperature_zero_leaves_the_likeliest_with_the_lowest_id(row: Row) -> None:
    assert kept(run(Temperature(0.0), row)) == {by_rank(row)[0]}


@pytest.mark.parametrize("value", [1e-3, 1e-20, 1e-45, 1e-300, 1e30])
def test_no_temperature_overflows(value: float) -> None:
    result = torch.tensor(run(Temperature(value), [3.0, 7.0, -math.inf, 7.0])).softmax(0)
    assert result.sum().item() == pytest.approx(1)
    assert result[1] == result[3] and result[2] == 0
    if value < 1:
        assert result[1].item() == pytest.approx(0.5)


def test_forbidden_tokens_never_come() -> None:
    assert run(Forbid((0, 2)), [1.0, 2.0, 3.0]) == [-math.inf, 2.0, -math.inf]
    assert run(Forbid(()), [1.0]) == [1.0]
    with pytest.raises(ConfigurationError, match=r"forbidden ids must lie in 0\.\.2 \(the vocabulary\), got 3"):
        run(Forbid((3,)), [1.0, 2.0, 3.0])


EVERY: list[Processor] = [
    Temperature(0.0),
    Temperature(1e-9),
    Temperature(0.5),
    TopK(1),
    TopK(2),
    TopP(0.0),
    TopP(0.5),
    MinP(0.5),
    MinP(1.0),
    RepetitionPenalty(2.0),
]


@pytest.mark.parametrize("processor", EVERY, ids=str)
def test_nan_is_never_hidden(processor: Processor) -> None:
    for place in range(4):
        row = [1.0, 5.0, -2.0, 5.0]
        row[place] = math.nan
        assert any(math.isnan(x) for x in run(processor, row, [0, 1]))


@pytest.mark.parametrize("processor", EVERY, ids=str)
@given(rows=st.lists(st.lists(st.floats(-9, 9, width=32), min_size=5, max_size=5), min_size=1, max_size=4))
def test_a_batch_equals_one_by_one_and_something_is_left(processor: Processor, rows: list[Row]) -> None:
    history = torch.arange(len(rows) * 2).view(-1, 2) % 5
    whole = processor(torch.tensor(rows), history)
    single = torch.cat([processor(torch.tensor([row]), history[i : i + 1]) for i, row in enumerate(rows)])
    assert torch.equal(whole, single)
    assert (whole > -torch.inf).any(1).all()


@pytest.mark.parametrize("processor", EVERY, ids=str)
def test_ruled_out_stays_ruled_out_and_an_empty_batch_passes(processor: Processor) -> None:
    assert run(processor, [-math.inf, 1.0, -math.inf, 0.0], [0])[0] == -math.inf
    empty: Tensor = processor(torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.long))
    assert empty.shape == (0, 4)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Temperature(-0.1), "`temperature` must be 0 or more and finite, got -0.1; 0 always takes the likeliest token"),
        (lambda: Temperature(math.nan), "`temperature` must be 0 or more and finite, got nan; 0 always takes the likeliest token"),
        (lambda: TopK(0), "`top_k` must be 1 or more, got 0; leave it out to keep every token"),
        (lambda: TopP(1.5), r"`top_p` must lie in 0..1, got 1.5; 1 keeps every token"),
        (lambda: MinP(-1.0), r"`min_p` must lie in 0..1, got -1.0; 0 keeps every token"),
        (lambda: RepetitionPenalty(0.0), "`repetition_penalty` must be above 0 and finite, got 0.0; 1 changes nothing"),
    ],
)
def test_impossible_values_are_one_sentence(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert str(caught.value) == sentence

"""Attention and positions against plain loops of their equations and against torch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError, DataError, UserError
from unrolled.core.padded import Padded
from unrolled.core.state import select_state
from unrolled.nn import attention as attention_module
from unrolled.nn.attention import ATTENTIONS, AdditiveAttention, Attended, Attention, DotAttention, MultiHeadAttention
from unrolled.nn.positions import POSITIONS, LearnedPositions, SinusoidalPositions

BATCH, TIME, SOURCE, SIZE, HIDDEN, HEADS = 4, 3, 5, 6, 8, 2
LENGTHS = torch.tensor([3, 5, 1, 4])
KINDS = [*ATTENTIONS, "coverage"]


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(kind: str, seed: int = 0) -> Attention:
    torch.manual_seed(seed)
    name, coverage = ("additive", True) if kind == "coverage" else (kind, False)
    made = ATTENTIONS[name](SIZE, SIZE, HIDDEN, HEADS, coverage).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def look(layer: Attention, query: Tensor, data: Tensor, lengths: Tensor = LENGTHS) -> Attended:
    return layer(query, layer.prepare(Padded(data, lengths)), cover(lengths, data.shape[1]) if layer.coverage else None)


def cover(lengths: Tensor, source: int = SOURCE) -> Tensor:
    """Something for every place, padding included: it must not matter there."""
    return numbers(BATCH, 9, seed=7).abs()[: len(lengths), :source]


def one_score(layer: Any, kind: str, s: Tensor, h: Tensor, covered: Tensor) -> Tensor:
    """The equations, one query and one place."""
    if kind in ("additive", "coverage"):
        inside = layer.from_query.weight @ s + layer.from_memory.weight @ h
        if kind == "coverage":
            inside = inside + layer.from_coverage * covered
        return layer.score @ torch.tanh(inside)
    if kind == "bilinear":
        return s @ (layer.from_memory.weight @ h)
    return s @ h / (math.sqrt(SIZE) if kind == "scaled_dot" else 1)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "multi_head"])
def test_one_head_equals_the_equations(kind: str) -> None:
    layer, query, data = make(kind), numbers(BATCH, TIME, SIZE), numbers(BATCH, SOURCE, SIZE, seed=1)
    context, weights = look(layer, query, data)
    assert weights.shape == (BATCH, 1, TIME, SOURCE) and context.shape == (BATCH, TIME, layer.context_size)
    covered = cover(LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        for t in range(TIME):
            scores = [one_score(layer, kind, query[b, t], data[b, j], covered[b, j]) for j in range(length)]
            shares = torch.stack([score.exp() for score in scores])
            shares = shares / shares.sum()
            torch.testing.assert_close(weights[b, 0, t, :length], shares)
            torch.testing.assert_close(context[b, t], sum(shares[j] * data[b, j] for j in range(length)))


def test_many_heads_equal_torch() -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(SIZE, 7, HIDDEN, HEADS).double()
    theirs = nn.MultiheadAttention(HIDDEN, HEADS, kdim=7, vdim=7, batch_first=True).double()
    into = nn.Linear(SIZE, HIDDEN).double()  # torch wants queries of the size of all heads
    with torch.no_grad():
        theirs.in_proj_bias.normal_(), theirs.out_proj.bias.normal_()
        theirs.q_proj_weight.copy_(torch.eye(HIDDEN)), theirs.in_proj_bias[:HIDDEN].zero_()
        ours.from_query.load_state_dict(into.state_dict())
        ours.to_keys.weight.copy_(theirs.k_proj_weight), ours.to_values.weight.copy_(theirs.v_proj_weight)
        ours.to_keys.bias.copy_(theirs.in_proj_bias[HIDDEN : 2 * HIDDEN]), ours.to_values.bias.copy_(theirs.in_proj_bias[2 * HIDDEN :])
        ours.to_context.load_state_dict(theirs.out_proj.state_dict())
    query, data = numbers(BATCH, TIME, SIZE), numbers(BATCH, SOURCE, 7, seed=1)
    past = torch.arange(SOURCE) >= LENGTHS.unsqueeze(1)
    wanted, shares = theirs(into(query), data, data, key_padding_mask=past, average_attn_weights=False)
    context, weights = look(ours, query, data)
    torch.testing.assert_close(context, wanted)
    torch.testing.assert_close(weights, shares)


def test_one_head_of_scaled_dot_equals_torch() -> None:
    layer, query, data = make("scaled_dot"), numbers(BATCH, TIME, SIZE), numbers(BATCH, SOURCE, SIZE, seed=1)
    mask = (torch.arange(SOURCE) < LENGTHS.unsqueeze(1)).unsqueeze(1)
    torch.testing.assert_close(
        look(layer, query, data).context, nn.functional.scaled_dot_product_attention(query, data, data, attn_mask=mask)
    )


def test_padding_has_exactly_zero_weight_whatever_it_holds(kind: str) -> None:
    layer, query, data = make(kind), numbers(BATCH, TIME, SIZE), numbers(BATCH, SOURCE, SIZE, seed=1)
    wanted, weights = look(layer, query, data)
    past = torch.arange(SOURCE + 2) >= LENGTHS.unsqueeze(1)
    for filling in (1e30, float("nan")):
        dirty = torch.cat([data, numbers(BATCH, 2, SIZE, seed=2)], 1).masked_fill(past.unsqueeze(-1), filling).requires_grad_()
        memory = layer.prepare(Padded(dirty, LENGTHS))
        got = layer(query, memory, cover(LENGTHS, SOURCE + 2) if layer.coverage else None)
        torch.testing.assert_close(got.context, wanted)
        torch.testing.assert_close(got.weights[..., :SOURCE], weights)
        assert (got.weights.transpose(1, 3)[past] == 0).all()
        torch.testing.assert_close(got.weights.sum(-1), torch.ones_like(got.weights[..., 0]))
        (gradient,) = torch.autograd.grad(got.context.square().sum(), dirty)
        assert (gradient[past] == 0).all() and torch.isfinite(gradient).all()


def test_a_batch_equals_one_by_one_and_step_by_step(kind: str) -> None:
    layer, query, data = make(kind), numbers(BATCH, TIME, SIZE), numbers(BATCH, SOURCE, SIZE, seed=1)
    context, weights = look(layer, query, data)
    memory, covered = layer.prepare(Padded(data, LENGTHS)), cover(LENGTHS) if layer.coverage else None
    for t in range(TIME):
        alone = layer(query[:, t : t + 1], memory, covered)
        torch.testing.assert_close(alone.context, context[:, t : t + 1])
    for b, length in enumerate(LENGTHS.tolist()):
        memory = layer.prepare(Padded(data[b : b + 1, :length], LENGTHS[b : b + 1]))
        alone = layer(query[b : b + 1], memory, None if covered is None else covered[b : b + 1, :length])
        torch.testing.assert_close(alone.context, context[b : b + 1])
        torch.testing.assert_close(alone.weights, weights[b : b + 1, ..., :length])


def test_rows_of_a_memory_can_be_selected(kind: str) -> None:
    layer, query, data = make(kind), numbers(BATCH, TIME, SIZE), numbers(BATCH, SOURCE, SIZE, seed=1)
    rows = torch.tensor([2, 2, 0])
    memory = select_state(layer.prepare(Padded(data, LENGTHS)), rows)
    covered = cover(LENGTHS)[rows] if layer.coverage else None
    torch.testing.assert_close(layer(query[rows], memory, covered).context, look(layer, query, data).context[rows])


@pytest.mark.parametrize("shape", [(0, TIME, SOURCE), (BATCH, 0, SOURCE), (1, 1, 1), (0, 0, 0)])
def test_edges(kind: str, shape: tuple[int, int, int]) -> None:
    batch, time, source = shape
    layer = make(kind)
    lengths = torch.full((batch,), source)
    context, weights = look(layer, numbers(batch, time, SIZE), numbers(batch, source, SIZE), lengths) if source else (None, None)
    if context is not None and weights is not None:
        assert context.shape == (batch, time, layer.context_size) and weights.shape[2:] == (time, source)


def test_gradients_are_right(kind: str) -> None:
    layer = make(kind)
    data, query = numbers(2, 3, SIZE, seed=1).requires_grad_(), numbers(2, 2, SIZE).requires_grad_()
    lengths, covered = torch.tensor([3, 1]), (numbers(2, 3, seed=3).requires_grad_() if layer.coverage else None)

    def run(query: Tensor, data: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        attended = layer(query, layer.prepare(Padded(data, lengths)), covered)
        return attended.context, attended.weights

    assert torch.autograd.gradcheck(run, (query, data, *layer.parameters(), *([] if covered is None else [covered])))


def test_additive_in_stretches_equals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, query, data = make("additive"), numbers(BATCH, TIME, SIZE), numbers(BATCH, SOURCE, SIZE, seed=1)
    wanted = look(layer, query, data)
    for size in (1, 2 * BATCH * SOURCE * HIDDEN, 1 << 30):
        monkeypatch.setattr(attention_module, "CACHED", size)
        torch.testing.assert_close(look(layer, query, data).weights, wanted.weights)


def test_bf16_autocast_keeps_the_softmax_precise(kind: str) -> None:
    layer, query, data = make(kind).float(), numbers(BATCH, TIME, SIZE).float(), numbers(BATCH, SOURCE, SIZE, seed=1).float()

    def run() -> Attended:
        covered = cover(LENGTHS).float() if layer.coverage else None
        return layer(query, layer.prepare(Padded(data, LENGTHS)), covered)

    wanted = run()
    with torch.autocast("cpu", torch.bfloat16):
        got = run()
    got.context.float().square().sum().backward() if list(layer.parameters()) else None
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    torch.testing.assert_close(got.weights.float(), wanted.weights, rtol=0.1, atol=0.05)
    torch.testing.assert_close(got.context.float(), wanted.context, rtol=0.1, atol=0.1)


def test_the_softmax_is_computed_in_single_precision() -> None:
    scores = numbers(2, 300, seed=4).bfloat16() * 4
    weights = attention_module.masked_softmax(scores, torch.ones(2, 300, dtype=torch.bool))
    assert weights.dtype == torch.bfloat16
    torch.testing.assert_close(weights, scores.double().softmax(-1).bfloat16(), rtol=0, atol=0)


# -- refusals -------------------------------------------------------------------------------------------------------


def test_an_empty_row_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match=r"^a row to attend to must have at least one place, got length 0 in row 2; leave such rows out$"):
        make(kind).prepare(Padded(numbers(BATCH, SOURCE, SIZE), torch.tensor([1, 2, 0, 0])))


def test_wrong_memories(kind: str) -> None:
    with pytest.raises(UserError, match=r"^a memory must be \[batch, source, 6\], got \[4, 5, 7\]$"):
        make(kind).prepare(Padded(numbers(BATCH, SOURCE, 7), LENGTHS))
    with pytest.raises(DataError, match=r"^`lengths` must lie in 0\.\.2"):
        make(kind).prepare(Padded(numbers(BATCH, 2, SIZE), LENGTHS))


def test_coverage_is_for_those_that_take_it(kind: str) -> None:
    layer, memory = make(kind), make(kind).prepare(Padded(numbers(BATCH, SOURCE, SIZE), LENGTHS))
    found = "got none" if layer.coverage else "got some"
    with pytest.raises(UserError, match=rf"^`{type(layer).__name__}` was built with(out)? coverage, {found}; build `AdditiveAttention"):
        layer(numbers(BATCH, TIME, SIZE), memory, None if layer.coverage else cover(LENGTHS))


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name != "additive"])
def test_no_coverage_elsewhere(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Attention` has no coverage; use additive attention, or leave coverage out$"):
        ATTENTIONS[name](SIZE, SIZE, HIDDEN, HEADS, True)


def test_sizes_that_do_not_meet() -> None:
    with pytest.raises(ConfigurationError, match=r"^dot attention needs queries and memory of one size, got 3 and 4; use bilinear"):
        DotAttention(3, 4)
    with pytest.raises(ConfigurationError, match=r"^heads must share 8 features evenly, got 3; use a divisor of 8$"):
        ATTENTIONS["multi_head"](SIZE, SIZE, 8, 3)


def test_the_attention_without_coverage_has_no_weights_for_it() -> None:
    assert {name for name, _ in AdditiveAttention(2, 3, 4).named_parameters()} == {"from_query.weight", "from_memory.weight", "score"}


# -- positions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 4, 7])
def test_sinusoids_equal_the_formula(dim: int) -> None:
    places = torch.tensor([[0, 1, 2], [7, 50, 5000]])
    got = SinusoidalPositions(dim)(places, torch.float64)
    for b, row in enumerate(places.tolist()):
        for t, place in enumerate(row):
            for i in range(dim):
                angle = place / 10000 ** (2 * (i // 2) / dim)
                assert got[b, t, i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-11)


def test_sinusoids_by_table_equal_those_by_hand() -> None:
    places = torch.randint(0, 5, (6, 7), generator=torch.Generator().manual_seed(0))
    layer = SinusoidalPositions(8)
    torch.testing.assert_close(layer(places)[2, 3], layer(places[2:3, 3:4])[0, 0], rtol=0, atol=1e-7)
    assert layer(places).dtype == torch.float32 and layer(places[:0]).shape == (0, 7, 8)


def test_learned_positions_end() -> None:
    layer = LearnedPositions(4, 10)
    places = torch.arange(10).unsqueeze(0)
    assert torch.equal(layer(places)[0], layer.table.weight)
    with pytest.raises(UserError, match=r"^learned positions reach 10 places, got a sequence of 11; shorten it, train with a longer table"):
        layer(places + 1)


def test_the_table_of_positions() -> None:
    assert all(make(6, 12)(torch.tensor([[0, 11]])).shape == (1, 2, 6) for make in POSITIONS.values())

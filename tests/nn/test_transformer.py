"""The Transformer against torch's, against itself step by step, and its memory against the rule written as a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unrolled.core.errors import ConfigurationError, DataError, UserError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import detach_state, map_state, named_leaves, restore_state, select_state
from unrolled.nn.cells import GRU
from unrolled.nn.recurrence import Recurrence, Stacked
from unrolled.nn.sharing import select_shared
from unrolled.nn.transformer import DecoderMemory, Transformer
from unrolled.nn.transformer_layers import CACHED, MANY, KeyValue, Sight, TransformerSettings, look_up

BATCH, TIME, DIM, HEADS, MEMORY = 4, 7, 8, 2, 6
LENGTHS = torch.tensor([3, 0, 7, 2])
SOURCES = torch.tensor([2, 5, 1, 4])
SETTINGS = TransformerSettings(dim=DIM, heads=HEADS, layers=2, inner_size=12)
TIGHT = {"rtol": 0, "atol": 1e-10}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(seed: int = 0, settings: TransformerSettings = SETTINGS, **options: Any) -> Transformer:
    """In evaluation, every parameter random: a bias at zero would hide a mistake."""
    stack = Transformer(settings, **options).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return stack


MAKERS: dict[str, Callable[..., Transformer]] = {
    "causal": lambda **kw: make(causal=True, **kw),
    "post": lambda **kw: make(causal=True, settings=SETTINGS.model_copy(update={"norm": "post", "activation": "gelu"}), **kw),
    "learned": lambda **kw: make(causal=True, scale_input=True, settings=SETTINGS.model_copy(update={"positions": "learned"}), **kw),
    "decoder": lambda **kw: make(causal=True, memory_size=MEMORY, **kw),
    "bounded": lambda **kw: make(causal=True, context=5, **kw),
    "bounded-even": lambda **kw: make(causal=True, context=4, settings=SETTINGS.model_copy(update={"positions": "learned"}), **kw),
    "bounded-one": lambda **kw: make(causal=True, context=1, **kw),
}


@pytest.fixture(params=list(MAKERS))
def stack(request: pytest.FixtureRequest) -> Transformer:
    return MAKERS[request.param]()


def memory_of(stack: Transformer) -> DecoderMemory | None:
    return None if stack.memory_size is None else stack.prepare(Padded(numbers(BATCH, 5, MEMORY, seed=9), SOURCES))


def step_through(stack: Transformer, xs: Tensor, state: Any = None, fixed: Any = None) -> tuple[Tensor, Any]:
    state, outputs = stack.initial_state(len(xs)) if state is None else state, []
    for t in range(xs.shape[1]):
        output, state = stack.step(xs[:, t], state, fixed)
        outputs.append(output)
    return torch.stack(outputs, 1) if outputs else xs, state


def same_future(stack: Transformer, got: Any, wanted: Any, fixed: Any = None) -> None:
    """Two states are the same if everything read after them is; how many hidden columns they carry does not matter."""
    xs = numbers(len(got.begin), 9, DIM, seed=77)
    torch.testing.assert_close(stack(xs, got, fixed=fixed)[0], stack(xs, wanted, fixed=fixed)[0], **TIGHT)


def documents(resets: Tensor, row: int, length: int) -> list[tuple[int, int]]:
    starts = sorted({0, *resets[row, :length].nonzero()[:, 0].tolist()})
    return list(zip(starts, [*starts[1:], length], strict=True))


def some_resets(time: int = TIME) -> Tensor:
    resets = torch.zeros(BATCH, time, dtype=torch.bool)
    resets[0, [0, 1]] = resets[2, [2, 5]] = resets[3, 1] = True
    return resets


# -- torch ----------------------------------------------------------------------------------------------------------


def copy_attention(into: nn.MultiheadAttention, query: Tensor, keys_values: Tensor, bias: Tensor, output: nn.Linear) -> None:
    into.in_proj_weight.copy_(torch.cat([query, keys_values]))
    into.in_proj_bias.copy_(bias)
    into.out_proj.load_state_dict(output.state_dict())


def torch_layer(stack: Transformer, place: int) -> nn.Module:
    """A layer of torch with the weights of one of our blocks."""
    block: Any = stack.blocks[place]
    kind = nn.TransformerDecoderLayer if stack.memory_size else nn.TransformerEncoderLayer
    first = stack.settings.norm == "pre"
    layer: Any = kind(DIM, HEADS, 12, 0.1, stack.settings.activation, batch_first=True, norm_first=first).double().eval()
    with torch.no_grad():
        own = block.self_attention
        query, keys_values = own.to_queries_keys_values.weight.split([DIM, 2 * DIM])
        copy_attention(layer.self_attn, query, keys_values, own.to_queries_keys_values.bias, own.to_output)
        norms = [block.around_self.norm, block.around_inner.norm]
        if stack.memory_size:
            far = block.memory_attention
            bias = torch.cat([far.to_queries.bias, far.to_keys_values.bias])
            copy_attention(layer.multihead_attn, far.to_queries.weight, far.to_keys_values.weight, bias, far.to_output)
            norms.insert(1, block.around_memory.norm)
        for ours, theirs in zip(norms, [layer.norm1, layer.norm2, *([layer.norm3] if stack.memory_size else [])], strict=True):
            theirs.load_state_dict(ours.state_dict())
        layer.linear1.load_state_dict(block.inner.into.state_dict())
        layer.linear2.load_state_dict(block.inner.out_of.state_dict())
    return layer


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("kind", ["encoder", "causal", "decoder"])
def test_equals_torch_with_copied_weights(norm: str, activation: str, positions: str, kind: str) -> None:
    settings = SETTINGS.model_copy(update={"norm": norm, "activation": activation, "positions": positions})
    stack = make(settings=settings, causal=kind != "encoder", memory_size=DIM if kind == "decoder" else None, scale_input=True)
    xs, lengths = numbers(BATCH, TIME, DIM), LENGTHS.clamp(min=1)
    memory, sources = numbers(BATCH, 5, DIM, seed=1), SOURCES
    fixed = stack.prepare(Padded(memory, sources)) if kind == "decoder" else None
    got, _ = stack(Padded(xs, lengths), fixed=fixed)

    past = torch.arange(TIME) >= lengths.unsqueeze(1)
    causal = None if kind == "encoder" else torch.ones(TIME, TIME, dtype=torch.bool).triu(1)
    x = xs * DIM**0.5 + stack.positions(torch.arange(TIME).unsqueeze(0), torch.float64)
    for place in range(2):
        layer = torch_layer(stack, place)
        if kind == "decoder":
            source_past = torch.arange(5) >= sources.unsqueeze(1)
            x = layer(x, memory, tgt_mask=causal, tgt_key_padding_mask=past, memory_key_padding_mask=source_past)
        else:
            x = layer(x, src_mask=causal, src_key_padding_mask=past)
    wanted = stack.norm(x).masked_fill(past.unsqueeze(-1), 0)
    assert isinstance(stack.norm, nn.LayerNorm) == (norm == "pre")
    torch.testing.assert_close(got.data, wanted, **TIGHT)


# -- the contract of a layer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [1, TIME, 15])
def test_step_by_step_equals_the_whole(stack: Transformer, time: int) -> None:
    xs, fixed = numbers(BATCH, time, DIM), memory_of(stack)
    outputs, final = stack(xs, fixed=fixed)
    steps, last = step_through(stack, xs, fixed=fixed)
    torch.testing.assert_close(steps, outputs, **TIGHT)
    for (path, leaf), (_, wanted) in zip(named_leaves(last), named_leaves(final), strict=True):
        torch.testing.assert_close(leaf, wanted, **TIGHT, msg=path)
        assert leaf.is_contiguous()


@pytest.mark.parametrize("cut", [1, 2, 4, 5, 6, 9])
def test_two_parts_equal_the_whole(stack: Transformer, cut: int) -> None:
    xs, fixed = numbers(BATCH, 13, DIM), memory_of(stack)
    outputs, final = stack(xs, fixed=fixed)
    first, between = stack(xs[:, :cut], fixed=fixed)
    second, last = stack(xs[:, cut:], between, fixed=fixed)
    torch.testing.assert_close(torch.cat([first, second], 1), outputs, **TIGHT)
    same_future(stack, last, final, fixed)


@pytest.mark.parametrize("given", [False, True])
def test_a_batch_equals_one_by_one_and_goes_on_so(stack: Transformer, given: bool) -> None:
    """Unequal lengths, zero included; with a state that itself came from unequal lengths."""
    xs, fixed = numbers(BATCH, TIME, DIM), memory_of(stack)
    before = stack(Padded(numbers(BATCH, 6, DIM, seed=3), torch.tensor([6, 2, 0, 5])), fixed=fixed)[1] if given else None
    outputs, final = stack(Padded(xs, LENGTHS), before, fixed=fixed)
    for row, length in enumerate(LENGTHS.tolist()):
        one = torch.tensor([row])
        own, start = select_state(fixed, one), select_state(before, one)
        alone, last = stack(xs[row : row + 1, :length], start, fixed=own)
        torch.testing.assert_close(outputs.data[row : row + 1, :length], alone, **TIGHT)
        assert (outputs.data[row, length:] == 0).all()
        same_future(stack, select_state(final, one), last, own)
    assert outputs.lengths is LENGTHS


@pytest.mark.parametrize("filling", [1e30, float("nan")])
@pytest.mark.parametrize("causal", [True, False])
def test_more_padding_changes_nothing(filling: float, causal: bool) -> None:
    for options in ({}, {"memory_size": MEMORY}, {"context": 5} if causal else {}):
        stack = make(causal=causal, settings=SETTINGS.model_copy(update={"positions": "learned", "longest": TIME}), **options)
        fixed = memory_of(stack)
        longer = torch.cat([numbers(BATCH, TIME, DIM), numbers(BATCH, 3, DIM)], 1)
        wanted, final = stack(Padded(longer[:, :TIME], LENGTHS), fixed=fixed)
        longer[torch.arange(TIME + 3) >= LENGTHS.unsqueeze(1)] = filling
        longer.requires_grad_()
        outputs, last = stack(Padded(longer, LENGTHS), fixed=fixed)
        torch.testing.assert_close(outputs.data[:, :TIME], wanted.data, **TIGHT)
        assert (outputs.data[:, TIME:] == 0).all() and outputs.data.shape == longer.shape
        parts = [outputs.data, *(leaf for _, leaf in named_leaves(last) if leaf.requires_grad)]
        gradients = torch.autograd.grad(sum(part.sum() for part in parts), [longer, *stack.parameters()], allow_unused=True)
        assert all(torch.isfinite(g).all() for g in gradients if g is not None)
        assert (gradients[0][torch.arange(TIME + 3) >= LENGTHS.unsqueeze(1)] == 0).all()
        if causal:
            same_future(make(causal=True, **options), last, final, fixed)


def test_permuting_the_state_permutes_the_output(stack: Transformer) -> None:
    order, fixed = torch.tensor([2, 0, 3, 3, 1]), memory_of(stack)
    _, state = stack(Padded(numbers(BATCH, TIME, DIM), LENGTHS), fixed=fixed)
    xs = numbers(BATCH, 6, DIM, seed=4)
    outputs, final = stack(xs, state, fixed=fixed)
    permuted, last = stack(xs[order], select_state(state, order), fixed=select_state(fixed, order))
    torch.testing.assert_close(permuted, outputs[order], **TIGHT)
    same_future(stack, last, select_state(final, order), select_state(fixed, order))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_resets_equal_separate_sequences(stack: Transformer, given: bool, padded: bool) -> None:
    fixed, time = memory_of(stack), 13
    xs, resets = numbers(BATCH, time, DIM), some_resets(time)
    lengths = torch.tensor([5, 0, 13, 8]) if padded else torch.full((BATCH,), time)
    before = stack(numbers(BATCH, 4, DIM, seed=3), fixed=fixed)[1] if given else None
    if padded:
        outputs, final = stack(Padded(xs, lengths), before, resets=resets | (torch.arange(time) >= lengths.unsqueeze(1)), fixed=fixed)
        outputs = outputs.data
    else:
        outputs, final = stack(xs, before, resets=resets, fixed=fixed)
    for row, length in enumerate(lengths.tolist()):
        one = torch.tensor([row])
        own, last = select_state(fixed, one), select_state(before, one)
        for begin, end in documents(resets, row, length):
            fresh = begin > 0 or bool(resets[row, 0])
            wanted, last = stack(xs[one, begin:end], None if fresh else last, fixed=own)
            torch.testing.assert_close(outputs[one, begin:end], wanted, **TIGHT)
        same_future(stack, select_state(final, one), last if last is not None else stack.initial_state(1), own)


def test_restarted_rows_begin_again(stack: Transformer) -> None:
    fixed, rows = memory_of(stack), torch.tensor([True, False, True, False])
    _, state = stack(Padded(numbers(BATCH, TIME, DIM), LENGTHS), fixed=fixed)
    again = stack.restart(state, rows)
    for row in range(BATCH):
        one = torch.tensor([row])
        wanted = stack.initial_state(1) if rows[row] else select_state(state, one)
        same_future(stack, select_state(again, one), wanted, select_state(fixed, one))
    assert all(a is b for a, b in zip(dict(named_leaves(again[1:])).values(), dict(named_leaves(state[1:])).values(), strict=True))


@pytest.mark.parametrize("shape", [(0, TIME), (BATCH, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "context": 2}])
def test_edges_of_batch_and_time(shape: tuple[int, int], options: dict[str, Any]) -> None:
    stack, xs = make(**options), numbers(*shape, DIM)
    outputs, final = stack(xs)
    assert outputs.shape == xs.shape and outputs.dtype == torch.float64
    padded, _ = stack(Padded(xs, torch.full(shape[:1], shape[1])))
    torch.testing.assert_close(padded.data, outputs, **TIGHT)
    nothing, _ = stack(Padded(xs, torch.zeros(shape[0], dtype=torch.int64)))
    assert nothing.data.shape == xs.shape and (nothing.data == 0).all()
    assert (final is None) == (not stack.causal)


def test_empty_rows_of_an_encoder_are_zero() -> None:
    stack = make()
    xs = numbers(BATCH, TIME, DIM).requires_grad_()
    for resets in (None, some_resets()):
        outputs, state = stack(Padded(xs, LENGTHS), resets=resets)
        assert state is None and (outputs.data[1] == 0).all() and torch.isfinite(outputs.data).all()
        assert torch.isfinite(torch.autograd.grad(outputs.data.square().sum(), xs)[0]).all()


def test_an_encoder_sees_its_document_only() -> None:
    stack, xs, resets = make(), numbers(BATCH, TIME, DIM), some_resets()
    outputs, _ = stack(Padded(xs, LENGTHS), resets=resets)
    for row, length in enumerate(LENGTHS.tolist()):
        for begin, end in documents(resets, row, length):
            torch.testing.assert_close(outputs.data[row : row + 1, begin:end], stack(xs[row : row + 1, begin:end])[0], **TIGHT)


def test_nothing_depends_on_the_future(stack: Transformer) -> None:
    xs, fixed = numbers(BATCH, 11, DIM), memory_of(stack)
    before, _ = stack(xs, fixed=fixed)
    for t in (1, 5, 10):
        changed = xs.clone()
        changed[:, t] += numbers(DIM, seed=5)
        after, _ = stack(changed, fixed=fixed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        assert ((after[:, t] - before[:, t]).abs().amax(-1) > 1e-6).all()


def test_an_encoder_sees_both_ways() -> None:
    stack, xs = make(), numbers(BATCH, TIME, DIM)
    changed = xs.clone()
    changed[:, -1] += numbers(DIM, seed=5)
    assert ((stack(changed)[0] - stack(xs)[0]).abs().amax(-1) > 1e-6).all()


def test_gradients_are_right() -> None:
    settings = TransformerSettings(dim=4, heads=2, layers=1, inner_size=3)
    for options in ({}, {"causal": True, "memory_size": 2}, {"causal": True, "context": 2}):
        stack = make(settings=settings, **options)
        lengths, memory = torch.tensor([4, 2]), numbers(2, 3, 2).requires_grad_()

        def run(
            xs: Tensor, memory: Tensor, *parameters: Tensor, stack: Transformer = stack, lengths: Tensor = lengths
        ) -> tuple[Tensor, ...]:
            fixed = stack.prepare(Padded(memory, torch.tensor([3, 1]))) if stack.memory_size else None
            outputs, final = stack(Padded(xs, lengths), fixed=fixed)
            return outputs.data, *(leaf for _, leaf in named_leaves(final) if leaf.is_floating_point())

        inputs = (numbers(2, 4, 4).requires_grad_(), memory, *stack.parameters())
        assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


# -- a bounded context ----------------------------------------------------------------------------------------------


def by_the_rule(stack: Transformer, xs: Tensor, context: int) -> Tensor:
    """The rule as a loop over one row: how much is remembered, and an unbounded stack that reads exactly that afresh each time."""
    plain = make(causal=True, settings=stack.settings)
    plain.load_state_dict(stack.state_dict())
    remembered: list[Tensor] = []
    outputs = []
    for x in xs:
        if len(remembered) == context:
            remembered = remembered[context - context // 2 :]
        remembered.append(x)
        outputs.append(plain(torch.stack(remembered).unsqueeze(0))[0][0, -1])
    return torch.stack(outputs)


@pytest.mark.parametrize("context", [1, 2, 3, 4, 5, 8])
def test_a_bounded_context_follows_the_rule(context: int) -> None:
    stack, xs = make(causal=True, context=context), numbers(2, 19, DIM)
    outputs, final = stack(xs)
    for row in range(2):
        torch.testing.assert_close(outputs[row], by_the_rule(stack, xs[row], context), **TIGHT)
    assert final.layers["0"].keys.shape[1] <= context and final.inputs.shape[1] == final.layers["0"].keys.shape[1]


def test_a_bounded_context_never_holds_more() -> None:
    stack = make(causal=True, context=5)
    state, xs = stack.initial_state(BATCH), numbers(BATCH, 30, DIM)
    held = []
    for t in range(30):
        state = stack.restart(state, torch.rand(BATCH, generator=torch.Generator().manual_seed(t)) < 0.2)
        _, state = stack.step(xs[:, t], state)
        held.append(state.inputs.shape[1])
        assert (state.begin >= 0).all() and (state.begin < state.inputs.shape[1]).all()
    assert max(held) == 5


def test_a_bounded_context_equals_an_unbounded_one_until_it_is_full() -> None:
    stack, xs = make(causal=True, context=TIME), numbers(BATCH, TIME, DIM)
    torch.testing.assert_close(stack(xs)[0], make(causal=True)(xs)[0], **TIGHT)


def test_gradients_are_cut_by_detaching_the_state() -> None:
    stack, xs = make(causal=True, context=5), numbers(BATCH, 12, DIM).requires_grad_()
    _, state = stack(xs[:, :6])
    outputs, _ = stack(xs[:, 6:], detach_state(state))
    (gradient,) = torch.autograd.grad(outputs.sum(), xs)
    assert (gradient[:, :6] == 0).all() and (gradient[:, 6:] != 0).any()


# -- what every head looks at ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "causal", "post", "decoder"])
def test_weights_belong_to_the_outputs(name: str) -> None:
    stack = make() if name == "encoder" else MAKERS[name]()
    fixed, xs = memory_of(stack), numbers(BATCH, TIME, DIM)
    state = stack(numbers(BATCH, 3, DIM, seed=3), fixed=fixed)[1] if stack.causal else None
    columns = TIME + (3 if stack.causal else 0)
    wanted, _ = stack(Padded(xs, LENGTHS), state, resets=some_resets(), fixed=fixed)
    outputs, weights = stack.attention_weights(Padded(xs, LENGTHS), state, resets=some_resets(), fixed=fixed)
    torch.testing.assert_close(outputs.data, wanted.data, **TIGHT)
    assert list(weights) == ["0", "1"]
    for layer in weights.values():
        assert layer.own.shape == (BATCH, HEADS, TIME, columns) and (layer.memory is None) == (stack.memory_size is None)
        for seen in [layer.own] if layer.memory is None else [layer.own, layer.memory]:
            for row, length in enumerate(LENGTHS.tolist()):
                torch.testing.assert_close(seen[row, :, :length].sum(-1), torch.ones(HEADS, length, dtype=torch.float64))
                assert (seen[row, :, length:] == 0).all()
        if layer.memory is not None:
            assert (layer.memory.transpose(1, 3)[torch.arange(5) >= SOURCES.unsqueeze(1)] == 0).all()
        if stack.causal:
            later = torch.arange(columns) > 3 + torch.arange(TIME).unsqueeze(1)
            assert (layer.own[:, :, later] == 0).all()


def test_weights_equal_torch() -> None:
    stack = make(settings=SETTINGS.model_copy(update={"norm": "post", "layers": 1}))
    xs = numbers(BATCH, TIME, DIM)
    x = xs + stack.positions(torch.arange(TIME).unsqueeze(0), torch.float64)
    layer: Any = torch_layer(stack, 0)
    wanted = layer.self_attn(x, x, x, average_attn_weights=False)[1]
    torch.testing.assert_close(stack.attention_weights(xs)[1]["0"].own, wanted)


def test_weights_of_a_bounded_context() -> None:
    stack = make(causal=True, context=5)
    assert stack.attention_weights(numbers(1, 5, DIM))[1]["1"].own.shape == (1, HEADS, 5, 5)
    with pytest.raises(UserError, match=r"^attention can be shown over at most 5 symbols, the context, got 6; show a shorter text$"):
        stack.attention_weights(numbers(1, 6, DIM))


# -- dropout --------------------------------------------------------------------------------------------------------

DROPPED = SETTINGS.model_copy(update={"dropout": 0.4})
BOTH_DROPPED = SETTINGS.model_copy(update={"dropout": 0.3, "attention_dropout": 0.3})


@pytest.mark.parametrize("settings", [DROPPED, BOTH_DROPPED])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "context": 4}, {"causal": True, "memory_size": MEMORY}])
def test_masks_belong_to_the_rows_of_the_global_batch(settings: TransformerSettings, options: dict[str, Any]) -> None:
    """Two processes with two rows each draw what one process with four draws, and their generators stay together."""
    stack, xs = make(settings=settings, **options).train(), numbers(BATCH, 11, DIM)
    fixed = memory_of(stack)

    def run(rows: slice) -> tuple[list[Tensor], Tensor]:
        noise, state, found = Noise(torch.Generator().manual_seed(3), rows.start, BATCH), None, []
        resets = torch.zeros(BATCH, 11, dtype=torch.bool)
        resets[0, 3] = resets[2, 8] = True
        own = map_state(lambda leaf: leaf[rows], fixed)
        for _ in range(2):
            outputs, state = stack(xs[rows], state, resets=resets[rows] if stack.causal else None, noise=noise, fixed=own)
            found.append(outputs)
        return found, torch.rand(1, generator=noise.generator)

    (wanted, number), (first, one), (second, other) = run(slice(0, 4)), run(slice(0, 2)), run(slice(2, 4))
    for whole, above, below in zip(wanted, first, second, strict=True):
        torch.testing.assert_close(torch.cat([above, below]), whole, **TIGHT)
    assert number == one == other
    assert not torch.allclose(wanted[0], stack.eval()(xs, fixed=fixed)[0])


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "context": 4}])
def test_what_a_process_has_to_read_does_not_move_the_source_of_noise(options: dict[str, Any]) -> None:
    """Padded to another length, with or without something to read again: the next number of the generator is the same."""
    stack, numbers_after = make(settings=BOTH_DROPPED, **options).train(), set()
    for lengths in ([11, 3], [2, 3], [4, 4], [0, 0]):
        noise = Noise(torch.Generator().manual_seed(3))
        stack(Padded(numbers(2, 11, DIM), torch.tensor(lengths)), noise=noise)
        numbers_after.add(torch.rand(1, generator=noise.generator).item())
    assert len(numbers_after) == 1


def test_dropout_keeps_the_mean_and_is_new_each_time() -> None:
    from unrolled.nn.transformer_dropout import Dropping

    ones = torch.ones(6, 50, 40)
    drop = Dropping(0.25, Noise(torch.Generator().manual_seed(0)), (6, 50))
    once, twice = drop(ones), drop(ones)
    assert once.unique().tolist() == pytest.approx([0, 1 / 0.75]) and not torch.equal(once, twice)
    assert once.mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(once[0, 0], once[0, 1]) and not torch.equal(once[0], once[1])


def test_no_dropout_where_there_is_none() -> None:
    stack = make(settings=SETTINGS.model_copy(update={"dropout": 0.0}), causal=True)
    xs = numbers(BATCH, TIME, DIM)
    assert torch.equal(stack.train()(xs)[0], stack.eval()(xs)[0])
    dropping = make(settings=DROPPED, causal=True).train()
    assert torch.equal(dropping.step(xs[:, 0], dropping.initial_state(BATCH))[0], stack.step(xs[:, 0], stack.initial_state(BATCH))[0])


def test_global_random_numbers_are_left_alone() -> None:
    stack = make(settings=BOTH_DROPPED, causal=True).train()
    before = torch.get_rng_state()
    stack(numbers(2, 5, DIM), noise=Noise(torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


# -- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "context": 5}, {"causal": True, "memory_size": MEMORY}])
@pytest.mark.parametrize("training", [True, False])
def test_bf16_autocast_stays_near_fp32(options: dict[str, Any], training: bool) -> None:
    torch.manual_seed(0)
    stack = Transformer(DROPPED, **options).train(training)
    xs = numbers(BATCH, 13, DIM).float()

    def run() -> tuple[Tensor, Any]:
        fixed = None if stack.memory_size is None else stack.prepare(Padded(numbers(BATCH, 5, MEMORY).float(), SOURCES))
        noise = Noise(torch.Generator().manual_seed(1))
        first, state = stack(Padded(xs[:, :6], LENGTHS.clamp(max=6)), noise=noise, fixed=fixed)
        second, state = stack(xs[:, 6:], state, noise=noise, fixed=fixed)
        return torch.cat([first.data, second], 1), state

    wanted, final = run()
    with torch.autocast("cpu", torch.bfloat16):
        got, last = run()
    got.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in stack.parameters() if p.grad is not None)
    torch.testing.assert_close(got.float(), wanted, rtol=0.1, atol=0.15)
    if stack.causal:
        assert last.layers["0"].keys.dtype == torch.bfloat16 and final.layers["0"].keys.dtype == torch.float32
        stack.eval().step(xs[:, 0], last, None if stack.memory_size is None else memory_like(stack))


def memory_like(stack: Transformer) -> DecoderMemory:
    return stack.prepare(Padded(numbers(BATCH, 5, MEMORY).float(), SOURCES))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "memory_size": MEMORY}])
def test_every_pass_takes_the_fast_way(options: dict[str, Any]) -> None:
    """With only the fused kernel allowed, a form of mask that it cannot take would be an error."""
    stack, xs = Transformer(SETTINGS, **options), numbers(BATCH, TIME, DIM).float()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                fixed = memory_like(stack) if stack.memory_size else None
                _, state = stack(Padded(xs, LENGTHS), resets=some_resets(), fixed=fixed)
                outputs, state = stack(xs, state, fixed=fixed)
                outputs.float().sum().backward()
                if stack.causal:
                    with torch.no_grad():
                        stack.step(xs[:, 0], state, fixed)


def test_half_precision_is_left_where_its_gradient_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.nn import transformer_layers

    stack, xs, seen, inner = Transformer(SETTINGS), numbers(BATCH, TIME, DIM).float(), [], transformer_layers.scaled_dot_product_attention

    def look(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
        seen.append((q.dtype, torch.is_autocast_enabled("cpu")))
        return inner(q, k, v, **rest)

    monkeypatch.setattr(transformer_layers, "scaled_dot_product_attention", look)
    with torch.autocast("cpu", torch.bfloat16):
        stack(xs)
        with torch.no_grad():
            stack(xs)
    assert seen == [(torch.float32, False)] * 2 + [(torch.bfloat16, True)] * 2


def test_memory_is_passed_on_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.nn import transformer_layers

    stack = MAKERS["decoder"]()
    fixed, seen, inner = memory_of(stack), set(), transformer_layers.scaled_dot_product_attention

    def look(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
        seen.update((k.data_ptr(), v.data_ptr()))
        return inner(q, k, v, **rest)

    monkeypatch.setattr(transformer_layers, "scaled_dot_product_attention", look)
    stack.step(numbers(BATCH, DIM), stack.initial_state(BATCH), fixed)
    assert fixed is not None
    assert {leaf.data_ptr() for _, leaf in named_leaves(fixed.layers)} <= seen


def test_a_fresh_stack_is_sound() -> None:
    torch.manual_seed(0)
    stack = Transformer(TransformerSettings(dim=64, heads=4, layers=3), causal=True).eval()
    attributes = set(vars(stack))
    outputs, state = stack(torch.randn(2, 50, 64))
    assert 0.5 < outputs.std() < 2 and set(vars(stack)) == attributes
    restored = restore_state(stack.initial_state(2), dict(named_leaves(state)))
    assert type(restored) is type(state) and list(restored.layers) == ["0", "1", "2"]


# -- with other layers ----------------------------------------------------------------------------------------------


def test_a_stack_of_layers_steps_and_restarts() -> None:
    torch.manual_seed(0)
    stack = Stacked(Recurrence(GRU(3, DIM)), make(causal=True, context=5), Recurrence(GRU(DIM, 4))).double().eval()
    xs, rows = numbers(BATCH, 9, 3), torch.tensor([True, False, False, True])
    outputs, final = stack(xs)
    state = stack.initial_state(BATCH)
    for t in range(9):
        output, state = stack.step(xs[:, t], state)
        torch.testing.assert_close(output, outputs[:, t], **TIGHT)
    again, beginning = stack.restart(final, rows), stack.initial_state(BATCH)
    got, kept, fresh = (stack(xs, s)[0] for s in (again, final, beginning))
    torch.testing.assert_close(got, torch.where(rows[:, None, None], fresh, kept), **TIGHT)


def test_restart_keeps_the_types_of_the_state() -> None:
    layer = Recurrence(GRU(3, 4))
    state = map_state(lambda leaf: (leaf + 1).bfloat16(), layer.initial_state(2))
    again = layer.restart(state, torch.tensor([True, False]))
    assert again.h.dtype == torch.bfloat16 and again.h[0].sum() == 0 and torch.equal(again.h[1], state.h[1])


# -- refusals -------------------------------------------------------------------------------------------------------


def test_wrong_settings() -> None:
    with pytest.raises(ValidationError, match=r"`heads` must share the 8 features of `dim` evenly, got 3; use a divisor of 8"):
        TransformerSettings(dim=8, heads=3)
    for options in ({"causal": False}, {"causal": True, "memory_size": 3}, {"causal": True, "context": 0}):
        with pytest.raises(ConfigurationError, match=r"^`context` must be at least 1, of a causal stack without a memory, got [50]; leave"):
            Transformer(SETTINGS, **{"context": 5, **options})


def test_wrong_inputs(stack: Transformer) -> None:
    xs, fixed = numbers(BATCH, TIME, DIM), memory_of(stack)
    with pytest.raises(UserError, match=r"^`xs` must be \[batch, time, 8\], got \[2, 5, 3\]$"):
        stack(numbers(2, 5, 3), fixed=fixed)
    with pytest.raises(UserError, match=r"^`resets` must be boolean \[4, 7\], one mark a step, got torch.bool \[7, 4\]$"):
        stack(xs, resets=torch.zeros(TIME, BATCH, dtype=torch.bool), fixed=fixed)
    with pytest.raises(UserError, match=r"^`state` must have 4 rows, one a row of `xs`, got \[3\] in `begin`$"):
        stack(xs, stack.initial_state(3), fixed=fixed)
    with pytest.raises(DataError, match=r"^`lengths` must lie in 0\.\.7"):
        stack(Padded(xs, LENGTHS + 1), fixed=fixed)


def test_wrong_memories() -> None:
    decoder, encoder, xs = MAKERS["decoder"](), make(), numbers(BATCH, TIME, DIM)
    with pytest.raises(UserError, match=r"^`fixed` is the memory of a decoder .* got none; pass what `prepare` made of the source$"):
        decoder(xs)
    with pytest.raises(UserError, match=r"^`fixed` is the memory of a decoder .* got one; build the Transformer with `memory_size`$"):
        encoder(xs, fixed=memory_of(decoder))
    with pytest.raises(UserError, match=r"^`fixed` must have 2 rows, one a row of `xs`, got 4; select its rows as those of the state$"):
        decoder(xs[:2], fixed=memory_of(decoder))
    with pytest.raises(DataError, match=r"got length 0 in row 1"):
        decoder.prepare(Padded(numbers(2, 3, MEMORY), torch.tensor([3, 0])))
    with pytest.raises(UserError, match=r"attends to no memory and has nothing to prepare$"):
        encoder.prepare(Padded(numbers(2, 3, MEMORY), torch.tensor([3, 1])))


def test_an_encoder_cannot_be_stepped() -> None:
    with pytest.raises(
        UserError, match=r"bidirectional Transformer needs the whole sequence and cannot be stepped; build it with causal=True"
    ):
        make().step(numbers(BATCH, DIM), None)
    with pytest.raises(UserError, match=r"remembers nothing between sequences and takes no `state`, got one"):
        make()(numbers(BATCH, TIME, DIM), make(causal=True).initial_state(BATCH))


def test_learned_positions_end() -> None:
    stack = make(causal=True, settings=SETTINGS.model_copy(update={"positions": "learned", "longest": TIME}))
    _, state = stack(numbers(BATCH, TIME, DIM))
    with pytest.raises(UserError, match=r"^learned positions reach 7 places, got a sequence of 8; shorten it"):
        stack.step(numbers(BATCH, DIM), state)


@pytest.mark.parametrize(
    ("rows", "columns", "dim", "heads"), [(MANY, 1, 4, 1), (20, 7, 32, 4), (40, 300, 128, 2), (MANY, 2 * CACHED // 64, 64, 2)]
)
@torch.no_grad()
def test_single_queries_of_many_rows(rows: int, columns: int, dim: int, heads: int) -> None:
    """Our own way for a step of decoding against torch's, over more than one stretch of rows, and over one row that fills the cache alone."""
    generator = torch.Generator().manual_seed(rows)
    query, keys, values = (torch.randn(rows, time, dim, generator=generator) for time in (1, columns, columns))
    mask = torch.rand(rows, 1, 1, columns, generator=generator) < 0.7
    mask[..., -1] = True
    for sight in (Sight(), Sight(mask), Sight(mask[:1])):
        found = look_up(query, KeyValue(keys, values), heads, sight, None, False)[0]
        q, k, v = (part.double().unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, keys, values))
        expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sight.mask)
        torch.testing.assert_close(found.double(), expected.transpose(1, 2).flatten(2), rtol=1e-5, atol=1e-5)


def test_single_queries_pass_gradients_on_to_what_they_look_at() -> None:
    """Also where the queries themselves come from weights that are not trained."""
    keys, values = (numbers(MANY, 5, DIM).requires_grad_() for _ in range(2))
    look_up(numbers(MANY, 1, DIM), KeyValue(keys, values), HEADS, Sight(), None, False)[0].square().sum().backward()
    assert keys.grad is not None and keys.grad.any() and values.grad is not None and values.grad.any()


@torch.no_grad()
def test_rows_that_look_at_one_memory() -> None:
    """Whole targets, step by step, and the weights: the same as with a copy of the memory for every row."""
    stack = make(causal=True, memory_size=MEMORY)
    fixed = memory_of(stack)
    rows = torch.tensor([2, 0, 2, 3, 2])
    shared, copied = select_shared(fixed, rows), map_state(lambda leaf: leaf[rows], fixed)
    assert len(shared.mask) == 3
    xs = numbers(len(rows), TIME, DIM)
    torch.testing.assert_close(stack(xs, fixed=shared)[0], stack(xs, fixed=copied)[0], **TIGHT)
    torch.testing.assert_close(stack.attention_weights(xs, fixed=shared)[1], stack.attention_weights(xs, fixed=copied)[1], **TIGHT)
    first = stack.step(xs[:, 0], stack.initial_state(len(rows)), shared)[0]
    torch.testing.assert_close(first, stack(xs, fixed=copied)[0][:, 0], **TIGHT)
    with pytest.raises(UserError, match=r"`fixed` must have 4 rows, one a row of `xs`, got 5"):
        stack(xs[:4], fixed=shared)


def test_memories_are_copied_only_where_some_go() -> None:
    fixed = memory_of(make(causal=True, memory_size=MEMORY))
    shared = select_shared(fixed, torch.arange(BATCH).repeat_interleave(2))
    assert shared.mask is fixed.mask
    again = select_shared(shared, torch.arange(BATCH) * 2)
    assert again.sharing is None and again.mask is fixed.mask

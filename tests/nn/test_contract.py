"""One contract, every cell: the package's own, the wrapped ones, and one that a user would write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import map_state, named_leaves, restore_state, select_state
from unrolled.nn.cell import Cell
from unrolled.nn.cells import CELLS, GRU, LSTM, RecurrentDropout, Zoneout
from unrolled.nn.recurrence import Bidirectional, Recurrence, Stacked

INPUT, HIDDEN, TIME = 3, 4, 6
LENGTHS = torch.tensor([3, 0, 6, 2])  # unsorted, zero included
BATCH = len(LENGTHS)


class OwnCell(Cell):
    """A user's own cell: a dictionary as state, one part of it without a feature axis, an output that is no part of it."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.mix, self.read = nn.Linear(input_size + hidden_size, hidden_size), nn.Linear(hidden_size, 2, bias=False)

    output_size = 2  # type: ignore[assignment]

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"h": self.zeros(batch_size, self.hidden_size), "age": self.zeros(batch_size)}

    def step(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = torch.tanh(self.mix(torch.cat([x, state["h"]], -1))) / (1 + state["age"].unsqueeze(-1))
        return self.read(h), {"h": h, "age": state["age"] + 1}


MAKERS: dict[str, Callable[[int, int], Cell]] = {
    **CELLS,
    "own": OwnCell,
    "recurrent-dropout": lambda i, h: RecurrentDropout(LSTM(i, h), 0.4),
    "zoneout": lambda i, h: Zoneout(LSTM(i, h), {"h": 0.3, "c": 0.5}),
    "zoneout-of-own": lambda i, h: Zoneout(OwnCell(i, h), {"h": 0.3, "age": 0.2}),
    "zoneout-of-recurrent-dropout": lambda i, h: Zoneout(RecurrentDropout(GRU(i, h), 0.4), {"h": 0.2}),
}
OFFERS_WHOLE = ["elman", "elman-relu", "lstm", "reset-after-gru", "recurrent-dropout"]


def make(name: str, seed: int = 0, dtype: torch.dtype = torch.float64, sizes: tuple[int, int] = (INPUT, HIDDEN)) -> Cell:
    """A cell in evaluation whose every parameter is random: a bias at zero would hide a mistake."""
    torch.manual_seed(seed)
    cell = MAKERS[name](*sizes).to(dtype).eval()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=dtype) * 0.5)
    return cell


@pytest.fixture(params=list(MAKERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cell(name: str) -> Cell:
    return make(name)


@pytest.fixture
def xs() -> Tensor:
    return torch.randn(BATCH, TIME, INPUT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def some_state(cell: Cell, batch: int = BATCH) -> Any:
    generator = torch.Generator().manual_seed(2)
    return map_state(lambda leaf: torch.rand(leaf.shape, generator=generator, dtype=leaf.dtype), cell.initial_state(batch))


def same(got: Any, wanted: Any, **tolerance: float) -> None:
    got, wanted = dict(named_leaves(got)), dict(named_leaves(wanted))
    assert got.keys() == wanted.keys()
    for path in wanted:
        torch.testing.assert_close(got[path], wanted[path], **tolerance)


def gradients(cell: Cell, xs: Tensor, lengths: Tensor | None = None, plain: bool = False, **kwargs: Any) -> dict[str, Tensor]:
    """Of a loss that weighs every output and every part of the last state differently; `xs` included."""
    xs = xs.detach().clone().requires_grad_()
    outputs, final = Recurrence(cell, plain=plain).train(cell.training)(xs if lengths is None else Padded(xs, lengths), **kwargs)
    parts = [outputs.data if lengths is not None else outputs, *(leaf for _, leaf in named_leaves(final))]
    loss = sum((part * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in parts)
    named = {"xs": xs, **dict(cell.named_parameters())}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


# -- batches, padding, order ----------------------------------------------------------------------------------------


def test_a_batch_equals_one_by_one(cell: Cell, xs: Tensor) -> None:
    state = some_state(cell)
    outputs, final = Recurrence(cell)(Padded(xs, LENGTHS), state)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, last = Recurrence(cell)(xs[row : row + 1, :length], select_state(state, torch.tensor([row])))
        same(outputs.data[row : row + 1, :length], alone)
        same(select_state(final, torch.tensor([row])), last)
        assert (outputs.data[row, length:] == 0).all()


@pytest.mark.parametrize("filling", [1e30, float("nan")])
def test_more_padding_changes_nothing(cell: Cell, xs: Tensor, filling: float) -> None:
    longer = torch.cat([xs, torch.zeros(BATCH, 3, INPUT, dtype=xs.dtype)], 1)
    past = torch.arange(TIME + 3) >= LENGTHS.unsqueeze(1)
    longer[past] = filling
    for plain in (True, False):
        for reverse in (True, False):
            wanted, final = Recurrence(cell, plain=plain, reverse=reverse)(Padded(xs, LENGTHS))
            outputs, last = Recurrence(cell, plain=plain, reverse=reverse)(Padded(longer, LENGTHS))
            same(outputs.data[:, :TIME], wanted.data)
            assert (outputs.data[:, TIME:] == 0).all()
            same(last, final)


@pytest.mark.parametrize("plain", [True, False])
def test_padding_does_not_leak_into_gradients(cell: Cell, xs: Tensor, plain: bool) -> None:
    dirty = xs.clone()
    dirty[torch.arange(TIME) >= LENGTHS.unsqueeze(1)] = float("nan")
    wanted = gradients(cell, torch.nan_to_num(dirty), LENGTHS, plain)
    got = gradients(cell, dirty, LENGTHS, plain)
    assert (got["xs"][torch.arange(TIME) >= LENGTHS.unsqueeze(1)] == 0).all()
    same(got, wanted)


def test_permuting_the_batch_permutes_the_output(cell: Cell, xs: Tensor) -> None:
    order, state = torch.tensor([2, 0, 3, 1]), some_state(cell)
    outputs, final = Recurrence(cell)(Padded(xs, LENGTHS), state)
    permuted, last = Recurrence(cell)(Padded(xs[order], LENGTHS[order]), select_state(state, order))
    same(permuted.data, outputs.data[order])
    same(last, select_state(final, order))


# -- time -----------------------------------------------------------------------------------------------------------


def test_step_by_step_equals_the_whole(cell: Cell, xs: Tensor) -> None:
    layer = Recurrence(cell)
    outputs, final = layer(xs)
    state = layer.initial_state(BATCH)
    for t in range(TIME):
        output, state = layer.step(xs[:, t], state)
        same(output, outputs[:, t])
    same(state, final)


def test_two_halves_equal_the_whole(cell: Cell, xs: Tensor) -> None:
    layer, state = Recurrence(cell), some_state(cell)
    outputs, final = layer(xs, state)
    first, between = layer(xs[:, :2], state)
    second, last = layer(xs[:, 2:], between)
    same(torch.cat([first, second], 1), outputs)
    same(last, final)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_resets_equal_separate_sequences(cell: Cell, xs: Tensor, plain: bool, reverse: bool) -> None:
    resets = torch.zeros(BATCH, TIME, dtype=torch.bool)
    resets[0, [0, 1]] = resets[2, [2, 5]] = resets[3, 1] = True
    resets |= torch.arange(TIME) >= LENGTHS.unsqueeze(1)  # what is marked past a length means nothing
    state = some_state(cell)
    outputs, final = Recurrence(cell, plain=plain, reverse=reverse)(Padded(xs, LENGTHS), state, resets=resets)
    for row, length in enumerate(LENGTHS.tolist()):
        last = select_state(state, torch.tensor([row]))
        starts = sorted({0, *resets[row, :length].nonzero()[:, 0].tolist()})
        documents = list(zip(starts, [*starts[1:], length], strict=True))
        for place, (begin, end) in enumerate(reversed(documents) if reverse else documents):
            fresh = place > 0 or (not reverse and bool(resets[row, begin]) and length > 0)
            piece = xs[row : row + 1, begin:end]
            wanted, last = Recurrence(cell)(piece.flip(1) if reverse else piece, None if fresh else last)
            same(outputs.data[row : row + 1, begin:end], wanted.flip(1) if reverse else wanted)
        same(select_state(final, torch.tensor([row])), last)


@pytest.mark.parametrize("plain", [True, False])
def test_reverse_equals_flipping_by_hand(cell: Cell, xs: Tensor, plain: bool) -> None:
    outputs, final = Recurrence(cell, reverse=True, plain=plain)(Padded(xs, LENGTHS))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, last = Recurrence(cell, plain=True)(xs[row : row + 1, :length].flip(1))
        same(outputs.data[row : row + 1, :length], alone.flip(1))
        same(select_state(final, torch.tensor([row])), last)


@pytest.mark.parametrize("shape", [(0, TIME), (BATCH, 0), (0, 0), (1, 1), (BATCH, 1)])
@pytest.mark.parametrize("plain", [True, False])
def test_edges_of_batch_and_time(cell: Cell, shape: tuple[int, int], plain: bool) -> None:
    state = some_state(cell, shape[0])
    xs, lengths = torch.randn(*shape, INPUT, dtype=torch.float64), torch.full((shape[0],), shape[1])
    outputs, final = Recurrence(cell, plain=plain)(xs, state)
    assert outputs.shape == (*shape, cell.output_size) and outputs.dtype == torch.float64
    padded, last = Recurrence(cell, plain=plain)(Padded(xs, lengths), state)
    same(padded.data, outputs)
    same(last, final)
    if shape[1] == 0:
        same(final, state)


@pytest.mark.parametrize("plain", [True, False])
def test_lengths_all_zero_return_the_given_state(cell: Cell, xs: Tensor, plain: bool) -> None:
    state = some_state(cell)
    outputs, final = Recurrence(cell, plain=plain)(Padded(xs, torch.zeros(BATCH, dtype=torch.int64)), state)
    assert outputs.data.shape == (BATCH, TIME, cell.output_size) and (outputs.data == 0).all()
    same(final, state)


# -- layers ---------------------------------------------------------------------------------------------------------


def test_bidirectional_equals_each_row_in_each_direction(name: str, xs: Tensor) -> None:
    there, back = make(name, 3), make(name, 4)
    outputs, final = Bidirectional(there, back)(Padded(xs, LENGTHS))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, one = xs[row : row + 1, :length], torch.tensor([row])
        ahead, ahead_last = Recurrence(there, plain=True)(alone)
        behind, behind_last = Recurrence(back, plain=True)(alone.flip(1))
        same(outputs.data[row : row + 1, :length], torch.cat([ahead, behind.flip(1)], -1))
        same(select_state(final, one), {"forwards": ahead_last, "backwards": behind_last})


def test_stacked_equals_layer_after_layer(name: str, xs: Tensor) -> None:
    below, above = make(name, 5), make(name, 6, sizes=(make(name).output_size, 3))
    stack = Stacked(Recurrence(below), Recurrence(above))
    outputs, final = stack(Padded(xs, LENGTHS))
    middle, first = Recurrence(below, plain=True)(Padded(xs, LENGTHS))
    wanted, second = Recurrence(above, plain=True)(middle)
    same(outputs.data, wanted.data)
    same(final, {"0": first, "1": second})
    output, _ = stack.step(xs[:, 0], stack.initial_state(BATCH))
    same(output[LENGTHS > 0], outputs.data[LENGTHS > 0, 0])


# -- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OFFERS_WHOLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_whole_equals_the_plain_loop(kind: str, dtype: torch.dtype, lengths: Tensor | None, xs: Tensor) -> None:
    cell = make(kind, dtype=dtype)
    state, xs, tolerance = some_state(cell), xs.to(dtype), {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    assert cell.whole(xs, state) is not None
    resets = torch.zeros(BATCH, TIME, dtype=torch.bool)
    resets[0, 2] = True
    for kwargs in ({"state": state}, {"state": state, "resets": resets}):
        given = xs if lengths is None else Padded(xs, lengths)
        same(Recurrence(cell)(given, **kwargs), Recurrence(cell, plain=True)(given, **kwargs), **tolerance)
        same(gradients(cell, xs, lengths, **kwargs), gradients(cell, xs, lengths, plain=True, **kwargs), **tolerance)


def test_only_the_listed_cells_offer_a_faster_way(name: str, xs: Tensor) -> None:
    cell = make(name)
    assert (cell.whole(xs, cell.initial_state(BATCH)) is not None) == (name in OFFERS_WHOLE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_has_the_type_of_the_parameters(name: str, dtype: torch.dtype) -> None:
    cell = make(name, dtype=dtype).train()
    outputs, final = Recurrence(cell)(Padded(torch.randn(BATCH, TIME, INPUT, dtype=dtype), LENGTHS))
    assert {outputs.data.dtype, *(leaf.dtype for _, leaf in named_leaves(final))} == {dtype}


@pytest.mark.parametrize("short", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_autocast_stays_near_fp32(name: str, xs: Tensor, plain: bool, training: bool, short: torch.dtype) -> None:
    cell = make(name, dtype=torch.float32).train(training)
    layer = Stacked(
        Recurrence(cell, plain=plain), Recurrence(make(name, 7, torch.float32, (cell.output_size, HIDDEN)).train(training), plain=plain)
    )
    layer.train(training)

    def read() -> tuple[Padded, Any]:
        return layer(Padded(xs.float(), LENGTHS), noise=Noise(torch.Generator().manual_seed(5)))

    wanted, final = read()
    with torch.autocast("cpu", short):
        outputs, last = read()
    outputs.data.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    same(map_state(Tensor.float, (outputs.data, last)), (wanted.data, final), rtol=0.05, atol=0.05)


def test_same_seed_same_numbers(name: str, xs: Tensor) -> None:
    def once() -> Any:
        torch.manual_seed(11)
        layer = Recurrence(MAKERS[name](INPUT, HIDDEN).double()).train()
        return layer(xs, noise=Noise(torch.Generator().manual_seed(3)))

    same(once(), once(), rtol=0, atol=0)


def test_save_and_load(name: str, xs: Tensor) -> None:
    cell, other = make(name, 1), make(name, 2)
    wanted = Recurrence(cell)(xs)
    other.load_state_dict(cell.state_dict())
    same(Recurrence(other)(xs), wanted, rtol=0, atol=0)


def test_a_state_tree_survives_its_names(cell: Cell) -> None:
    state = some_state(cell)
    restored = restore_state(cell.initial_state(BATCH), dict(named_leaves(state)))
    assert type(restored) is type(state)
    same(restored, state, rtol=0, atol=0)


def test_a_fresh_cell_is_finite_and_forgets_nothing_on_itself(name: str, xs: Tensor) -> None:
    cell = MAKERS[name](INPUT, HIDDEN).double()
    attributes = set(vars(cell))
    outputs, _ = Recurrence(cell)(xs)
    assert torch.isfinite(outputs).all() and set(vars(cell)) == attributes


# -- refusals -------------------------------------------------------------------------------------------------------


def test_wrong_features(cell: Cell) -> None:
    with pytest.raises(UserError, match=r"^`xs` must be \[batch, time, 3\], got \[2, 5, 7\]$"):
        Recurrence(cell)(torch.randn(2, 5, 7))


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        ([1, 2, 3, 7], r"^`lengths` must lie in 0\.\.6 \(the time axis of the data\), got 1\.\.7$"),
        ([-1, 2, 3, 6], r"^`lengths` must lie in 0\.\.6 \(the time axis of the data\), got -1\.\.6$"),
        ([1, 2, 3], r"^`lengths` must be 4 integers, one a row of the batch, got torch.int64 of shape \(3,\)$"),
        ([1.0, 2.0, 3.0, 4.0], r"^`lengths` must be 4 integers, one a row of the batch, got torch.float32 of shape \(4,\)$"),
    ],
)
def test_wrong_lengths(xs: Tensor, lengths: list[float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Recurrence(make("lstm"))(Padded(xs, torch.tensor(lengths)))


def test_wrong_resets(cell: Cell, xs: Tensor) -> None:
    with pytest.raises(UserError, match=r"^`resets` must be boolean \[4, 6\], one mark a step, got torch.bool \[6, 4\]$"):
        Recurrence(cell)(xs, resets=torch.zeros(6, 4, dtype=torch.bool))


def test_backwards_cannot_be_stepped(cell: Cell, xs: Tensor) -> None:
    with pytest.raises(UserError, match="reads backwards needs the whole sequence and cannot be stepped"):
        Recurrence(cell, reverse=True).step(xs[:, 0], cell.initial_state(BATCH))


def test_sizes_of_a_stack_must_meet() -> None:
    with pytest.raises(ConfigurationError, match=r"^layer 1 of `Stacked` reads 3 features, the layer below it gives 4$"):
        Stacked(Recurrence(make("gru")), Recurrence(make("lstm")))


def test_a_state_of_another_batch(cell: Cell, xs: Tensor) -> None:
    with pytest.raises(UserError, match=r"^`state` must have 4 rows, one a row of `xs`, got \[3"):
        Recurrence(cell)(xs, cell.initial_state(3))


def test_dropout_layers() -> None:
    """Locked dropout and weight drop: one mask a sequence, scaled, drawn anew for the next, absent in evaluation."""
    from unrolled.nn.dropout import LockedDropout, WeightDrop

    ones = torch.ones(3, 5, 40)
    locked = LockedDropout(0.5).train()
    first, _ = locked(ones, noise=Noise(torch.Generator().manual_seed(0)))
    assert (first == first[:, :1]).all() and set(first.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(first[0], first[1])
    assert locked.eval()(ones)[0] is ones

    layer = WeightDrop(Recurrence(make("lstm").train()), 0.5).train()
    xs = torch.randn(2, 7, INPUT, dtype=torch.float64)
    noise = Noise(torch.Generator().manual_seed(0))
    once, twice = layer(xs, noise=noise)[0], layer(xs, noise=noise)[0]
    assert not torch.allclose(once, twice)
    cell = make("lstm")
    kept = Noise(torch.Generator().manual_seed(0)).shared(tuple(cell.from_hidden.weight.shape), 0.5, cell.from_hidden.weight)
    with torch.no_grad():
        cell.from_hidden.weight.mul_(kept / 0.5)
    torch.testing.assert_close(once, Recurrence(cell, plain=True)(xs)[0])
    assert torch.equal(layer.eval()(xs)[0], Recurrence(make("lstm"))(xs)[0])


def test_weight_drop_names_its_parameter() -> None:
    from unrolled.nn.dropout import WeightDrop

    with pytest.raises(
        ConfigurationError, match=r"has no parameter `cell.from_hiden.weight` to drop; did you mean `cell.from_hidden.weight`\?"
    ):
        WeightDrop(Recurrence(make("lstm")), 0.5, ["cell.from_hiden.weight"])


def test_words_are_dropped_whole() -> None:
    from unrolled.nn.dropout import WordEmbedding

    embedding = WordEmbedding(50, 4, dropout=0.5).train()
    tokens = torch.arange(50).repeat(2, 1)
    vectors = embedding.embed(tokens, Noise(torch.Generator().manual_seed(0)))
    dropped = (vectors == 0).all(-1)
    assert torch.equal(dropped[0], dropped[1]) and 10 < int(dropped[0].sum()) < 40
    torch.testing.assert_close(vectors[~dropped], 2 * embedding(tokens)[~dropped])
    assert torch.equal(embedding.eval().embed(tokens), embedding(tokens))

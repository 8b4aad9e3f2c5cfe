"""Every kind of encoder with every kind of decoder keeps the same contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unrolled.core.errors import ConfigurationError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.settings import merge, resolve
from unrolled.core.state import select_state
from unrolled.models.encoder_decoder import EncoderDecoder, Sizes
from unrolled.models.encoder_decoder_settings import EncoderDecoderSettings
from unrolled.models.stepper import AligningStepper, stepper_of
from unrolled.nn.cells import CELLS, GRU

SOURCE, TARGET = 11, 13
LENGTHS = [7, 2, 4]

MODELS: dict[str, dict[str, Any]] = {
    "additive after": {},
    "additive before": {"attention": {"when": "before"}},
    "dot": {"attention": {"kind": "dot"}},
    "scaled dot, fed": {"attention": {"kind": "scaled_dot", "input_feeding": True}},
    "bilinear, published GRU": {"attention": {"kind": "bilinear"}, "encoder": {"cell": "gru"}, "decoder": {"cell": "gru"}},
    "multi-head before": {"attention": {"kind": "multi_head", "when": "before", "heads": 2}},
    "coverage": {"attention": {"coverage": True}},
    "copying": {"attention": {"copies": True}},
    "no attention": {"attention": {"kind": "none"}},
    "no attention, context at every step": {"attention": {"kind": "none"}, "context": "every"},
    "recurrent dropout": {"recurrent_dropout": 0.3},
    "convolutional encoder": {"encoder": {"kind": "convolutional"}},
    "read out directly": {"attention": {"readout": "direct"}, "tie_weights": False},
    "read out directly, fed": {"attention": {"readout": "direct", "input_feeding": True, "when": "before"}},
    "copying with coverage": {"attention": {"copies": True, "coverage": True}},
    "attention and context at every step": {"context": "every", "attention": {"when": "before"}},
    "one direction": {"encoder": {"bidirectional": False}},
    "Transformer": {"encoder": {"kind": "transformer"}, "decoder": {"kind": "transformer"}},
    "Transformer, post-norm, learned": {
        "encoder": {"kind": "transformer"},
        "decoder": {"kind": "transformer"},
        "transformer": {"norm": "post", "positions": "learned"},
    },
    "recurrent to Transformer": {"decoder": {"kind": "transformer"}},
    "Transformer to recurrent": {"encoder": {"kind": "transformer"}},
    "separator, recurrent": {"encoder": {"kind": "none"}, "attention": {"kind": "none"}},
    "separator, Transformer": {"encoder": {"kind": "none"}, "decoder": {"kind": "transformer"}},
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> EncoderDecoder:
    return build(MODELS[request.param])


def build(differences: dict[str, Any]) -> EncoderDecoder:
    torch.manual_seed(0)
    deep = {"hidden_size": 8, "encoder": {"layers": 2}, "decoder": {"layers": 2}, "transformer": {"heads": 2}}
    settings = resolve(EncoderDecoderSettings, merge(deep, differences))
    return EncoderDecoder(settings, Sizes(SOURCE, TARGET), copy_ids=torch.arange(SOURCE)).double().eval()


def pairs() -> tuple[Padded, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(SOURCE, (3, max(LENGTHS)), generator=generator)
    return Padded(source, torch.tensor(LENGTHS)), torch.randint(TARGET, (3, 5), generator=generator)


def log_probabilities(model: EncoderDecoder, source: Padded, targets: torch.Tensor) -> torch.Tensor:
    state = model.encode(source)
    decoded = model.read(state, targets)
    columns = []
    for t in range(targets.shape[1]):
        weights = None if decoded.weights is None else decoded.weights[:, t].mean(1)
        columns.append(model.predict(decoded.hidden[:, t], weights, state.source).log_softmax(-1))
    return torch.stack(columns, 1)


@torch.no_grad()
def test_step_by_step_equals_the_whole(model: EncoderDecoder) -> None:
    source, targets = pairs()
    whole, state = log_probabilities(model, source, targets), model.encode(source)
    for t in range(targets.shape[1]):
        logits, state = model.step(targets[:, t], state)
        torch.testing.assert_close(logits.log_softmax(-1), whole[:, t])


@torch.no_grad()
def test_a_batch_equals_one_by_one(model: EncoderDecoder) -> None:
    source, targets = pairs()
    whole = log_probabilities(model, source, targets)
    for row, length in enumerate(LENGTHS):
        alone = Padded(source.data[row : row + 1, :length], source.lengths[row : row + 1])
        torch.testing.assert_close(log_probabilities(model, alone, targets[row : row + 1])[0], whole[row])


@torch.no_grad()
def test_more_padding_changes_nothing(model: EncoderDecoder) -> None:
    source, targets = pairs()
    longer = torch.cat([source.data, torch.full((3, 4), 5)], 1)
    longer = torch.where(Padded(longer, source.lengths).mask, longer, 9)
    torch.testing.assert_close(log_probabilities(model, Padded(longer, source.lengths), targets), log_probabilities(model, source, targets))


@torch.no_grad()
def test_what_comes_later_changes_nothing_before(model: EncoderDecoder) -> None:
    source, targets = pairs()
    other = targets.clone()
    other[:, 3] = (other[:, 3] + 1) % TARGET
    before, after = (log_probabilities(model, source, ids) for ids in (targets, other))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@torch.no_grad()
def test_the_source_matters(model: EncoderDecoder) -> None:
    source, targets = pairs()
    other = Padded((source.data + 1) % SOURCE, source.lengths)
    assert not torch.allclose(log_probabilities(model, source, targets), log_probabilities(model, other, targets))


@torch.no_grad()
def test_reordering_rows_of_a_source_equals_selecting(model: EncoderDecoder) -> None:
    source, targets = pairs()
    stepper = stepper_of(model)
    twice = Padded(source.data[:1].repeat(3, 1), source.lengths[:1].repeat(3))
    _, state = stepper.step(targets[:, 0], stepper.start(twice))
    rows = torch.tensor([2, 2, 0])
    moved, chosen = (stepper.step(targets[:, 1], way(state, rows))[0] for way in (stepper.reorder, stepper.select))
    torch.testing.assert_close(moved, chosen)
    torch.testing.assert_close(moved[0], moved[1] if targets[0, 1] == targets[1, 1] else moved[0])


def test_every_weight_learns(model: EncoderDecoder) -> None:
    source, targets = pairs()
    model.train()
    noise = Noise(torch.Generator().manual_seed(0))
    state = model.encode(source, noise)
    decoded = model.read(state, targets, noise)
    weights = None if decoded.weights is None else decoded.weights.flatten(0, 1).mean(1)
    ids = None if state.source is None else state.source.repeat_interleave(targets.shape[1], 0)
    model.predict(decoded.hidden.flatten(0, 1), weights, ids).log_softmax(-1)[:, 0].sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's offset moves all scores of a query alike.
    assert [name for name in idle if "bias" not in name] == []


@pytest.mark.parametrize("name", MODELS)
def test_dropout_does_not_depend_on_the_share(name: str) -> None:
    """Two processes with half of the rows each, as wide as the whole batch, draw the masks that one with all of them draws."""
    model = build(MODELS[name])
    source, targets = pairs()
    model.train()

    def hidden(rows: slice) -> torch.Tensor:
        noise = Noise(torch.Generator().manual_seed(4), rows.start, 3)
        part = Padded(source.data[rows], source.lengths[rows])
        return model.read(model.encode(part, noise), targets[rows], noise).hidden

    whole = hidden(slice(0, 3))
    torch.testing.assert_close(torch.cat([hidden(slice(0, 2)), hidden(slice(2, 3))]), whole)
    assert not torch.allclose(whole, model.eval().read(model.encode(source), targets).hidden)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [name for name in MODELS if "no attention" not in name and "separator" not in name and "former" not in name]
)
def test_padding_has_no_weight(name: str) -> None:
    model = build(MODELS[name])
    source, targets = pairs()
    weights = model.read(model.encode(source), targets).weights
    assert weights is not None
    for row, length in enumerate(LENGTHS):
        assert (weights[row, :, :, length:] == 0).all()
        torch.testing.assert_close(weights[row].sum(-1), torch.ones_like(weights[row, :, :, 0]))


@pytest.mark.parametrize("training", [True, False])
def test_a_wrong_cell_within_a_decoder_is_named(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoiled(GRU):
        def step(self, x: Any, state: Any, fixed: Any = None) -> Any:
            output, after = super().step(x, state, fixed)
            return output[:, 1:], after

    monkeypatch.setitem(CELLS, "gru", Spoiled)
    model = build({"attention": {"when": "before"}, "decoder": {"layers": 1, "cell": "gru"}}).train(training)
    source, targets = pairs()
    state = model.encode(source)
    with pytest.raises(ConfigurationError, match=r"of the cell `Spoiled` must give back an output \[batch, 8\]"):
        model.decoder.step(model.target_embedding(targets[:, 0]), state.state, state.fixed)


@torch.no_grad()
def test_bahdanau_step_by_hand() -> None:
    """`e = vᵀ tanh(W s_{t-1} + U h)`, `c = Σ α h`, `s_t = f(s_{t-1}, [y ; c])`, `ã = tanh(W_c [s_t ; c])`."""
    model = build({"attention": {"when": "before"}, "decoder": {"layers": 1, "cell": "gru"}})
    source, targets = pairs()
    state = model.encode(source)
    cell, attention = model.decoder.cell, model.decoder.cell.attention
    s = state.state.layers["0"].h
    y = model.target_embedding(targets[:, 0])
    keys, values = state.fixed.memory.keys, state.fixed.memory.values
    scores = torch.tanh((s @ attention.from_query.weight.T).unsqueeze(1) + keys) @ attention.score
    scores = scores.masked_fill(~source.mask, -torch.inf)
    context = (scores.softmax(-1).unsqueeze(-1) * values).sum(1)
    output, _ = cell.cells["0"].step(torch.cat([y, context], -1), state.state.layers["0"])
    expected = torch.tanh(torch.cat([output, context], -1) @ cell.combine.weight.T)
    decoded, _ = model.decoder.step(y, state.state, state.fixed)
    torch.testing.assert_close(decoded.hidden, expected)


@torch.no_grad()
def test_copying_is_a_mixture() -> None:
    model = build(MODELS["copying"])
    source, targets = pairs()
    state = model.encode(source)
    decoded = model.read(state, targets[:, :1])
    hidden, weights = decoded.hidden[:, 0], decoded.weights[:, 0].mean(1)
    mixed = model.predict(hidden, weights, state.source).exp()
    plain = model.readout(model.narrow(hidden)).softmax(-1)
    gate = torch.sigmoid(model.copying.gate(hidden))
    for row, length in enumerate(LENGTHS):
        expected = gate[row] * plain[row]
        for j in range(length):
            expected[source.data[row, j]] += (1 - gate[row, 0]) * weights[row, j]
        torch.testing.assert_close(mixed[row], expected)


@torch.no_grad()
def test_coverage_is_the_sum_of_attention() -> None:
    model = build(MODELS["coverage"])
    source, targets = pairs()
    state, total = model.encode(source), torch.zeros(3, max(LENGTHS), dtype=torch.float64)
    for t in range(4):
        torch.testing.assert_close(state.state.coverage, total)
        _, state = model.step(targets[:, t], state)
        total = total + state.weights


@torch.no_grad()
def test_nothing_can_be_copied_where_the_target_has_none_of_it() -> None:
    torch.manual_seed(0)
    settings = resolve(EncoderDecoderSettings, {"hidden_size": 8, "attention": {"copies": True}})
    model = EncoderDecoder(settings, Sizes(SOURCE, TARGET), copy_ids=torch.full((SOURCE,), -1)).double().eval()
    source, targets = pairs()
    decoded = model.read(model.encode(source), targets[:, :1])
    hidden = decoded.hidden[:, 0]
    mixed = model.predict(hidden, decoded.weights[:, 0].mean(1), source.data)
    torch.testing.assert_close(mixed, model.readout(model.narrow(hidden)).log_softmax(-1))


@torch.no_grad()
def test_a_convolution_by_hand() -> None:
    model = build({"encoder": {"kind": "convolutional", "layers": 1}})
    source, _ = pairs()
    encoder: Any = model.encoder
    vectors = model.source_embedding(source.data[1:2, :2])
    x = encoder.fit(vectors) * 8**0.5 + encoder.positions(torch.tensor([[0, 1]]), torch.float64)
    weight, bias = encoder.layers[0].weight, encoder.layers[0].bias
    zero = torch.zeros(8, dtype=torch.float64)
    expected = []
    for t in range(2):
        neighbours = [zero if not 0 <= t + d < 2 else x[0, t + d] for d in (-1, 0, 1)]
        both = bias + sum(weight[:, :, d] @ neighbour for d, neighbour in enumerate(neighbours))
        expected.append((x[0, t] + both[:8] * torch.sigmoid(both[8:])) * 0.5**0.5)
    memory = encoder(Padded(model.source_embedding(source.data), source.lengths)).memory
    torch.testing.assert_close(memory.data[1, :2], torch.stack(expected))
    assert (memory.data[1, 2:] == 0).all()


@pytest.mark.parametrize("name", list(MODELS))
def test_bf16_autocast_is_close(name: str) -> None:
    model = build(MODELS[name]).float().train()
    for part in model.modules():
        if hasattr(part, "probability"):
            part.probability = 0.0
    source, targets = pairs()

    def losses() -> torch.Tensor:
        noise = Noise(torch.Generator().manual_seed(0))
        state = model.encode(source, noise)
        decoded = model.read(state, targets, noise)
        weights = None if decoded.weights is None else decoded.weights.flatten(0, 1).mean(1)
        ids = None if state.source is None else state.source.repeat_interleave(targets.shape[1], 0)
        return model.predict(decoded.hidden.flatten(0, 1), weights, ids).float().log_softmax(-1)

    plain = losses()
    with torch.autocast("cpu", torch.bfloat16):
        short = losses()
    short.sum().backward()
    torch.testing.assert_close(short, plain, atol=0.15, rtol=0.1)


@torch.no_grad()
def test_rows_of_one_source_share_it(model: EncoderDecoder) -> None:
    """Selecting as a beam does, grown, mixed, shrunk: the same as with a copy of the source for every row."""
    source, targets = pairs()
    stepper = stepper_of(model)
    _, state = stepper.step(targets[:, 0], stepper.start(source))
    copied = state
    for rows in ([0, 0, 0, 1, 2, 2], [1, 0, 5, 3], [3, 0, 1, 1, 2], [1, 1, 4], [0, 2], [0]):
        chosen = torch.tensor(rows)
        state, copied = stepper.select(state, chosen), select_state(copied, chosen)
        read = torch.arange(len(rows)) % TARGET
        (shared, state), (direct, copied) = stepper.step(read, state), model.step(read, copied)
        torch.testing.assert_close(shared, direct)
        torch.testing.assert_close(state.weights, copied.weights)
        torch.testing.assert_close(state.state, copied.state)


def test_who_attends_step_by_step_says_so() -> None:
    assert isinstance(stepper_of(build({})), AligningStepper)
    for name in ("no attention", "Transformer"):
        assert not isinstance(stepper_of(build(MODELS[name])), AligningStepper)


@torch.no_grad()
def test_the_state_is_a_tree_of_rows(model: EncoderDecoder) -> None:
    source, targets = pairs()
    _, state = model.step(targets[:, 0], model.encode(source))
    rows = torch.tensor([2, 0])
    direct = model.step(targets[:, 1], state)[0][rows]
    torch.testing.assert_close(model.step(targets[rows, 1], select_state(state, rows))[0], direct)


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"hidden_size": 7}, "must be even for an encoder that reads from both ends, got 7"),
        ({"decoder": {"kind": "transformer"}, "transformer": {"heads": 3}}, "multiple of `transformer.heads`, got 8 and 3"),
        ({"encoder": {"kind": "none"}}, "leaves nothing to attend to"),
        ({"attention": {"kind": "dot", "coverage": True}}, "needs `attention.kind=additive`, got `dot`"),
        ({"attention": {"kind": "none", "copies": True}}, "need an attention"),
        ({"decoder": {"kind": "transformer"}, "attention": {"copies": True}}, "are of recurrent decoders"),
        ({"encoder": {"kind": "convolutional", "width": 4}}, "must be odd"),
        ({"tie_embeddings": True}, "needs one vocabulary for both sides"),
        ({"decoder": {"cell": "lstn"}}, "did you mean `lstm`"),
    ],
)
def test_parts_that_do_not_fit_are_refused(differences: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(differences)

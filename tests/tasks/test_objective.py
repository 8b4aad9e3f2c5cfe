"""What a language model minimises, held to loops written by hand."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch.nn.functional import cross_entropy

from unrolled.core.noise import Noise
from unrolled.core.state import detach_state
from unrolled.models.language_model import LanguageModel, LanguageModelSettings
from unrolled.nn.softmax import draw_log_uniform, log_uniform, sampled_cross_entropy
from unrolled.tasks.language_model_objective import LanguageModelObjective, count_nats, scores
from unrolled.train.settings import StreamTrainSettings
from unrolled.train.windows import TruncatedWindows

VOCABULARY, ROWS, STEPS = 7, 2, 13


class Batch(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor
    resets: torch.Tensor | None


class Streams:
    """Random rows."""

    def __init__(self) -> None:
        self.ids = torch.randint(VOCABULARY, (ROWS, STEPS + 1), generator=torch.Generator().manual_seed(0))
        self.steps = STEPS

    def window(self, start: int, length: int) -> Batch:
        return Batch(self.ids[:, start : start + length], self.ids[:, start + 1 : start + length + 1], None)


def small_model(**settings: object) -> LanguageModel:
    torch.manual_seed(1)
    return LanguageModel(LanguageModelSettings(hidden_size=5, embedding_size=4, **settings), VOCABULARY).double()


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (3, 5), (2, 6), (4, 9), (13, 13)])
def test_truncated_gradients_equal_a_plain_loop(k1: int, k2: int) -> None:
    """Every window's gradient is that of its own k1 losses, back through k2 steps and no further."""
    model = small_model()
    objective = LanguageModelObjective(model, StreamTrainSettings()).eval()
    streams = Streams()
    windows, state = TruncatedWindows(streams, k1, k2), None
    # The states that a single pass over the row would have, with no gradient between steps.
    states = [model.initial_state(ROWS)]
    for t in range(STEPS):
        states.append(detach_state(model.step(streams.ids[:, t], states[-1])[1]))
    end = 0
    while end < STEPS:
        begin, end = end, min(end + k1, STEPS)
        window = windows.take()
        model.zero_grad()
        loss = objective(window, None if window.fresh else state, Noise())
        loss.objective.backward()
        state = detach_state(loss.state)
        found = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        start = max(0, begin - (k2 - k1))
        here, total = states[start], torch.zeros((), dtype=torch.float64)
        for t in range(start, end):
            logits, here = model.step(streams.ids[:, t], here)
            if t >= begin:
                total = total + cross_entropy(logits, streams.ids[:, t + 1], reduction="sum")
        (total / (ROWS * (end - begin))).backward()
        assert loss.nats.item() == pytest.approx(total.item())
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name], p.grad, msg=name)


def test_penalties_are_those_of_the_paper() -> None:
    model = small_model(output_dropout=0.5).train()
    window = TruncatedWindows(Streams(), 6).take()

    def objective(**settings: float) -> torch.Tensor:
        noise = Noise(torch.Generator().manual_seed(3))
        return LanguageModelObjective(model, StreamTrainSettings(**settings))(window, None, noise).objective

    reading = model.read(window.batch.inputs, noise=Noise(torch.Generator().manual_seed(3)))
    plain = objective()
    square = reading.hidden.pow(2).mean()
    change = (reading.raw[:, 1:] - reading.raw[:, :-1]).pow(2).mean()
    torch.testing.assert_close(objective(activation_penalty=2.0) - plain, 2 * square)
    torch.testing.assert_close(objective(smoothness_penalty=3.0) - plain, 3 * change)
    assert (reading.hidden == 0).any() and not (reading.raw == 0).any()


def test_log_uniform_is_what_it_draws() -> None:
    proposal = log_uniform(50)
    assert proposal.sum().item() == pytest.approx(1.0, abs=1e-5)
    drawn = draw_log_uniform(50, 200_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    counts = torch.bincount(drawn, minlength=50) / len(drawn)
    torch.testing.assert_close(counts, proposal, atol=0.003, rtol=0)


def test_sampled_loss_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(3, 4, generator=generator),
        torch.randn(9, 4, generator=generator),
        torch.randn(9, generator=generator),
    )
    targets, negatives, proposal = torch.tensor([2, -100, 8]), torch.tensor([0, 2, 2, 5]), log_uniform(9)
    found = sampled_cross_entropy(hidden, weight, bias, targets, negatives, proposal)
    for row, target in ((0, 2), (2, 8)):
        shifted = [float(weight[k] @ hidden[row] + bias[k]) - math.log(4 * proposal[k]) for k in range(9)]
        others = [shifted[k] for k in negatives.tolist()]
        expected = math.log(sum(math.exp(value) for value in [shifted[target], *others])) - shifted[target]
        assert found[row].item() == pytest.approx(expected, abs=1e-5)
    assert found[1] == 0


def test_the_sampled_loss_is_least_where_the_full_softmax_is_right() -> None:
    """Logits fitted by the sampled loss alone become the logarithm of the true frequencies, up to a constant."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([0.05, 0.3, 0.1, 0.35, 0.15, 0.05])
    proposal, logits = log_uniform(6), torch.zeros(6, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.05)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 1500)
        targets = torch.multinomial(truth, 256, replacement=True, generator=generator)
        negatives = draw_log_uniform(6, 3, generator, truth.device)
        loss = sampled_cross_entropy(torch.ones(256, 1), logits, torch.zeros(6), targets, negatives, proposal).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(logits.detach()[:, 0].softmax(0), truth, atol=0.02, rtol=0)


def test_scores_convert_units() -> None:
    found = scores(nats=100 * math.log(4), symbols=100, characters=400, words=50)
    assert found.loss == pytest.approx(math.log(4)) and found.perplexity == pytest.approx(4.0)
    assert found.bits_per_character == pytest.approx(0.5) and found.word_perplexity == pytest.approx(16.0)


def test_counting_nats_equals_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.tasks import language_model_objective

    model, streams = small_model().eval(), Streams()
    monkeypatch.setattr(language_model_objective, "EVALUATION_WINDOW", 4)
    monkeypatch.setattr(language_model_objective, "READOUT_NUMBERS", 3 * VOCABULARY)
    nats, count = count_nats(model, streams)
    whole = streams.window(0, STEPS)
    expected = cross_entropy(model(whole.inputs)[0].flatten(0, 1), whole.targets.flatten(), reduction="sum")
    assert nats == pytest.approx(expected.item()) and count == ROWS * STEPS


def test_streams_start_afresh_now_and_then() -> None:
    """With `restart` at 1 every window begins as a new text does; at 0 only the first one."""
    from unrolled.train.loop import Observer, Trainer
    from unrolled.train.precision import prepare_machine

    seen: list[list[bool]] = []

    class Watching(LanguageModelObjective):
        def forward(self, window, state, noise):
            leaves = None if state is None else state["1"]
            seen.append([True, True] if leaves is None else [bool((row == 0).all()) for row in leaves.h])
            return super().forward(window, state, noise)

    for restart, expected in ((1.0, {True}), (0.0, {False}), (0.5, {True, False})):
        seen.clear()
        settings = StreamTrainSettings(steps=4, batch_size=ROWS, evaluations=0, restart=restart, precision="fp32")
        objective = Watching(small_model(), settings)
        Trainer(objective, TruncatedWindows(Streams(), 3), settings, prepare_machine(settings)).run(Observer())
        assert {row for window in seen[1:] for row in window} == expected, restart


@pytest.mark.parametrize("tied", [False, True])
def test_sparse_gradients_are_the_dense_ones(tied: bool) -> None:
    torch.manual_seed(0)
    settings = LanguageModelSettings(hidden_size=5, embedding_size=5, tie_weights=tied)
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(1)
        model = LanguageModel(settings, VOCABULARY).double()
        objective = LanguageModelObjective(model, StreamTrainSettings(sampled_softmax=4, sparse_gradients=sparse))
        noise = Noise(torch.Generator().manual_seed(2))
        objective(TruncatedWindows(Streams(), 6).take(), None, noise).objective.backward()
        assert model.embedding.weight.grad.is_sparse == sparse
        gradients.append({name: p.grad.to_dense() for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, dense in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], dense, msg=name)


def test_sparse_gradients_need_samples() -> None:
    with pytest.raises(ValueError, match="needs `sampled_softmax`"):
        StreamTrainSettings(sparse_gradients=True)

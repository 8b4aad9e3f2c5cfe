"""Sampling and greedy decoding against enumeration and plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from toy import Chain, Constant, PrefilledChain

from unrolled.core.errors import ConfigurationError, DataError, UserError
from unrolled.core.settings import resolve
from unrolled.decode import Forbid, SamplingOptions, Stepper, greedy, sample, sampling
from unrolled.decode.sampling import LARGEST_SHARE, SampleStream, draw, likeliest


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def taken(stream: SampleStream) -> list[list[int]]:
    """All tokens, row by row."""
    columns = [column.tolist() for column in stream]
    return [list(row) for row in zip(*columns, strict=True)]


def chi_square(counts: torch.Tensor, probability: torch.Tensor) -> float:
    expected = probability * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_frequencies_follow_the_softmax() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, -math.inf, 0.0])
    tokens = draw(logits.expand(40_000, -1), seeded())
    counts = tokens.bincount(minlength=5)
    assert counts[3] == 0
    kept = torch.tensor([0, 1, 2, 4])
    assert chi_square(counts[kept].double(), logits.double().softmax(0)[kept]) < 16.27  # 3 degrees of freedom, p = 0.001


@pytest.mark.parametrize("prefilled", [False, True])
def test_whole_sequences_have_the_probability_that_enumeration_gives(prefilled: bool) -> None:
    chain = PrefilledChain(3) if prefilled else Chain(3)
    options = SamplingOptions(temperature=0.7, top_k=2, length=3)
    prompt = torch.tensor([[2, 1]]).expand(30_000, -1)
    drawn = taken(sample(chain, prompt, options, seeded()))
    wanted = {}
    for path in itertools.product(range(3), repeat=3):
        read, probability = [2, 1], 1.0
        for token in path:
            weights = [math.exp(x / 0.7) for x in chain.table[read[-2], read[-1]].tolist()]
            weights = [w if w in sorted(weights)[1:] else 0.0 for w in weights]
            probability *= weights[token] / sum(weights)
            read.append(token)
        wanted[path] = probability
    possible = [path for path, p in wanted.items() if p > 0]
    counts = [sum(tuple(row) == path for row in drawn) for path in possible]
    assert len(possible) == 8 and sum(counts) == 30_000
    assert chi_square(torch.tensor(counts).double(), torch.tensor([wanted[p] for p in possible]).double()) < 24.32  # 7, p = 0.001


@pytest.mark.parametrize("penalty", [1.0, 1.8])
def test_greedy_is_a_plain_loop_of_argmax(penalty: float) -> None:
    chain = Chain(6, seed=3)
    prompt = [[0, 1, 2], [5, 5, 4]]
    for row, drawn in zip(
        prompt, taken(greedy(chain, torch.tensor(prompt), SamplingOptions(length=20, repetition_penalty=penalty))), strict=True
    ):
        read = list(row)
        for token in drawn:
            logits = chain.table[read[-2], read[-1]].tolist()
            logits = [x if i not in read else x / penalty if x > 0 else x * penalty for i, x in enumerate(logits)]
            assert token == logits.index(max(logits))
            read.append(token)
        assert len(drawn) == 20


def test_temperature_zero_is_greedy_whatever_else_is_asked_and_leaves_the_generator_alone() -> None:
    chain, prompt, generator = Chain(6), torch.tensor([[0], [3]]), seeded()
    before = generator.get_state()
    cold = taken(sample(chain, prompt, SamplingOptions(temperature=0, top_k=3, top_p=0.5, min_p=0.9, length=15), generator))
    assert cold == taken(greedy(chain, prompt, SamplingOptions(length=15)))
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("only", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"temperature": 1e-30}])
def test_every_way_to_leave_one_token_is_greedy(only: dict[str, float]) -> None:
    chain, prompt = Chain(5), torch.tensor([[0]])
    options = resolve(SamplingOptions, {"length": 12} | only)
    assert taken(sample(chain, prompt, options, seeded())) == taken(greedy(chain, prompt, options))


def test_ties_go_to_the_lowest_id() -> None:
    assert taken(greedy(Constant([1.0, 2.0, 2.0]), torch.tensor([[0]]), SamplingOptions(length=2))) == [[1, 1]]


@pytest.mark.parametrize("keeps_all", [{}, {"top_k": 99}, {"top_p": 1.0}, {"min_p": 0.0}, {"repetition_penalty": 1.0}])
def test_what_keeps_everything_changes_nothing(keeps_all: dict[str, float]) -> None:
    chain, prompt = Chain(5), torch.tensor([[0, 1]] * 3)
    plain = taken(sample(chain, prompt, SamplingOptions(length=30), seeded(5)))
    assert taken(sample(chain, prompt, resolve(SamplingOptions, {"length": 30} | keeps_all), seeded(5))) == plain


def test_the_same_seed_gives_the_same_tokens_streamed_or_not_and_prefilled_or_not() -> None:
    prompt, options = torch.tensor([[0, 1, 3]] * 2), SamplingOptions(length=25, temperature=0.9)
    at_once = taken(sample(Chain(), prompt, options, seeded(1)))
    assert taken(sample(PrefilledChain(), prompt, options, seeded(1))) == at_once
    stream = sample(Chain(), prompt, options, seeded(1))
    first = [next(stream) for _ in range(10)]
    torch.rand(3)  # chance elsewhere does not matter
    assert torch.stack([*first, *stream], 1).tolist() == at_once
    assert taken(sample(Chain(), prompt, options, seeded(2))) != at_once
    shorter = taken(sample(Chain(), prompt, options.model_copy(update={"length": 10}), seeded(1)))
    assert shorter == [row[:10] for row in at_once]


def test_a_given_state_goes_on_where_it_stands() -> None:
    chain = Chain()
    with torch.inference_mode():
        _, state = chain.step(torch.tensor([2]), chain.start(1))
    whole = taken(sample(chain, torch.tensor([[2, 3]]), SamplingOptions(length=9), seeded()))
    assert taken(sample(chain, torch.tensor([[3]]), SamplingOptions(length=9), seeded(), state=state)) == whole


def test_rows_end_at_a_stop_token_and_the_rest_go_on() -> None:
    prompt = torch.tensor([[0, 1]] * 4)
    free = taken(sample(Chain(5), prompt, SamplingOptions(length=40), seeded(4)))
    stream = sample(Chain(5), prompt, SamplingOptions(length=40, stop_ids=(3, 4)), seeded(4))
    ended = taken(stream)
    ends = [next(i for i, token in enumerate(row) if token in (3, 4)) + 1 for row in free]
    assert len(set(ends)) > 1, "rows end at different times, or this shows nothing"
    assert stream.lengths.tolist() == ends and stream.finished.all()
    for row, whole, end in zip(ended, free, ends, strict=True):
        assert row[:end] == whole[:end] and set(row[end:]) <= {whole[end - 1]}
        assert len(row) == max(ends), "the stream ends with its last row"


def test_lengths_of_rows_that_have_not_ended() -> None:
    stream = sample(Constant([0.0, -math.inf]), torch.tensor([[0]]), SamplingOptions(length=5, stop_ids=(1,)), seeded())
    next(stream), next(stream)
    assert stream.lengths.tolist() == [2] and stream.finished.tolist() == [False]


def test_the_model_runs_only_when_asked_and_inference_mode_stays_inside() -> None:
    chain = Chain()
    stream = sample(chain, torch.tensor([[0, 1]]), SamplingOptions(length=3, stop_ids=(99,)), seeded())
    assert chain.steps == 0
    tokens = next(stream)
    assert chain.steps == 2 and not torch.is_inference_mode_enabled()
    embedding = torch.nn.Embedding(4, 2)
    embedding(tokens).sum().backward()  # an inference tensor could not be kept for this
    assert len(list(stream)) == 2 and chain.steps == 4
    assert not stream.finished.is_inference() and not stream.lengths.is_inference()


def test_a_caller_cannot_change_the_text_through_what_it_was_given() -> None:
    prompt = torch.tensor([[0, 1]])
    wanted = taken(sample(Chain(), prompt, SamplingOptions(length=8, repetition_penalty=1.5), seeded()))
    stream = sample(Chain(), prompt, SamplingOptions(length=8, repetition_penalty=1.5), seeded())
    for step in range(8):
        tokens = next(stream)
        assert tokens.item() == wanted[0][step]
        tokens.zero_()


def test_a_processor_of_ones_own_sees_the_whole_history() -> None:
    seen = []

    def spy(logits: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        seen.append(history.tolist())
        return logits

    drawn = taken(sample(Chain(), torch.tensor([[0, 1]]), SamplingOptions(length=3), seeded(), processors=[spy]))[0]
    assert seen == [[[0, 1]], [[0, 1, drawn[0]]], [[0, 1, *drawn[:2]]]]
    forbidding = sample(Chain(3), torch.tensor([[0]] * 50), SamplingOptions(length=3), seeded(), processors=[Forbid((1,))])
    assert not (torch.stack(list(forbidding)) == 1).any()


def test_length_zero_and_an_empty_batch_give_nothing() -> None:
    assert list(sample(Chain(), torch.tensor([[0]]), SamplingOptions(length=0), seeded())) == []
    empty = torch.zeros(0, 2, dtype=torch.long)
    assert list(sample(Chain(), empty, SamplingOptions(length=5), seeded())) == []


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ([[]], "a prompt must have at least one symbol, got an empty one; begin with a line break or the start symbol"),
        ([[0, 4]], "the ids of a prompt must lie in 0..3 (the vocabulary), got 0..4"),
        ([[-1, 0]], "the ids of a prompt must lie in 0..3 (the vocabulary), got -1..0"),
    ],
)
def test_prompts_that_cannot_be_read(prompt: list[list[int]], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        sample(Chain(), torch.tensor(prompt, dtype=torch.long), SamplingOptions(), seeded())
    assert str(caught.value) == sentence


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0.5}, {"min_p": 0.5}])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_that_leave_no_choice_are_one_sentence(options: dict[str, float], batch: int) -> None:
    chosen, prompt = resolve(SamplingOptions, options), torch.zeros(batch, 1, dtype=torch.long)
    with pytest.raises(UserError, match=r"must be numbers, got NaN; the training of this model may have diverged"):
        next(sample(Constant([0.0, math.nan, 1.0]), prompt, chosen, seeded()))
    with pytest.raises(UserError, match=r"must leave at least one token, got -inf for all of them; forbid fewer tokens"):
        next(sample(Constant([0.0, 1.0]), prompt, chosen, seeded(), processors=[Forbid((0, 1))]))


def test_one_bad_row_of_a_batch_is_seen() -> None:
    logits = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [1.0, 0.0]])
    for choose in (likeliest, lambda x: draw(x, seeded())):
        with pytest.raises(UserError, match="NaN"):
            choose(logits)
    with pytest.raises(UserError, match=r"finite or -inf, got \+inf"):
        draw(torch.tensor([[0.0, math.inf]]), seeded())


def test_the_largest_share_falls_on_a_token_of_any_distribution() -> None:
    for size in (2, 65, 50_000):
        cumulated = torch.randn(200, size, generator=seeded()).softmax(-1, dtype=torch.float64).cumsum(-1)
        assert (cumulated[:, -1] > LARGEST_SHARE).all()


def test_a_share_of_zero_never_falls_on_a_token_without_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LARGEST_SHARE", 0.0)
    assert draw(torch.tensor([[-math.inf, 0.0, 1.0]]), seeded()).tolist() == [1]


def test_options_refuse_what_cannot_be() -> None:
    for wrong in ({"temperature": -1}, {"top_k": 0}, {"top_p": 2}, {"repetition_penalty": 0}, {"length": -1}, {"temprature": 1}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            resolve(SamplingOptions, wrong)


def test_toys_are_steppers() -> None:
    assert isinstance(Chain(), Stepper)

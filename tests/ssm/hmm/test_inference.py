"""Every form of inference against enumeration of all sequences of states, and the contracts of padding, batches and gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm.chain import Chain, banded, check_chain, left_to_right, stationary
from unrolled.ssm.hmm.inference import FORMS, filter, fitting, log_likelihood, posterior_decode, smooth, two_slice, viterbi
from unrolled.ssm.hmm.serial import SERIAL

FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def example(
    states: int, lengths: list[int], seed: int = 0, *, mask: torch.Tensor | None = None, varies: bool = False
) -> tuple[Chain, Padded]:
    generator = torch.Generator().manual_seed(seed)
    batch, time = len(lengths), max(lengths, default=0)
    allowed = torch.ones(states, states, dtype=torch.float64) if mask is None else mask.double()
    shape = (batch, time, states, states) if varies else (states, states)
    transition = torch.rand(*shape, generator=generator, dtype=torch.float64) * allowed
    initial = torch.rand(states, generator=generator, dtype=torch.float64)
    scores = torch.randn(batch, time, states, generator=generator, dtype=torch.float64) * 2
    chain = Chain(initial / initial.sum(), transition / transition.sum(-1, keepdim=True))
    return chain, Padded(scores, torch.tensor(lengths, dtype=torch.long))


def enumerated(chain: Chain, scores: Padded, row: int) -> dict[str, Any]:
    """All sums and maxima over every sequence of states, in plain numpy."""
    T, K = int(scores.lengths[row]), chain.states
    s, pi = scores.data[row].numpy(), chain.initial.numpy()
    joint: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(K), repeat=T):
        weight = 0.0
        with np.errstate(divide="ignore"):
            for t, state in enumerate(path):
                matrix = chain.matrix(t)[row] if chain.varies else chain.transition
                weight += s[t, state] + np.log(pi[state] if t == 0 else float(matrix[path[t - 1], state]))
        joint[path] = weight
    top = max(joint.values())
    total = sum(np.exp(value - top) for value in joint.values())
    smoothed, pairs = np.zeros((T, K)), np.zeros((T, K, K))
    for path, value in joint.items():
        share = np.exp(value - top) / total
        for t, state in enumerate(path):
            smoothed[t, state] += share
            if t:
                pairs[t, path[t - 1], state] += share
    return {"log": np.log(total) + top, "smoothed": smoothed, "pairs": pairs, "best": max(joint, key=joint.__getitem__), "top": top}


@FORM
@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("mask", [None, left_to_right(3), banded(3)], ids=["full", "left-to-right", "banded"])
def test_equals_enumeration(form: Any, varies: bool, mask: torch.Tensor | None) -> None:
    chain, scores = example(3, [4, 1, 3], mask=mask, varies=varies)
    smoothed, paths = smooth(chain, scores, form=form), viterbi(chain, scores, form=form)
    filtered, pairs = filter(chain, scores, form=form), two_slice(chain, smoothed)
    for row, length in enumerate(scores.lengths.tolist()):
        truth = enumerated(chain, scores, row)
        np.testing.assert_allclose(smoothed.log_likelihood[row], truth["log"], rtol=1e-10)
        np.testing.assert_allclose(smoothed.probabilities[row, :length], truth["smoothed"], atol=1e-12)
        np.testing.assert_allclose(pairs[row, :length], truth["pairs"], atol=1e-12)
        np.testing.assert_allclose(smoothed.transitions[row], truth["pairs"].sum(0), atol=1e-12)
        assert tuple(paths.states[row, :length].tolist()) == truth["best"]
        np.testing.assert_allclose(paths.scores[row], truth["top"], rtol=1e-10)
        for t in range(length):
            before = enumerated(chain, Padded(scores.data, torch.full_like(scores.lengths, t + 1)), row)
            np.testing.assert_allclose(filtered.probabilities[row, t], before["smoothed"][t], atol=1e-12)
            np.testing.assert_allclose(filtered.evidence[row, : t + 1].sum(), before["log"], rtol=1e-10)
            silent = scores.data.clone()
            silent[:, t] = 0
            unseen = enumerated(chain, Padded(silent, torch.full_like(scores.lengths, t + 1)), row)
            np.testing.assert_allclose(filtered.predicted[row, t], unseen["smoothed"][t], atol=1e-12)


@pytest.mark.parametrize("states", [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 17])
@pytest.mark.parametrize("varies", [False, True])
def test_forms_agree(states: int, varies: bool) -> None:
    chain, scores = example(states, [17, 0, 30, 1], varies=varies)
    expected, path = smooth(chain, scores, form=SERIAL), viterbi(chain, scores, form=SERIAL)
    for form in FORMS[1:]:
        torch.testing.assert_close(smooth(chain, scores, form=form), expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(viterbi(chain, scores, form=form), path, rtol=1e-9, atol=1e-11)


@FORM
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_longer_pad_changes_nothing_and_a_batch_equals_one_by_one(form: Any, lengths: list[int], seed: int) -> None:
    chain, scores = example(3, lengths, seed)
    longer = Padded(torch.cat([scores.data, scores.data.new_full((len(lengths), 3, 3), torch.nan)], 1), scores.lengths)
    longer.data[~longer.mask] = torch.nan
    whole, padded = smooth(chain, scores, form=form), smooth(chain, longer, form=form)
    time = scores.data.shape[1]
    torch.testing.assert_close(padded.probabilities[:, :time], whole.probabilities)
    assert (padded.probabilities[:, time:] == 0).all()
    torch.testing.assert_close(padded.transitions, whole.transitions)
    torch.testing.assert_close(padded.log_likelihood, whole.log_likelihood)
    assert (viterbi(chain, longer, form=form).states[~longer.mask] == -1).all()
    for row, length in enumerate(lengths):
        one = Padded(scores.data[row : row + 1, :length], scores.lengths[row : row + 1])
        alone = smooth(chain, one, form=form)
        torch.testing.assert_close(alone.probabilities[0], whole.probabilities[row, :length])
        torch.testing.assert_close(alone.log_likelihood[0], whole.log_likelihood[row])
        torch.testing.assert_close(viterbi(chain, one, form=form).scores[0], viterbi(chain, scores, form=form).scores[row])


@FORM
def test_a_silent_output_is_the_marginal(form: Any) -> None:
    """A score of 0 in every state means nothing was seen there: the sum over what it could have been."""
    chain, scores = example(2, [3])
    emission = torch.tensor([[0.2, 0.8], [0.7, 0.3]], dtype=torch.float64).log()
    symbols = [emission[:, symbol] for symbol in (0, 1)]
    found = []
    for middle in (*symbols, torch.zeros(2, dtype=torch.float64)):
        data = torch.stack([symbols[0], middle, symbols[1]]).unsqueeze(0)
        found.append(filter(chain, Padded(data, scores.lengths), form=form).log_likelihood[0])
    torch.testing.assert_close(torch.logaddexp(found[0], found[1]), found[2])


@pytest.mark.parametrize("form", [None, *FORMS], ids=lambda form: getattr(form, "name", "default"))
@pytest.mark.parametrize("varies", [False, True])
def test_gradients(form: Any, varies: bool) -> None:
    if form is not None and form.name == "compiled":
        pytest.skip("has none: `log_likelihood` gives them")
    chain, scores = example(3, [4, 0, 2], varies=varies)
    inputs = (*tuple(part.log().requires_grad_() for part in chain), scores.data.requires_grad_())

    def value(initial: torch.Tensor, transition: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return log_likelihood(Chain(initial.softmax(-1), transition.softmax(-1)), Padded(data, scores.lengths), form=form)

    assert torch.autograd.gradcheck(value, inputs)


def test_posteriors_have_gradients() -> None:
    chain, scores = example(2, [3, 2], mask=left_to_right(2))
    data = scores.data.requires_grad_()
    assert fitting(chain, scores) is SERIAL
    assert torch.autograd.gradcheck(lambda d: smooth(chain, Padded(d, scores.lengths)).probabilities, (data,))


@FORM
def test_what_cannot_be_is_said(form: Any) -> None:
    chain = Chain(torch.tensor([1.0, 0.0]).double(), torch.tensor([[1.0, 0.0], [0.5, 0.5]]).double())
    scores = Padded(torch.tensor([[[0.0, 0.0], [-torch.inf, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 3]).double(), torch.tensor([3, 3]))
    found = smooth(chain, scores, form=form)
    assert found.log_likelihood.tolist() == [-torch.inf, 0.0]
    assert (found.probabilities[0] == 0).all() and (found.transitions[0] == 0).all()
    assert found.filtered.probabilities[0].tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert viterbi(chain, scores, form=form).scores.tolist() == [-torch.inf, 0.0]


@FORM
def test_a_faint_state_may_win_in_the_end(form: Any) -> None:
    """Two states that never change: the second one is e^-2000 behind at first and wins, which scaled probabilities alone would never see."""
    chain = Chain(torch.tensor([0.5, 0.5]).double(), torch.eye(2).double())
    data = torch.zeros(1, 6, 2).double()
    data[0, :2, 1], data[0, 2:, 0] = -1000.0, -1000.0
    found = smooth(chain, Padded(data, torch.tensor([6])), form=form)
    np.testing.assert_allclose(found.log_likelihood, [-2000 + np.log(0.5)], rtol=1e-12)
    torch.testing.assert_close(found.probabilities[0], torch.tensor([[0.0, 1.0]]).double().expand(6, 2))


@FORM
def test_boundaries(form: Any) -> None:
    chain, scores = example(2, [0, 0])
    assert smooth(chain, scores, form=form).probabilities.shape == (2, 0, 2)
    assert viterbi(chain, scores, form=form).scores.tolist() == [0.0, 0.0]
    empty = Padded(torch.zeros(0, 3, 2).double(), torch.zeros(0, dtype=torch.long))
    assert smooth(chain, empty, form=form).transitions.shape == (0, 2, 2)
    single = Chain(torch.ones(1), torch.ones(1, 1))
    scores = Padded(torch.randn(2, 3, 1), torch.tensor([3, 2]))
    found = smooth(single, scores, form=form)
    assert found.probabilities.dtype == torch.float32 and found.probabilities[:, :, 0].tolist() == [[1, 1, 1], [1, 1, 0]]
    torch.testing.assert_close(found.log_likelihood, torch.where(scores.mask, scores.data[..., 0], 0).sum(1))


def test_decoding_step_by_step() -> None:
    chain, scores = example(3, [4, 2])
    assert posterior_decode(chain, scores)[1, 2:].tolist() == [-1, -1]
    assert (posterior_decode(chain, scores)[0] == smooth(chain, scores).probabilities[0].argmax(-1)).all()


def test_a_chain_that_is_none() -> None:
    good = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(DataError, match=r"every row of `transition` must sum to 1, got 0.9 in row 1: \[0.5, 0.4\]; divide"):
        check_chain(Chain(good[0], torch.tensor([[0.5, 0.5], [0.5, 0.4]])))
    with pytest.raises(DataError, match=r"`initial` must hold probabilities .* got \[1.5, -0.5\]"):
        check_chain(Chain(torch.tensor([1.5, -0.5]), good))
    with pytest.raises(DataError, match=r"must be \[states, states\].* got the shape \(3, 3\)"):
        check_chain(Chain(good[0], torch.ones(3, 3) / 3))
    with pytest.raises(DataError, match=r"must be \[batch, time, 2\]"):
        filter(Chain(good[0], good), Padded(torch.zeros(1, 2, 3), torch.tensor([2])))
    assert check_chain(Chain(good[0], good)).states == 2


def test_stationary() -> None:
    transition = torch.tensor([[0.9, 0.1], [0.3, 0.7]]).double()
    torch.testing.assert_close(stationary(transition), torch.tensor([0.75, 0.25]).double())

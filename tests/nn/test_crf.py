"""The CRF against the enumeration of all paths, finite differences, its own plain loop and pytorch-crf."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import IGNORED, Padded
from unrolled.data.label_transitions import allowed_transitions
from unrolled.nn import CRF, crf_partition

TIME = 5
LENGTHS = torch.tensor([3, 5, 0, 1, 4, 5, 2])
BIO = ["O", "B-a", "I-a", "B-b"]


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(kind: str, labels: int) -> dict[str, Tensor]:
    """What is allowed: everything, BIO, left to right (never mixes), or a cycle beside a label that leads nowhere."""
    every = torch.ones(labels, labels, dtype=torch.bool)
    if kind == "all":
        return {}
    if kind == "bio":
        found = allowed_transitions(BIO[:labels], "bio")
        return {"allowed_transitions": found.transitions, "allowed_first": found.first, "allowed_last": found.last}
    if kind == "right":
        return {"allowed_transitions": every.triu(), "allowed_last": torch.arange(labels) > 0}
    around = torch.roll(torch.eye(labels, dtype=torch.bool), 1, 1) | torch.eye(labels, dtype=torch.bool)
    return {"allowed_transitions": around & (torch.arange(labels) > 0), "allowed_first": torch.arange(labels) != 1}


KINDS = ["all", "bio", "right", "around"]


def make(labels: int, kind: str = "all", seed: int = 0, scale: float = 1.0) -> CRF:
    crf = CRF(labels, **masks(kind, labels)).double()
    with torch.no_grad():
        for i, parameter in enumerate(crf.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=seed + i, scale=scale))
    return crf


def every_path(crf: CRF, emissions: Tensor, **allowed: Tensor) -> dict[tuple[int, ...], float]:
    """The score of each allowed path, one by one."""
    start, end, transitions, steps = (some.tolist() for some in (crf.start, crf.end, crf.transitions, emissions))
    every = {"first": [True] * crf.labels, "last": [True] * crf.labels, "transitions": [[True] * crf.labels] * crf.labels}
    first, last, follows = (allowed[f"allowed_{k}"].tolist() if f"allowed_{k}" in allowed else v for k, v in every.items())
    found = {}
    for path in product(range(crf.labels), repeat=len(steps)):
        pairs = list(pairwise(path))
        if not path:
            found[path] = 0.0
        elif first[path[0]] and last[path[-1]] and all(follows[i][j] for i, j in pairs):
            inside = sum(steps[t][k] for t, k in enumerate(path)) + sum(transitions[i][j] for i, j in pairs)
            found[path] = start[path[0]] + end[path[-1]] + inside
    return found


def total_of(paths: dict[tuple[int, ...], float]) -> Tensor:
    return torch.tensor(list(paths.values()), dtype=torch.float64).logsumexp(0)


def possible(kind: str, labels: int) -> Tensor:
    """Lengths of `LENGTHS` that have a path."""
    crf = make(labels, kind)
    return torch.tensor([bool(every_path(crf, torch.zeros(n, labels), **masks(kind, labels))) for n in LENGTHS.tolist()])


def batch(kind: str, labels: int, scale: float = 1.0) -> Padded:
    lengths = LENGTHS[possible(kind, labels)]
    data = numbers(len(lengths), TIME, labels, seed=9, scale=scale)
    for row, length in enumerate(lengths.tolist()):
        data[row, length:] = math.nan  # nothing past a length is ever looked at
    return Padded(data, lengths)


cases = pytest.mark.parametrize(("kind", "labels"), [*product(KINDS, [2, 3, 4]), ("all", 1)])


@pytest.fixture(params=["scaled", "loop"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to sum over paths."""
    if request.param == "loop":
        monkeypatch.setattr(crf_partition, "safe_stride", lambda *_: 0)
    return request.param


@cases
def test_probabilities_equal_enumeration(kind: str, labels: int, way: str) -> None:
    crf, emissions = make(labels, kind), batch(kind, labels)
    partition, marginals = crf.log_partition(emissions), crf.marginals(emissions)
    for row, own in enumerate(emissions.unpad()):
        paths = every_path(crf, own, **masks(kind, labels))
        total = total_of(paths)
        torch.testing.assert_close(partition[row], total)
        expected = torch.zeros(TIME, labels, dtype=torch.float64)
        gold = torch.full((len(paths), TIME), IGNORED)
        for i, (path, score) in enumerate(paths.items()):
            gold[i, : len(path)] = torch.tensor(path, dtype=torch.long)
            for t, k in enumerate(path):
                expected[t, k] += math.exp(score - total)
        torch.testing.assert_close(marginals[row], expected)
        assert torch.equal(marginals[row] == 0, expected == 0), "what is forbidden has exactly nothing"
        many = Padded(emissions.data[row].expand(len(paths), -1, -1), emissions.lengths[row].expand(len(paths)))
        likelihoods = crf.log_likelihood(many, gold)
        torch.testing.assert_close(likelihoods, torch.tensor(list(paths.values()), dtype=torch.float64) - total)
        torch.testing.assert_close(likelihoods.exp().sum(), torch.ones((), dtype=torch.float64))


@cases
@pytest.mark.parametrize("n", [1, 3, 40])
def test_best_paths_equal_sorted_enumeration(kind: str, labels: int, n: int) -> None:
    crf, emissions = make(labels, kind), batch(kind, labels)
    decoded, found = crf.decode(emissions), crf.n_best(emissions, n)
    for row, own in enumerate(emissions.unpad()):
        paths = every_path(crf, own, **masks(kind, labels))
        total = total_of(paths)
        best = sorted(paths.items(), key=lambda one: -one[1])[:n]
        assert found.counts[row] == len(best)
        length = len(own)
        assert [tuple(path[:length].tolist()) for path in found.paths[row, : len(best)]] == [path for path, _ in best]
        assert (found.paths[row, len(best) :] == IGNORED).all() and (found.paths[row, :, length:] == IGNORED).all()
        torch.testing.assert_close(
            found.log_probabilities[row, : len(best)], torch.tensor([s for _, s in best], dtype=torch.float64) - total
        )
        assert (found.log_probabilities[row, len(best) :] == -math.inf).all()
        assert tuple(decoded.paths[row, :length].tolist()) == best[0][0]
        assert (decoded.paths[row, length:] == IGNORED).all()
        assert decoded.scores[row].item() == pytest.approx(best[0][1], abs=1e-12)


@pytest.mark.parametrize(("kind", "labels"), [*product(KINDS, [3]), ("all", 1)])
def test_gradients_equal_finite_differences(kind: str, labels: int, way: str) -> None:
    crf, (data, lengths) = make(labels, kind), batch(kind, labels)
    few = (lengths < 4) & (lengths != 1)
    data, lengths = data[few, :3].nan_to_num(0.5).requires_grad_(), lengths[few]
    gold = crf.decode(Padded(data, lengths)).paths

    def likelihood(data: Tensor, *parameters: Tensor) -> Tensor:
        values = dict(zip(("transitions", "start", "end"), parameters, strict=True))
        return torch.func.functional_call(_Likelihood(crf), {f"crf.{k}": v for k, v in values.items()}, (Padded(data, lengths), gold))

    assert torch.autograd.gradcheck(likelihood, (data, *crf.parameters()))
    if labels == 3:
        assert torch.autograd.gradgradcheck(likelihood, (data, *crf.parameters()))


class _Likelihood(torch.nn.Module):
    def __init__(self, crf: CRF) -> None:
        super().__init__()
        self.crf = crf

    def forward(self, emissions: Padded, labels: Tensor) -> Tensor:
        return self.crf.log_likelihood(emissions, labels)


def test_marginals_can_be_differentiated(way: str) -> None:
    crf, lengths = make(3), torch.tensor([2, 0, 3])
    data = numbers(3, 3, 3).requires_grad_()
    torch.testing.assert_close(crf.marginals(Padded(data, lengths)), crf.marginals(Padded(data.detach(), lengths)))
    assert torch.autograd.gradcheck(lambda data: crf.marginals(Padded(data, lengths)), (data,))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_one_by_one_and_more_padding_changes_nothing(kind: str, way: str) -> None:
    crf, emissions = make(4, kind), batch(kind, 4)
    gold = crf.decode(emissions).paths
    wider = Padded(torch.cat([emissions.data, torch.full((len(gold), 3, 4), math.inf).double()], 1), emissions.lengths)
    more = torch.cat([gold, torch.full((len(gold), 3), 77)], 1)
    torch.testing.assert_close(crf.log_likelihood(wider, more), crf.log_likelihood(emissions, gold), rtol=1e-14, atol=0)
    torch.testing.assert_close(crf.marginals(wider)[:, :TIME], crf.marginals(emissions), rtol=1e-14, atol=0)
    assert not crf.marginals(wider)[:, TIME:].any()
    assert torch.equal(crf.decode(wider).paths[:, :TIME], gold)
    assert torch.equal(crf.n_best(wider, 4).paths[:, :, :TIME], crf.n_best(emissions, 4).paths)
    for row in range(len(gold)):
        some = slice(row, row + 1)
        one = Padded(emissions.data[some], emissions.lengths[some])
        torch.testing.assert_close(crf.log_likelihood(one, gold[some]), crf.log_likelihood(emissions, gold)[some])
        torch.testing.assert_close(crf.marginals(one), crf.marginals(emissions)[some])
        assert torch.equal(crf.decode(one).paths, gold[some])
        assert torch.equal(crf.n_best(one, 4).paths, crf.n_best(emissions, 4).paths[some])


def test_both_ways_agree_on_long_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many scalings, many labels (a product for each direction), strong scores."""
    for labels, scale, time in ((5, 6.0, 700), (crf_partition.BLOCK + 1, 3.0, 60)):
        crf, lengths = make(labels, scale=scale), torch.tensor([time, time // 2, 0, time - 1])
        data = numbers(4, time, labels, seed=3, scale=scale).requires_grad_()
        gold = crf.decode(Padded(data, lengths)).paths
        results = []
        for disturbed in (False, True):
            with monkeypatch.context() as patch:
                if disturbed:
                    patch.setattr(crf_partition, "safe_stride", lambda *_: 0)
                likelihood = crf.log_likelihood(Padded(data, lengths), gold)
                marginals = crf.marginals(Padded(data.detach(), lengths))
                results.append((likelihood, marginals, *torch.autograd.grad(likelihood[1:].sum(), [data, *crf.parameters()])))
        for fast, plain in zip(*results, strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [40.0, 1e4])
def test_huge_scores_stay_finite(kind: str, scale: float) -> None:
    crf, emissions = make(4, kind, scale=scale).float(), batch(kind, 4, scale=scale)
    data = emissions.data.nan_to_num(0).float().requires_grad_()
    emissions = Padded(data, emissions.lengths)
    gold = crf.decode(emissions).paths
    likelihood = crf.log_likelihood(emissions, gold)
    assert likelihood.isfinite().all() and (likelihood <= 0).all()
    likelihood.sum().backward()
    assert all(some.grad is not None and some.grad.isfinite().all() for some in (data, *crf.parameters()))
    marginals = crf.marginals(Padded(data.detach(), emissions.lengths))
    torch.testing.assert_close(marginals.sum(2), emissions.mask.float())
    for row, own in enumerate(data.detach().double()):
        length = int(emissions.lengths[row])
        paths = every_path(make(4, kind, scale=scale), own[:length], **masks(kind, 4))
        total = total_of(paths).item()
        assert crf.log_partition(emissions)[row].item() == pytest.approx(total, rel=1e-5, abs=1e-2)


def test_a_range_at_the_limit_of_probability_space_is_exact() -> None:
    """The only path that may end was 10^-60 times as likely as another for many steps."""
    transitions = torch.tensor([[True, True], [True, True]])
    crf = CRF(2, allowed_transitions=transitions, allowed_last=torch.tensor([False, True]))
    data = torch.zeros(1, 40, 2, dtype=torch.float64)
    with torch.no_grad():
        crf.transitions.copy_(torch.tensor([[0.0, -60.0], [-60.0, 0.0]]))
    data[..., 0] = 30.0
    emissions = Padded(data, torch.tensor([40]))
    made = crf_partition.potentials(data[0], crf._rows(emissions), crf._scores(data), crf.mixing)
    assert made is not None and made.stride >= 1
    loop = crf_partition.log_partition_loop(data[0], crf._rows(emissions), crf._scores(data))
    torch.testing.assert_close(crf.log_partition(emissions), loop.detach(), rtol=1e-13, atol=0)


def test_forbidden_scores_have_no_gradient_and_change_nothing() -> None:
    crf, emissions = make(4, "bio"), batch("bio", 4)
    gold = crf.decode(emissions).paths
    before = crf.log_likelihood(emissions, gold)
    before.sum().backward()
    forbidden = ~masks("bio", 4)["allowed_transitions"]
    assert not crf.transitions.grad[forbidden].any() and crf.transitions.grad[~forbidden].any()
    with torch.no_grad():
        crf.transitions[forbidden] = 1e6
    assert torch.equal(crf.log_likelihood(emissions, gold), before)
    assert torch.equal(crf.decode(emissions).paths, gold)


def test_low_precision_comes_out_in_single_precision() -> None:
    crf, emissions = make(4, "bio").float(), batch("bio", 4)
    rounded = Padded(emissions.data.bfloat16(), emissions.lengths)
    exact = Padded(rounded.data.double(), emissions.lengths)
    gold = crf.decode(exact).paths
    with torch.autocast("cpu", dtype=torch.bfloat16):
        likelihood, marginals, decoded = crf.log_likelihood(rounded, gold), crf.marginals(rounded), crf.decode(rounded)
        best = crf.n_best(rounded, 3)
    assert likelihood.dtype == marginals.dtype == decoded.scores.dtype == best.log_probabilities.dtype == torch.float32
    torch.testing.assert_close(likelihood.double(), crf.log_likelihood(exact, gold), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(marginals.double(), crf.marginals(exact), rtol=1e-6, atol=1e-7)
    assert torch.equal(decoded.paths, gold)


def test_nothing_at_all() -> None:
    for lengths in (torch.zeros(3, dtype=torch.long), torch.zeros(0, dtype=torch.long)):
        for time in (0, 2):
            crf, batch = make(3), len(lengths)
            data = torch.full((batch, time, 3), math.nan, requires_grad=True)
            emissions, gold = Padded(data, lengths), torch.full((batch, time), IGNORED)
            likelihood = crf.log_likelihood(emissions, gold)
            assert likelihood.shape == (batch,) and not likelihood.any()
            likelihood.sum().backward()
            assert data.grad is not None and not data.grad.any()
            assert not crf.marginals(emissions).any()
            assert torch.equal(crf.decode(emissions).paths, gold)
            found = crf.n_best(emissions, 2)
            assert found.paths.shape == (batch, 2, time) and found.counts.tolist() == [1] * batch
            assert found.log_probabilities.tolist() == [[0.0, -math.inf]] * batch


def test_non_numbers_are_not_hidden() -> None:
    data = torch.zeros(2, 3, 3)
    data[0, 1, 1] = math.nan
    likelihood = make(3).log_likelihood(Padded(data, torch.tensor([3, 3])), torch.zeros(2, 3, dtype=torch.long))
    assert likelihood.isnan().tolist() == [True, False]


def test_what_fits_no_path_is_refused() -> None:
    crf = CRF(2, allowed_transitions=torch.tensor([[False, True], [False, False]]), allowed_first=torch.tensor([True, False]))
    emissions = Padded(torch.zeros(3, 3, 2), torch.tensor([1, 2, 0]))
    assert crf.decode(emissions).paths.tolist() == [[0, IGNORED, IGNORED], [0, 1, IGNORED], [IGNORED] * 3]
    for method in (crf.decode, crf.marginals, crf.log_partition, lambda e: crf.n_best(e, 2)):
        with pytest.raises(DataError, match="row 2 of length 3, which has none"):
            method(Padded(torch.zeros(3, 3, 2), torch.tensor([1, 2, 3])))
    even = CRF(2, allowed_transitions=torch.tensor([[False, True], [True, False]]), **ends(0, 1))
    even.decode(Padded(torch.zeros(2, 6, 2), torch.tensor([6, 4])))
    with pytest.raises(DataError, match="row 1 of length 5"):
        even.decode(Padded(torch.zeros(2, 6, 2), torch.tensor([6, 5])))


def ends(first: int, last: int) -> dict[str, Tensor]:
    return {"allowed_first": torch.arange(2) == first, "allowed_last": torch.arange(2) == last}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "label 2 after label 0 at step 1 of row 1"),
        ([2, 2], "row 1, which begins with label 2"),
        ([0, 4], "0..3 within the lengths, got 0..4"),
        ([-1, 0], "0..3 within the lengths, got -1..0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], message: str) -> None:
    emissions = Padded(torch.zeros(2, 3, 4), torch.tensor([0, 2]))
    given = torch.tensor([[9, 9, 9], [*labels, 9]])
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        make(4, "bio").float().log_likelihood(emissions, given)


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="`labels` must be at least 1, got 0"):
        CRF(0)
    with pytest.raises(ConfigurationError, match=r"`allowed_first` must have the shape \(2,\) for 2 labels, got \(3,\)"):
        CRF(2, allowed_first=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ConfigurationError, match="no such path"):
        CRF(2, allowed_transitions=torch.eye(2, dtype=torch.bool), **ends(0, 1))
    crf = CRF(2)
    with pytest.raises(DataError, match=r"numbers \[batch, time, 2\], got torch.float32 of shape \(1, 2, 3\)"):
        crf.decode(Padded(torch.zeros(1, 2, 3), torch.tensor([2])))
    with pytest.raises(DataError, match=r"`lengths` must lie in 0\.\.2"):
        crf.decode(Padded(torch.zeros(1, 2, 2), torch.tensor([3])))
    with pytest.raises(DataError, match=r"the shape of the emissions, \(1, 2\), got \(1, 3\)"):
        crf.log_likelihood(Padded(torch.zeros(1, 2, 2), torch.tensor([2])), torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ConfigurationError, match="`n` must be at least 1, got 0"):
        crf.n_best(Padded(torch.zeros(1, 2, 2), torch.tensor([2])), 0)


def test_only_scores_are_saved() -> None:
    crf = make(4, "bio")
    assert set(crf.state_dict()) == {"transitions", "start", "end"}
    other = CRF(4, **masks("bio", 4)).double()
    other.load_state_dict(crf.state_dict())
    assert torch.equal(other.marginals(batch("bio", 4)), crf.marginals(batch("bio", 4)))


@pytest.mark.parametrize("labels", [5, 17])
def test_equals_pytorch_crf(labels: int) -> None:
    torchcrf = pytest.importorskip("torchcrf")
    ours, theirs = make(labels), torchcrf.CRF(labels, batch_first=True).double()
    theirs.load_state_dict({"transitions": ours.transitions, "start_transitions": ours.start, "end_transitions": ours.end})
    lengths = torch.tensor([30, 12, 1, 29])
    data = numbers(4, 30, labels, seed=5)
    emissions, gold = Padded(data, lengths), torch.randint(labels, (4, 30), generator=torch.Generator().manual_seed(1))
    mask = emissions.mask
    decoded = ours.decode(emissions).paths
    assert [path[path != IGNORED].tolist() for path in decoded] == theirs.decode(data, mask)
    gradients = []
    for crf, likelihood in (
        (ours, lambda data: ours.log_likelihood(Padded(data, lengths), gold)),
        (theirs, lambda data: theirs(data, gold, mask, reduction="none")),
    ):
        own = data.clone().requires_grad_()
        value = likelihood(own)
        named = {name.split("_")[0]: p for name, p in crf.named_parameters()}
        gradients.append((value, *torch.autograd.grad(value.sum(), [own, *(named[n] for n in ("start", "end", "transitions"))])))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)

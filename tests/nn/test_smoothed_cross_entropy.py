"""Label smoothing with a gradient of our own, held to torch's cross entropy."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from unrolled.nn.softmax import smoothed_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradients_are_torchs(smoothing: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(7, 11, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(11, (7,), generator=generator)
    objective, nats = smoothed_cross_entropy(logits, targets, smoothing)
    (2.5 * objective).backward()
    found, logits.grad = logits.grad, None
    expected = cross_entropy(logits.to(torch.promote_types(dtype, torch.float32)), targets, reduction="sum", label_smoothing=smoothing)
    (2.5 * expected).backward()
    torch.testing.assert_close(objective, expected)
    torch.testing.assert_close(nats, cross_entropy(logits.to(nats.dtype), targets, reduction="sum"))
    torch.testing.assert_close(found, logits.grad)
    assert found.dtype == dtype


def test_finite_differences() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda x: smoothed_cross_entropy(x, targets, 0.2)[0], (logits,))


def test_nothing_to_score() -> None:
    objective, nats = smoothed_cross_entropy(torch.zeros(0, 5, requires_grad=True), torch.zeros(0, dtype=torch.long), 0.1)
    objective.backward()
    assert objective.item() == nats.item() == 0


def test_in_stretches_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = torch.randn(11, 6, generator=torch.Generator().manual_seed(1)).requires_grad_(), torch.arange(11) % 6
    whole = smoothed_cross_entropy(logits, targets, 0.1)
    (of_whole,) = torch.autograd.grad(whole[0], logits)
    monkeypatch.setattr("unrolled.nn.softmax.CACHED", 4 * 6)
    pieces = smoothed_cross_entropy(logits, targets, 0.1)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces[0], logits)[0], of_whole)

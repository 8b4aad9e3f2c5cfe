"""Attribution against closed forms, finite differences, and what must not matter: batches, padding, the order of targets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.padded import Padded
from unrolled.lens import Attribution, gradient_times_input, integrated_gradients
from unrolled.models.classifier import Classifier
from unrolled.models.text_encoder_settings import ClassifierSettings
from unrolled.nn.cells import GRU, LSTM
from unrolled.nn.recurrence import Bidirectional, Recurrence
from unrolled.tasks.label_look import repeated

METHODS: list[Callable[..., Attribution]] = [integrated_gradients, gradient_times_input]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("from_zero", [True, False])
def test_a_linear_score_is_weight_times_input(method: Callable[..., Attribution], from_zero: bool) -> None:
    weights, vectors = drawn(3, 5, 4), drawn(3, 5, 4, seed=1)
    baseline = torch.zeros_like(vectors) if from_zero else drawn(3, 5, 4, seed=2)
    found = method(lambda rows, targets: (rows * weights[targets]).sum((1, 2)) + 7, vectors, baseline)
    torch.testing.assert_close(found.contributions, (weights * (vectors - baseline)).sum(2))
    torch.testing.assert_close(found.gaps, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(found.baselines, (weights * baseline).sum((1, 2)) + 7)


def test_powers_have_a_closed_form() -> None:
    """`F = Σ x³ + Π_t x_t` with one feature: a cube keeps all of itself, a product of two is shared equally from a baseline of zero."""
    vectors = torch.tensor([[[2.0], [-3.0]]], dtype=torch.float64)

    def score(rows: Tensor, targets: Tensor) -> Tensor:
        return rows.pow(3).sum((1, 2)) + rows[:, 0, 0] * rows[:, 1, 0]

    found = integrated_gradients(score, vectors, torch.zeros_like(vectors), steps=2)  # exact up to polynomials of degree 3
    torch.testing.assert_close(found.contributions, torch.tensor([[8.0 - 3, -27.0 - 3]], dtype=torch.float64))
    slope = gradient_times_input(score, vectors, torch.zeros_like(vectors))
    torch.testing.assert_close(slope.contributions, torch.tensor([[2 * (12.0 - 3), -3 * (27.0 + 2)]], dtype=torch.float64))
    assert abs(float(slope.gaps[0])) > 1


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "oneDNN LSTM": lambda: Bidirectional(LSTM(4, 6), LSTM(4, 6), outputs_only=True),
    "plain GRU": lambda: Recurrence(GRU(4, 6), plain=True),
    "compiled GRU": lambda: Recurrence(GRU(4, 64)),
}


def score_of(kind: str, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    torch.manual_seed(3)
    layer = LAYERS[kind]().to(dtype).eval()
    readout = nn.Linear(layer.output_size, 3).to(dtype)  # type: ignore[arg-type]

    def score(rows: Tensor, targets: Tensor) -> Tensor:
        outputs, _ = layer(repeated(rows, len(rows)))
        found: Tensor = readout(outputs.data.tanh().mean(1)).gather(1, targets.unsqueeze(1)).squeeze(1)
        return found

    return score


@pytest.mark.parametrize("kind", LAYERS)
def test_slopes_of_recurrent_layers_in_evaluation_are_finite_differences(kind: str) -> None:
    score, vectors = score_of(kind, torch.float64), drawn(3, 4, 4)
    found = gradient_times_input(score, vectors, torch.zeros_like(vectors))
    step, wanted = 1e-5, torch.zeros(3, 4, dtype=torch.float64)
    with torch.no_grad():
        for t in range(4):
            along = torch.zeros_like(vectors)
            along[:, t] = vectors[:, t]  # the derivative along the input itself is Σ_d x_d ∂F/∂x_d
            wanted[:, t] = (score(vectors + step * along, torch.arange(3)) - score(vectors - step * along, torch.arange(3))) / (2 * step)
    torch.testing.assert_close(found.contributions, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_contributions_add_up_and_more_steps_leave_less(kind: str) -> None:
    score, vectors = score_of(kind, torch.float64), 2 * drawn(3, 6, 4)
    gaps = [integrated_gradients(score, vectors, torch.zeros_like(vectors), steps=n).gaps.abs().max() for n in (1, 32)]
    assert gaps[1] < 1e-6 < gaps[0]


@pytest.mark.parametrize("method", METHODS)
def test_neither_the_batch_nor_the_order_of_targets_matters(method: Callable[..., Attribution]) -> None:
    score, vectors = score_of("plain GRU", torch.float64), drawn(3, 6, 4)
    baseline = torch.zeros_like(vectors)
    whole = method(score, vectors, baseline)
    for at_once in (1, 7, 18, 100):
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, method(score, vectors, baseline, at_once=at_once), strict=True))
    order = torch.tensor([2, 0, 1])
    turned = method(lambda rows, targets: score(rows, order[targets]), vectors[order], baseline)
    torch.testing.assert_close(turned.contributions, whole.contributions[order])


def test_no_more_is_read_at_once_than_is_said() -> None:
    seen = []

    def score(rows: Tensor, targets: Tensor) -> Tensor:
        seen.append(rows.shape[0] * rows.shape[1])
        return rows.sum((1, 2))

    integrated_gradients(score, drawn(3, 10, 2), torch.zeros(3, 10, 2, dtype=torch.float64), steps=5, at_once=20)
    assert max(seen) == 20 and sum(seen) == 3 * 5 * 10 + 2 * 3 * 10


@pytest.mark.parametrize("kind", ["recurrent", "transformer", "convolutional"])
@pytest.mark.parametrize("pooling", ["attention", "max"])
def test_padding_gets_nothing_and_changes_nothing(kind: str, pooling: str) -> None:
    torch.manual_seed(0)
    settings = ClassifierSettings.model_validate(
        {"hidden_size": 8, "embedding_size": 6, "pooling": pooling, "encoder": {"kind": kind, "layers": 1}, "transformer": {"heads": 2}}
    )
    model = Classifier(settings, 10, None, 2).eval()
    vectors, padding = drawn(1, 5, 6).float(), drawn(1, 3, 6, seed=1).float()

    def score(rows: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = model.score(Padded(rows, torch.full((len(rows),), 5)))
        return logits[:, 1]

    plain = integrated_gradients(score, vectors, torch.zeros_like(vectors), steps=8)
    padded = torch.cat([vectors, padding], 1)
    found = integrated_gradients(score, padded, torch.zeros_like(padded), steps=8)
    assert bool((found.contributions[:, 5:] == 0).all())
    torch.testing.assert_close(found.contributions[:, :5], plain.contributions, rtol=1e-4, atol=1e-6)


def test_no_target_is_no_work() -> None:
    found = integrated_gradients(lambda rows, targets: rows.sum((1, 2)), torch.zeros(0, 4, 2), torch.zeros(0, 4, 2))
    assert found.contributions.shape == (0, 4) and found.gaps.shape == (0,)

"""What a forecaster says of a value: its losses against torch and by hand, its quantiles, and what moving a series does to them."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from unrolled.models.forecaster_settings import OutputSettings
from unrolled.models.forecasts import OUTPUTS, Gaussian, Output, Point, Quantiles, mean_where

KINDS: dict[str, Output] = {name: make(OutputSettings()) for name, make in OUTPUTS.items()}


def said_of(output: Output, rows: int = 50) -> torch.Tensor:
    return torch.randn(rows, output.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_loss_of_a_gaussian_is_its_negative_log_likelihood() -> None:
    said, truth = said_of(Gaussian()), torch.linspace(-3, 3, 50, dtype=torch.float64)
    own = Normal(said[:, 0], said[:, 1].exp())
    torch.testing.assert_close(Gaussian().loss(said, truth), -own.log_prob(truth))
    levels = [0.1, 0.5, 0.9]
    wanted = torch.stack([own.icdf(torch.tensor(level, dtype=torch.float64)) for level in levels], -1)
    torch.testing.assert_close(Gaussian().quantiles(said, levels), wanted)
    torch.testing.assert_close(Gaussian().best(said), own.mean)


def test_a_gaussian_cannot_be_endlessly_narrow() -> None:
    said = torch.tensor([[0.0, -1000.0]])
    assert torch.isfinite(Gaussian().loss(said, torch.tensor([0.1]))).all()
    assert torch.isfinite(Gaussian().moved(said, torch.tensor([2.0]), torch.tensor([0.0]))).all()


def test_pinball_losses_by_hand() -> None:
    output = Quantiles((0.1, 0.5, 0.9))
    said = torch.tensor([[1.0, 2.0, 4.0]])
    # The truth is 3: it lies 2 above the first, 1 above the second, 1 below the third quantile.
    assert output.loss(said, torch.tensor([3.0])).item() == pytest.approx(2 * (0.1 * 2 + 0.5 * 1 + 0.1 * 1) / 3)
    assert Quantiles((0.5,)).loss(torch.tensor([[1.0]]), torch.tensor([4.0])).item() == 3
    assert output.best(said).item() == 2


def test_the_pinball_loss_is_lowest_at_the_quantiles() -> None:
    values = torch.arange(1.0, 1000.0)
    output = Quantiles((0.1, 0.5, 0.9))

    def loss(*quantiles: float) -> float:
        return output.loss(torch.tensor(quantiles, dtype=torch.float32).expand(len(values), 3), values).mean().item()

    best = loss(100, 500, 900)
    for other in ((120, 500, 900), (80, 500, 900), (100, 480, 900), (100, 500, 880), (100, 500, 920)):
        assert best < loss(*other)


def test_quantiles_that_cross_are_put_in_order_and_lines_lie_between() -> None:
    output = Quantiles((0.1, 0.5, 0.9))
    said = torch.tensor([[4.0, 1.0, 2.0]])
    assert output.best(said).item() == 2
    found = output.quantiles(said, (0.1, 0.3, 0.5, 0.8, 0.9))
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.5, 2.0, 3.5, 4.0]]))
    assert output.quantiles(said, (0.05, 0.9)) is None
    assert output.quantiles(said, (0.1, 0.95)) is None
    assert Point().quantiles(torch.ones(1, 1), (0.1, 0.9)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_a_moved_value_is_the_moved_saying(kind: str) -> None:
    output, truth = KINDS[kind], torch.linspace(-2, 2, 50, dtype=torch.float64)
    said = said_of(output)
    scale, shift = torch.rand(50, dtype=torch.float64) + 0.5, torch.randn(50, dtype=torch.float64)
    moved = output.moved(said, scale, shift)
    torch.testing.assert_close(output.best(moved), output.best(said) * scale + shift)
    before, after = output.quantiles(said, (0.2, 0.7)), output.quantiles(moved, (0.2, 0.7))
    if before is not None and after is not None:
        torch.testing.assert_close(after, before * scale.unsqueeze(1) + shift.unsqueeze(1))
    losses, again = output.loss(said, truth), output.loss(moved, truth * scale + shift)
    wanted = {"gaussian": losses + scale.log(), "quantiles": losses * scale, "point": losses * scale**2}[kind]
    torch.testing.assert_close(again, wanted)


def test_the_mean_of_what_is_there() -> None:
    values = torch.tensor([1.0, float("nan"), 3.0])
    assert mean_where(values, torch.tensor([True, False, True])).item() == 2
    assert mean_where(values, torch.tensor([False, False, False])).item() == 0


def test_quantiles_must_rise() -> None:
    for wanted in ((0.5, 0.1, 0.9), (0.1, 0.9), (0.0, 0.5, 1.0), ()):
        with pytest.raises(ValueError, match="must be an odd number of rising values between 0 and 1"):
            OutputSettings(quantiles=wanted)

"""The model of forecasting: what it may see, what a moved series does to its forecast, windows that patches do not divide."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unrolled.core.noise import Noise
from unrolled.core.settings import resolve
from unrolled.models.forecaster import Forecaster, Shape
from unrolled.models.forecaster_settings import ForecasterSettings

SHAPE = Shape(lookback=11, horizon=7, targets=3, marks=2, patch=4)


def forecaster(shape: Shape = SHAPE, **changes: Any) -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(resolve(ForecasterSettings, {"hidden_size": 8, "transformer": {"heads": 2}, **changes}), shape).double()


def given(shape: Shape = SHAPE, rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    past = torch.randn(rows, shape.lookback, shape.targets, generator=draw, dtype=torch.float64)
    return past, torch.randn(rows, shape.lookback + shape.horizon, shape.marks, generator=draw, dtype=torch.float64)


ENCODERS: list[dict[str, Any]] = [
    {"kind": "recurrent"},
    {"kind": "recurrent", "cell": "lstm", "layers": 2, "bidirectional": True},
    {"kind": "transformer"},
    {"kind": "convolutional"},
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: "-".join(map(str, encoder.values())))
@pytest.mark.parametrize("channels", ["independent", "joint"])
@pytest.mark.parametrize("output", ["gaussian", "quantiles", "point"])
def test_every_combination_gives_a_forecast_of_each_row_by_itself(encoder: dict[str, Any], channels: str, output: str) -> None:
    model = forecaster(encoder=encoder, channels=channels, output={"kind": output}).eval()
    past, marks = given()
    said = model(past, marks)
    assert said.shape == (5, 7, 3, model.output.width)
    alone = torch.cat([model(past[row : row + 1], marks[row : row + 1]) for row in range(5)])
    torch.testing.assert_close(said, alone)
    said.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    "shape",
    [
        Shape(12, 8, 2, 0, 4),
        Shape(13, 5, 1, 1, 4),
        Shape(4, 1, 2, 2, 4),
        Shape(1, 1, 1, 0, 1),
        Shape(5, 3, 1, 0, 5),
    ],
)
@pytest.mark.parametrize("channels", ["independent", "joint"])
def test_patches_need_not_divide_the_window(shape: Shape, channels: str) -> None:
    model = forecaster(shape, channels=channels).eval()
    past, marks = given(shape)
    assert model(past, marks).shape == (5, shape.horizon, shape.targets, 2)
    skipped = shape.lookback % shape.patch  # only the oldest points are left out
    changed = past.clone()
    changed[:, :skipped] += 1
    torch.testing.assert_close(model(changed, marks), model(past, marks))
    changed[:, skipped] += 1
    if shape.lookback > 1:  # of a single point, nothing is left when it is subtracted
        assert not torch.allclose(model(changed, marks), model(past, marks))


@pytest.mark.parametrize("channels", ["independent", "joint"])
def test_a_shift_of_a_centred_series_shifts_its_forecast(channels: str) -> None:
    past, marks = given()
    shift = torch.tensor([10.0, -3.0, 0.5], dtype=torch.float64)
    for centre, held in (("last", True), ("mean", True), ("none", False)):
        model = forecaster(channels=channels, centre=centre, output={"kind": "point"}).eval()
        moved, wanted = model(past + shift, marks), model(past, marks) + shift.view(3, 1)
        assert torch.allclose(moved, wanted) == held
    model = forecaster(channels=channels, centre="mean").eval()
    torch.testing.assert_close(model.output.best(model(2 * past + shift, marks)), 2 * model.output.best(model(past, marks)) + shift)


def test_a_constant_window_gives_a_finite_forecast() -> None:
    model = forecaster(centre="mean").eval()
    past, marks = given()
    assert torch.isfinite(model(torch.full_like(past, 1e3), marks)).all()


def test_targets_are_forecast_apart_where_that_is_asked_for() -> None:
    past, marks = given()
    changed = past.clone()
    changed[:, :, 1] += torch.linspace(0, 1, past.shape[1], dtype=torch.float64)
    for channels in ("independent", "joint"):
        model = forecaster(channels=channels).eval()
        same = torch.isclose(model(past, marks), model(changed, marks)).all(-1).all(1).all(0).tolist()
        assert same == ([True, False, True] if channels == "independent" else [False] * 3)


def test_known_inputs_of_a_patch_move_its_forecast_alone() -> None:
    model = forecaster().eval()
    past, marks = given()
    changed = marks.clone()
    changed[:, SHAPE.lookback + 5] += 1  # the second patch of the future
    moved = (model(past, changed) - model(past, marks)).abs().amax((0, 2, 3))
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 1e-6).all()


@pytest.mark.parametrize("channels", ["independent", "joint"])
def test_a_share_of_a_batch_is_masked_as_in_the_whole(channels: str) -> None:
    model = forecaster(
        channels=channels, input_dropout=0.3, output_dropout=0.3, recurrent_dropout=0.3, hidden_dropout=0.3, encoder={"layers": 2}
    ).train()
    past, marks = given()

    def run(first: int, end: int) -> torch.Tensor:
        noise = Noise(torch.Generator().manual_seed(3), first, len(past))
        return model(past[first:end], marks[first:end], noise)

    whole = run(0, 5)
    torch.testing.assert_close(torch.cat([run(0, 2), run(2, 5)]), whole)
    assert not torch.allclose(whole, model.eval()(past, marks))


@pytest.mark.parametrize("channels", ["independent", "joint"])
@pytest.mark.parametrize("output", ["gaussian", "quantiles", "point"])
def test_a_shortcut_is_a_linear_map_of_each_column(channels: str, output: str) -> None:
    model = forecaster(channels=channels, centre="mean", output={"kind": output}, shortcut=True).eval()
    assert model.shortcut is not None
    torch.nn.init.normal_(model.shortcut.weight)
    torch.nn.init.normal_(model.shortcut.bias)
    plain = forecaster(channels=channels, centre="mean", output={"kind": output}).eval()
    plain.load_state_dict({name: weight for name, weight in model.state_dict().items() if not name.startswith("shortcut")})
    past, marks = given()
    with torch.no_grad():
        added = model.output.best(model(past, marks)) - plain.output.best(plain(past, marks))
        for row in range(5):
            for column in range(3):
                one = past[row, :, column]
                spread = one.std(correction=0)
                wanted = spread * (model.shortcut.weight @ ((one - one.mean()) / spread) + model.shortcut.bias)
                torch.testing.assert_close(added[row, :, column], wanted)

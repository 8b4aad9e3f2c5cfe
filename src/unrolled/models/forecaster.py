"""Forecasts several future points of series from a window of their past."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.models.encoder_decoder import ENCODERS
from unrolled.models.forecaster_settings import ForecasterSettings
from unrolled.models.forecasts import OUTPUTS
from unrolled.nn.cell import HiddenState
from unrolled.nn.cells import GRU
from unrolled.nn.dropout import LockedDropout

SMALLEST_SPREAD = 1e-2
"""Of a window, in standard deviations of the training part: a constant window is not blown up."""


class Shape(NamedTuple):
    """How large the windows are."""

    lookback: int
    """Points of the past."""
    horizon: int
    """Points of the future."""
    targets: int
    marks: int
    """Inputs that are known in advance, those of the calendar among them."""
    patch: int
    """Points that are read, and written, at once."""


class Forecaster(nn.Module):
    """Reads a window of the past a patch a step, and writes the future a patch a step, all steps from one state.

    ::

        x_i    = W [patch i of the past, less the window's centre ; its marks] + b
        s      = encoder(x_1 … x_n)                              the summary of the past
        h_j    = GRU(s, position j + channel + V marks of j)     for each patch j of the future: no error is fed back
        said_j = U h_j + c                                       of every value of patch j, centre added again
        said  += L past                                          with a shortcut, of each column by itself

    The form of the steps is that of Lin et al. 2023 (SegRNN), with any encoder of the package as reader. Values are in standard deviations of the
    training part.
    """

    def __init__(self, settings: ForecasterSettings, shape: Shape, *, trust: bool = False) -> None:
        """Build the model.

        Args:
            settings: kinds, sizes and dropout.
            shape: of its windows.
            trust: allow the settings to import a class of the user's own.
        """
        super().__init__()
        self.settings, self.shape = settings, shape
        self.output = OUTPUTS[settings.output.kind](settings.output)
        hidden, self.independent = settings.hidden_size, settings.channels == "independent"
        width = 1 if self.independent else shape.targets
        self.read_in = nn.Linear(shape.patch * (width + shape.marks), hidden)
        self.input_dropout = LockedDropout(settings.input_dropout)
        self.encoder: Any = ENCODERS[settings.encoder.kind](settings, hidden, trust=trust)
        self.positions = nn.Parameter(torch.randn(-(-shape.horizon // shape.patch), hidden) * hidden**-0.5)
        self.channels = nn.Parameter(torch.randn(shape.targets, hidden) * hidden**-0.5) if self.independent else None
        self.marks = nn.Linear(shape.patch * shape.marks, hidden, bias=False) if shape.marks else None
        self.writer = GRU(hidden, hidden)
        self.output_dropout = LockedDropout(settings.output_dropout)
        self.readout = nn.Linear(hidden, shape.patch * width * self.output.width)
        self.shortcut = nn.Linear(shape.lookback, shape.horizon) if settings.shortcut else None
        if self.shortcut is not None:  # begins as the mean of the past
            nn.init.constant_(self.shortcut.weight, 1 / shape.lookback)
            nn.init.zeros_(self.shortcut.bias)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.readout.weight.device

    def forward(
        self, past: Float[Tensor, "batch lookback targets"], marks: Float[Tensor, "batch window marks"], noise: Noise | None = None
    ) -> Float[Tensor, "batch horizon targets parameters"]:
        """Forecast.

        Args:
            past: values, none of them missing.
            marks: what is known in advance, of the past and the future.
            noise: where dropout takes its masks from in training.

        Returns:
            What is said of every future value.
        """
        B, L, D = past.shape
        if self.independent and noise is not None and noise.total_rows is not None:  # every target is a row of its own
            noise = Noise(noise.generator, noise.first_row * D, noise.total_rows * D)
        centre, spread = self._centre(past)
        centred = (past - centre) / spread
        rows = centred.transpose(1, 2).reshape(B * D, L, 1) if self.independent else centred
        summary = self._read(rows, self._each(marks[:, :L]), noise)
        said = self._write(summary, self._each(marks[:, L:]), noise)
        if self.independent:
            said = said.reshape(B, D, self.shape.horizon, -1).transpose(1, 2)
        if self.shortcut is not None:
            straight = self.shortcut(centred.transpose(1, 2)).transpose(1, 2)
            said = self.output.moved(said, torch.ones_like(straight), straight)
        return self.output.moved(said, spread, centre)

    def _centre(self, past: Tensor) -> tuple[Tensor, Tensor]:
        if self.settings.centre == "last":
            return past[:, -1:], torch.ones_like(past[:, -1:])
        if self.settings.centre == "mean":
            return past.mean(1, keepdim=True), past.std(1, keepdim=True, correction=0).clamp(min=SMALLEST_SPREAD)
        return torch.zeros_like(past[:, -1:]), torch.ones_like(past[:, -1:])

    def _each(self, marks: Tensor) -> Tensor:
        """The marks of a window for each of its rows."""
        return marks.repeat_interleave(self.shape.targets, 0) if self.independent else marks

    def _patches(self, xs: Tensor) -> Tensor:
        """Patches as features, `[rows, patches, patch * features]`."""
        return xs.reshape(xs.shape[0], -1, self.shape.patch * xs.shape[2])

    def _read(self, rows: Tensor, marks: Tensor, noise: Noise | None) -> Tensor:
        skipped = rows.shape[1] % self.shape.patch  # the oldest points
        xs = self.read_in(self._patches(torch.cat([rows, marks], -1)[:, skipped:]))
        xs, _ = self.input_dropout(xs, noise=noise)
        lengths = torch.full((len(xs),), xs.shape[1], device=xs.device)
        summary: Tensor = self.encoder(Padded(xs, lengths), noise).summary
        return summary

    def _write(self, summary: Tensor, marks: Tensor, noise: Noise | None) -> Tensor:
        """What is said of every future value, `[rows, horizon, width, parameters]`."""
        N, P = len(summary), len(self.positions)
        asked = self.positions.expand(N, P, -1)
        if self.channels is not None:
            asked = asked + self.channels.repeat(N // len(self.channels), 1).unsqueeze(1)
        if self.marks is not None:
            asked = asked + self.marks(self._patches(pad(marks, (0, 0, 0, P * self.shape.patch - marks.shape[1]))))
        state = HiddenState(summary.unsqueeze(1).expand(N, P, -1).reshape(N * P, -1))
        found, _ = self.writer.step(asked.reshape(N * P, -1), state)
        masked, _ = self.output_dropout(found.reshape(N, P, -1), noise=noise)
        said = self.readout(masked).reshape(N, P * self.shape.patch, -1, self.output.width)
        return said[:, : self.shape.horizon]

"""The recurrent cells, a file for each family, and the one table of their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from unrolled.nn.cell import Cell, HiddenState, Noisy, RecurrentMask, seen
from unrolled.nn.cells.coupled import CoupledLSTM
from unrolled.nn.cells.elman import Elman
from unrolled.nn.cells.feedforward import FeedForward, OutputState
from unrolled.nn.cells.gru import GRU, GateWeights, ResetAfterGRU
from unrolled.nn.cells.highway import RecurrentHighway
from unrolled.nn.cells.layer_norm import LayerNormLSTM
from unrolled.nn.cells.linear_recurrent_unit import LinearRecurrentUnit
from unrolled.nn.cells.lstm import LSTM, LSTMState
from unrolled.nn.cells.mingru import MinGRU
from unrolled.nn.cells.minimal import MinimalGatedUnit
from unrolled.nn.cells.minlstm import MinLSTM
from unrolled.nn.cells.peephole import PeepholeLSTM
from unrolled.nn.cells.wrappers import RecurrentDropout, Zoneout

CELLS: dict[str, Callable[[int, int], Cell]] = {
    "elman": Elman,
    "elman-relu": partial(Elman, activation="relu"),
    "feed-forward": FeedForward.two_layers,
    "lstm": LSTM,
    "peephole-lstm": PeepholeLSTM,
    "coupled-lstm": CoupledLSTM,
    "layer-norm-lstm": LayerNormLSTM,
    "gru": GRU,
    "reset-after-gru": ResetAfterGRU,
    "minimal-gated": MinimalGatedUnit,
    "recurrent-highway": RecurrentHighway,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
    "linear-recurrent-unit": LinearRecurrentUnit,
}
"""What makes a cell from input and hidden size, by the name that a configuration uses; a person's own cell needs no entry."""

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "Cell",
    "CoupledLSTM",
    "Elman",
    "FeedForward",
    "GateWeights",
    "HiddenState",
    "LSTMState",
    "LayerNormLSTM",
    "LinearRecurrentUnit",
    "MinGRU",
    "MinLSTM",
    "MinimalGatedUnit",
    "Noisy",
    "OutputState",
    "PeepholeLSTM",
    "RecurrentDropout",
    "RecurrentHighway",
    "RecurrentMask",
    "ResetAfterGRU",
    "Zoneout",
    "seen",
]

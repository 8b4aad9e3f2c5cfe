"""Cells, the time loop over them, dropout, and losses: what sequence models are built from."""

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded, pad
from unrolled.nn.cell import Cell, HiddenState, Noisy, RecurrentMask, seen
from unrolled.nn.cells import (
    CELLS,
    GRU,
    LSTM,
    CoupledLSTM,
    Elman,
    FeedForward,
    LayerNormLSTM,
    LSTMState,
    MinimalGatedUnit,
    PeepholeLSTM,
    RecurrentDropout,
    RecurrentHighway,
    ResetAfterGRU,
    Zoneout,
)
from unrolled.nn.dropout import LockedDropout, WeightDrop, WordEmbedding
from unrolled.nn.recurrence import Bidirectional, Layer, Recurrence, Stacked

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "Bidirectional",
    "Cell",
    "CoupledLSTM",
    "Elman",
    "FeedForward",
    "HiddenState",
    "LSTMState",
    "Layer",
    "LayerNormLSTM",
    "LockedDropout",
    "MinimalGatedUnit",
    "Noise",
    "Noisy",
    "Padded",
    "PeepholeLSTM",
    "Recurrence",
    "RecurrentDropout",
    "RecurrentHighway",
    "RecurrentMask",
    "ResetAfterGRU",
    "Stacked",
    "WeightDrop",
    "WordEmbedding",
    "Zoneout",
    "pad",
    "seen",
]

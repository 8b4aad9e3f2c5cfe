"""Cells, the time loop over them, attention, the Transformer, the CRF, dropout, and losses: what sequence models are built from."""

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded, pad
from unrolled.nn.attention import (
    ATTENTIONS,
    AdditiveAttention,
    Attended,
    Attention,
    BilinearAttention,
    DotAttention,
    Memory,
    MultiHeadAttention,
    ScaledDotAttention,
)
from unrolled.nn.cell import Cell, HiddenState, Noisy, RecurrentMask, Workload, seen
from unrolled.nn.cells import (
    CELLS,
    GRU,
    LSTM,
    CoupledLSTM,
    Elman,
    FeedForward,
    LayerNormLSTM,
    LinearRecurrentUnit,
    LSTMState,
    MinGRU,
    MinimalGatedUnit,
    MinLSTM,
    PeepholeLSTM,
    RecurrentDropout,
    RecurrentHighway,
    ResetAfterGRU,
    Zoneout,
)
from unrolled.nn.crf import CRF, BestPaths, NBestPaths
from unrolled.nn.dropout import LockedDropout, WeightDrop, WordEmbedding
from unrolled.nn.linear_cell import Coefficients, ComplexState, LinearCell
from unrolled.nn.positions import POSITIONS, LearnedPositions, Positions, SinusoidalPositions
from unrolled.nn.recurrence import Bidirectional, Layer, Recurrence, Stacked
from unrolled.nn.transformer import DecoderMemory, Transformer
from unrolled.nn.transformer_layers import KeyValue, LayerWeights, TransformerSettings
from unrolled.nn.transformer_state import TransformerState

__all__ = [
    "ATTENTIONS",
    "CELLS",
    "CRF",
    "GRU",
    "LSTM",
    "POSITIONS",
    "AdditiveAttention",
    "Attended",
    "Attention",
    "BestPaths",
    "Bidirectional",
    "BilinearAttention",
    "Cell",
    "Coefficients",
    "ComplexState",
    "CoupledLSTM",
    "DecoderMemory",
    "DotAttention",
    "Elman",
    "FeedForward",
    "HiddenState",
    "KeyValue",
    "LSTMState",
    "Layer",
    "LayerNormLSTM",
    "LayerWeights",
    "LearnedPositions",
    "LinearCell",
    "LinearRecurrentUnit",
    "LockedDropout",
    "Memory",
    "MinGRU",
    "MinLSTM",
    "MinimalGatedUnit",
    "MultiHeadAttention",
    "NBestPaths",
    "Noise",
    "Noisy",
    "Padded",
    "PeepholeLSTM",
    "Positions",
    "Recurrence",
    "RecurrentDropout",
    "RecurrentHighway",
    "RecurrentMask",
    "ResetAfterGRU",
    "ScaledDotAttention",
    "SinusoidalPositions",
    "Stacked",
    "Transformer",
    "TransformerSettings",
    "TransformerState",
    "WeightDrop",
    "WordEmbedding",
    "Workload",
    "Zoneout",
    "pad",
    "seen",
]

"""What a Transformer reads, remembers and gives, and how the parts of one reading are put together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from unrolled.core.padded import length_mask
from unrolled.core.state import map_state
from unrolled.nn.transformer_context import Plan, keep_columns, pick, place_outputs
from unrolled.nn.transformer_layers import KeyValue, LayerWeights


class TransformerState(NamedTuple):
    """What a causal stack remembers: a column a symbol; row `b` sees its columns from `begin[b]` on and counts its places from there."""

    begin: Int[Tensor, " batch"]
    layers: dict[str, KeyValue]
    """By the name of the block, `"0"` the lowest."""
    inputs: Float[Tensor, "batch columns dim"] | None
    """What was read, before positions; kept where the context is bounded, to be read again."""


class Reading(NamedTuple):
    """What one pass through all blocks gives."""

    outputs: Float[Tensor, "batch time dim"]
    layers: dict[str, KeyValue]
    """All columns."""
    weights: dict[str, LayerWeights]
    """Empty unless wanted."""


class Symbols(NamedTuple):
    """The symbols of one reading, cut to the longest row."""

    data: Float[Tensor, "batch time dim"]
    """Zero past a length."""
    lengths: Int[Tensor, " batch"]
    valid: Bool[Tensor, "batch time"] | None
    """True where a symbol belongs to its row; `None` where all rows were given whole."""
    resets: Bool[Tensor, "batch time"] | None
    """False past a length."""
    width: int
    """Symbols of a row as it was given, padding counted: dropout is drawn for so many, so that it does not depend on the longest row."""

    @classmethod
    def of(cls, data: Tensor, lengths: Tensor | None, resets: Tensor | None) -> Symbols:
        """Cut what was given.

        Args:
            data: `[batch, time, dim]`.
            lengths: `[batch]`, or `None` for whole rows.
            resets: true where a document begins, or `None`.

        Returns:
            The symbols.
        """
        batch, time = data.shape[:2]
        if lengths is None:
            return cls(data, torch.full((batch,), time, device=data.device), None, resets, time)
        lengths = lengths.to(data.device)
        longest = int(lengths.max()) if batch else 0
        valid = length_mask(lengths, longest)
        # Zero times NaN is NaN: what the padding holds must not reach an average, though its weight is zero.
        data = torch.where(valid.unsqueeze(-1), data[:, :longest], 0)
        return cls(data, lengths, valid, None if resets is None else resets[:, :longest] & valid, time)


def see_columns(starts: Int[Tensor, "batch time"], columns: int) -> Bool[Tensor, "batch 1 time all"]:
    """Which columns each new symbol sees: those of its document up to its own.

    Args:
        starts: the first column of the document of each symbol.
        columns: how many columns there are before the new ones.

    Returns:
        True where seen.
    """
    time = starts.shape[1]
    every = torch.arange(columns + time, device=starts.device)
    return ((every >= starts.unsqueeze(2)) & (every <= every[columns:].unsqueeze(1))).unsqueeze(1)


def join_readings(
    went_on: Reading,
    stretches: Reading | None,
    plan: Plan,
    symbols: Symbols,
    begin: Int[Tensor, " batch"],
    inputs: Float[Tensor, "batch columns dim"] | None,
) -> tuple[Float[Tensor, "batch time dim"], TransformerState]:
    """Put the outputs of a reading in their places, and keep what each row's last symbol sees.

    Args:
        went_on: what was read with the columns of the state.
        stretches: what was read as texts of their own.
        plan: where each symbol was read.
        symbols: what was read.
        begin: the first column of each row that was remembered.
        inputs: of the columns of the state and the new ones.

    Returns:
        Outputs of all symbols and the state after each row's last one.
    """
    width = went_on.outputs.shape[1]
    widths = (width, 0 if stretches is None else stretches.outputs.shape[1])
    readings = [went_on] if stretches is None else [went_on, stretches]
    outputs = went_on.outputs
    if stretches is not None or width < plan.place.shape[1]:
        outputs = pick([reading.outputs for reading in readings], place_outputs(plan, widths))
    columns = went_on.layers["0"].keys.shape[1] - width
    kept = keep_columns(plan, begin, symbols.lengths, columns, widths)
    layers = map_state(lambda *leaves: pick(leaves, kept.columns), *(reading.layers for reading in readings))
    return outputs, TransformerState(kept.begin, layers, None if inputs is None else pick([inputs], kept.inputs))


def pad_weights(layer: LayerWeights, valid: Bool[Tensor, "batch time"], past: int) -> LayerWeights:
    """Zero past a length, and as many rows and columns as the padded symbols.

    Args:
        layer: weights over the symbols up to the longest row.
        valid: true where a symbol belongs to its row.
        past: how many symbols of padding there are beyond.

    Returns:
        The weights.
    """
    rows = valid[:, None, :, None]
    own = pad(torch.where(rows, layer.own, 0), (0, past, 0, past))
    return LayerWeights(own, None if layer.memory is None else pad(torch.where(rows, layer.memory, 0), (0, 0, 0, past)))

"""Outputs of many sequences one behind the other, without padding: what emissions see and are fitted to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded, check_lengths
from unrolled.ssm.hmm.compiled import Places


class Pattern(NamedTuple):
    """Rows that miss the same features."""

    seen: Bool[Tensor, " features"]
    rows: Tensor
    """Their places, `[count]`."""


class Rows(NamedTuple):
    """All steps of all sequences; each sequence's steps are neighbours."""

    values: Tensor
    """`[rows, features]`, 0 where missing; for categorical outputs `[rows]`, -1 where missing."""
    places: Places
    patterns: tuple[Pattern, ...] = ()
    """Empty where nothing is missing; else every row is in one of them."""
    seen: Tensor | None = None
    """Boolean `[rows, features]`, where something is missing."""
    design: Tensor | None = None
    """What an autoregressive emission multiplies, `[rows, regressors]`."""


def places_of(lengths: Tensor) -> Places:
    """Where sequences lie that are put one behind the other.

    Args:
        lengths: of the sequences.

    Returns:
        Starts and lengths.
    """
    lengths = lengths.long()
    return Places(lengths.cumsum(0) - lengths, lengths)


def pack(padded: Padded) -> Tensor:
    """The steps of all sequences one behind the other.

    Args:
        padded: `[batch, time, …]`.

    Returns:
        `[rows, …]`.
    """
    return padded.data[padded.mask]


def unpack(rows: Tensor, lengths: Tensor, time: int) -> Tensor:
    """The inverse of `pack`.

    Args:
        rows: `[rows, …]`.
        lengths: of the sequences.
        time: columns of the result.

    Returns:
        `[batch, time, …]`, zero past a length.
    """
    padded = Padded(rows.new_zeros(len(lengths), time, *rows.shape[1:]), lengths)
    return padded.data.masked_scatter(padded.mask.view(*padded.mask.shape, *[1] * (rows.dim() - 1)), rows)


def rows_of_features(outputs: Padded, features: int) -> Rows:
    """Outputs of several features a step, or of one without an axis of its own; NaN is missing.

    Args:
        outputs: `[batch, time, features]`, or `[batch, time]` for one feature.
        features: how many there must be.

    Returns:
        The rows.

    Raises:
        DataError: the wrong number of features, or a value that is infinite.
    """
    data = outputs.data.unsqueeze(-1) if outputs.data.dim() == 2 else outputs.data
    if data.dim() != 3 or data.shape[-1] != features:
        raise DataError(f"outputs must be [batch, time, {features}], got {tuple(outputs.data.shape)}")
    check_lengths(outputs.lengths, *data.shape[:2])
    values = pack(Padded(data, outputs.lengths))
    values = values if values.is_floating_point() else values.to(torch.float64)
    places = places_of(outputs.lengths)
    if bool(values.isinf().any()):
        row = int(values.isinf().any(-1).nonzero()[0])
        sequence = int((places.starts <= row).nonzero()[-1])
        raise DataError(
            f"outputs must be finite, or NaN where missing, got {values[row].tolist()} in sequence {sequence}, step {row - int(places.starts[sequence])}"
        )
    missing = values.isnan()
    if not bool(missing.any()):
        return Rows(values, places)
    found, which = torch.unique(~missing, dim=0, return_inverse=True)
    patterns = tuple(Pattern(seen, (which == number).nonzero().squeeze(1)) for number, seen in enumerate(found))
    return Rows(torch.where(missing, 0, values), places, patterns, ~missing)

"""Sequences of unequal length in one tensor. Lengths are the input form, masks are derived; zero is legal, nothing needs sorting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unrolled.core.errors import DataError

IGNORED = -100
"""The target that no loss counts: `torch.nn.functional.cross_entropy`'s own."""


class Padded(NamedTuple):
    """Sequences of unequal length: `data` is `[batch, time, …]`, `lengths` is `[batch]`, what lies past a length means nothing."""

    data: Tensor
    lengths: Int[Tensor, " batch"]

    @property
    def mask(self) -> Bool[Tensor, "batch time"]:
        """True where a step belongs to its sequence."""
        return length_mask(self.lengths, self.data.shape[1])

    def unpad(self) -> list[Tensor]:
        """The sequences one by one, each `[length, …]`.

        Returns:
            As many tensors as there are rows.
        """
        return [row[:length] for row, length in zip(self.data, self.lengths.tolist(), strict=True)]


def length_mask(lengths: Int[Tensor, " batch"], time: int) -> Bool[Tensor, "batch time"]:
    """True at the first `lengths[b]` steps of row `b`.

    Args:
        lengths: how many steps each row has.
        time: how many columns the mask shall have.

    Returns:
        The mask, on the device of `lengths`.
    """
    return torch.arange(time, device=lengths.device) < lengths.unsqueeze(1)


def pad(sequences: Sequence[Tensor]) -> Padded:
    """Put sequences of unequal length into one zero-padded tensor.

    Args:
        sequences: tensors `[length, …]` that agree in all but the length.

    Returns:
        The padded batch.

    Raises:
        DataError: there is no sequence at all.
    """
    if not sequences:
        raise DataError("a padded batch needs at least one sequence, got none")
    lengths = torch.tensor([len(s) for s in sequences], device=sequences[0].device)
    data = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    return Padded(data, lengths)


def check_lengths(lengths: Tensor, batch: int, time: int) -> None:
    """Refuse lengths that do not fit their data.

    Args:
        lengths: what was given as lengths.
        batch: rows of the data.
        time: columns of the data.

    Raises:
        DataError: the wrong shape, not integers, or a length below 0 or above `time`.
    """
    if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise DataError(f"`lengths` must be {batch} integers, one a row of the batch, got {lengths.dtype} of shape {tuple(lengths.shape)}")
    if batch and (int(lengths.min()) < 0 or int(lengths.max()) > time):
        raise DataError(f"`lengths` must lie in 0..{time} (the time axis of the data), got {int(lengths.min())}..{int(lengths.max())}")

"""How the vectors of a text become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.padded import length_mask
from unrolled.models.encoders import Encoded, mean_over_time


class Pooled(NamedTuple):
    """A text as one vector."""

    vector: Float[Tensor, "batch dim"]
    weights: Float[Tensor, "batch time"] | None
    """How much each unit counts, where that is weighed."""


class AttentionPooling(nn.Module):
    """A mean that is weighed by a learnt query (Yang et al. 2016, eq. 5–7): `u_t = tanh(W h_t + b)`, `α = softmax(u · q)`, `Σ α_t h_t`."""

    def __init__(self, size: int) -> None:
        """Weigh vectors.

        Args:
            size: features of each.
        """
        super().__init__()
        self.key = nn.Linear(size, size)
        self.query = nn.Linear(size, 1, bias=False)

    def forward(self, encoded: Encoded) -> Pooled:
        """Pool.

        Args:
            encoded: one vector a unit.

        Returns:
            One a text; zero for an empty one.
        """
        memory = encoded.memory
        outside = ~length_mask(memory.lengths.to(memory.data.device), memory.data.shape[1])
        scores = self.query(torch.tanh(self.key(memory.data))).squeeze(-1).float().masked_fill(outside, -torch.inf)
        weights = scores.softmax(-1).masked_fill(outside, 0)
        return Pooled(torch.einsum("bt,btd->bd", weights.to(memory.data.dtype), memory.data), weights)


class MeanPooling(nn.Module):
    """The mean of a text's vectors."""

    def forward(self, encoded: Encoded) -> Pooled:
        """Pool.

        Args:
            encoded: one vector a unit.

        Returns:
            One a text; zero for an empty one.
        """
        return Pooled(mean_over_time(encoded.memory), None)


class MaxPooling(nn.Module):
    """The largest value of each feature (Collobert et al. 2011)."""

    def forward(self, encoded: Encoded) -> Pooled:
        """Pool.

        Args:
            encoded: one vector a unit.

        Returns:
            One a text; zero for an empty one.
        """
        memory = encoded.memory
        lengths = memory.lengths.to(memory.data.device)
        outside = ~length_mask(lengths, memory.data.shape[1]).unsqueeze(-1)
        largest = memory.data.masked_fill(outside, -torch.inf).amax(1)
        return Pooled(torch.where((lengths > 0).unsqueeze(1), largest, 0), None)


class LastPooling(nn.Module):
    """What the encoder itself says of the whole: the last state of each direction of a recurrent one."""

    def forward(self, encoded: Encoded) -> Pooled:
        """Pool.

        Args:
            encoded: one vector a text.

        Returns:
            That.
        """
        return Pooled(encoded.summary, None)


POOLING: dict[str, Callable[[int], nn.Module]] = {
    "attention": AttentionPooling,
    "mean": lambda size: MeanPooling(),
    "max": lambda size: MaxPooling(),
    "last": lambda size: LastPooling(),
}
"""What makes one vector of many, by the name that a configuration has for it, from the size of the vectors."""

"""Copying symbols of the source into the target (pointer-generator; See et al. 2017, section 2.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

SMALLEST = 1e-12
"""A probability below which nothing is worth a logarithm."""


class Copying(nn.Module):
    """A gate between the vocabulary's distribution and what is attended to.

    ::

        g = σ(w · ã + b)
        P(y) = g P_vocab(y) + (1 - g) Σ_{j: x_j = y} α_j

    The gate looks at the attentional vector only; See et al. give it the context, the state and the input apart. Attention on a
    source symbol that the target vocabulary does not have counts for nothing, and the rest is scaled up to one.
    """

    copy_ids: Tensor

    def __init__(self, size: int, copy_ids: Int[Tensor, " source"]) -> None:
        """Make the gate.

        Args:
            size: features of the attentional vector.
            copy_ids: the target symbol of each source symbol, -1 where there is none.
        """
        super().__init__()
        self.gate = nn.Linear(size, 1)
        self.register_buffer("copy_ids", copy_ids.clone(), persistent=False)

    def forward(
        self,
        logits: Float[Tensor, "rows vocab"],
        hidden: Float[Tensor, "rows dim"],
        weights: Float[Tensor, "rows source"],
        source: Int[Tensor, "rows source"],
    ) -> Float[Tensor, "rows vocab"]:
        """Mix the two distributions.

        Args:
            logits: of the vocabulary.
            hidden: the attentional vectors.
            weights: what was attended to.
            source: the source's symbols; where the weight is zero they mean nothing.

        Returns:
            Log-probabilities.
        """
        precise = torch.promote_types(logits.dtype, torch.float32)
        wanted = self.copy_ids[source]
        copied = torch.where(wanted >= 0, weights, 0).to(precise)
        total = copied.sum(-1, keepdim=True)
        scattered = torch.zeros_like(logits, dtype=precise).scatter_add(-1, wanted.clamp(min=0), copied / total.clamp(min=SMALLEST))
        gate = self.gate(hidden).to(precise)
        from_vocabulary = torch.log_softmax(logits.to(precise), -1)
        mixed = torch.logaddexp(logsigmoid(gate) + from_vocabulary, logsigmoid(-gate) + scattered.clamp(min=SMALLEST).log())
        return torch.where(total > SMALLEST, mixed, from_vocabulary)

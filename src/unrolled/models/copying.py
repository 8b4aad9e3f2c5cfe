"""Copying symbols of the source into the target (pointer-generator; See et al. 2017, section 2.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

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
        wanted = self.copy_ids[source]
        precise = torch.promote_types(logits.dtype, torch.float32)
        copied = torch.where(wanted >= 0, weights, 0).to(precise)
        total = copied.sum(-1, keepdim=True)
        gate = torch.sigmoid(self.gate(hidden).to(precise))
        gate = torch.where(total > SMALLEST, gate, 1.0)
        mixed = torch.softmax(logits.to(precise), -1) * gate
        share = (1 - gate) * copied / total.clamp(min=SMALLEST)
        mixed = mixed.scatter_add(-1, wanted.clamp(min=0), share)
        return mixed.clamp(min=SMALLEST).log()

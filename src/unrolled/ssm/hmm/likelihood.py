"""The log-likelihood with the gradient that the smoother gives: Fisher's identity, the expected gradient of `log P(y, z)`.

    ∂ log P(y) / ∂ initial[i]         = P(z_1 = i | y) / initial[i]
    ∂ log P(y) / ∂ transition[i, j]   = Σ_t P(z_{t-1} = i, z_t = j | y) / transition[i, j]
    ∂ log P(y) / ∂ scores[t, i]       = P(z_t = i | y)

Entries of the chain that are zero get no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.core.padded import Padded
from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.compiled import filter_compiled, smooth_compiled
from unrolled.ssm.hmm.pairs import two_slice


class ExactGradient(torch.autograd.Function):
    """`log P(y)` in C++, forward and backward; once differentiable."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, transition: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
        """The filter, or the smoother where gradients are wanted.

        Args:
            ctx: of autograd.
            initial: of the chain.
            transition: of the chain.
            scores: `log P(y_t | z_t)`.
            lengths: of the sequences.

        Returns:
            `[batch]`.
        """
        chain, padded = Chain(initial, transition), Padded(scores, lengths)
        if not any(ctx.needs_input_grad):
            return filter_compiled(chain, padded).log_likelihood
        smoothed = smooth_compiled(chain, padded)
        counts = two_slice(chain, smoothed) if chain.varies else smoothed.transitions
        ctx.save_for_backward(initial, transition, smoothed.probabilities, counts)
        return smoothed.log_likelihood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Expected counts over probabilities.

        Args:
            ctx: of autograd.
            gradient: of each sequence's value.

        Returns:
            Gradients of initial, transition and scores.
        """
        initial, transition, probabilities, counts = ctx.saved_tensors
        by_step = probabilities * gradient.view(-1, 1, 1)
        first = by_step[:, :1].sum((0, 1))
        weighted = counts * gradient.view(-1, *[1] * (counts.dim() - 1))
        weighted = weighted if transition.dim() > 2 else weighted.sum(0)
        return _over(first, initial), _over(weighted, transition), by_step, None


def _over(counts: Tensor, probabilities: Tensor) -> Tensor:
    possible = probabilities > 0
    return torch.where(possible, counts / torch.where(possible, probabilities, 1), 0)

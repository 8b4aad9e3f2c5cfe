"""The loss over a large vocabulary at the price of a small one."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, embedding

from unrolled.core.padded import IGNORED


def log_uniform(vocabulary: int, device: torch.device | None = None) -> Float[Tensor, " vocab"]:
    """Zipf's law as a proposal for ids sorted by falling frequency: `P(k) = log((k + 2) / (k + 1)) / log(vocabulary + 1)`.

    Args:
        vocabulary: how many symbols.
        device: where the result shall lie.

    Returns:
        Probabilities that sum to one.
    """
    ranks = torch.arange(1, vocabulary + 2, dtype=torch.float64, device=device)
    return ranks.log().diff().div(ranks[-1].log()).float()


def draw_log_uniform(vocabulary: int, samples: int, generator: torch.Generator | None, device: torch.device) -> Int[Tensor, " samples"]:
    """Draw ids from `log_uniform` by inverting its distribution function, with replacement.

    Args:
        vocabulary: how many symbols.
        samples: how many to draw.
        generator: where randomness comes from.
        device: of the generator and the result.

    Returns:
        Ids.
    """
    uniform = torch.rand(samples, dtype=torch.float64, generator=generator, device=device)
    ids = (uniform * math.log(vocabulary + 1)).exp().long() - 1
    return ids.clamp(0, vocabulary - 1)


def sampled_cross_entropy(
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "vocab dim"],
    bias: Float[Tensor, " vocab"],
    targets: Int[Tensor, " tokens"],
    negatives: Int[Tensor, " samples"],
    proposal: Float[Tensor, " vocab"],
    *,
    sparse: bool = False,
) -> Float[Tensor, " tokens"]:
    """Cross entropy among the target and shared sampled symbols (sampled softmax; Jean et al. 2015, section 3.2).

    Every logit is lowered by the logarithm of how often its symbol is expected among the samples, `log(samples · proposal)`: given
    a list of samples with the right one among them, that makes the softmax its posterior, so that the loss has its minimum where the
    full softmax is right. For that the samples are drawn with replacement and keep the target where it was drawn. The value of
    the loss is not that of the full one.

    Args:
        hidden: what the read-out sees.
        weight: read-out weights.
        bias: read-out biases.
        targets: the right symbols, `IGNORED` where nothing is scored.
        negatives: symbols drawn from `proposal`, with replacement.
        proposal: how likely each symbol is to be drawn.
        sparse: give the weights a sparse gradient.

    Returns:
        The loss of each token among its candidates in nats, zero where ignored.
    """
    scored = targets != IGNORED
    safe = targets.clamp(min=0)
    expected = proposal * len(negatives)
    # One look-up for both kinds: its backward pass fills a gradient of the whole vocabulary once.
    candidates = torch.cat([safe, negatives])
    rows, offsets = embedding(candidates, weight, sparse=sparse), bias[candidates] - expected[candidates].log()
    target_rows, negative_rows = rows.split([len(safe), len(negatives)])
    target_offsets, negative_offsets = offsets.split([len(safe), len(negatives)])
    target_logits = (hidden * target_rows).sum(-1) + target_offsets
    logits = torch.addmm(negative_offsets, hidden, negative_rows.t())
    every = torch.cat([target_logits.unsqueeze(1), logits], 1)
    labels = torch.where(scored, 0, IGNORED)
    return cross_entropy(every.float(), labels, ignore_index=IGNORED, reduction="none")


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Likelihood and smoothed objective with a gradient in few passes over a large vocabulary."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        normaliser = precise.logsumexp(-1)
        nats = (normaliser - precise.gather(-1, targets.unsqueeze(1)).squeeze(1)).sum()
        objective = nats
        if smoothing:
            objective = (1 - smoothing) * nats + smoothing * (normaliser - precise.mean(-1)).sum()
        ctx.save_for_backward(precise, normaliser, targets)
        ctx.smoothing, ctx.dtype = smoothing, logits.dtype
        ctx.mark_non_differentiable(nats)
        return objective.clone() if objective is nats else objective, nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        precise, normaliser, targets = ctx.saved_tensors
        probabilities = (precise - normaliser.unsqueeze(1)).exp_()
        if ctx.smoothing:
            probabilities.sub_(ctx.smoothing / probabilities.shape[1])
        wanted = targets.unsqueeze(1)
        probabilities.scatter_add_(1, wanted, probabilities.new_full(wanted.shape, ctx.smoothing - 1))
        return probabilities.mul_(gradient).to(ctx.dtype), None, None


def smoothed_cross_entropy(
    logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"], smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross entropy with label smoothing (Szegedy et al. 2016, section 7), summed over symbols.

    ::

        objective = Σ (1 - ε) (-log p_y) + ε mean_v (-log p_v)

    Args:
        logits: what the read-out says.
        targets: the right symbols.
        smoothing: ε.

    Returns:
        The objective, which can be differentiated once, and the likelihood part `Σ -log p_y` for the record, which cannot.
    """
    objective, nats = _SmoothedCrossEntropy.apply(logits, targets, smoothing)
    return objective, nats

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


CACHED = 1 << 18
"""How many logits the loss works on at once: a stretch of rows that the cache holds goes through all its passes there."""


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Likelihood and smoothed objective; the gradient is made on the way, while a stretch of logits is in the cache."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        size = max(1, logits.shape[1])
        at_once = max(1, CACHED // size) if logits.is_cpu else max(1, len(logits))
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        precision = torch.promote_types(logits.dtype, torch.float32)
        objective, nats = (torch.zeros((), dtype=precision, device=logits.device) for _ in range(2))
        for begin in range(0, len(logits), at_once):
            some = slice(begin, begin + at_once)
            precise, wanted = logits[some].to(precision), targets[some].unsqueeze(1)
            highest = precise.amax(1, keepdim=True)
            right = precise.gather(1, wanted)
            mean = precise.mean(1, keepdim=True) if smoothing else right
            shares = (precise - highest).exp_()
            total = shares.sum(1, keepdim=True)
            normaliser = total.log() + highest
            nats += (normaliser - right).sum()
            objective += (normaliser - torch.lerp(right, mean, smoothing)).sum()
            if gradient is not None:
                shares.div_(total)
                if smoothing:
                    shares.sub_(smoothing / size)
                gradient[some] = shares.scatter_add_(1, wanted, shares.new_full(wanted.shape, smoothing - 1))
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(nats)
        return objective, nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale.to(gradient.dtype), None, None


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

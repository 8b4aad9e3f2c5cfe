"""Inference one step after the other, in logarithms: the definition that the faster forms are held to (Rabiner 1989, section III).

With `a = log P(z_t | y_1..y_t)`, `p = log P(z_t | y_1..y_{t-1})`, `A = log transition`, `s = log P(y_t | z_t)`, `g = log P(z_t | y)`::

    p_t[j] = log Σ_i exp(a_{t-1}[i] + A[i, j])        evidence_t = log Σ_j exp(p_t[j] + s_t[j])
    a_t[j] = p_t[j] + s_t[j] - evidence_t
    g_t[i] = a_t[i] + log Σ_j exp(A[i, j] + g_{t+1}[j] - p_{t+1}[j])         g_T = a_T

The backward half is Kitagawa's (1987): it needs the filter's results only, and its probabilities sum to one without a scale. Viterbi is the same forward
recursion with the maximum in the place of the sum. Logarithms of zero are a number so low that sums of them stay finite: gradients are never NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.results import Filtered, Form, Paths, Smoothed

NEVER = -1e30
"""Stands for the logarithm of zero."""


def log_of(probabilities: Tensor) -> Tensor:
    """Logarithms, `NEVER` of zero, where the gradient is zero.

    Args:
        probabilities: at least 0.

    Returns:
        Of the same shape.
    """
    possible = probabilities > 0
    return torch.where(possible, torch.where(possible, probabilities, 1).log(), NEVER)


def floored(scores: Padded) -> Tensor:
    """Scores with `NEVER` for minus infinity and 0 past a length.

    Args:
        scores: `[batch, time, states]`.

    Returns:
        Finite scores.
    """
    return torch.where(scores.mask.unsqueeze(-1), scores.data, 0).clamp(min=NEVER)


def filter_serially(chain: Chain, scores: Padded) -> Filtered:
    """The forward recursion.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        The filter's results.
    """
    after, before, evidence = _forward(_logs(chain), floored(scores))
    return filtered_of(after.exp(), before.exp(), evidence, scores)


def filtered_of(probabilities: Tensor, predicted: Tensor, evidence: Tensor, scores: Padded) -> Filtered:
    """Zeros where there is nothing, minus infinity where nothing can be.

    Args:
        probabilities: after each output.
        predicted: before it.
        evidence: of each output, below half of `NEVER` where it cannot be.
        scores: whose lengths hold.

    Returns:
        The filter's results.
    """
    mask = scores.mask
    possible = mask & (torch.where(mask & (evidence < NEVER / 2), 1, 0).cumsum(1) == 0)
    kept = possible.unsqueeze(-1)
    total = torch.where(possible, evidence, 0).sum(1).masked_fill((mask & ~possible).any(1), -torch.inf)
    evidence = torch.where(possible, evidence, 0).masked_fill(mask & ~possible, -torch.inf)
    return Filtered(torch.where(kept, probabilities, 0), torch.where(kept, predicted, 0), evidence, total)


def smooth_serially(chain: Chain, scores: Padded) -> Smoothed:
    """Forward and backward.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        The smoother's results.
    """
    logs = _logs(chain)
    after, before, evidence = _forward(logs, floored(scores))
    B, T, K = after.shape
    found: list[Tensor] = []
    pairs = after.new_zeros(B, K, K)
    last = scores.lengths - 1
    for t in reversed(range(T)):
        smoothed = after[:, t]
        if t + 1 < T:
            ratio = torch.where(before[:, t + 1] > NEVER / 2, found[-1] - before[:, t + 1], NEVER)
            joint = after[:, t].unsqueeze(2) + logs.matrix(t + 1) + ratio.unsqueeze(1)
            inside = (last > t).view(-1, 1)
            pairs = pairs + torch.where(inside.unsqueeze(2), joint.exp(), 0)
            smoothed = torch.where(inside, joint.logsumexp(2), smoothed)
        found.append(smoothed)
    probabilities = torch.stack(found[::-1], 1).exp() if T else after
    return smoothed_of(probabilities, pairs, filtered_of(after.exp(), before.exp(), evidence, scores), scores)


def smoothed_of(probabilities: Tensor, transitions: Tensor, filtered: Filtered, scores: Padded) -> Smoothed:
    """Zeros where there is nothing, or nothing can be.

    Args:
        probabilities: of each step's state.
        transitions: expected counts.
        filtered: the filter's results.
        scores: whose lengths hold.

    Returns:
        The smoother's results.
    """
    possible = filtered.log_likelihood > -torch.inf
    kept = (scores.mask & possible.unsqueeze(1)).unsqueeze(-1)
    return Smoothed(torch.where(kept, probabilities, 0), torch.where(possible.view(-1, 1, 1), transitions, 0), filtered)


def _logs(chain: Chain) -> Chain:
    """The chain with logarithms for its probabilities."""
    return Chain(log_of(chain.initial), log_of(chain.transition))


def _forward(logs: Chain, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms after and before each output, and its evidence."""
    B, T, K = scores.shape
    after: list[Tensor] = []
    before: list[Tensor] = []
    evidence: list[Tensor] = []
    for t in range(T):
        predicted = (after[-1].unsqueeze(2) + logs.matrix(t)).logsumexp(1) if t else logs.initial.expand(B, K)
        joint = predicted + scores[:, t]
        total = joint.logsumexp(1, keepdim=True)
        before.append(predicted)
        after.append(joint - total)
        evidence.append(total.squeeze(1))
    if not T:
        return scores, scores, scores.new_zeros(B, 0)
    return torch.stack(after, 1), torch.stack(before, 1), torch.stack(evidence, 1)


def viterbi_serially(chain: Chain, scores: Padded) -> Paths:
    """The likeliest sequence of states (Viterbi 1967); of equally likely ones that with the lower state at the last difference.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        States and scores.
    """
    data = floored(scores)
    B, T, K = data.shape
    logs = _logs(chain)
    best = logs.initial.expand(B, K)
    came_from: list[Tensor] = []
    for t in range(T):
        if t:
            ways, states = (best.unsqueeze(2) + logs.matrix(t)).max(1)
            inside = (scores.lengths > t).unsqueeze(1)
            best = torch.where(inside, ways + data[:, t], best)
            came_from.append(torch.where(inside, states, torch.arange(K, device=data.device)))
        else:
            best = torch.where((scores.lengths > 0).unsqueeze(1), best + data[:, 0], best)
    total, state = best.max(1)
    path = [state]
    for states in reversed(came_from):
        path.append(states.gather(1, path[-1].unsqueeze(1)).squeeze(1))
    return paths_of(torch.stack(path[::-1], 1)[:, :T], total, scores)


def paths_of(states: Tensor, totals: Tensor, scores: Padded) -> Paths:
    """-1 past a length, minus infinity for what cannot be.

    Args:
        states: `[batch, time]`.
        totals: `[batch]`, below half of `NEVER` where nothing can be.
        scores: whose lengths hold.

    Returns:
        The paths.
    """
    totals = totals.masked_fill(totals < NEVER / 2, -torch.inf).masked_fill(scores.lengths == 0, 0)
    return Paths(states.masked_fill(~scores.mask, -1), totals)


SERIAL = Form("serial", filter_serially, smooth_serially, viterbi_serially)

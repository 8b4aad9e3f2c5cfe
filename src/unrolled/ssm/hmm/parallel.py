"""Inference in logarithmic depth: one associative scan forward, one backward (Särkkä & García-Fernández 2021, "Temporal parallelization of inference in HMMs").

Forward, an element is what a step makes of the state before it, `F[i, j] = P(z_t = j | z_{t-1} = i, y_t)` and `g[i] = log P(y_t | z_{t-1} = i)`. Two in turn::

    w[i, j] = F1[i, j] exp(g2[j])        F[i, k] = Σ_j w[i, j] F2[j, k] / Σ_j w[i, j]        g[i] = g1[i] + log Σ_j w[i, j]

Backward, an element is the chain in reverse, `B_t[j, i] = P(z_t = i | z_{t+1} = j, y_1..y_t) = a_t[i] A[i, j] / p_{t+1}[j]`, and two in turn are their
product. Within a row of either, what is below 1e-300 of the likeliest is zero here; the serial form keeps it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.core.scan import Elements, associative_scan
from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.results import Filtered, Form, Paths, Smoothed
from unrolled.ssm.hmm.serial import NEVER, filtered_of, floored, log_of, paths_of, smoothed_of


def filter_in_parallel(chain: Chain, scores: Padded) -> Filtered:
    """The forward scan.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        The filter's results.
    """
    after, before, evidence = _forward(chain, floored(scores))
    return filtered_of(after.exp(), before.exp(), evidence, scores)


def _forward(chain: Chain, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms after and before each output, and its evidence."""
    B, T, K = scores.shape
    if not T:
        return scores, scores, scores.new_zeros(B, 0)
    initial = log_of(chain.initial)
    first = (initial + scores[:, 0]).unsqueeze(1)
    steps = _per_step(chain, B, T)[:, 1:]
    flow, gain = associative_scan(_then, _absorbed(steps, scores[:, 1:]))
    joint = torch.cat([first, (log_of(flow) + (first + gain).unsqueeze(-1)).logsumexp(2)], 1)
    total = joint.logsumexp(2)
    after = joint - total.unsqueeze(-1)
    before = torch.cat([initial.expand(B, 1, K), (after[:, :-1].unsqueeze(-1) + log_of(steps)).logsumexp(2)], 1)
    return after, before, total.diff(dim=1, prepend=total.new_zeros(B, 1))


def _per_step(chain: Chain, batch: int, time: int) -> Tensor:
    return chain.transition if chain.varies else chain.transition.expand(batch, time, chain.states, chain.states)


def _absorbed(transition: Tensor, gain: Tensor) -> Elements:
    """A stochastic matrix whose outcomes are then weighed by `exp(gain)`: the new matrix, and the logarithm of each row's weight."""
    possible = transition > 0
    top = torch.where(possible, gain.unsqueeze(-2), -torch.inf).amax(-1, keepdim=True).detach()
    top = torch.where(top.isfinite(), top, 0)
    weights = torch.where(possible, transition * (gain.unsqueeze(-2) - top).clamp(max=0).exp(), 0)
    total = weights.sum(-1, keepdim=True)
    reached = total > 0
    total = torch.where(reached, total, 1)
    return weights / total, torch.where(reached, total.log() + top, NEVER).squeeze(-1)


def _then(earlier: Elements, later: Elements) -> Elements:
    weights, gain = _absorbed(earlier[0], later[1])
    return weights @ later[0], earlier[1] + gain


def smooth_in_parallel(chain: Chain, scores: Padded) -> Smoothed:
    """The forward scan, then the backward one.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        The smoother's results.
    """
    after, before, evidence = _forward(chain, floored(scores))
    filtered = filtered_of(after.exp(), before.exp(), evidence, scores)
    B, T, K = after.shape
    if not T:
        return smoothed_of(after, after.new_zeros(B, K, K), filtered, scores)
    later = before[:, 1:].unsqueeze(-2)
    joint = after[:, :-1].unsqueeze(-1) + log_of(_per_step(chain, B, T)[:, 1:])
    back = torch.where(later > NEVER / 2, joint - later, NEVER).exp().transpose(-1, -2)
    ends = (torch.arange(T, device=back.device) - (scores.lengths.unsqueeze(1) - 1)).view(B, T, 1, 1)
    still = torch.eye(K, dtype=back.dtype, device=back.device).expand(B, T, K, K)
    steps = torch.where(ends == 0, after.exp().unsqueeze(2), torch.where(ends > 0, still, torch.cat([back, still[:, :1]], 1)))
    (whole,) = associative_scan(lambda earlier, later: (later[0] @ earlier[0],), (steps,), reverse=True)
    probabilities = whole[:, :, 0]
    inside = scores.mask[:, 1:].view(B, T - 1, 1, 1)
    pairs = torch.where(inside, probabilities[:, 1:].unsqueeze(-1) * back, 0).sum(1).transpose(-1, -2)
    return smoothed_of(probabilities, pairs, filtered, scores)


def viterbi_in_parallel(chain: Chain, scores: Padded) -> Paths:
    """The likeliest sequence of states: a scan of products in which sums stand for products and maxima for sums, then a scan of who came from where.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        States and scores.
    """
    data = floored(scores)
    B, T, K = data.shape
    if not T:
        return paths_of(scores.lengths.new_zeros(B, 0), data.new_zeros(B), scores)
    first = log_of(chain.initial) + data[:, 0]
    logs = log_of(_per_step(chain, B, T))[:, 1:]
    (ways,) = associative_scan(_likelier, (logs + data[:, 1:].unsqueeze(-2),))
    best = torch.cat([first.unsqueeze(1), (first.view(B, 1, K, 1) + ways).amax(2)], 1)
    came_from = (best[:, :-1].unsqueeze(-1) + logs).argmax(2)
    last = (scores.lengths - 1).clamp(min=0)
    totals, state = best[torch.arange(B, device=last.device), last].max(1)
    maps = torch.cat([came_from, came_from.new_zeros(B, 1, K)], 1)
    at = torch.arange(T, device=last.device) == last.unsqueeze(1)
    maps = torch.where(at.unsqueeze(-1), state.view(B, 1, 1), maps)
    (path,) = associative_scan(lambda earlier, later: (earlier[0].gather(2, later[0]),), (maps,), reverse=True)
    return paths_of(path[:, :, 0], totals, scores)


def _likelier(earlier: Elements, later: Elements) -> Elements:
    return ((earlier[0].unsqueeze(-1) + later[0].unsqueeze(-3)).amax(-2),)


PARALLEL = Form("parallel", filter_in_parallel, smooth_in_parallel, viterbi_in_parallel)

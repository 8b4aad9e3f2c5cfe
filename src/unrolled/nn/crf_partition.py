"""The partition function of a linear-chain CRF and the marginals: sums over all paths, by the forward–backward algorithm.

In probability space a step is one small product of matrices, which takes a tenth of the time of a `logsumexp` over pairs of labels.
`safe_stride` says from the scores when double precision holds all of it; where it does not, the loop over logarithms runs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.nn.crf_rows import Rows

FORBIDDEN = -1e30
"""The score of what is forbidden: finite, so that nothing is ever infinity minus infinity, and so low that `exp` of it is exactly zero."""

BLOCK = 64
"""Up to so many labels both directions share one product with a block-diagonal matrix: the price is that of the call."""

Steps = Float[Tensor, "rows labels"]
PerSequence = Float[Tensor, " sequences"]


class Scores(NamedTuple):
    """What a path is scored with beside the emissions, in the precision of the sums, `FORBIDDEN` where something is not allowed."""

    transitions: Float[Tensor, "labels labels"]
    """From a label (row) to the next (column)."""
    start: Float[Tensor, " labels"]
    """Of the first label."""
    end: Float[Tensor, " labels"]
    """Of the last label."""


class Potentials(NamedTuple):
    """Exponentials of scores, each kind scaled to a maximum of 1."""

    steps: Steps
    transitions: Float[Tensor, "labels labels"]
    start: Float[Tensor, " labels"]
    end: Float[Tensor, " labels"]
    log_scale: PerSequence
    """What was taken off on the way to a sequence's end, in logarithms."""
    stride: int
    """After how many steps the recursion must be scaled."""


class Posterior(NamedTuple):
    """The parts of forward–backward that marginals and gradients are made of."""

    log_partition: PerSequence
    unary: Steps
    """`P(y_t = k)`."""
    forward: Steps
    """`α_t`, in scales of its own."""
    backward: Steps
    """`e_t β_t`, scaled so that `α_{t-1}[i] transitions[i, j] backward_t[j] = P(y_{t-1} = i, y_t = j)`."""


def log_partition_loop(steps: Steps, rows: Rows, scores: Scores) -> PerSequence:
    """`log Z` by a plain loop over logarithms: right for all scores, differentiable any number of times.

    Args:
        steps: emissions.
        rows: the layout.
        scores: of transitions.

    Returns:
        One number for each sequence that has a step, in the order of `rows.order`.
    """
    forward = scores.start + steps[: rows.sizes[0]]
    ended = []
    for step in steps.split(rows.sizes)[1:]:
        ended.append(forward[len(step) :])
        forward = (forward[: len(step)].unsqueeze(2) + scores.transitions).logsumexp(1) + step
    return (torch.cat([forward, *reversed(ended)]) + scores.end).logsumexp(1)


def safe_stride(reach: float, mixing: int | None, labels: int, dtype: torch.dtype) -> int:
    """After how many steps at the latest a recursion in probability space must be scaled so that nothing in it underflows; 0 if nothing helps.

    Let every label lead to every other one in exactly `mixing` steps. Then two reachable entries of `α_t` (and of `β_t`) differ by a
    factor of `exp(mixing · (reach + log labels))` at most, and the largest moves by one such factor a step. A product of the
    two must stay in range, so each gets half.

    Args:
        reach: the largest difference between two emissions of one step, and two transitions.
        mixing: see above; `None` where no such number exists.
        labels: how many.
        dtype: what is calculated in.

    Returns:
        A number of steps.
    """
    per_step = reach + math.log(labels) + 1
    if mixing is None or not math.isfinite(per_step):
        return 0
    return max(0, int(-math.log(torch.finfo(dtype).tiny) / 2 / per_step) - mixing - 1)


def potentials(steps: Steps, rows: Rows, scores: Scores, mixing: int | None) -> Potentials | None:
    """Scores as scaled exponentials.

    Args:
        steps: emissions.
        rows: the layout.
        scores: of transitions.
        mixing: as `safe_stride` has it.

    Returns:
        Potentials, or nothing where their range is too large for probability space.
    """
    if mixing is None or not rows.sizes:
        return None
    lowest, highest = torch.aminmax(steps, dim=1, keepdim=True)
    tops = [score.amax() for score in scores]
    bottoms = [score.masked_fill(score <= FORBIDDEN, math.inf).amin() for score in scores]
    spread, *reaches, transition_top, start_top, end_top = torch.stack(
        [(highest - lowest).amax(), *(top - bottom for top, bottom in zip(tops, bottoms, strict=True)), *tops]
    ).tolist()
    stride = safe_stride(spread + max(reaches), mixing, steps.shape[1], steps.dtype)
    if stride == 0:
        return None
    taken = highest.new_zeros(rows.sizes[0]).index_add_(0, rows.owner, highest.squeeze(1))
    log_scale = taken + (rows.lengths - 1).to(steps.dtype) * transition_top + (start_top + end_top)
    transitions, start, end = ((score - top).exp_() for score, top in zip(scores, (transition_top, start_top, end_top), strict=True))
    return Potentials((steps - highest).exp_(), transitions, start, end, log_scale, stride)


def recursion(steps: Steps, begin: Tensor, matrices: list[Tensor], rows: Rows, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """`a_t = (a_{t-1} M) e_t`, for one direction or for both side by side.

    Args:
        steps: potentials `e`, `[rows, directions · labels]`.
        begin: what stands for `a_{-1} M`.
        matrices: `M` of each direction.
        rows: the layout.
        stride: after how many steps `a` is scaled to a sum of 1.

    Returns:
        `a_{t-1} M` and `a_t` for all steps, and the logarithm of what the first direction was scaled by, `[sequences]`.
    """
    labels = len(matrices[0])
    before, after = torch.empty_like(steps), torch.empty_like(steps)
    log_scale = steps.new_zeros(rows.sizes[0])
    whole = torch.block_diag(*matrices) if labels <= BLOCK else None
    previous = steps
    splits = zip(steps.split(rows.sizes), before.split(rows.sizes), after.split(rows.sizes), strict=True)
    for t, (step, predicted, updated) in enumerate(splits):
        if t == 0:
            predicted.copy_(begin)
        elif whole is not None:
            torch.mm(previous[: len(step)], whole, out=predicted)
        else:
            for k, matrix in enumerate(matrices):
                some = slice(k * labels, (k + 1) * labels)
                predicted[:, some] = previous[: len(step), some] @ matrix
        torch.mul(predicted, step, out=updated)
        if t % stride == stride - 1:
            by_direction = updated.unflatten(1, (-1, labels))
            total = by_direction.sum(2, keepdim=True)
            by_direction.div_(total)
            log_scale[: len(step)] += total[:, 0, 0].log()
        previous = updated
    return before, after, log_scale


def log_partition_scaled(made: Potentials, rows: Rows) -> PerSequence:
    """`log Z` alone, in probability space.

    Args:
        made: the potentials.
        rows: the layout.

    Returns:
        One number for each sequence that has a step.
    """
    _, after, log_scale = recursion(made.steps, made.start, [made.transitions], rows, made.stride)
    return (after[rows.last] @ made.end).log() + log_scale + made.log_scale


def posterior(made: Potentials, rows: Rows) -> Posterior:
    """Forward–backward in probability space; the backward pass is the forward pass over the reversed sequences, so both run as one.

    Args:
        made: the potentials.
        rows: the layout.

    Returns:
        Marginals and what gradients are made of.
    """
    labels = made.steps.shape[1]
    steps = torch.cat([made.steps, made.steps.index_select(0, rows.mirror)], 1)
    begin = torch.cat([made.start, made.end])
    before, after, log_scale = recursion(steps, begin, [made.transitions, made.transitions.t()], rows, made.stride)
    forward, backward = after[:, :labels], after[:, labels:].index_select(0, rows.mirror)
    unary = before[:, :labels] * backward
    total = unary.sum(1, keepdim=True)
    log_partition = (forward[rows.last] @ made.end).log() + log_scale + made.log_scale
    return Posterior(log_partition, unary.div_(total), forward, backward.div_(total))


class _LogPartition(torch.autograd.Function):
    """`log Z`, whose gradient is known in closed form: the expected number of times that a path makes use of a score."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, rows: Rows, made: Potentials) -> Tensor:
        ctx.rows = rows
        if not any(ctx.needs_input_grad):
            return log_partition_scaled(made, rows)
        found = posterior(made, rows)
        ctx.save_for_backward(emissions, transitions, start, end, found.unary, found.forward, found.backward, made.transitions)
        return found.log_partition

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        *inputs, unary, forward, backward, matrix = ctx.saved_tensors
        rows = ctx.rows
        if torch.is_grad_enabled():
            # Someone wants the derivative of this derivative: the loop has all of them.
            emissions, transitions, start, end = inputs
            loop = log_partition_loop(rows.take(emissions).to(transitions.dtype), rows, Scores(transitions, start, end))
            wanted = [some for some, needed in zip(inputs, ctx.needs_input_grad[:4], strict=True) if needed]
            found = iter(torch.autograd.grad(loop, wanted, gradient, create_graph=True, allow_unused=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:4]), None, None
        emissions = inputs[0]
        sequences = rows.sizes[0]
        weights = gradient[rows.owner].unsqueeze(1)
        by_emission = unary * weights
        pairs = forward.index_select(0, rows.before).t() @ (backward[sequences:] * weights[sequences:])
        by_start, by_end = by_emission[:sequences].sum(0), by_emission[rows.last].sum(0)
        by_emission = rows.put(by_emission.to(emissions.dtype), emissions)
        return by_emission, pairs.mul_(matrix), by_start, by_end, None, None


def log_partition(emissions: Float[Tensor, "batch time labels"], rows: Rows, scores: Scores, mixing: int | None) -> PerSequence:
    """`log Z = log Σ_y exp(score(y))`, differentiable.

    Args:
        emissions: of the padded batch.
        rows: its layout.
        scores: of transitions.
        mixing: as `safe_stride` has it.

    Returns:
        One number for each sequence that has a step, in the order of `rows.order`, in the precision of `scores`.
    """
    with torch.no_grad():
        made = potentials(rows.take(emissions).to(scores.start.dtype), rows, scores, mixing)
    if made is not None:
        return _LogPartition.apply(emissions, *scores, rows, made)
    steps = rows.take(emissions).to(scores.start.dtype)
    return log_partition_loop(steps, rows, scores) if rows.sizes else steps.sum(1)


def unary_marginals(emissions: Float[Tensor, "batch time labels"], rows: Rows, scores: Scores, mixing: int | None) -> Steps:
    """`P(y_t = k)` at every step; differentiable where the emissions ask for it.

    Args:
        emissions: of the padded batch.
        rows: its layout.
        scores: of transitions.
        mixing: as `safe_stride` has it.

    Returns:
        Probabilities in the order of the rows.
    """
    steps = rows.take(emissions).to(scores.start.dtype)
    wanted = torch.is_grad_enabled() and emissions.requires_grad
    if not rows.sizes:
        return steps
    if not wanted:
        with torch.no_grad():
            made = potentials(steps, rows, scores, mixing)
            if made is not None:
                return posterior(made, rows).unary
        steps, scores = steps.detach().requires_grad_(), Scores(*(score.detach() for score in scores))
    with torch.enable_grad():
        total = log_partition_loop(steps, rows, scores).sum()
        (unary,) = torch.autograd.grad(total, steps, create_graph=wanted)
    return unary

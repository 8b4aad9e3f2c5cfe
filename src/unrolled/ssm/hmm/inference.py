"""Filter, smoother, two-slice marginals, Viterbi, posterior decoding and likelihood of a hidden Markov model, by the form that fits the device.

All take a chain and `scores`, the logarithms of what each state says to each output, `log P(y_t | z_t)`: whatever the outputs are, an emission makes
these of them. An output that is missing has the score 0 in every state.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded, check_lengths
from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.compiled import COMPILED, takes
from unrolled.ssm.hmm.likelihood import ExactGradient
from unrolled.ssm.hmm.pairs import two_slice
from unrolled.ssm.hmm.parallel import PARALLEL
from unrolled.ssm.hmm.results import Filtered, Form, Paths, Smoothed
from unrolled.ssm.hmm.serial import SERIAL

__all__ = ["FORMS", "filter", "fitting", "log_likelihood", "posterior_decode", "smooth", "two_slice", "viterbi"]

FORMS = (SERIAL, PARALLEL, COMPILED)
"""All there are: one step after the other, in logarithmic depth, and in C++. They give the same."""


def filter(chain: Chain, scores: Padded, *, form: Form | None = None) -> Filtered:
    """What outputs so far say about the state of each step.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`, `[batch, time, states]`; what lies past a length means nothing.
        form: one of `FORMS`; by default C++ on a CPU, or serial where gradients are wanted, and parallel on a GPU.

    Returns:
        The filter's results.
    """
    return (form or fitting(chain, scores)).filter(chain, _checked(chain, scores))


def smooth(chain: Chain, scores: Padded, *, form: Form | None = None) -> Smoothed:
    """What all outputs say about the state of each step, and how often each transition is expected.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`, `[batch, time, states]`.
        form: as for `filter`.

    Returns:
        The smoother's results.
    """
    return (form or fitting(chain, scores)).smooth(chain, _checked(chain, scores))


def log_likelihood(chain: Chain, scores: Padded, *, form: Form | None = None) -> Float[Tensor, " batch"]:
    """`log P(y)` of each sequence.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`, `[batch, time, states]`.
        form: as for `filter`; without one, gradients on a CPU come from the smoother.

    Returns:
        0 for a sequence without steps, minus infinity for one that cannot be.
    """
    if form is None and takes(*(part.detach() for part in (*chain, scores.data))):
        return ExactGradient.apply(*chain, _checked(chain, scores).data, scores.lengths)
    return filter(chain, scores, form=form).log_likelihood


def viterbi(chain: Chain, scores: Padded, *, form: Form | None = None) -> Paths:
    """The likeliest sequence of states as a whole.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`, `[batch, time, states]`.
        form: as for `filter`.

    Returns:
        States and `log P(y, z)`.
    """
    return (form or fitting(chain, scores)).viterbi(chain, _checked(chain, scores))


def posterior_decode(chain: Chain, scores: Padded, *, form: Form | None = None) -> Int[Tensor, "batch time"]:
    """The likeliest state of each step by itself; the sequence as a whole may be impossible.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`, `[batch, time, states]`.
        form: as for `filter`.

    Returns:
        States, -1 past a length.
    """
    return smooth(chain, scores, form=form).probabilities.argmax(-1).masked_fill(~scores.mask, -1)


def fitting(chain: Chain, scores: Padded) -> Form:
    """The form that fits where the tensors are and whether gradients are wanted.

    Args:
        chain: initial state and transitions.
        scores: what would be given with it.

    Returns:
        One of `FORMS`.
    """
    if scores.data.device.type != "cpu":
        return PARALLEL
    return COMPILED if takes(*chain, scores.data) else SERIAL


def _checked(chain: Chain, scores: Padded) -> Padded:
    data = scores.data
    if data.dim() != 3 or data.shape[-1] != chain.states:
        raise DataError(f"`scores` must be [batch, time, {chain.states}], a number for each state of the chain, got {tuple(data.shape)}")
    if chain.varies and chain.transition.shape[:2] != data.shape[:2]:
        raise DataError(
            f"`transition` must have one matrix for each of the {tuple(data.shape[:2])} steps, got {tuple(chain.transition.shape[:2])}"
        )
    check_lengths(scores.lengths, *data.shape[:2])
    return scores

"""Maximum likelihood by the gradient: L-BFGS over free numbers, from which a function makes the system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.entries import as_padded, check_inputs, entries
from unrolled.ssm.kalman.inference import likelihood_of
from unrolled.ssm.kalman.system import LinearGaussian, check_system, symmetric
from unrolled.ssm.watch import Watch, unwatched

CHANGE = 1e-11
"""The search ends where a step changes the log-likelihood by less than this share."""
HISTORY = 20
"""Steps from which L-BFGS guesses the curvature."""


class Fitted(NamedTuple):
    """What a search found."""

    parameters: Float[Tensor, " free"]
    """The free numbers."""
    log_likelihood: float
    """Of all series together."""
    history: list[float]
    """The log-likelihood at each evaluation, the first at the start."""
    converged: bool
    """Whether the search ended by itself, before it had to."""


def fit_by_gradient(
    build: Callable[[Tensor], LinearGaussian],
    starts: Sequence[Tensor],
    series: Tensor | Padded,
    inputs: Tensor | None = None,
    *,
    iterations: int = 500,
    watch: Watch = unwatched,
) -> Fitted:
    """The free numbers of the largest likelihood found.

    What is frozen, shared or bound to a sign is up to `build`: it may put constants anywhere, use a number twice, or take an exponential.

    Args:
        build: makes the system of the free numbers; differentiable.
        starts: where to begin, one search each; the best result is kept.
        series: outputs `[batch, time, observed]`; NaN is missing.
        inputs: known inputs `[batch, time, input]`.
        iterations: at most so many of L-BFGS.
        watch: is told each log-likelihood that was evaluated.

    Returns:
        The best of all searches.

    Raises:
        DataError: no start, or none from which the likelihood is finite.
    """
    if not starts:
        raise DataError("`starts` must hold at least one vector of numbers to begin from, got none")
    with torch.no_grad():
        system = check_system(build(starts[0]))
        padded = as_padded(system, series)
        known = check_inputs(system, padded, inputs)
    searches = (_search(build, start, (padded, known), iterations, partial(watch, number)) for number, start in enumerate(starts, 1))
    found = [one for one in searches if one is not None]
    if not found:
        raise DataError(
            "the log-likelihood must be finite at one of `starts`, got none that is; try starts nearer to the scale of the data"
        )
    return max(found, key=lambda one: one.log_likelihood)


def _search(
    build: Callable[[Tensor], LinearGaussian],
    start: Tensor,
    data: tuple[Padded, Tensor | None],
    iterations: int,
    watch: Callable[[int, float], None],
) -> Fitted | None:
    series, inputs = data
    free = start.detach().clone().requires_grad_()
    count = max(int((~series.data.isnan()).sum()), 1)
    history: list[float] = []
    best: tuple[float, Tensor] = (float("-inf"), free.detach().clone())

    def loss() -> Tensor:
        nonlocal best
        optimizer.zero_grad()
        system = symmetric(build(free))
        value = -likelihood_of(system, entries(system, series, inputs)).sum() / count
        if not bool(value.isfinite()):
            # A line search that has gone too far comes back from a wall.
            return torch.full_like(value, 1e10)
        value.backward()
        history.append(-float(value.detach()) * count)
        watch(len(history), history[-1])
        if history[-1] > best[0]:
            best = history[-1], free.detach().clone()
        return value

    evaluations = iterations * 5 // 4
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=iterations,
        max_eval=evaluations,
        tolerance_grad=1e-9,
        tolerance_change=CHANGE,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )
    converged = True
    if free.numel():
        optimizer.step(loss)
        converged = optimizer.state[free]["n_iter"] < iterations and optimizer.state[free]["func_evals"] < evaluations
    else:
        with torch.no_grad():
            system = symmetric(build(free))
            history.append(float(likelihood_of(system, entries(system, series, inputs)).sum()))
            best = history[-1], free.detach().clone()
            watch(1, history[-1])
    return Fitted(best[1], best[0], history, converged) if history else None

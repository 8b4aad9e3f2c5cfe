"""Baum–Welch: expectation–maximisation for hidden Markov models (Baum et al. 1970; Rabiner 1989, section III.C), for many sequences at once.

E-step: `P(z_t | y)` and the expected transitions under the present parameters. M-step: dynamics and emission are fitted to these, each by itself. The
objective, log-likelihood plus log-prior, can not fall but by rounding; where it does, something is wrong, and an error says what. A state that no output
belongs to any more is repaired: it is fitted to the outputs that are explained worst. After that alone the objective may be lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.compiled import Flat, Places, run_rows, takes
from unrolled.ssm.hmm.dynamics import Dynamics, Expected
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.inference import fitting
from unrolled.ssm.hmm.rows import Rows, pack, unpack
from unrolled.ssm.watch import Watch, unwatched

ROUNDING = 1e-9
"""By how much of its size an objective may fall."""


@dataclass(frozen=True)
class BaumWelchSettings:
    """When to stop, and what to do about states that die out."""

    iterations: int = 100
    """At most."""
    tolerance: float = 1e-6
    """Stop where an iteration gains less than this a step of the data, in nats."""
    dead: float = 0.1
    """A state to which fewer outputs than this are expected to belong, over all sequences, is repaired."""
    repairs: int = 10
    """At most; 0 for none."""


class Repair(NamedTuple):
    """A state that was given outputs anew."""

    iteration: int
    """After which, counted from 1."""
    state: int
    """Which one."""


class Fit(NamedTuple):
    """What Baum–Welch found."""

    dynamics: Dynamics
    emission: Emission
    log_likelihoods: list[float]
    """Of all sequences together, before each iteration and at the end."""
    objectives: list[float]
    """The same with the log-prior, up to a constant."""
    repairs: list[Repair]
    converged: bool
    """Whether it stopped by `tolerance`."""


class _Step(NamedTuple):
    """An E-step."""

    expected: Expected
    weights: Tensor
    """`P(z_t | y)` by kind of output, `[rows, states]`."""
    evidence: Tensor
    log_likelihood: float
    objective: float


def baum_welch(
    dynamics: Dynamics,
    emission: Emission,
    outputs: Padded,
    *,
    inputs: Tensor | None = None,
    settings: BaumWelchSettings | None = None,
    watch: Watch = unwatched,
) -> Fit:
    """Fit dynamics and emission to sequences, from where they are.

    Where there is nothing to fit to, a sequence cannot be at all, or the objective fell, a `DataError` says so.

    Args:
        dynamics: the chain to begin from.
        emission: the outputs' distribution to begin from.
        outputs: `[batch, time, …]` with lengths; NaN is missing.
        inputs: `[batch, time, inputs]`, for dynamics that are driven by them.
        settings: when to stop.
        watch: is told each log-likelihood; the start is 1.

    Returns:
        The fitted parts and the history.

    Raises:
        ConfigurationError: dynamics and emission have different numbers of states.
    """
    settings = settings or BaumWelchSettings()
    if dynamics.states != emission.states:
        raise ConfigurationError(f"dynamics and emission must have as many states, got {dynamics.states} and {emission.states}")
    dynamics.check()
    emission.check()
    rows = emission.rows(outputs)
    _check_seen(rows)
    flat_inputs = None if inputs is None else pack(Padded(inputs, outputs.lengths))
    with torch.no_grad():
        return _iterate((dynamics, emission), rows, flat_inputs, settings, watch)


def _check_seen(rows: Rows) -> None:
    if not len(rows.values):
        raise DataError("fitting needs outputs, got sequences without steps only")
    nothing = rows.seen is not None and not bool(rows.seen.any())
    if nothing or (not rows.values.is_floating_point() and bool((rows.values < 0).all())):
        raise DataError("fitting needs outputs, got missing ones only")


def _iterate(before: tuple[Dynamics, Emission], rows: Rows, inputs: Tensor | None, settings: BaumWelchSettings, watch: Watch) -> Fit:
    dynamics, emission = before
    likelihoods: list[float] = []
    objectives: list[float] = []
    repairs: list[Repair] = []
    converged = repaired = False
    begin = dynamics
    for iteration in range(settings.iterations + 1):
        step = expectation(dynamics, emission, rows, inputs)
        if objectives and not repaired:
            gain = step.objective - objectives[-1]
            if not gain >= -ROUNDING * (1 + abs(step.objective)):
                raise _fall(before, (dynamics, emission), rows, inputs, (objectives[-1], step.objective, iteration))
            converged = gain < settings.tolerance * len(rows.values)
        likelihoods.append(step.log_likelihood)
        watch(1, iteration + 1, step.log_likelihood)
        objectives.append(step.objective)
        if converged or iteration == settings.iterations:
            break
        before = dynamics, emission
        dead = _dead(step.weights, settings, len(repairs))
        weights = _reseeded(step, dead) if dead else step.weights
        dynamics, emission = dynamics.fitted(step.expected, inputs), emission.fitted(rows, weights)
        for state in dead:
            dynamics = dynamics.revived(state, begin)
            repairs.append(Repair(iteration + 1, state))
        repaired = bool(dead)
    return Fit(dynamics, emission, likelihoods, objectives, repairs, converged)


def expectation(dynamics: Dynamics, emission: Emission, rows: Rows, inputs: Tensor | None) -> _Step:
    """The E-step.

    Args:
        dynamics: the present ones.
        emission: the present one.
        rows: outputs.
        inputs: by row.

    Returns:
        Expected counts and the objective.

    Raises:
        DataError: a sequence that cannot be.
    """
    chain = dynamics.chain(inputs)
    scores = emission.scores(rows)
    owner = dynamics.owner
    flat = infer_rows(chain, scores if owner is None else scores[:, owner], rows.places)
    assert flat.smoothed is not None
    assert flat.transitions is not None
    if not bool(flat.log_likelihood.isfinite().all()):
        sequence = int((~flat.log_likelihood.isfinite()).nonzero()[0])
        raise DataError(
            f"every sequence must be possible, got the log-likelihood {float(flat.log_likelihood[sequence])} for sequence {sequence} (counted from 0); "
            "give small probabilities to what can happen, or a prior with a concentration above 1"
        )
    places = rows.places
    begun = places.starts[places.lengths > 0]
    expected = Expected(flat.smoothed[begun].sum(0), flat.transitions.sum(0), flat, chain, places)
    weights = flat.smoothed
    if owner is not None:
        weights = weights.new_zeros(len(weights), emission.states).index_add_(1, owner, weights)
    likelihood = float(flat.log_likelihood.sum())
    return _Step(expected, weights, flat.evidence, likelihood, likelihood + float(dynamics.log_prior()) + float(emission.log_prior()))


def infer_rows(chain: Chain, scores: Tensor, places: Places) -> Flat:
    """Filter and smooth sequences one behind the other, in C++ or by the form that fits the device.

    Args:
        chain: its matrices by row where they vary.
        scores: `[rows, states]`.
        places: of the sequences, without gaps.

    Returns:
        Everything by row.
    """
    if takes(*chain, scores):
        return run_rows(chain, scores, places)
    time = int(places.lengths.max()) if len(places.lengths) else 0
    padded = Padded(unpack(scores, places.lengths, time), places.lengths)
    if chain.transition.dim() > 2:
        chain = chain._replace(transition=unpack(chain.transition, places.lengths, time))
    smoothed = fitting(chain, padded).smooth(chain, padded)
    filtered = smoothed.filtered
    by_row = [pack(Padded(part, places.lengths)) for part in (*filtered[:3], smoothed.probabilities)]
    return Flat(by_row[0], by_row[1], by_row[2], by_row[3], smoothed.transitions, filtered.log_likelihood)


def _dead(weights: Tensor, settings: BaumWelchSettings, done: int) -> list[int]:
    """States without outputs, as many as may still be repaired."""
    if done >= settings.repairs or len(weights) < 2 * weights.shape[1]:
        return []
    found = (weights.sum(0) < settings.dead).nonzero().squeeze(1).tolist()
    return found[: settings.repairs - done] if len(found) < weights.shape[1] else []


def _reseeded(step: _Step, dead: list[int]) -> Tensor:
    """Weights in which dead states have the outputs that are explained worst, each as many as half of an even share."""
    weights = step.weights.clone()
    count = max(2, len(weights) // (2 * weights.shape[1]))
    worst = step.evidence.argsort()
    for place, state in enumerate(dead):
        chosen = worst[place * count : (place + 1) * count]
        weights[:, state] = 0
        weights[chosen, state] = 1
    return weights


def _fall(
    before: tuple[Dynamics, Emission], after: tuple[Dynamics, Emission], rows: Rows, inputs: Tensor | None, told: tuple[float, float, int]
) -> DataError:
    """The error about an objective that fell, with the half that caused it."""
    halves = {"dynamics": (after[0], before[1]), "emission": (before[0], after[1])}
    old, new, iteration = told
    blamed = [name for name, (dynamics, emission) in halves.items() if expectation(dynamics, emission, rows, inputs).objective < old]
    causes = {
        "dynamics": "the transitions that were fitted are less likely than those before",
        "emission": "the outputs are less likely under the emission that was fitted than under that before; "
        "a variance near zero is a common cause, which a larger `floor` or a prior prevents",
    }
    reason = "; and ".join(causes[name] for name in blamed) or "only both changes together are worse"
    return DataError(
        f"each iteration of Baum–Welch must raise the objective, got {new:.10g} after {old:.10g} in iteration {iteration}: {reason}"
    )

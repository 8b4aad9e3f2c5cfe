"""The learning rate as a function of the share of training that is done."""

from __future__ import annotations

import math
from collections.abc import Callable

from unrolled.train.settings import ScheduleSettings

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "plateau": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
"""From 1 at the start to 0 at the end, by name."""


LONGEST_WARMUP = 0.1
"""The share of a training after which it has warmed up, whatever `warmup_steps` says: a short one would learn nothing before."""


def rate_share(settings: ScheduleSettings, step: int, done: float, plateaus: int) -> float:
    """The learning rate as a share of its peak.

    Args:
        settings: form, warm-up, floor.
        step: updates taken so far.
        done: share of the training that is done, 0 to 1.
        plateaus: how often validation has stopped falling.

    Returns:
        A number from 0 to 1.
    """
    warmed = (step + 1) / (settings.warmup_steps + 1)
    # The others do not look at the end, so that a training may be given a later one.
    warmup = min(1.0, max(warmed, done / LONGEST_WARMUP) if settings.name in ("linear", "cosine") else warmed)
    if settings.name == "plateau":
        return warmup * settings.factor**plateaus
    shape = SHAPES[settings.name](min(done, 1.0))
    return warmup * (settings.final_share + (1 - settings.final_share) * shape)


def count_plateaus(losses: list[float], patience: int) -> int:
    """How often `patience` evaluations in a row brought no better loss.

    Args:
        losses: validation losses in order.
        patience: evaluations that make a plateau.

    Returns:
        The number of plateaus.
    """
    best, waiting, plateaus = math.inf, 0, 0
    for loss in losses:
        if loss < best:
            best, waiting = loss, 0
        else:
            waiting += 1
            if waiting == patience:
                plateaus, waiting = plateaus + 1, 0
    return plateaus

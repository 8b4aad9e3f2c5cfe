"""How a fit tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Callable

Watch = Callable[[int, int, float], None]
"""Is told which beginning this is and which iteration, both counted from 1, and the log-likelihood that was reached."""


def unwatched(start: int, iteration: int, log_likelihood: float) -> None:
    """Nobody looks.

    Args:
        start: which beginning.
        iteration: of it.
        log_likelihood: reached.
    """

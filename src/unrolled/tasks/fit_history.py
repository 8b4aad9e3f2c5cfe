"""The log-likelihood in each iteration of a fit, as it is kept in a run."""

from __future__ import annotations

import json
from collections.abc import Mapping


class History:
    """What a search told of itself."""

    def __init__(self, before: int = 0) -> None:
        """Of a search that begins.

        Args:
            before: how many log-likelihoods are told before the first iteration.
        """
        self.before = before
        self.starts: dict[int, list[float]] = {}
        """By beginning, counted from 1."""

    def take(self, start: int, iteration: int, log_likelihood: float) -> None:
        """Note an iteration.

        Args:
            start: which beginning.
            iteration: of it.
            log_likelihood: reached.
        """
        self.starts.setdefault(start, []).append(log_likelihood)

    @property
    def iterations(self) -> int:
        """How many there were from the beginning that reached most; 0 where nothing was told."""
        return max(len(self._best) - self.before, 0)

    @property
    def _best(self) -> list[float]:
        return max(self.starts.values(), key=max, default=[])


def history_lines(found: Mapping[int | None, History]) -> str:
    """What is written of several searches.

    Args:
        found: by the number of states; `None` for a model without such a number.

    Returns:
        A JSON object a line.
    """
    lines = [
        ({} if size is None else {"states": size}) | {"start": start, "iteration": iteration, "log_likelihood": value}
        for size, history in found.items()
        for start, values in history.starts.items()
        for iteration, value in enumerate(values, 1 - history.before)
    ]
    return "".join(json.dumps({"kind": "fit", **line}) + "\n" for line in lines)

"""A training that goes on only while it is its turn; else it does nothing, in the middle of whatever loop it has. For workers; see turns.py.

The first line in says what is to be trained, and is answered when all is ready; each further line, `{"seconds": …, "warm": …}`, is a turn: so many
updates that do not count, then updates for so many seconds. At the end of the input the process ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


class Meter:
    """Counts the words of updates."""

    def __init__(self) -> None:
        self.answers, sys.stdout = sys.stdout, sys.stderr  # what others print goes to the log
        self.asked = json.loads(sys.stdin.readline())

    def ready(self, **facts: Any) -> None:
        """Everything but the training is done: tell it and wait for the first turn."""
        self._tell(facts)
        self._wait()

    def updated(self, words: int) -> None:
        """An update is over that learnt from so many words; comes back when there is to be another one."""
        if self.warm:
            self.warm -= 1
            if not self.warm:
                self._begin()
            return
        self.words, self.updates = self.words + words, self.updates + 1
        seconds = time.perf_counter() - self.start
        if seconds >= self.seconds:
            self._tell({"words": self.words, "updates": self.updates, "seconds": seconds})
            self._wait()

    def _tell(self, answer: dict[str, Any]) -> None:
        self.answers.write(json.dumps(answer) + "\n")
        self.answers.flush()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # the loop we are called from would go on
        turn = json.loads(line)
        self.seconds, self.warm = turn["seconds"], turn["warm"]
        self._begin()

    def _begin(self) -> None:
        self.words, self.updates, self.start = 0, 0, time.perf_counter()

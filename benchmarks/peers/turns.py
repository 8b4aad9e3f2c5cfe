"""How a worker of `kernels.py` is spoken to: one JSON object a line in, one a line out, and at rest it does nothing.

`{"make": {"mode": …, "cell": …, "batch": …, "hidden": …, "steps": …, "arrays": FILE}}` prepares what can be run; `{"turn": NAME, "least": SECONDS,
"warm": true}` runs it for a while and tells the milliseconds of one run; at the end of the input the worker ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Works = Mapping[str, Callable[[], Any]]
Make = Callable[[dict[str, Any]], tuple[Works, dict[str, Any]]]
"""From what is asked for to what can be run, by name, and what else is to be told."""


def keep_to_threads() -> int:
    """The number of threads on the command line; this process keeps to as many processors. To be called before anything starts threads."""
    threads = int(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    return threads


def take_turn(work: Callable[[], Any], least: float, warm: bool) -> float:
    """Milliseconds of one run, of as many as take `least` seconds; `warm` runs it once before."""
    if warm:
        work()
    runs, begin = 0, time.perf_counter()
    while True:
        work()
        runs, spent = runs + 1, time.perf_counter() - begin
        if spent >= least:
            return 1000 * spent / runs


def serve(make: Make) -> None:
    """Answer until the input ends. What others print goes to the log."""
    answers, sys.stdout = sys.stdout, sys.stderr
    works: Works = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "make" in asked:
            works = {}  # what was made before may be large
            works, told = make(asked["make"])
            told = {"names": list(works), **told}
        else:
            told = {"milliseconds": take_turn(works[asked["turn"]], asked["least"], asked["warm"])}
        answers.write(json.dumps(told) + "\n")
        answers.flush()

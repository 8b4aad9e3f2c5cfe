"""What every runner of a system has in common: read a job, translate a little to warm up, time the whole, write the result.

A runner is started as `python run_NAME.py JOB.json` by an interpreter that has the system; only the standard library is needed here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Output = tuple[str, int]
"""What was written for one line, and how many symbols it has without the end symbol."""
Translate = Callable[[list[str]], list[Output]]
"""Lines in, outputs in their order."""
Ready = Callable[[dict[str, Any]], Translate]
"""From a candidate, such as `{"batch": 64}`, to what translates under it."""


def read_job() -> dict[str, Any]:
    """The job that was given on the command line."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def write(job: dict[str, Any], result: dict[str, Any]) -> None:
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def time_decoding(job: dict[str, Any], ready: Ready, **facts: Any) -> None:
    """Time every candidate once; loading is over, and each warms up on the first lines.

    Args:
        job: `sources`, a file of lines; `candidates`; `warm`, how many lines warm up; `result`, the file to write.
        ready: makes what translates.
        facts: of the model, to be written as well.
    """
    lines = Path(job["sources"]).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    runs, outputs = [], []
    for candidate in job["candidates"]:
        translate = ready(candidate)
        translate(lines[: job["warm"]])
        start = time.perf_counter()
        outputs = translate(lines)
        runs.append({"candidate": candidate, "seconds": time.perf_counter() - start})
        assert len(outputs) == len(lines)
    texts, lengths = zip(*outputs, strict=True)
    write(job, {"runs": runs, "outputs": texts, "lengths": lengths, **facts})

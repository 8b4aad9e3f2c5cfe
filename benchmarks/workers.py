"""Processes that are told line by line what to do, so that several systems can take turns; see peers/turns.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from environments import PEERS

LONGEST_PAUSE = 0.5


class Worker:
    """A process that is told what to run; see peers/turns.py."""

    def __init__(self, python: str, script: str, threads: int, log: Path, *words: str) -> None:
        self.log = log
        surroundings = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [python, str(PEERS / script), str(threads), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=surroundings,
            )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            sys.exit(f"a worker ended; the end of {self.log}:\n{tail}")
        return json.loads(answer)

    def fall_asleep(self) -> None:
        """Wait until no thread of this process runs any more: they go on looking for work after a turn, those of ONNX Runtime for 50 ms."""
        begin, before = time.perf_counter(), -1
        while (now := self._nanoseconds()) != before and time.perf_counter() - begin < LONGEST_PAUSE:
            before = now
            time.sleep(0.01)

    def _nanoseconds(self) -> float:
        """Time on processors, of all threads; where the system does not tell, it never stands still."""
        threads = Path(f"/proc/{self.process.pid}/task")
        if not threads.is_dir():
            return time.perf_counter()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads.iterdir())

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

"""The environments of other systems: each has its own, made from `peers/requirements-NAME.txt` where it is not there yet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent / "peers"


def call(words: list[str], log: Path) -> None:
    """Run a program by itself, its words into a log."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or words[0] == sys.executable}
    with open(log, "a", encoding="utf-8") as file:
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=surroundings, check=False).returncode
    if code:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        sys.exit(f"{' '.join(words)} ended with {code}; the end of {log}:\n{tail}")


def environment(peer: str, cache: Path) -> str:
    """The interpreter of a peer's own environment, made where it is not there or is for other requirements."""
    folder, wanted = cache / f"environment-{peer}", PEERS / f"requirements-{peer}.txt"
    python, stamp, log = str(folder / "bin" / "python"), folder / "requirements.txt", cache / f"environment-{peer}.log"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return python
    print(f"installing {peer}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    call([sys.executable, "-m", "venv", str(folder)], log)
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--constraint", str(wanted)]
    if "torch==" in wanted.read_text():
        call([*install, "torch"], log)
    call([*install, "--requirement", str(wanted)], log)
    stamp.write_text(wanted.read_text())
    return python

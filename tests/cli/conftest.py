"""The command line as a person has it: a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

SMALL = [
    "--set=model.hidden_size=16",
    "--set=model.embedding_size=8",
    "--set=train.batch_size=4",
    "--set=train.window=8",
    "--set=train.steps=12",
    "--set=train.evaluations=3",
    "--set=train.evaluation_batch_size=4",
    "--set=train.log_every=2",
    "--set=samples.length=20",
]
"""Options that make a training take a second."""


def call(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `unrolled …` in a folder, within this process: starting torch anew for every command would take minutes.

    `given` is what stands on the standard input.
    """
    from unrolled.cli import main

    code, out, err = 0, io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as lines,
        contextlib.chdir(folder),
        patch.object(sys, "argv", ["unrolled", *arguments]),
        patch.object(sys, "stdin", lines),
        patch.dict(os.environ, COLUMNS="200"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        lines.write(given)
        lines.flush()
        lines.seek(0)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `unrolled …` in a folder of its own, within this process; the test stands in that folder as well."""
    monkeypatch.chdir(tmp_path)
    return partial(call, tmp_path)


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Runs `unrolled …` as a process of its own."""

    def run(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "unrolled", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **kwargs,
        )

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\nand runs away from it\n" * 30)
    return path

"""Killed at any moment, some of them inside the write of a checkpoint: the resumed run ends as the uninterrupted one does, to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

SETS = {
    "model.hidden_size": 96,
    "model.embedding_size": 32,
    "model.output_dropout": 0.2,
    "model.input_dropout": 0.1,
    "train.batch_size": 8,
    "train.window": 16,
    "train.steps": 120,
    "train.evaluations": 6,
    "train.evaluation_batch_size": 8,
    "train.log_every": 5,
    "train.precision": "fp32",
    "train.threads": 1,
    "train.save_seconds": 0.05,
    "samples.length": 20,
}
TIMINGS = {"seconds", "tokens_per_second"}


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unrolled", "train", "lm", *arguments, "--quiet"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def every_file_is_whole(run: Path) -> None:
    """What stands under its own name can be read to its end."""
    for path in run.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)
    for path in run.rglob("*.json"):
        json.loads(path.read_text())
    for path in run.rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)


def lines(path: Path) -> list[dict[str, object]]:
    return [{key: value for key, value in json.loads(line).items() if key not in TIMINGS} for line in path.read_text().splitlines()]


@pytest.mark.timeout(600)
def test_three_kills(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills(tmp_path: Path) -> None:
    assert kill_and_compare(tmp_path, 20) >= 3


def kill_and_compare(tmp_path: Path, wanted: int) -> int:
    """Kill a training again and again, resume it each time, and hold its end to that of one that was left alone.

    Returns how many of the kills came inside a write.
    """
    chosen = random.Random(0)
    (tmp_path / "text.txt").write_text("".join(chosen.choice("abcdefgh \n") for _ in range(20_000)))
    first = ["text.txt", *[f"--set={key}={value}" for key, value in SETS.items()]]
    assert start(tmp_path, *first, "--out", "whole").wait() == 0

    kills, inside_writes = 0, 0
    process = start(tmp_path, *first, "--out", "killed")
    while kills < wanted:
        # From the moment on which there is something to kill: training has begun and saves all the time.
        while not (tmp_path / "killed" / "checkpoint.safetensors").exists() and process.poll() is None:
            time.sleep(0.01)
        before = (tmp_path / "killed" / "checkpoint.safetensors").stat().st_mtime_ns
        while process.poll() is None and (tmp_path / "killed" / "checkpoint.safetensors").stat().st_mtime_ns == before:
            time.sleep(0.001)
        if kills % 2:  # every other one while a file is being written
            while process.poll() is None and not list((tmp_path / "killed").glob(".unfinished-*")):
                pass
        else:
            time.sleep(chosen.uniform(0, 0.2))
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read().decode()
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        inside_writes += bool(list((tmp_path / "killed").glob(".unfinished-*")))
        every_file_is_whole(tmp_path / "killed")
        process = start(tmp_path, "--resume", "--out", "killed")
    assert process.wait() == 0, process.stderr.read().decode()
    print(f"{kills} kills, {inside_writes} inside a write")
    assert kills == wanted
    assert not list((tmp_path / "killed").rglob(".unfinished-*"))
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        a, b = load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(tmp_path / "whole" / name) == lines(tmp_path / "killed" / name)
    return inside_writes

"""Two processes under torchrun train as one does on the same global batch, dropout included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = {
    "model.hidden_size": 16,
    "model.embedding_size": 8,
    "model.layers": 2,
    "model.output_dropout": 0.2,
    "model.hidden_dropout": 0.2,
    "model.weight_drop": 0.2,
    "train.batch_size": 4,
    "train.window": 8,
    "train.steps": 8,
    "train.evaluations": 2,
    "train.evaluation_batch_size": 4,
    "train.log_every": 1,
    "train.precision": "fp32",
    "samples.length": 10,
}


def start(folder: Path, processes: int, *more: str, task: str = "lm") -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "unrolled", "train", task, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)


def train(folder: Path, name: str, processes: int, *more: str) -> list[dict[str, float]]:
    done = start(folder, processes, *more, "--out", name, "--json", *[f"--set={key}={value}" for key, value in OPTIONS.items()])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == OPTIONS["train.steps"]  # one process speaks
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.timeout(600)
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\nand runs away from it\n" * 30)
    one, two = train(tmp_path, "one", 1, "text.txt"), train(tmp_path, "two", 2, "text.txt")
    assert [line["kind"] for line in one] == [line["kind"] for line in two]
    for a, b in zip(one, two, strict=True):
        assert a["tokens"] == b["tokens"] and a["epoch"] == b["epoch"]
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-5)
        if a["kind"] == "train":
            assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=2e-4)


PAIR_OPTIONS = {
    "data.tokens": "words",
    "model.hidden_size": 8,
    "model.hidden_dropout": 0.3,
    "model.decoder.layers": 2,
    "train.batch_tokens": 24,
    "train.steps": 8,
    "train.evaluations": 2,
    "train.evaluation_decodes": 3,
    "train.log_every": 1,
    "train.precision": "fp32",
}


TRANSFORMER = {
    "model.hidden_size": 8,
    "model.hidden_dropout": 0.3,
    "model.input_dropout": 0.2,
    "model.encoder.kind": "transformer",
    "model.decoder.kind": "transformer",
    "model.transformer.heads": 2,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", [pytest.param({}, marks=pytest.mark.slow, id="recurrent"), pytest.param(TRANSFORMER, id="Transformer")])
def test_two_processes_share_batches_of_pairs(model: dict[str, object], tmp_path: Path) -> None:
    """Batches have any number of rows, also a single one, which one of the processes then has not."""
    words = ["ein", "Hund", "rennt", "im", "Schnee"]
    lines = [" ".join(words[: 1 + i % 5] * (5 if i % 9 == 0 else 1)) for i in range(40)]
    (tmp_path / "pairs.tsv").write_text("".join(f"{line}\t{line.upper()}\n" for line in lines))
    found = []
    for processes in (1, 2):
        options = [f"--set={key}={value}" for key, value in {**PAIR_OPTIONS, **model}.items()]
        done = start(tmp_path, processes, "pairs.tsv", "--out", f"r{processes}", "--json", *options, task="translation")
        assert done.returncode == 0, done.stderr
        found.append([json.loads(line) for line in (tmp_path / f"r{processes}" / "metrics.jsonl").read_text().splitlines()])
    for a, b in zip(*found, strict=True):
        assert a["tokens"] == b["tokens"] and a["epoch"] == b["epoch"]
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-5)


@pytest.mark.timeout(600)
def test_an_error_of_the_leader_is_said_once(tmp_path: Path) -> None:
    done = start(tmp_path, 2, "nowhere.txt", "--out", "run")
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.count("unrolled: ") == 1 and "fault of unrolled" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_of_two_goes_on_alone(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\nand runs away from it\n" * 30)
    train(tmp_path, "two", 2, "text.txt")
    done = start(tmp_path, 1, "--resume", "--out", "two", f"--set=train.steps={OPTIONS['train.steps'] + 4}")
    assert done.returncode == 0 and "processes 1 (was 2)" in done.stderr, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12

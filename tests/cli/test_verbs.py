"""Every verb end to end, as a person types it."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from .conftest import SMALL, Command


def test_a_process_of_its_own(process: Command) -> None:
    done = process("--version")
    assert done.returncode == 0 and done.stdout.startswith("unrolled ")


@pytest.fixture
def run(command: Command, text: Path) -> str:
    done = command("train", "lm", text.name, "--out", "runs/r1", *SMALL)
    assert done.returncode == 0, done.stderr
    return "runs/r1"


def test_train_says_what_to_do_next(command: Command, text: Path) -> None:
    done = command("train", "lm", text.name, *SMALL)
    assert done.returncode == 0
    assert "report: runs/lm-text-1/report.html" in done.stdout and "next: unrolled sample runs/lm-text-1" in done.stdout
    assert done.stderr.count("valid loss") == 3


def test_json_is_alone_on_standard_output(command: Command, text: Path, run: str) -> None:
    trained = json.loads(command("train", "lm", text.name, "--json", *SMALL).stdout)
    assert trained["status"] == "finished" and trained["steps"] == 12
    scored = json.loads(command("eval", run, "--json").stdout)
    assert {"loss", "perplexity", "bits_per_character"} <= scored.keys()
    sampled = json.loads(command("sample", run, "--prompt", "the", "--n", "2", "--length", "5", "--json").stdout)
    assert len(sampled["samples"]) == 2 and all(text.startswith("the") and len(text) == 8 for text in sampled["samples"])
    assert len(json.loads(command("runs", "--json").stdout)["runs"]) == 2
    assert json.loads(command("show", run, "--json").stdout)["config"]["train"]["steps"] == 12


def test_eval_on_a_file_and_on_splits(command: Command, text: Path, run: str, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "other.txt.gz", "wt") as file:
        file.write(text.read_text())
    on_file, on_valid, on_train = (
        json.loads(command("eval", run, *more, "--json").stdout) for more in (["other.txt.gz"], [], ["--split", "train"])
    )
    assert on_file["symbols"] > on_train["symbols"] > on_valid["symbols"]


def test_sampling_is_reproducible(command: Command, run: str) -> None:
    one, two, three = (command("sample", run, "--prompt", "the", "--length", "30", "--seed", seed).stdout for seed in "112")
    assert one == two != three
    assert command("sample", run, "--prompt", "the", "--stop", "t", "--length", "50", "--seed", "1").stdout.count("t") == 1


@pytest.mark.parametrize("option", [["--top-k=3"], ["--top-p=0.9"], ["--min-p=0.1"], ["--repetition-penalty=1.3"], ["--temperature=0"]])
def test_sampling_options(command: Command, run: str, option: list[str]) -> None:
    assert len(command("sample", run, "--prompt=the", "--length=10", "--seed=1", *option).stdout) == 14


def test_show_and_runs_for_people(command: Command, run: str) -> None:
    assert "runs/r1" in command("runs").stdout
    shown = command("show", run).stdout
    assert "model.hidden_size" in shown and "finished" in shown


def test_options_come_from_the_settings(command: Command) -> None:
    listed = command("train", "lm", "--options").stdout
    assert "train.optimizer.learning_rate" in listed and "data.tokens" in listed


def test_a_file_of_differences_and_a_preset(command: Command, text: Path, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("[model]\ncell = 'gru'\n")
    done = command(
        "train",
        "lm",
        text.name,
        "--out",
        "run",
        "--preset",
        "awd-lstm",
        "--config",
        "my.toml",
        *SMALL,
        "--set=data.tokens=words",
        "--set=train.window=3",
    )
    assert done.returncode == 0, done.stderr
    config = json.loads(command("show", "run", "--json").stdout)["config"]
    assert config["model"]["cell"] == "gru" and config["model"]["weight_drop"] == 0.5 and config["model"]["hidden_size"] == 16


def test_resume_goes_on(command: Command, run: str) -> None:
    done = command("train", "lm", "--resume", "--out", run, "--set=train.steps=20", "--json")
    assert json.loads(done.stdout)["steps"] == 20


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ([], "`train.steps=12`; to go on, give a later one, such as `--set train.steps=24`"),
        (["--set=train.epochs=0.01"], "`train.epochs=0.01`; to go on, give a later one, such as `--set train.epochs=0.02`"),
        (["--set=train.minutes=0.00001"], "`train.minutes=1e-05`; to go on, give a later one, such as `--set train.minutes=2e-05`"),
        (
            ["--set=train.steps=20", "--set=train.patience=1"],
            "`train.patience=1`; to go on, give a later one, such as `--set train.patience=2`",
        ),
    ],
)
def test_resuming_at_the_end_says_that_nothing_was_done(command: Command, text: Path, options: list[str], end: str) -> None:
    rate = [] if "train.patience" not in end else ["--set=train.optimizer.learning_rate=1e-30"]  # so that it gets no better
    trained = command("train", "lm", text.name, "--out", "run", *SMALL, *rate)
    assert trained.returncode == 0 and "nothing was trained" not in trained.stderr
    before = json.loads(command("show", "run", "--json").stdout)["result"]["steps"]
    done = command("train", "lm", "--resume", "--out", "run", *options)
    assert done.returncode == 0 and f"nothing was trained: the run had reached its end, {end}" in done.stderr
    assert json.loads(command("show", "run", "--json").stdout)["result"]["steps"] == before
    assert (
        "nothing was trained"
        not in command(
            "train",
            "lm",
            "--resume",
            "--out",
            "run",
            "--set=train.steps=12",
            "--set=train.epochs=90",
            "--set=train.minutes=9",
            "--set=train.patience=9",
            "--set=train.steps=14",
        ).stderr
    )


def test_help_names_the_verbs(command: Command) -> None:
    helped = command("--help").stdout
    assert all(verb in helped for verb in ("train", "eval", "sample", "runs", "show", "demo"))


@pytest.mark.parametrize("words", [(), ("train",), ("train", "lm"), ("sample",), ("predict",), ("look",), ("eval",), ("bench", "kernels")])
def test_help_speaks_plainly(words: tuple[str, ...], command: Command) -> None:
    said = command(*words, "--help").stdout
    assert "--help" in said and not re.search(r"<|list\[|Path\b|x>=|\bint\b|None", said)
    if words == ("sample",):
        assert re.search(r"--n +N \[at least 1\]", said) and re.search(r"--trust +Allow", said) and re.search(r"--stop +TEXT", said)

"""Whatever a person can get wrong: one sentence, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import SMALL, Command


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """One sentence that says what it should, and exit code 2."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("unrolled: "), done.stderr
    for words in said:
        assert words in lines[0], lines[0]


def nothing_new(folder: Path, before: set[Path]) -> None:
    assert set(folder.rglob("*")) == before


def empty(folder: Path) -> str:
    (folder / "bad.txt").write_text("")
    return "bad.txt"


def one_character(folder: Path) -> str:
    (folder / "bad.txt").write_text("a")
    return "bad.txt"


def one_symbol(folder: Path) -> str:
    (folder / "bad.txt").write_text("a" * 1000)
    return "bad.txt"


def binary(folder: Path) -> str:
    (folder / "bad.txt").write_bytes(bytes(range(256)) * 10)
    return "bad.txt"


def not_utf8(folder: Path) -> str:
    (folder / "bad.txt").write_bytes("naïve\n".encode("latin-1") * 100)
    return "bad.txt"


def directory(folder: Path) -> str:
    (folder / "bad").mkdir()
    return "bad"


def missing(folder: Path) -> str:
    return "txet.txt"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (missing, ["txet.txt", "text.txt"]),
        (empty, ["bad.txt", "empty"]),
        (one_character, ["bad.txt"]),
        (one_symbol, ["bad.txt"]),
        (binary, ["bad.txt", "binary"]),
        (not_utf8, ["bad.txt", "UTF-8", "line 1"]),
        (directory, ["bad", "director"]),
    ],
)
def test_bad_text(make: Callable[[Path], str], said: list[str], command: Command, text: Path, tmp_path: Path) -> None:
    name = make(tmp_path)
    before = set(tmp_path.rglob("*"))
    refused(command("train", "lm", name, *SMALL), *said)
    nothing_new(tmp_path, before)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("train.minuts=3", ["`train.minuts` is not an option", "did you mean `train.minutes`?"]),
        ("train.steps=-1", ["`train.steps`", "a whole number, at least 1", "`-1`"]),
        ("train.steps=many", ["`train.steps`", "got `many`"]),
        ("model.cell=lsmt", ["`lsmt`", "did you mean `lstm`?"]),
        ("model.output_dropout=1.5", ["`model.output_dropout`", "at least 0 and below 1", "its default is `0.2`"]),
        ("model.bidirectional=true", ["bidirectional", "see the symbols it has to predict"]),
        ("train.backpropagate=2", ["k2", "k1"]),
        ("train.device=gpu7", ["`train.device`", "`gpu7`"]),
        ("train.batch_size=100000", ["`batch_size` must be between 1 and 1781"]),
        ("data.tokens=letters", ["`data.tokens`", "characters, words, bpe", "got `letters`"]),
        ("steps", ["`group.key=value`"]),
        ("model.zoneout={c = 0.5, d = 0.1}", ["`d`"]),
    ],
)
def test_bad_options(option: str, said: list[str], command: Command, text: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    refused(command("train", "lm", text.name, *SMALL, f"--set={option}"), *said)
    nothing_new(tmp_path, before)


def test_no_file_bad_preset_missing_config(command: Command, text: Path) -> None:
    refused(command("train", "lm"), "at least one text file")
    refused(command("train", "lm", text.name, "--preset", "awd"), "did you mean `awd-lstm`?")
    refused(command("train", "lm", text.name, "--config", "no.toml"), "`no.toml` cannot be read")
    refused(command("train", "lm", "--resume"), "`--out DIR`")
    refused(command("train", "lm", "--resume", "--out", "nowhere"), "no run folder `nowhere`")


def test_wrong_words_on_the_command_line(command: Command) -> None:
    refused(command("sample", "run", "--length", "abc"), "`--length` must be a whole number, got `abc`; try", "--help")
    refused(command("sample", "run", "--n", "0"), "`--n` must be a whole number, at least 1, got `0`; try")
    refused(command("evla", "run"), "evla")
    refused(command("eval"), "RUN")
    refused(command("eval", "run", "--streams", "0"), "--streams")


@pytest.fixture
def run(command: Command, text: Path, tmp_path: Path) -> Path:
    done = command("train", "lm", text.name, "--out", "run", *SMALL)
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_a_place_that_is_taken(command: Command, text: Path, run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused(command("train", "lm", text.name, "--out", "run", *SMALL), "`run` exists already", "--resume")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (tmp_path / "other").mkdir()
    refused(command("train", "lm", text.name, "--out", "other", *SMALL), "`other` exists already and is not a run")


def test_damaged_runs(command: Command, run: Path) -> None:
    weights = run / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(command("sample", "run"), "weights.safetensors", "damaged")
    weights.write_bytes(b"x" + whole[1:])
    refused(command("sample", "run"), "weights.safetensors", "damaged")
    weights.unlink()
    refused(command("eval", "run"), "weights.safetensors")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "format": 99}))
    refused(command("sample", "run"), "format 99", "pip install -U unrolled")
    (run / "run.json").write_text(json.dumps({**facts, "format": 0}))
    refused(command("sample", "run"), "format 0", "restore")
    (run / "run.json").write_text(json.dumps({key: value for key, value in facts.items() if key != "data"}))
    weights.write_bytes(whole)
    refused(command("eval", "run"), "must have `data`")
    (run / "run.json").write_text("{")
    refused(command("sample", "run"), "run.json", "damaged")
    refused(command("sample", "nowhere"), "no run folder `nowhere`")


def test_weights_of_another_model(command: Command, text: Path, run: Path) -> None:
    assert command("train", "lm", text.name, "--out", "wider", *SMALL, "--set=model.hidden_size=20").returncode == 0
    (run / "weights.safetensors").write_bytes((run.parent / "wider" / "weights.safetensors").read_bytes())
    refused(command("sample", "run"), "must have shape")


def test_tampered_tokenizer_and_config(command: Command, run: Path) -> None:
    (run / "tokenizer.json").write_text('{"kind": "characters"}')
    refused(command("sample", "run"), "tokenizer")
    (run / "config.toml").write_text("[model]\nhiden_size = 3\n")
    refused(command("sample", "run"), "`model.hiden_size` is not an option")


def test_bad_questions_to_a_run(command: Command, run: Path, tmp_path: Path) -> None:
    refused(command("sample", "run", "--prompt", "the Ω"), "Ω", "vocabulary")
    refused(command("sample", "run", "--temperature", "-1"), "`temperature`", "at least 0")
    refused(command("eval", "run", "--split", "test"), "`--split` must be one of train, valid")
    refused(command("sample", "run", "--seed", str(2**64)), "`seed`", "below")
    refused(command("sample", "run", "--length", str(10**13)), "`length`", "at most 10,000,000")
    refused(command("eval", "run", "nowhere.txt"), "nowhere.txt")
    (tmp_path / "strange.txt").write_text("the quick ΩΩΩ" * 20)
    refused(command("eval", "run", "strange.txt"), "Ω", "strange.txt")


def test_a_process_of_its_own_refuses_in_the_same_way(process: Command, text: Path) -> None:
    refused(process("train", "lm", "nowhere.txt"), "nowhere.txt")


def test_a_full_disk(process: Command, text: Path, tmp_path: Path) -> None:
    """A file-size limit stands for a full disk: the write fails half-way."""
    before = set(tmp_path.rglob("*"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = process("train", "lm", text.name, "--out", "run", *SMALL, preexec_fn=limit)
    refused(done, "could not be written")
    nothing_new(tmp_path, before)

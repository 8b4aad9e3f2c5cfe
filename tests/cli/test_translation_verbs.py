"""`train translation`, `predict`, `eval` and `look` as a person types them, and what can go wrong with pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unrolled.cli.train import spread_valid

from .conftest import Command
from .test_bad_input import nothing_new, refused

SMALL = [
    "--set=data.tokens=words",
    "--set=model.hidden_size=8",
    "--set=train.batch_tokens=64",
    "--set=train.steps=6",
    "--set=train.evaluations=2",
    "--set=train.evaluation_decodes=3",
    "--set=train.log_every=2",
    "--set=train.threads=1",
]


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    (tmp_path / "a.de").write_text("ein Hund\nzwei Hunde\nein Haus\n" * 10)
    (tmp_path / "a.en").write_text("a dog\ntwo dogs\na house\n" * 10)
    return ["a.de", "a.en"]


@pytest.fixture
def run(command: Command, pairs: list[str]) -> str:
    done = command("train", "translation", *pairs, "--out", "runs/t", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "next: unrolled predict runs/t" in done.stdout
    return "runs/t"


def test_valid_takes_two_files() -> None:
    words = ["train", "translation", "--valid", "v.de", "v.en", "t.de", "t.en"]
    assert spread_valid(words) == ["train", "translation", "--valid", "v.de", "--valid", "v.en", "t.de", "t.en"]
    words = ["train", "translation", "t.de", "t.en", "--valid=v.de", "v.en", "--out", "r"]
    assert spread_valid(words) == ["train", "translation", "t.de", "t.en", "--valid=v.de", "--valid", "v.en", "--out", "r"]
    for other in (
        ["train", "lm", "--valid", "v.txt", "t.txt"],
        ["train", "lm", "--valid=v.txt", "t.txt"],
        ["train", "translation", "--valid=v.tsv", "t.tsv"],
        ["train", "translation", "--valid=v.de", "--valid=v.en", "t.de", "t.en"],
        ["train", "translation", "--valid", "v.de", "--valid", "v.en", "t.de", "t.en"],
        ["train", "translation", "t.de", "t.en", "--valid=v.de"],
        ["train", "translation", "t.de", "t.en", "--valid"],
        ["train", "translation", "--valid", "v.tsv", "t.tsv"],
        ["train", "translation", "t.tsv", "--valid", "v.jsonl.gz"],
        ["train", "translation", "t.de", "t.en", "--valid", "v.de", "--out", "r"],
    ):
        assert spread_valid(other) == other


def test_validation_files_of_its_own(command: Command, pairs: list[str]) -> None:
    done = command("train", "translation", *pairs, "--valid", *pairs, "--out", "r", "--json", *SMALL)
    assert done.returncode == 0 and json.loads(done.stdout)["steps"] == 6
    facts = json.loads(command("show", "r", "--json").stdout)
    assert facts["data"]["valid_files"] == ["../a.de", "../a.en"] and facts["data"]["valid_pairs"] == 30
    done = command("train", "translation", *pairs, "--out", "joined", f"--valid={pairs[0]}", pairs[1], *SMALL)
    assert done.returncode == 0, done.stderr
    facts = json.loads(command("show", "joined", "--json").stdout)
    assert facts["data"]["valid_files"] == ["../a.de", "../a.en"] and facts["data"]["valid_pairs"] == 30


def test_what_does_nothing_is_told(command: Command, pairs: list[str]) -> None:
    done = command("train", "translation", *pairs, *SMALL, "--set=model.attention.kind=none", "--set=model.attention.heads=2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no effect") == 1
    assert "`model.attention.heads` has no effect here: it is for `model.attention.kind=multi_head`, and that is `none`" in done.stderr
    assert "no effect" not in command("train", "translation", *pairs, "--quiet", *SMALL, "--set=model.encoder.width=5").stderr


def test_predict_reads_and_writes_lines(process: Command, command: Command, run: str) -> None:
    done = process("predict", run, input="ein Hund\n\nzwei Hunde\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 3 and done.stdout.split("\n")[1] == ""
    several = command("predict", run, "--n-best", "2", "--beam", "3", given="ein Hund\n").stdout.splitlines()
    assert [line.split("\t")[0] for line in several] == ["1", "1"]
    whole = json.loads(command("predict", run, "--json", given="ein Hund").stdout)
    assert whole["line"] == 1 and {"text", "score", "alignment", "symbols"} <= whole["outputs"][0].keys()
    best = json.loads(command("predict", run, "--json", "--set", "normalisation=none", "--set", "min_length=3", given="ein Hund").stdout)[
        "outputs"
    ][0]
    assert best["score"] == pytest.approx(best["log_probability"])
    refused(command("predict", run, "--beam", "2", "--n-best", "3", given="ein\n"), "`n_best` must be at most `beam`, 2, got 3")
    refused(command("predict", run, "--set", "beem=3", given="ein\n"), "did you mean `beam`")


def test_eval_by_the_measures_of_the_field(command: Command, run: str, pairs: list[str]) -> None:
    found = json.loads(command("eval", run, *pairs, "--beam", "2", "--json").stdout)
    assert {"loss", "bleu", "chrf", "exact_match", "wer", "token_accuracy", "bleu_signature"} <= found.keys()
    assert "BLEU" in command("eval", run).stdout
    assert command("eval", run, *pairs, "--set", "normalisation=none", "--set", "no_repeat_ngram=none").returncode == 0
    refused(command("eval", run, *pairs, "--set", "beam=none"), "`beam` must be a whole number, at least 1, got `none`")
    refused(command("eval", run, "--streams", "2"), "`streams` is no option of evaluating a run of the task `translation`")


def test_look_draws_a_page(command: Command, run: str, tmp_path: Path) -> None:
    done = command("look", run, "ein Hund", "--out", "look.html")
    assert done.returncode == 0 and "page: look.html" in done.stdout
    page = (tmp_path / "look.html").read_text()
    assert "Hund" in page and 'src="http' not in page and 'href="http' not in page
    command("look", run, "ein Hund", "--trace", "trace.json", "--set", "alpha=0.5")
    assert json.loads((tmp_path / "trace.json").read_text())["source"] == ["ein", "Hund"]
    refused(command("look", run, ""), "must be a sentence")


def test_a_swap_is_suspected(command: Command, tmp_path: Path) -> None:
    (tmp_path / "t.de").write_text("".join(f"wort{i} und wort{i + 1}\n" for i in range(30)))
    (tmp_path / "t.en").write_text("".join(f"word{i} and word{i + 1}\n" for i in range(30)))
    done = command("train", "translation", "t.de", "t.en", "--valid", "t.en", "t.de", *SMALL)
    assert done.returncode == 0 and "look exchanged" in done.stderr


def test_a_beam_larger_than_the_vocabulary(command: Command, tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text("a\tb\n" * 20)
    assert command("train", "translation", "p.tsv", "--out", "r", *SMALL).returncode == 0
    found = command("eval", "r", "--beam", "50", "--json")
    assert found.returncode == 0 and json.loads(found.stdout)["sentences"] == 2


def test_a_very_long_sentence(command: Command, run: str) -> None:
    done = command("predict", run, "--beam", "2", "--set", "max_ratio=0", "--set", "max_extra=5", given="ein Hund " * 5000 + "\n")
    assert done.returncode == 0 and done.stdout.count("\n") == 1


def test_lines_beyond_learned_positions(command: Command, pairs: list[str]) -> None:
    learned = ["encoder.kind=transformer", "decoder.kind=transformer", "transformer.positions=learned", "transformer.longest=4"]
    done = command("train", "translation", *pairs, "--out", "learned", *SMALL, *(f"--set=model.{option}" for option in learned))
    assert done.returncode == 0, done.stderr
    lines = "ein Hund\nein Hund und zwei Hunde\nein\n" + "Hund " * 7 + "\n"
    done = command("predict", "learned", "--set", "max_extra=1", "--set", "max_ratio=0", "--set", "min_length=1", given=lines)
    assert done.returncode == 2 and [bool(line) for line in done.stdout.split("\n")] == [True, False, True, False, False]
    said = "unrolled: line {} is not translated, its output is empty: it has {} symbols, and the model reads at most 4"
    first, second, third = done.stderr.strip().split("\n")
    assert first.startswith(said.format(2, 5)) and second.startswith(said.format(4, 7)) and "output of 2 lines is cut" in third
    several = command("predict", "learned", "--n-best", "2", given=lines).stdout.splitlines()
    assert [line.split("\t")[0] for line in several] == ["1", "1", "2", "3", "3", "4"]
    told = [json.loads(line)["outputs"][0] for line in command("predict", "learned", "--json", given=lines).stdout.splitlines()]
    assert [one["refused"] is None for one in told] == [True, False, True, False]
    assert told[1]["text"] == "" and told[1]["score"] is None and told[1]["refused"].startswith("it has 5 symbols")


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("a\nb\nc\n", "x\ny\n", ["3", "2"]),
        ("a\n\nc\n", "x\ny\nz\n", ["line 2"]),
        ("a\n", "", ["b.txt"]),
    ],
)
def test_pairs_that_do_not_pair(command: Command, tmp_path: Path, source: str, target: str, said: list[str]) -> None:
    (tmp_path / "a.txt").write_text(source)
    (tmp_path / "b.txt").write_text(target)
    before = set(tmp_path.rglob("*"))
    refused(command("train", "translation", "a.txt", "b.txt", *SMALL), *said)
    nothing_new(tmp_path, before)


def test_files_that_are_no_pairs(command: Command, pairs: list[str], tmp_path: Path) -> None:
    refused(command("train", "translation", "a.de", *SMALL), "pairs must be two text files")
    refused(command("train", "translation", *SMALL), "needs two files")
    (tmp_path / "p.tsv").write_text("a\tb\nc\n")
    refused(command("train", "translation", "p.tsv", *SMALL), "line 2")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("require=a cat", "`require` must be made of symbols of the target vocabulary, got `a cat`"),
        ("forbid=cat", "`forbid` must be made of symbols of the target vocabulary"),
        ("terminology=nowhere.tsv", "nowhere.tsv"),
        ("beam=0", "beam"),
    ],
)
def test_a_constraint_that_cannot_be_met(command: Command, run: str, option: str, said: str) -> None:
    refused(command("predict", run, "--set", option, given="ein Hund\n"), said)


def test_constraints_from_the_command_line(command: Command, run: str) -> None:
    done = command("predict", run, "--set", "require=two dogs", "--set", "prefix=a", "--set", "forbid=house", given="ein Hund\n")
    assert done.returncode == 0 and "two dogs" in done.stdout and done.stdout.startswith("a ") and "house" not in done.stdout
    cut = command("predict", run, "--set", "max_extra=1", "--set", "max_ratio=0", "--set", "min_length=3", given="ein Hund\nzwei\n")
    assert cut.returncode == 0 and "output of 2 lines is cut at the greatest length" in cut.stderr


def test_a_run_of_another_task_is_named(command: Command, run: str) -> None:
    said = "must be a run of `unrolled train lm`, and it is of the task `translation`"
    refused(command("train", "lm", "--resume", "--out", run, "--set", "train.steps=9"), said)
    refused(command("sample", run), said)

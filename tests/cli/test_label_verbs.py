"""The verbs of tagging, classification and masked language models, as a person types them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import call

SMALL = [
    "--set=train.steps=8",
    "--set=train.evaluations=1",
    "--set=model.hidden_size=16",
    "--set=model.embedding_size=8",
    "--set=train.threads=1",
]


def unrolled(*words: str | Path, given: str = "", where: Path) -> subprocess.CompletedProcess[str]:
    return call(where, *map(str, words), given=given)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    (folder / "t.conll").write_text("Anna NNP B-PER\nruns VBZ O\n\nEva NNP B-PER\nsits VBZ O\n\n" * 6)
    (folder / "t.csv").write_text("text,label\n" + "good thing,yes\nbad thing,no\n" * 6)
    (folder / "t.txt").write_text("Anna runs and Eva sits\n" * 9)
    for task, file, out in (("tagging", "t.conll", "tag"), ("classification", "t.csv", "class"), ("masked-lm", "t.txt", "plain")):
        ran = unrolled("train", task, file, "--out", out, "--json", *SMALL, where=folder)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["status"] == "finished"
        assert (folder / out / "report.html").exists()
    return folder


def test_eval_says_the_figures_of_the_task(place: Path) -> None:
    tag, kind, plain = (unrolled("eval", run, "--json", where=place) for run in ("tag", "class", "plain"))
    assert {"accuracy", "f1", "loss"} <= json.loads(tag.stdout).keys()
    assert {"accuracy", "macro_f1", "confusion"} <= json.loads(kind.stdout).keys()
    assert {"perplexity", "accuracy"} <= json.loads(plain.stdout).keys()
    said = unrolled("eval", "class", "t.csv", where=place).stdout
    assert "macro F1" in said
    assert "taken for" in said
    assert "PER" in unrolled("eval", "tag", "t.conll", where=place).stdout


def test_predict_writes_a_row_a_word_or_a_text(place: Path) -> None:
    tag = unrolled("predict", "tag", given="Anna runs\n\nEva\n", where=place)
    rows = tag.stdout.split("\n")
    assert [row.split("\t")[0] for row in rows] == ["Anna", "runs", "", "", "Eva", "", ""]
    best = unrolled("predict", "tag", "--n-best", "2", given="Anna runs\n", where=place).stdout.splitlines()
    assert [row.split("\t")[0] for row in best] == ["1", "1"]
    assert len(unrolled("predict", "class", given="good\nbad\n", where=place).stdout.splitlines()) == 2
    line = json.loads(unrolled("predict", "class", "--json", given="good\n", where=place).stdout)
    assert {one["label"] for one in line["outputs"]} == {"yes", "no"}
    assert json.loads(unrolled("predict", "tag", "--json", given="Anna\n", where=place).stdout)["words"] == ["Anna"]
    assert len(unrolled("predict", "class", given="\n", where=place).stdout.splitlines()) == 1
    columns = unrolled("predict", "tag", "--format", "columns", given="Anna Smith\nruns\n\nEva\n", where=place).stdout.split("\n")
    assert [row.split("\t")[0] for row in columns] == ["Anna", "runs", "", "Eva", "", ""]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "plain"), "`plain` is of the task `masked-lm`; try `unrolled look plain TEXT`"),
        (("train", "classification", "t.txt", "--out", "class", "--resume"), "goes on with the run's own data"),
        (("predict", "tag", "--beam", "3"), "`beam` is no option"),
        (("eval", "tag", "--beam", "3"), "`beam` is no option"),
        (("eval", "class", "--split", "test"), "must be one of train, valid"),
        (("train", "tagging"), "try `unrolled train tagging train.conllu`"),
        (("train", "tagging", "t.conll", "--init-from", "nowhere"), "there is no run folder"),
        (("train", "tagging", "--resume", "--out", "tag", "--init-from", "plain"), "`--init-from` is for a new run"),
        (("train", "classification", "t.csv", "--set", "data.label=stars"), "`stars`"),
        (("train", "tagging", "t.csv"), "must end in"),
        (("train", "tagging", "t.conll", "--set", "model.hidden_size=15"), "must be even"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: tuple[str, ...], said: str, place: Path) -> None:
    before = sorted(place.rglob("*"))
    ran = unrolled(*words, where=place)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ran.stderr
    assert sorted(path for path in place.rglob("*") if path.name != ".lock" and "cache" not in path.parts) == [
        path for path in before if path.name != ".lock" and "cache" not in path.parts
    ]


def test_a_run_goes_on_and_begins_from_another(place: Path) -> None:
    assert unrolled("train", "tagging", "--resume", "--out", "tag", "--set", "train.steps=10", "--quiet", where=place).returncode == 0
    ran = unrolled("train", "tagging", "t.conll", "--init-from", "plain", "--out", "tag-2", "--set=train.steps=2", "--quiet", where=place)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""


def test_the_same_command_with_resume_goes_on(place: Path) -> None:
    ran = unrolled("train", "classification", "t.csv", "--out", "class", "--resume", "--set=train.steps=9", "--json", where=place)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["steps"] == 9


def test_scores_of_labels_that_training_never_saw_are_told(place: Path) -> None:
    (place / "other.csv").write_text("text,label\ngood thing,maybe\n")
    assert "every one of them has a label that training never saw" in unrolled("eval", "class", "other.csv", where=place).stdout


def test_several_labels_stand_apart_as_they_did_in_training(place: Path) -> None:
    (place / "several.csv").write_text("text,label\n" + "good thing,in fact|yes\nbad thing,no\n" * 6)
    ran = unrolled(
        "train",
        "classification",
        "several.csv",
        "--out",
        "several",
        "--set=data.separator=|",
        *SMALL[1:],
        "--set=train.steps=60",
        "--set=train.optimizer.learning_rate=0.05",
        where=place,
    )
    assert ran.returncode == 0, ran.stderr
    assert unrolled("predict", "several", given="good thing\nbad thing\n", where=place).stdout == "yes|in fact\nno\n"


def test_a_tagger_without_spans_has_a_row_for_each_tag(place: Path) -> None:
    ran = unrolled("train", "tagging", "t.conll", "--out", "parts", "--set=data.column=2", *SMALL, where=place)
    assert ran.returncode == 0, ran.stderr
    rows = [line.split() for line in unrolled("eval", "parts", "t.conll", where=place).stdout.splitlines()]
    found = {row[0]: row[4] for row in rows if row and row[0] in ("NNP", "VBZ")}
    assert found == {"NNP": "12", "VBZ": "12"}
    assert "VBZ" in (place / "parts" / "report.html").read_text()
    lines = [json.loads(line) for line in (place / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1]  # log_every is more than the run has

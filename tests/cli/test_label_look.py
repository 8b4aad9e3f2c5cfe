"""`look` into taggers, classifiers and masked language models, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Command
from .test_bad_input import refused

SMALL = [
    "--set=model.hidden_size=8",
    "--set=model.embedding_size=8",
    "--set=model.spelling.size=8",
    "--set=train.batch_tokens=64",
    "--set=train.steps=4",
    "--set=train.evaluations=1",
    "--set=train.threads=1",
]
FILES = {
    "tagging": ("t.tsv", "we\tO\nsee\tO\nRome\tB-place\n\n" * 12),
    "classification": ("c.csv", "text,label\na good film,good\na bad film,bad\n" + "a film,good\nno film,bad\n" * 6),
    "masked-lm": ("m.txt", "the cat sat on the mat\n" * 12),
}


@pytest.mark.parametrize("task", FILES)
def test_look_draws_a_page_of_labels(command: Command, tmp_path: Path, task: str) -> None:
    name, content = FILES[task]
    (tmp_path / name).write_text(content)
    done = command("train", task, name, "--out", "r", *SMALL)
    assert done.returncode == 0, done.stderr
    done = command("look", "r", "we see a cat", "--out", "look.html", "--trace", "trace.json", "--set", "steps=4")
    assert done.returncode == 0 and "page: look.html" in done.stdout, done.stderr
    page, trace = (tmp_path / "look.html").read_text(), json.loads((tmp_path / "trace.json").read_text())
    assert trace["task"] == task and trace["figures"]["steps"] == 4 and trace["explained"]
    assert "we see a cat" in page and 'src="http' not in page
    refused(command("look", "r", "a", "--beam", "3"), f"`beam` is no option of looking into a run of the task `{task}`; its options are")
    refused(command("look", "r", "a", "--set", "alpha=0.5"), "`alpha` is no option")
    refused(command("look", "r", "a", "--set", "steps=none"), "`steps`")
    refused(command("look", "r", ""), "there must be a text to look at, got one without any word")

"""Tagging, classification and masked language models from file to scores: what is learnt, kept, resumed, begun from, refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unrolled
from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.settings import merge
from unrolled.data.label_schemes import Scheme
from unrolled.data.labels import LabelSet, load_labels, save_labels
from unrolled.data.units import WordUnits
from unrolled.tasks.classification import ClassificationRun, balanced_weights, resume_classification, train_classification
from unrolled.tasks.masked_language_model import MaskedRun, train_masked_language_model
from unrolled.tasks.tagging import TaggingRun, best_labels, resume_tagging, train_tagging
from unrolled.tasks.text_samples import Samples
from unrolled.train.checkpoint import read_checkpoint

TINY: dict[str, Any] = {
    "data": {"min_count": 1},
    "model": {
        "hidden_size": 24,
        "embedding_size": 12,
        "spelling": {"size": 8, "embedding_size": 6},
        "input_dropout": 0.1,
        "output_dropout": 0.1,
    },
    "train": {
        "steps": 60,
        "evaluations": 3,
        "batch_tokens": 80,
        "average": None,
        "precision": "fp32",
        "threads": 1,
        "optimizer": {"learning_rate": 0.02},
        "schedule": {"warmup_steps": 5},
    },
}
NAMES = ("Anna", "Peter", "Maria", "Jan", "Eva", "Otto")
PLACES = ("Paris", "New York", "Rome", "San Marino", "Bonn")


def options(**changes: Any) -> dict[str, Any]:
    """`TINY` with other values: `train__steps=3`."""
    found: Mapping[str, Any] = TINY
    for key, value in changes.items():
        for name in reversed(key.split("__")):
            value = {name: value}
        found = merge(found, value)
    return dict(found)


def write_tagged(path: Path, count: int = 60, seed: int = 0) -> Path:
    """Sentences of a name that goes to a place, labelled in BIO."""
    draw = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        name, place = draw.choice(NAMES), draw.choice(PLACES).split()
        lines += [f"{name}\tB-PER", "went\tO", "to\tO", f"{place[0]}\tB-LOC", *(f"{word}\tI-LOC" for word in place[1:])]
        lines += [".\tO", ""]
    path.write_text("\n".join(lines))
    return path


def write_texts(path: Path, count: int = 80, seed: int = 0) -> Path:
    """Opinions in CSV, of which one word decides."""
    draw = np.random.default_rng(seed)
    rows = ["text,label"]
    for _ in range(count):
        good = draw.random() < 0.5
        word = draw.choice(["lovely", "great", "fine"] if good else ["awful", "dull", "bad"])
        rows.append(f'"a {draw.choice(["film", "book", "play"])}, {word} and long",{"good" if good else "bad"}')
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaggingRun, Path]:
    folder = tmp_path_factory.mktemp("tagged")
    files = write_tagged(folder / "train.tsv"), write_tagged(folder / "valid.tsv", 20, seed=1)
    return train_tagging(files[0], valid=files[1], out=folder / "run", differences=options()), files[1]


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassificationRun, Path]:
    folder = tmp_path_factory.mktemp("classified")
    files = write_texts(folder / "train.csv"), write_texts(folder / "valid.csv", 20, seed=1)
    return train_classification(files[0], valid=files[1], out=folder / "run", differences=options()), files[1]


# --- Tagging ------------------------------------------------------------------------------------------------------------


def test_a_tagger_learns_names_and_places(tagged: tuple[TaggingRun, Path]) -> None:
    run, valid = tagged
    found = run.evaluate(valid)
    assert found.accuracy == 100.0
    assert found.f1 == found.precision == found.recall == 100.0
    assert found.sentences == 20
    assert found.types is not None
    assert set(found.types) == {"LOC", "PER"}
    assert run.held.labels == LabelSet(("B-LOC", "B-PER", "I-LOC", "O"), Scheme.BIO.value)
    (best,) = run.tag(["Jan went to New York ."])[0]
    assert best.labels == ["B-PER", "O", "O", "B-LOC", "I-LOC", "O"]
    assert run.evaluate() == found


def test_taggings_are_the_crfs_own(tagged: tuple[TaggingRun, Path]) -> None:
    run, _ = tagged
    sentences = ["Eva went to Rome .", "Otto .", "", "Maria went to San Marino ."]
    found = run.tag(sentences, n_best=4)
    units = run.held.units.encode([sentence.split() for sentence in sentences])
    with torch.no_grad():
        emissions = run.model(units.collate(np.array([0, 1, 3])))
    paths = best_labels(run.model, emissions)
    assert run.held.labels is not None
    for row, place in enumerate([0, 1, 3]):
        assert found[place][0].labels == [run.held.labels.names[i] for i in paths[row]]
        totals = [one.probability for one in found[place]]
        assert totals == sorted(totals, reverse=True)
        assert 0.5 < sum(totals) <= 1 + 1e-5
        assert len({tuple(one.labels) for one in found[place]}) == 4
        assert all(0 <= value <= 1 + 1e-6 for one in found[place] for value in one.probabilities)
    assert found[2] == [([], 1.0, [])]
    for one, alone in zip(found, (run.tag([sentence], n_best=4)[0] for sentence in sentences), strict=True):
        assert [x.labels for x in one] == [x.labels for x in alone]
        np.testing.assert_allclose([x.probability for x in one], [x.probability for x in alone], rtol=1e-4)
    named = run.tag(sentences, probabilities=False)
    assert [one[0].labels for one in named] == [one[0].labels for one in found]


def test_no_tagging_breaks_the_scheme(tmp_path: Path) -> None:
    run = train_tagging(write_tagged(tmp_path / "t.tsv"), out=tmp_path / "run", differences=options(train__steps=1, train__evaluations=1))
    for found in run.tag(["Eva Rome went New York ."], n_best=50)[0]:
        for before, after in zip(["O", *found.labels], found.labels, strict=False):
            assert not after.startswith("I-") or before[1:] == after[1:]


def test_without_a_crf_every_label_stands_by_itself(tmp_path: Path) -> None:
    run = train_tagging(write_tagged(tmp_path / "t.tsv"), out=tmp_path / "run", differences=options(model__crf=False))
    assert run.evaluate().accuracy > 95
    (one,) = run.tag(["Eva went to Rome ."])[0]
    assert one.probability == pytest.approx(float(np.prod(one.probabilities)))
    with pytest.raises(ConfigurationError, match="needs a CRF"):
        run.tag(["Eva"], n_best=2)


def test_broken_labels_are_mended_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tagged(tmp_path / "t.tsv")
    path.write_text("Anna\tI-PER\nwent\tO\n\n" + path.read_text())
    told: list[str] = []

    class Listener:
        def __getattr__(self, name: str) -> Any:
            return told.append if name == "noted" else lambda *values: None

    train_tagging(path, out=tmp_path / "run", differences=options(train__steps=1), display=Listener())
    assert any("`I-PER` into `B-PER`" in one and "line 1" in one for one in told)


# --- Classification -----------------------------------------------------------------------------------------------------


def test_a_classifier_learns_the_word_that_decides(classified: tuple[ClassificationRun, Path]) -> None:
    run, valid = classified
    found = run.evaluate(valid)
    assert found.accuracy == found.micro_f1 == 100.0
    assert [one.probabilities for one in run.stream(["a dull film\n", "\n"])] == [
        one.probabilities for one in run.classify(["a dull film", ""])
    ]
    assert "taken for" in (run.folder.path / "report.html").read_text()
    assert found.confusion is not None
    assert np.diag(found.confusion).sum() == 20
    one, other = run.classify(["a dull play and long", "a great book"])
    assert (one.labels, other.labels) == (("bad",), ("good",))
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert next(iter(one.probabilities)) == "bad"
    assert [x.labels for x in run.stream(iter(["a dull play", "a fine play", "bad"]), at_once=2)] == [("bad",), ("good",), ("bad",)]


@pytest.mark.parametrize(("tokens", "size"), [("characters", None), ("bpe", 300), ("unigram", 300)])
def test_texts_are_read_as_any_units(tokens: str, size: int | None, tmp_path: Path) -> None:
    given = options(data__tokens=tokens, train__steps=5, model__encoder__kind="transformer", model__pooling="mean")
    given["data"] |= {"vocabulary_size": size} if size else {}
    run = train_classification(write_texts(tmp_path / "t.csv", 20), out=tmp_path / "run", differences=given)
    assert run.classify(["something new: Ünheard"])[0].labels[0] in ("good", "bad")
    tagger = train_tagging(
        write_tagged(tmp_path / "t.tsv", 10),
        out=tmp_path / "tagger",
        differences=options(train__steps=2, data__tokens=tokens) | {"data": given["data"]},
    )
    assert len(tagger.tag(["Anna-Lena ging nach Ägypten"])[0][0].labels) == 4


def test_texts_with_several_labels(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    kinds = {"red": "colour", "blue": "colour", "round": "form", "flat": "form"}
    draw = np.random.default_rng(0)
    lines = []
    for _ in range(80):
        words = [word for word in kinds if draw.random() < 0.4]
        lines.append(json.dumps({"text": f"it is {' '.join(words) or 'nothing'}", "label": sorted({kinds[word] for word in words})}))
    path.write_text("\n".join(lines))
    run = train_classification(path, out=tmp_path / "run", differences=options(train__steps=120))
    assert run.held.labels == LabelSet(("colour", "form"), several=True)
    assert run.evaluate().micro_f1 > 95
    none, both = run.classify(["it is nothing", "it is red flat"])
    assert none.labels == ()
    assert set(both.labels) == {"colour", "form"}
    assert run.evaluate().confusion is None

    more = tmp_path / "more.jsonl"
    more.write_text('{"text": "it is red", "label": ["colour"]}\n{"text": "it is round", "label": ["form", "never seen"]}\n')
    found = run.evaluate(more)
    assert (found.unseen, found.accuracy) == (1, 50)
    assert found.micro_f1 == pytest.approx(100 * 2 * 2 / (2 * 2 + 1))  # one of three labels is missed
    assert found.macro_f1 == pytest.approx(200 / 3)
    assert set(found.classes) == {"colour", "form"}


def test_rare_labels_count_more_where_that_is_asked_for() -> None:
    samples = Samples(["x"] * 10, [("a",)] * 8 + [("b",)] * 2)
    weights = balanced_weights(samples, LabelSet(("a", "b")))
    assert weights.tolist() == pytest.approx([10 / 16, 10 / 4])
    assert (weights * torch.tensor([8, 2])).sum() == pytest.approx(10)
    assert balanced_weights(samples, LabelSet(("a", "b"), several=True)).tolist() == pytest.approx([0.25, 4])


def test_labels_that_training_never_saw_count_as_wrong(classified: tuple[ClassificationRun, Path], tmp_path: Path) -> None:
    run, valid = classified
    more = tmp_path / "more.csv"
    more.write_text(valid.read_text() + "a fine play,superb\n")
    found, before = run.evaluate(more), run.evaluate(valid)
    assert (found.sentences, found.unseen, before.unseen) == (21, 1, 0)
    assert found.accuracy == pytest.approx(before.accuracy * 20 / 21)
    assert found.loss == pytest.approx(before.loss)


def test_of_equal_scores_the_one_with_the_lower_loss_is_the_better(classified: tuple[ClassificationRun, Path]) -> None:
    run, valid = classified
    samples = run.samples(valid, "valid")
    rows = run.task.make_rows(run.settings, samples, run.held, train=False)
    model = deepcopy(run.model)
    found = []
    for _ in range(2):
        objective = run.task.make_objective(run.settings, model, samples, run.held).eval()
        found.append(run.task.evaluate(objective, samples, rows, run.settings, run.held))
        with torch.no_grad():
            model.readout.weight *= 0.5
            model.readout.bias *= 0.5
    sure, unsure = found
    assert sure["accuracy"] == unsure["accuracy"]
    assert sure["loss"] < unsure["loss"]
    assert sure["criterion"] < unsure["criterion"]


# --- What all have in common --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["tagging", "classification"])
def test_going_on_ends_where_an_uninterrupted_training_does(task: str, tmp_path: Path) -> None:
    train, resume, write = (
        (train_tagging, resume_tagging, write_tagged) if task == "tagging" else (train_classification, resume_classification, write_texts)
    )
    path = write(tmp_path / ("t.tsv" if task == "tagging" else "t.csv"), 30)
    whole = train(path, out=tmp_path / "whole", differences=options(train__steps=8, train__evaluations=2, train__schedule__name="constant"))
    train(path, out=tmp_path / "parts", differences=options(train__steps=4, train__evaluations=2, train__schedule__name="constant"))
    parts = resume(tmp_path / "parts", changes={"train": {"steps": 8}})
    first, second = (read_checkpoint(run.folder.checkpoint)[0] for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert isinstance(unrolled.load(tmp_path / "whole"), type(whole))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> MaskedRun:
    folder = tmp_path_factory.mktemp("masked")
    path = folder / "text.txt"
    draw = np.random.default_rng(0)
    path.write_text("\n".join(f"{draw.choice(NAMES)} went to {draw.choice(PLACES)} ." for _ in range(120)))
    return train_masked_language_model(path, out=folder / "run", differences=options(train__steps=80))


def test_a_masked_language_model_learns_what_is_certain(masked: MaskedRun) -> None:
    found = masked.evaluate()
    assert found.accuracy > 50  # "went", "to" and "." are certain, names are not
    assert found.perplexity == pytest.approx(np.exp(found.loss))
    assert masked.evaluate() == found


def test_a_run_begins_from_another_ones_encoder(masked: MaskedRun, tmp_path: Path) -> None:
    given = options(train__steps=1, train__evaluations=1, train__optimizer__learning_rate=1e-12)
    del given["model"]
    del given["data"]
    run = train_tagging(write_tagged(tmp_path / "t.tsv", 10), out=tmp_path / "run", differences=given, init_from=masked.folder.path)
    assert run.settings.model.hidden_size == 24
    weights = masked.model.state_dict()
    for name, tensor in run.model.text.state_dict().items():
        torch.testing.assert_close(tensor, weights[f"text.{name}"])
    assert run.held.units.to_json() == masked.held.units.to_json()
    other = train_classification(write_texts(tmp_path / "t.csv", 10), out=tmp_path / "other", differences=given, init_from=run.folder.path)
    torch.testing.assert_close(other.model.text.embedding.weight, masked.model.text.embedding.weight)


def test_words_begin_from_pretrained_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_texts(tmp_path / "t.csv", 20)
    vectors = tmp_path / "v.txt"
    vectors.write_text("film 1 2 3\nlong -1 -2 -3\nunheard 7 7 7\n")
    given = options(
        train__steps=1, train__evaluations=1, train__optimizer__learning_rate=1e-12, data__vectors=str(vectors), model__embedding_size=3
    )
    given["data"] = given["data"] | {"min_count": 1000}
    run = train_classification(path, out=tmp_path / "run", differences=given)
    units = run.held.units
    assert isinstance(units, WordUnits)
    assert sorted(units.words) == ["film", "long"]  # all others are too rare
    table = run.model.text.embedding.weight.detach()
    torch.testing.assert_close(table[units.id_of("film")], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(table[units.id_of("long")], torch.tensor([-1.0, -2.0, -3.0]))
    for different, words in (
        ({"model": {"embedding_size": 4}}, "must be that of the vectors"),
        ({"data": {"tokens": "bpe"}}, "are of words"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            train_classification(path, out=tmp_path / "no", differences=merge(given, different))
    assert not (tmp_path / "no").exists()


def test_layers_thaw_from_above(masked: MaskedRun, tmp_path: Path) -> None:
    given = options(train__steps=10, train__unfreeze=0.8, train__evaluations=0, train__layer_rate=0.5)
    run = train_tagging(
        write_tagged(tmp_path / "t.tsv", 10),
        out=tmp_path / "run",
        differences={"train": given["train"] | {"epochs": None}},
        init_from=masked.folder.path,
    )
    lines = [json.loads(line) for line in (run.folder.path / "metrics.jsonl").read_text().splitlines()]
    assert lines
    stopped = train_tagging(
        write_tagged(tmp_path / "t.tsv", 10),
        out=tmp_path / "half",
        differences={"train": given["train"] | {"steps": 10, "unfreeze": 0.99}},
        init_from=masked.folder.path,
    )
    weights = masked.model.state_dict()
    moved = {name: not torch.equal(tensor, weights[f"text.{name}"]) for name, tensor in stopped.model.text.state_dict().items()}
    assert not moved["embedding.weight"]  # its time is the last step's, of which nothing comes any more
    assert all(value for name, value in moved.items() if name.startswith("encoder."))
    again = run.model.text.state_dict()
    assert not torch.equal(again["embedding.weight"], weights["text.embedding.weight"])


def test_another_form_than_that_of_the_weights_is_refused(
    masked: MaskedRun, classified: tuple[ClassificationRun, Path], tmp_path: Path
) -> None:
    path = write_tagged(tmp_path / "t.tsv", 10)
    for different, word in (({"model": {"hidden_size": 32}}, "model.hidden_size"), ({"data": {"tokens": "bpe"}}, "data.tokens")):
        with pytest.raises(ConfigurationError, match=word):
            train_tagging(path, out=tmp_path / "run", differences=different, init_from=masked.folder.path)
    with pytest.raises(RunError, match="there is no run folder"):
        train_tagging(path, out=tmp_path / "run", init_from=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "text,label\na,x\nb,x\n", "at least 2 different labels"),
        ("t.csv", "text,label\na,x\nb\n", "line 3"),
        ("t.csv", "text,stars\na,x\nb,y\n", "`label`"),
        ("t.csv", "text,label\na,x\n", "at least"),
    ],
)
def test_bad_data_leave_nothing_behind(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        train_classification(tmp_path / name, out=tmp_path / "run", differences=options())
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_labels_are_saved_as_they_are(tmp_path: Path) -> None:
    labels = LabelSet(("a", "ü b", "O"), "bio")
    save_labels(labels, tmp_path / "labels.json")
    assert load_labels(tmp_path / "labels.json") == labels
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(RunError, match=r"labels\.json` must be the labels"):
        load_labels(tmp_path / "labels.json")


def test_splits_have_names(classified: tuple[ClassificationRun, Path]) -> None:
    run, _ = classified
    assert run.evaluate(split="train").sentences == 80
    with pytest.raises(ConfigurationError, match="`--split` must be one of train, valid, got `test`"):
        run.evaluate(split="test")

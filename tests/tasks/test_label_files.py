"""What becomes of labels on their way from files to a run: one scheme, one form, nothing of what validates among what trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unrolled.core.errors import DataError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.settings import resolve
from unrolled.data.labels import LabelSet
from unrolled.data.units import train_units
from unrolled.models.classifier import Classifier
from unrolled.models.tagger import Tagger
from unrolled.models.text_encoder_settings import ClassifierSettings, TaggerSettings
from unrolled.tasks.classification import CLASSIFICATION
from unrolled.tasks.labelling_objective import ClassificationObjective, LabelledBatch, TaggedBatch, TaggingObjective
from unrolled.tasks.labelling_settings import ClassificationDataSettings, MaskedRunSettings, TaggingDataSettings, TaggingRunSettings
from unrolled.tasks.masked_language_model import MASKED
from unrolled.tasks.row_windows import RowWindow
from unrolled.tasks.tagging import TAGGING
from unrolled.tasks.text_samples import Held, Parts, Samples, standing_twice

BIO = "Anna\tB-PER\nin\tO\nNew\tB-LOC\nYork\tI-LOC\n\nEva\tB-PER\nruns\tO\n"


def tagged(folder: Path, train: str, valid: str = "", **data: str) -> Parts:
    files = []
    for name, text in (("train.tsv", train), ("valid.tsv", valid)):
        if text:
            (folder / name).write_text(text)
            files.append(folder / name)
    return TAGGING.open_parts(resolve(TaggingDataSettings, data), files[:1], files[1:])


def classified(folder: Path, train: str, valid: str = "", ending: str = "csv", **data: object) -> Parts:
    files = []
    for name, text in ((f"train.{ending}", train), (f"valid.{ending}", valid)):
        if text:
            (folder / name).write_text(text)
            files.append(folder / name)
    return CLASSIFICATION.open_parts(resolve(ClassificationDataSettings, data), files[:1], files[1:])


# --- Tagging ------------------------------------------------------------------------------------------------------------


def test_what_validates_is_mended_by_the_scheme_of_what_trains(tmp_path: Path) -> None:
    parts = tagged(tmp_path, BIO, "to\tO\nRome\tI-LOC\n\nEva\tB-PER\n")
    assert parts.valid.labels == [["O", "B-LOC"], ["B-PER"]]
    assert any("`I-LOC` into `B-LOC`" in note and "`" in note and "valid.tsv`, line 1" in note for note in parts.notes)


@pytest.mark.parametrize(
    ("valid", "source"),
    [("Rome\tS-LOC\nof\tO\nSan\tB-LOC\nMarino\tE-LOC\n", "BIOES"), ("Rome\tI-LOC\nof\tO\nSan\tI-LOC\nMarino\tI-LOC\n", "IOB1")],
)
def test_what_validates_in_another_scheme_is_converted(valid: str, source: str, tmp_path: Path) -> None:
    parts = tagged(tmp_path, BIO, valid)
    assert parts.valid.labels == [["B-LOC", "O", "B-LOC", "I-LOC"]]
    assert any(f"scheme {source} and were brought into BIO" in note for note in parts.notes)


def test_what_validates_may_be_all_outside(tmp_path: Path) -> None:
    assert tagged(tmp_path, BIO, "nothing\tO\nhere\tO\n").valid.labels == [["O", "O"]]


def test_a_label_that_is_none_of_the_scheme_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scheme BIO \(as the run's are\), got `X` in the sentence at `.*valid.tsv`, line 3, word 2"):
        tagged(tmp_path, BIO, "Eva\tB-PER\n\nto\tO\nRome\tX\n")
    with pytest.raises(DataError, match=r"scheme BIO \(`data.scheme`\), got `NOUN`"):
        tagged(tmp_path, "Dogs\tNOUN\nrun\tVERB\n\nCats\tNOUN\n", scheme="bio")


def test_labels_that_are_nearly_spans_are_told(tmp_path: Path) -> None:
    parts = tagged(tmp_path, BIO + "\nSan\tE_x\nMarino\tI-PER\n", "Eva\tO\n")
    assert any("look like spans" in note and "`E_x`" in note for note in parts.notes)
    assert TAGGING.learn_labels(resolve(TaggingDataSettings, {}), parts.train).scheme == "none"


def test_keys_and_encodings_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes('{"words": ["caf\xe9"], "labels": ["N"]}\n{"words": ["a"], "labels": ["D"]}\n'.encode("latin-1"))
    settings = resolve(TaggingDataSettings, {"words": "words", "encoding": "latin-1"})
    assert TAGGING.read(settings, [path])[0].texts == [["café"], ["a"]]


def test_long_sentences_are_cut_in_training_alone(tmp_path: Path) -> None:

    samples = tagged(tmp_path, BIO, BIO).train
    held = Held(train_units("words", samples.texts), LabelSet(("B-LOC", "B-PER", "I-LOC", "O"), "bio"))
    settings = resolve(TaggingRunSettings, {"data": {"longest": 3}})
    assert TAGGING.make_rows(settings, samples, held, train=True).lengths.tolist() == [3, 2]
    assert TAGGING.make_rows(settings, samples, held, train=False).lengths.tolist() == [4, 2]


# --- Classification -----------------------------------------------------------------------------------------------------


def test_a_text_with_several_labels_is_refused_where_each_has_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one label, as those that were trained on have, got `a`, `b` in `.*valid.jsonl`, line 1"):
        classified(tmp_path, '{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n', '{"text": "z", "label": ["a", "b"]}\n', "jsonl")
    with pytest.raises(DataError, match="got none"):
        classified(tmp_path, "text,label\nx,a\ny,b\n", "text,label\nz,|\n", separator="|", several=False)


def test_labels_with_a_separator_may_be_several_though_no_text_that_trains_has_them(tmp_path: Path) -> None:
    parts = classified(tmp_path, "text,label\nx,a\ny,b\n", "text,label\nz,a|b\nw,|\n", separator="|")
    assert CLASSIFICATION.learn_labels(resolve(ClassificationDataSettings, {}), parts.train) == LabelSet(("a", "b"), several=True)
    assert parts.valid.labels == [("a", "b"), ()]


def test_a_semicolon_between_cells_can_be_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="try `data.delimiter=;`"):
        classified(tmp_path, "text;label\nx;a\ny;b\n")
    assert classified(tmp_path, "text;label\nx;a\ny;b\n", "text;label\nx;b\n", delimiter=";").valid.labels == [("b",)]


def test_what_looks_suspicious_is_told(tmp_path: Path) -> None:
    parts = classified(tmp_path, "key,text,label\n1,x,a\n1,x,b\n2,y,b\n", "key,text,label\n3,z,b\n", id="key")
    assert any("`1` stands 2 times" in note for note in parts.notes)
    assert any("same labels wherever it stands" in note for note in parts.notes)


def test_phrases_of_sentences_that_validate_do_not_train(tmp_path: Path) -> None:
    trees = "".join(f"(3 (2 word{i}) (4 (4 great{i}) (2 thing{i})))\n" for i in range(20)) + "(2 (2 so) (3 fine))\n"
    parts = classified(tmp_path, trees, ending="trees")
    assert sorted(parts.valid.texts) == sorted(text for text in parts.valid.texts if len(text.split()) == 3)
    assert len(parts.valid.texts) == 2
    held = {word for text in parts.valid.texts for word in text.split()}
    assert not any(held & set(text.split()) for text in parts.train.texts)
    assert any(len(text.split()) == 1 for text in parts.train.texts)
    assert "fine" in parts.train.texts  # of a sentence that is itself neither


def test_texts_on_both_sides_are_told(tmp_path: Path) -> None:
    file = "text,label\nx,a\ny,b\n"
    assert any("2 of 2 texts to validate on are trained on as well" in note for note in classified(tmp_path, file, file).notes)
    assert standing_twice(Samples(["x", "y"], []), Samples(["x", "z"], [])) == []
    assert standing_twice(Samples([["x"]], []), Samples([["x"]], []))


# --- Objectives ---------------------------------------------------------------------------------------------------------


def test_classes_are_weighed_and_labels_smoothed_in_training_alone() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    batch = LabelledBatch(None, torch.tensor([0, 1]))  # type: ignore[arg-type]
    model = Classifier(resolve(ClassifierSettings, {"hidden_size": 4}), 5, None, 2)
    objective = ClassificationObjective(model, weights=weights, label_smoothing=0.2)
    nats = -logits.log_softmax(1)
    own = torch.stack([nats[0, 0], nats[1, 1]])
    trained, told = objective.train().judge(logits, batch)
    smoothed = (0.8 * own * weights).sum() + 0.2 * (nats * weights).mean(1).sum()
    assert trained.item() == pytest.approx(smoothed.item())
    assert told.item() == pytest.approx(own.sum().item())
    assert objective.eval().judge(logits, batch)[0].item() == pytest.approx((own * weights).sum().item())


def test_labels_of_words_are_smoothed_in_training_alone() -> None:

    logits = torch.randn(2, 3, 4, dtype=torch.float64)
    emissions, labels = Padded(logits, torch.tensor([3, 1])), torch.tensor([[0, 1, 2], [3, 0, 0]])
    objective = TaggingObjective(Tagger(resolve(TaggerSettings, {"hidden_size": 4, "crf": False}), 5, None, 4), label_smoothing=0.1)
    inside = emissions.mask
    nats = -logits.float()[inside].log_softmax(1)
    own = nats.gather(1, labels[inside].unsqueeze(1)).sum()
    batch = TaggedBatch(None, labels)  # type: ignore[arg-type]
    assert objective.train().judge(emissions, batch)[0].item() == pytest.approx((0.9 * own + 0.1 * nats.mean(1).sum()).item(), rel=1e-5)
    assert objective.eval().judge(emissions, batch)[0].item() == pytest.approx(own.item(), rel=1e-5)


def test_the_same_units_are_asked_for_whatever_the_seed_of_a_run(tmp_path: Path) -> None:

    samples = Samples([" ".join("abcdefgh"[(i + j) % 8] for j in range(12)) for i in range(8)], [None] * 8)
    held = Held(train_units("words", samples.texts, min_count=1), None)
    asked = []
    for seed in (0, 1):
        settings = resolve(MaskedRunSettings, {"train": {"seed": seed}})
        valid, train = (MASKED.make_rows(settings, samples, held, train=train) for train in (False, True))
        asked.append((valid.collate(valid.known, 0, None).asked, train.collate(train.known, 0, None).asked))
    assert torch.equal(asked[0][0], asked[1][0])
    assert not torch.equal(asked[0][1], asked[1][1])


def test_hidden_units_are_smoothed_in_training_alone() -> None:
    samples = Samples([" ".join("abcdefgh") for _ in range(4)], [None] * 4)
    held = Held(train_units("words", samples.texts, min_count=1), None)
    settings = resolve(MaskedRunSettings, {"model": {"hidden_size": 8}, "train": {"label_smoothing": 0.3}})
    model = MASKED.make_model(settings, held, trust=False).eval()  # without dropout
    rows = MASKED.make_rows(settings, samples, held, train=False)
    window = RowWindow(rows.collate(rows.known, 0, None), 0, 4)
    objective = MASKED.make_objective(settings, model, samples, held)
    nats = -model(window.batch.units, window.batch.asked).float().log_softmax(1)
    own = nats.gather(1, window.batch.wanted.unsqueeze(1)).mean()
    for training, expected in ((True, 0.7 * own + 0.3 * nats.mean()), (False, own)):
        objective.training = training
        assert objective(window, None, Noise()).objective.item() == pytest.approx(expected.item(), rel=1e-4)

"""Looks into small trained runs: contributions add up, the scores are the log-odds of what the runs predict, and wrong wishes are one sentence."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.nn.crf import CRF
from unrolled.report import write_look
from unrolled.tasks.classification import ClassificationRun, train_classification
from unrolled.tasks.label_look import log_odds, marginal_log_odds
from unrolled.tasks.label_traces import trace_classification, trace_masked, trace_tagging
from unrolled.tasks.masked_language_model import MaskedRun, train_masked_language_model
from unrolled.tasks.tagging import TaggingRun, train_tagging

MODEL = {"hidden_size": 16, "embedding_size": 8, "spelling": {"size": 8, "embedding_size": 4}}
SHORT = {"steps": 30, "batch_tokens": 64, "evaluations": 1, "threads": 1}


def options(**model: Any) -> dict[str, Any]:
    return {"model": MODEL | model, "train": SHORT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looks")
    (folder / "tags.conll").write_text("Anna B-person\nBell I-person\nsings O\n\nin O\nYork B-place\n\nwe O\nsing O\n\n" * 12)
    (folder / "texts.csv").write_text("text,label\n" + "a good film,good\na bad film,bad\nno film at all,none\n" * 12)
    (folder / "lines.txt").write_text("the cat sat on the mat\nthe dog sat on the cat\n" * 12)
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["crf", "softmax"])
def tagger(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TaggingRun:
    return train_tagging(folder / "tags.conll", out=tmp_path_factory.mktemp("run") / "r", differences=options(crf=request.param))


@pytest.fixture(scope="module")
def classifier(folder: Path) -> ClassificationRun:
    return train_classification(folder / "texts.csv", out=folder / "texts", differences=options())


@pytest.fixture(scope="module", params=["words", "characters"])
def masked(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MaskedRun:
    differences = options() | {"data": {"tokens": request.param}}
    return train_masked_language_model(folder / "lines.txt", out=tmp_path_factory.mktemp("run") / "r", differences=differences)


def adds_up(trace: dict[str, Any]) -> None:
    assert trace["explained"]
    for one in trace["explained"]:
        total = sum(one["integrated_gradients"])
        assert one["score"] - one["baseline_score"] == pytest.approx(total + one["gap"], abs=1e-6)
        assert abs(one["gap"]) < 1e-3, "the path is smooth: 32 points leave next to nothing"
        assert len(one["gradient_times_input"]) == len(trace["words"])


def odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_a_tagger_is_explained_word_by_word(tagger: TaggingRun, tmp_path: Path) -> None:
    trace = trace_tagging(tagger, "Anna Bell sings in York")
    adds_up(trace)
    (found, *_) = tagger.tag(["Anna Bell sings in York"])[0]
    assert [one["place"] for one in trace["explained"]] == [0, 1, 2, 3, 4]
    assert trace["found"] == found.labels == [one["label"] for one in trace["explained"]]
    for one, probability in zip(trace["explained"], found.probabilities, strict=True):
        assert one["score"] == pytest.approx(odds(probability), abs=2e-3)
    assert len(trace["sequences"]) == (5 if tagger.model.crf is not None else 1)
    assert write_look(trace, tmp_path / "look.html").stat().st_size > 10_000


def test_words_of_several_pieces_have_the_sum_of_their_pieces(folder: Path) -> None:
    run = train_tagging(folder / "tags.conll", out=folder / "pieces", differences=options() | {"data": {"tokens": "characters"}})
    trace = trace_tagging(run, "Anna sings")
    adds_up(trace)
    assert [word["text"] for word in trace["words"]] == ["Anna", "sings"] and trace["figures"]["units"] == 10
    with pytest.raises(ConfigurationError, match="`baseline=unknown` needs units that are words"):
        trace_tagging(run, "Anna", baseline="unknown")


def test_a_classifier_is_explained_label_by_label(classifier: ClassificationRun, tmp_path: Path) -> None:
    trace = trace_classification(classifier, "a good film !")
    adds_up(trace)
    (found,) = classifier.classify(["a good film !"])
    assert [one["label"] for one in trace["explained"]] == list(found.probabilities)
    for one, probability in zip(trace["explained"], found.probabilities.values(), strict=True):
        assert one["score"] == pytest.approx(odds(probability), abs=2e-3)
    assert sum(trace["attention"]) == pytest.approx(1, abs=1e-5)
    assert [word["text"] for word in trace["words"]] == ["a", "good", "film", "!"]
    other = trace_classification(classifier, "a good film !", baseline="unknown", steps=16, explained=1)
    adds_up(other)
    assert len(other["explained"]) == 1 and other["explained"][0]["baseline_score"] != trace["explained"][0]["baseline_score"]
    write_look(trace, tmp_path / "look.html")


def test_hidden_words_are_guessed(masked: MaskedRun, tmp_path: Path) -> None:
    trace = trace_masked(masked, "the cat sat")
    adds_up(trace)
    assert all(word["label"] is not None for word in trace["words"])
    written = trace_masked(masked, "the <mask> sat")
    adds_up(written)
    asked = [word for word in written["words"] if word["label"] is not None]
    assert [word["text"] for word in asked] == ["<mask>"] and len(written["explained"]) == 1
    assert written["explained"][0]["score"] == pytest.approx(odds(asked[0]["probability"]), abs=2e-3)
    if len(trace["words"]) == 3:
        # Of words, the same place is asked for with the same surroundings.
        assert trace["words"][1]["choices"][0]["probability"] == pytest.approx(asked[0]["probability"], abs=1e-5)
    write_look(written, tmp_path / "look.html")


@pytest.mark.parametrize("text", ["", "   "])
def test_a_text_without_words_is_refused(classifier: ClassificationRun, tagger: TaggingRun, text: str) -> None:
    with pytest.raises(DataError, match="there must be a text to look at, got one without any word"):
        trace_classification(classifier, text)
    with pytest.raises(DataError, match="there must be a text to look at, got one without any word"):
        trace_tagging(tagger, text)


def test_an_empty_text_is_refused(masked: MaskedRun) -> None:
    with pytest.raises(DataError, match="there must be a text to look at, got one without any word"):
        trace_masked(masked, "")


def test_wrong_wishes_are_one_sentence(classifier: ClassificationRun) -> None:
    with pytest.raises(DataError, match="must have at most 1,000 units, got 1,001"):
        trace_classification(classifier, "a " * 1001)
    with pytest.raises(ConfigurationError, match="`beam` is no option of looking into a run of the task `classification`; its options are"):
        trace_classification(classifier, "a", beam=5)
    with pytest.raises(ConfigurationError, match="`steps` must be a whole number, at least 1"):
        trace_classification(classifier, "a", steps=0)


def test_log_odds_of_a_marginal_are_those_of_enumeration() -> None:
    torch.manual_seed(0)
    allowed = torch.tensor([[True, True, False], [True, True, True], [True, False, True]])
    crf = CRF(3, allowed_transitions=allowed).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    emissions = torch.randn(1, 4, 3, dtype=torch.float64)
    mass = torch.zeros(4, 3, dtype=torch.float64)
    for path in itertools.product(range(3), repeat=4):
        if all(allowed[a, b] for a, b in itertools.pairwise(path)):
            score = crf.start[path[0]] + crf.end[path[-1]] + sum(emissions[0, t, y] for t, y in enumerate(path))
            score = score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
            for t, y in enumerate(path):
                mass[t, y] += score.exp().detach()
    wanted = (mass / (mass.sum(1, keepdim=True) - mass)).log()
    places, labels = torch.arange(4).repeat_interleave(3), torch.arange(3).repeat(4)
    found = marginal_log_odds(crf, Padded(emissions.expand(12, 4, 3), torch.full((12,), 4)), places, labels)
    torch.testing.assert_close(found.detach(), wanted.flatten())


def test_log_odds_under_a_soft_max() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    probabilities = logits.double().softmax(-1)[0]
    for label in range(3):
        found = log_odds(logits, torch.tensor([label]))
        assert float(found) == pytest.approx(odds(float(probabilities[label])))

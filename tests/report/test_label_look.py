"""The page of labels: what it says and embeds, that no text in it becomes a tag, and that a wrong trace is one sentence."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from fake_labels import choice, classified, explained, tagged, word
from test_look import paths_of
from test_report import HOSTILE, Page

from unrolled.core.errors import DataError
from unrolled.report import write_look

Made = dict[str, Any]


def page_of(made: Made, folder: Path) -> Page:
    return Page(write_look(made, folder / "look.html").read_text(encoding="utf-8"))


def drawn_on(page: Page) -> Any:
    return json.loads(page.scripts[0], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_all_of_a_classification_is_told(tmp_path: Path) -> None:
    page = page_of(classified(), tmp_path)
    assert page.headings == ["too slow to love", "Labels", "Which words the label came from", "Strongest words"]
    assert "Labelled negative (probability 0.875)." in page.said and "attention weights" in page.said and "0.00012" in page.said
    assert "negative: log-odds 0.250; most comes from slow (+2.00), love (-1.00), too (+0.50), to (+0.00)." in page.said
    assert [attributes["style"] for tag, attributes in page.tags if tag == "b" and "style" in attributes] == [
        "width: 87.5%",
        "width: 12.5%",
    ]
    first, second = drawn_on(page)["explained"]
    assert first["integrated"] == [0.5, 2.0, 0.0, -1.0] and second["first"] == [-0.25, -1.0, 0.0, 0.5]
    assert drawn_on(page)["attention"] == [0.1, 0.6, 0.1, 0.2]


def test_all_of_a_tagging_is_told(tmp_path: Path) -> None:
    page = page_of(tagged(), tmp_path)
    assert "4 words, 1 span: Lady Gaga (person)." in page.said and "(3 of 4 labels are explained" in page.said
    classes = [attributes["class"] for tag, attributes in page.tags if (attributes.get("class") or "").startswith("w")]
    assert [name for name in classes if name and name.split()[0] == "w"] == ["w first can", "w inside can", "w can", "w"]
    assert "0.75" in page.said and "0.95" not in page.said
    assert "0.5000" in page.said and "0.2500" in page.said and "as above" in page.said
    assert "1 Lady: B-person" in page.said and drawn_on(page)["start"] == 0
    assert "attention weights" not in page.said


def test_labels_that_are_no_spans_stand_below_every_word(tmp_path: Path) -> None:
    words = [word("Dogs", "NOUN", 0.99), word("bark", "VERB", 0.99)]
    made = tagged(words=words, spans=[], sequences=[], found=["NOUN", "VERB"], explained=[explained("VERB", 1, [0.0, 1.0])])
    page = page_of(made, tmp_path)
    assert page.said.count("NOUN") >= 1 and page.said.count("VERB") >= 2 and "2 words." in page.said


def test_written_masks_are_told(tmp_path: Path) -> None:
    words = [word("the"), word("<mask>", "cat", 0.5), word("sat")]
    page = page_of(
        classified(task="masked-lm", words=words, labels=[], attention=None, explained=[explained("cat", 1, [1.0, 0.0, 2.0])]), tmp_path
    )
    assert "cat (probability 0.500)" in page.said and "<mask>" in page.said


def test_the_page_asks_nothing_of_anybody(tmp_path: Path) -> None:
    for made in (classified(), tagged()):
        text = write_look(made, tmp_path / "look.html").read_text(encoding="utf-8")
        without = text.replace('createElementNS("http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(|sendBeacon|innerHTML", without)
        assert not any({"src", "srcset", "action"} & attributes.keys() for _, attributes in Page(text).tags)


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    made = tagged(
        run=HOSTILE,
        text=HOSTILE,
        words=[word(HOSTILE, HOSTILE, 0.5)],
        labels=[choice(HOSTILE, 0.5)],
        found=[HOSTILE],
        sequences=[{"labels": [HOSTILE], "probability": 0.5}],
        spans=[{"start": 0, "stop": 1, "type": HOSTILE}],
        explained=[explained(HOSTILE, 0, [1.0])],
        figures={HOSTILE: HOSTILE},
    )
    page = page_of(made, tmp_path)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in page.tags)
    assert drawn_on(page)["words"] == [HOSTILE.replace(" ", "␣")]


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_values_that_are_no_numbers_are_dashes(tmp_path: Path, broken: float | None) -> None:
    one = explained("negative", None, [broken] * 4) | {"score": broken, "gap": broken, "baseline_score": broken}
    page = page_of(classified(explained=[one], labels=[choice("negative", broken)], attention=[broken] * 4), tmp_path)
    assert not re.search(r"\b(nan|inf|None)\b", page.said, re.IGNORECASE)
    assert drawn_on(page)["explained"][0]["score"] is None


def test_nothing_to_explain_is_said(tmp_path: Path) -> None:
    assert "there is nothing to explain" in page_of(tagged(explained=[]), tmp_path).said


def test_five_hundred_words_make_a_page_that_can_be_sent(tmp_path: Path) -> None:
    words = [word(f"w{i}", "O", 0.5) for i in range(500)]
    many = [explained("O", i, [0.123456] * 500) for i in range(0, 500, 20)]
    made = tagged(text="w " * 500, words=words, found=["O"] * 500, sequences=[], spans=[], explained=many)
    assert write_look(made, tmp_path / "look.html").stat().st_size < 1_500_000


@pytest.mark.parametrize("path", paths_of(tagged()), ids=lambda path: ".".join(map(str, path)))
def test_every_key_is_needed(tmp_path: Path, path: tuple[str | int, ...]) -> None:
    made = copy.deepcopy(tagged())
    if path == ("task",):
        return  # without it a trace is one of a translation
    holder: Any = made
    for key in path[:-1]:
        holder = holder[key]
    holder.pop(path[-1])
    with pytest.raises(DataError, match="must be in the trace, and it is not there"):
        write_look(made, tmp_path / "look.html")


WRONG: list[tuple[Made, str]] = [
    ({"format": 2}, "`format` of the trace must be 1, got 2"),
    ({"wrods": []}, "`wrods` is not known in a trace; did you mean `words`?"),
    ({"words": [], "explained": [], "attention": None}, "`words` of the trace must hold at least one"),
    ({"attention": [1.0]}, "`attention` must hold one value for each of the 4 words, got 1"),
    ({"explained": [explained("a", None, [1.0])]}, "`explained.0.integrated_gradients` must hold one value for each of the 4 words, got 1"),
    ({"explained": [explained("a", 4, [1.0] * 4)]}, "`explained.0.place` must be one of the 4 words, counted from 0, got 4"),
    ({"sequences": [{"labels": ["a"], "probability": 1.0}]}, "`sequences.0.labels` must hold one value for each of the 4 words, got 1"),
    ({"spans": [{"start": 2, "stop": 5, "type": "a"}]}, "`spans.0` must lie within the 4 words, got 2 to 5"),
    ({"figures": {"steps": [5]}}, "`figures.steps` must be a number or a word, got [5]"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=[sentence[:50] for _, sentence in WRONG])
def test_a_wrong_trace_is_one_sentence(tmp_path: Path, changes: Made, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        write_look(classified() | changes, tmp_path / "look.html")
    assert str(caught.value).startswith(sentence)

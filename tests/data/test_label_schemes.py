"""Spans of labels against seqeval, by hand and at random; detection, repair and conversion."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import DataError
from unrolled.data.label_schemes import (
    Scheme,
    Span,
    converted,
    detect_scheme,
    is_of,
    lenient_spans,
    odd_labels,
    repaired,
    span_scores,
    spans_to_labels,
    strict_spans,
)
from unrolled.data.tagged import read_tagged

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SCHEMES = [Scheme.IOB1, Scheme.BIO, Scheme.BIOES, Scheme.BILOU]
SEQEVAL = {Scheme.IOB1: "IOB1", Scheme.BIO: "IOB2", Scheme.BIOES: "IOBES", Scheme.BILOU: "BILOU"}
ALPHABET = {Scheme.IOB1: "BI", Scheme.BIO: "BI", Scheme.BIOES: "BIES", Scheme.BILOU: "BILU"}


def sequences(letters: str) -> st.SearchStrategy[list[list[str]]]:
    labels = ["O", *(f"{letter}{end}" for letter in letters for end in ("-a", "-b", ""))]
    return st.lists(st.lists(st.sampled_from(labels), max_size=9), min_size=1, max_size=6)


def paired(letters: str) -> st.SearchStrategy[list[list[tuple[str, str]]]]:
    labels = ["O", "O", *(f"{letter}-{kind}" for letter in letters for kind in "ab")]
    return st.lists(st.lists(st.tuples(*[st.sampled_from(labels)] * 2), max_size=9), min_size=1, max_size=6)


@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
@settings(deadline=None, max_examples=60)
@given(sequences("BIES."))
def test_the_lenient_reading_is_that_of_seqeval(sentences: list[list[str]]) -> None:
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    for labels in sentences:
        assert [(s.type, s.start, s.stop - 1) for s in lenient_spans(labels)] == seqeval.get_entities(labels)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_strict_reading_is_that_of_seqeval(scheme: Scheme) -> None:
    theirs = pytest.importorskip("seqeval.scheme")

    @settings(deadline=None, max_examples=60)
    @given(sequences(ALPHABET[scheme]))
    def check(sentences: list[list[str]]) -> None:
        for labels, entities in zip(sentences, theirs.Entities(sentences, getattr(theirs, SEQEVAL[scheme])).entities, strict=True):
            assert [(s.type, s.start, s.stop) for s in strict_spans(labels, scheme)] == [(e.tag, e.start, e.end) for e in entities]

    check()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_are_those_of_seqeval(scheme: Scheme, strict: bool) -> None:
    lenient = pytest.importorskip("seqeval.metrics.sequence_labeling").precision_recall_fscore_support
    strictly = pytest.importorskip("seqeval.metrics.v1").precision_recall_fscore_support
    theirs = getattr(pytest.importorskip("seqeval.scheme"), SEQEVAL[scheme])
    score = partial(strictly, scheme=theirs, zero_division=0) if strict else partial(lenient, zero_division=0)
    # The lenient reading of seqeval does not know the letters of BILOU; ours reads them as those of BIOES.
    letters = ALPHABET[Scheme.BIOES if scheme is Scheme.BILOU and not strict else scheme]

    @settings(deadline=None, max_examples=60)
    @given(paired(letters))
    def check(sentences: list[list[tuple[str, str]]]) -> None:
        gold, predicted = ([[pair[i] for pair in one] for one in sentences] for i in (0, 1))
        ours = span_scores(gold, predicted, scheme, strict=strict)
        assert ours.micro == pytest.approx(score(gold, predicted, average="micro"))
        if ours.types:  # else seqeval's mean of nothing is an error
            assert ours.macro == pytest.approx(score(gold, predicted, average="macro"))
        assert np.array(list(ours.types.values())).reshape(-1, 4) == pytest.approx(np.array(score(gold, predicted, average=None)).T)

    check()


def test_spans_by_hand() -> None:
    labels = ["I-a", "I-a", "I-b", "O", "B-a", "B-a", "I-a", "E-a", "I-a"]
    assert lenient_spans(labels) == [Span(0, 2, "a"), Span(2, 3, "b"), Span(4, 5, "a"), Span(5, 8, "a"), Span(8, 9, "a")]
    assert strict_spans(labels[:7], Scheme.BIO) == [Span(4, 5, "a"), Span(5, 7, "a")]
    assert strict_spans(labels[:7], Scheme.IOB1) == [Span(0, 2, "a"), Span(2, 3, "b"), Span(5, 7, "a")]
    assert strict_spans(["B-a", "E-a", "S-b", "B-b", "I-b", "O"], Scheme.BIOES) == [Span(0, 2, "a"), Span(2, 3, "b")]
    assert lenient_spans([]) == strict_spans([], Scheme.BIO) == []
    with pytest.raises(DataError, match="must be of the scheme bio, got `E-a` for token 2"):
        strict_spans(["B-a", "E-a"], Scheme.BIO)


def test_scores_by_hand() -> None:
    gold = [["B-a", "I-a", "O", "B-b"], ["B-a", "O", "B-c"]]
    predicted = [["B-a", "I-a", "O", "B-a"], ["I-a", "O", "O"]]
    scores = span_scores(gold, predicted)
    assert scores.micro == pytest.approx((2 / 3, 1 / 2, 4 / 7, 4))
    assert scores.types == {"a": pytest.approx((2 / 3, 1, 0.8, 2)), "b": (0, 0, 0, 1), "c": (0, 0, 0, 1)}
    assert scores.macro == pytest.approx((2 / 9, 1 / 3, 0.8 / 3, 4))
    assert span_scores(gold, predicted, strict=True).micro == pytest.approx((1 / 2, 1 / 4, 1 / 3, 4))
    assert span_scores([["U-a", "U-a"]], [["U-a", "O"]], Scheme.BILOU).micro.support == 2
    with pytest.raises(DataError, match="got 1 for 2 tokens in sentence 1"):
        span_scores([["O", "O"]], [["O"]])
    with pytest.raises(DataError, match="as many sentences, got 1 for 2"):
        span_scores([["O"], ["O"]], [["O"]])


spans = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["a", "b", "c-d", "_"])), max_size=6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_of_spans_are_read_back_in_both_ways_and_detected(scheme: Scheme) -> None:
    @settings(deadline=None, max_examples=60)
    @given(spans)
    def check(gaps: list[tuple[int, int, str]]) -> None:
        given_spans, place = [], 0
        for gap, length, kind in gaps:
            given_spans.append(Span(place + gap, place + gap + length, kind))
            place += gap + length
        labels = spans_to_labels(given_spans, place + 1, scheme)
        assert all(is_of(label, scheme) for label in labels)
        assert converted([labels], scheme, Scheme.BIO) == [spans_to_labels(given_spans, place + 1, Scheme.BIO)]
        assert repaired([labels], scheme) == ([labels], 0, None)
        neighbours = any(one.stop == other.start and one.type != other.type for one, other in pairwise(given_spans))
        if scheme is not Scheme.IOB1 or not neighbours:
            assert strict_spans(labels, scheme) == given_spans
        for target in SCHEMES:
            assert converted(converted([labels], scheme, target), target, scheme) == [labels]
        if not given_spans:
            assert detect_scheme([labels]) is Scheme.NONE
        elif scheme in (Scheme.IOB1, Scheme.BIO) or {label[0] for label in labels} & set("ELSU"):
            assert detect_scheme([labels]) is scheme

    check()


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["B-a", "I-a", "O"], ["O", "I-b", "B-b"], ["B-a"]], Scheme.BIO),  # one broken sequence
        ([["I-a", "I-a", "B-a"], ["I-b"]], Scheme.IOB1),
        ([["I-a", "O"], ["I-a"], ["B-a"]], Scheme.IOB1),
        ([["S-a", "O"]], Scheme.BIOES),
        ([["B-a", "I-a"], ["B-a", "E-a"]], Scheme.BIOES),
        ([["U-a", "O"]], Scheme.BILOU),
        ([["B-a", "L-a"], ["S-a"]], Scheme.NONE),
        ([["NOUN", "VERB"], ["O"]], Scheme.NONE),
        ([["O", "O"]], Scheme.NONE),
        ([["B-a", "O", "X"]], Scheme.NONE),
        ([["B", "I", "O"]], Scheme.BIO),
        ([["B-", "O"]], Scheme.NONE),
        ([], Scheme.NONE),
        ([[]], Scheme.NONE),
    ],
)
def test_detection(sentences: list[list[str]], scheme: Scheme) -> None:
    assert detect_scheme(sentences) is scheme


def test_a_few_odd_labels_are_named() -> None:
    assert odd_labels([["B-a", "I-a", "O"]]) is None
    assert odd_labels([["NOUN", "B-a"], ["VERB"]]) is None
    assert odd_labels([]) is None
    said = odd_labels([["B-a", "I-a", "b-a"], ["B-b", "BPER"]])
    assert said is not None
    assert "in the scheme bio, but `BPER`, `b-a` cannot be" in said or "in the scheme iob1, but `BPER`, `b-a` cannot be" in said


@pytest.mark.parametrize("scheme", SCHEMES)
def test_repaired_labels_are_those_that_the_allowed_transitions_allow(scheme: Scheme) -> None:
    allowed_transitions = pytest.importorskip("unrolled.data.label_transitions").allowed_transitions
    names = ["O", *(f"{letter}-{kind}" for letter in ALPHABET[scheme] for kind in "ab")]
    allowed = allowed_transitions(names, scheme.value)

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=8))
    def check(path: list[int]) -> None:
        pairs = [bool(allowed.transitions[one, other]) for one, other in pairwise(path)]
        legal = bool(allowed.first[path[0]]) and bool(allowed.last[path[-1]]) and all(pairs)
        assert (repaired([[names[i] for i in path]], scheme).changed == 0) == legal

    check()


def test_repair_says_how_many_and_where() -> None:
    broken = [["O", "B-a", "I-a"], ["I-a", "I-a", "O", "B-a", "I-b"]]
    assert repaired(broken, Scheme.BIO) == ([["O", "B-a", "I-a"], ["B-a", "I-a", "O", "B-a", "B-b"]], 2, (1, 0, "I-a", "B-a"))
    assert repaired([["B-a", "I-a", "O", "E-a", "S-b", "I-b"]], Scheme.BIOES).labels == [["B-a", "E-a", "O", "S-a", "S-b", "S-b"]]
    assert repaired([["B-a", "O", "I-a", "B-a", "B-b"]], Scheme.IOB1).labels == [["I-a", "O", "I-a", "B-a", "I-b"]]
    assert repaired([["L-a", "U-a", "U-a", "I-a"]], Scheme.BILOU).labels == [["U-a", "U-a", "U-a", "U-a"]]
    assert repaired([["NOUN", "I-x"]], Scheme.NONE) == ([["NOUN", "I-x"]], 0, None)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "wnut17").is_dir(), reason="the entities are not there")
@pytest.mark.slow
def test_emerging_entities() -> None:
    for name, entities in (("wnut17train.conll.gz", 1975), ("emerging.dev.conll.gz", 836)):
        labels = read_tagged(SHARED / "wnut17" / name).labels
        assert detect_scheme(labels) is Scheme.BIO
        assert repaired(labels, Scheme.BIO).changed == 0
        for target in SCHEMES:
            assert sum(len(lenient_spans(own)) for own in converted(converted(labels, Scheme.BIO, target), target, Scheme.BIO)) == entities
        perfect = span_scores(labels, labels)
        assert perfect.micro == (1, 1, 1, entities)
        assert len(perfect.types) == 6

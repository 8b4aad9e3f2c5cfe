"""What a tagger, a classifier or a masked language model made of one text, as one HTML page: its labels, and the words that each came from.

The input is a trace, a dictionary of what JSON knows; `LabelTrace` and the classes above it are its format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from unrolled.core.errors import DataError
from unrolled.report.page import fill
from unrolled.report.trace import Part, checked, clean, finite, visible
from unrolled.report.wording import NOTHING, chance, decimal, setting

TASKS = ("tagging", "classification", "masked-lm")
"""Whose traces are of this form."""
SHOWN_TITLE = 240
"""Characters of a text that stand at the head of its page."""
SHOWN_LABELS = 12
"""Labels of a text that are shown at first sight; all others are folded away."""
SHOWN_CHANGES = 12
"""Words of a further sequence that are told."""
SURE = 0.9
"""A label of at least this probability needs no number below it."""
TOLD = 5
"""Words that are told for those who do not see colours."""
OUTSIDE = "O"


class Choice(Part):
    """A label and how likely it is."""

    name: str
    probability: float | None


class Word(Part):
    """A word of a text, or a unit of it."""

    text: str
    label: str | None
    """What the model gave it; `None` where it was asked for nothing here."""
    probability: float | None
    """Of that label."""
    choices: list[Choice]
    """The likeliest labels."""


class LabelSequence(Part):
    """A label for every word."""

    labels: list[str]
    probability: float | None


class Span(Part):
    """Words that belong together."""

    start: int
    stop: int
    type: str


class Explained(Part):
    """Which words a label came from."""

    label: str
    place: int | None
    """The word that has the label; `None` where the whole text has."""
    score: float | None
    """The log-odds of the label, in nats."""
    baseline_score: float | None
    """The same where no word is there."""
    gap: float | None
    """What the contributions of integrated gradients lack to the difference of the two."""
    integrated_gradients: list[float | None]
    """One for each word."""
    gradient_times_input: list[float | None]
    """One for each word."""


class LabelTrace(Part):
    """What a model made of one text."""

    format: Literal[1]
    task: Literal["tagging", "classification", "masked-lm"]
    run: str
    text: str
    words: list[Word]
    labels: list[Choice]
    """Of the whole text, the likeliest first."""
    found: list[str]
    """The labels that were given: to the text, or to its words."""
    sequences: list[LabelSequence]
    """Labels of all words, the likeliest first."""
    spans: list[Span]
    attention: list[float | None] | None
    """How much each word counted, where that was weighed."""
    explained: list[Explained]
    figures: dict[str, Any]
    """Plain numbers and words by their names."""


class ShownWord(NamedTuple):
    """A word as the page shows it."""

    text: str
    label: str
    """What stands below it."""
    probability: str
    span: str
    """`first`, `inside`, or nothing."""
    explained: int | None
    title: str


class Bar(NamedTuple):
    """A label of the text as the page shows it."""

    name: str
    probability: str
    percent: float
    given: bool
    explained: int | None


class Ranked(NamedTuple):
    """A sequence of labels as the page shows it."""

    probability: str
    changes: list[tuple[str, str]]
    """Words whose label is another one than in the first sequence."""
    more: int


def read_trace(trace: dict[str, Any]) -> LabelTrace:
    """Check a trace.

    Args:
        trace: what JSON knows.

    Returns:
        The same with names.

    Raises:
        DataError: a key is missing or unknown, or its value cannot be.
    """
    found = checked(LabelTrace, trace, (Word, Choice, LabelSequence, Span, Explained))
    for wrong in _contradictions(found):
        raise DataError(wrong)
    return found


def render(trace: LabelTrace) -> str:
    """The page.

    Args:
        trace: checked.

    Returns:
        HTML.
    """
    title = clean(trace.text)
    by_place = {one.place: number for number, one in enumerate(trace.explained)}
    return fill(
        "label_look.html.j2",
        title=title if len(title) <= SHOWN_TITLE else title[:SHOWN_TITLE].rstrip() + " …",
        task=clean(trace.task),
        run=clean(trace.run),
        heading=HEADINGS[trace.task],
        summary=_summary(trace),
        figures=[(clean(name).replace("_", " "), _figure(value)) for name, value in trace.figures.items()],
        bars=_bars(trace),
        shown_labels=SHOWN_LABELS,
        cells=_cells(trace, by_place),
        labelled=any(word.label is not None for word in trace.words),
        pieces=trace.task != "tagging" and any(word.text.startswith("␣") or word.text == "␣" for word in trace.words),
        ranking=_ranking(trace),
        told=[_told(trace, one) for one in trace.explained],
        names=[_name(trace, one) for one in trace.explained],
        several=len(trace.explained) > 1,
        unexplained=sum(word.label is not None for word in trace.words) - len(trace.explained) if trace.task != "classification" else 0,
        attention=trace.attention is not None,
        matrix=trace.task != "classification" and len(trace.explained) > 1,
        drawn=_drawn(trace),
    )


HEADINGS = {"classification": "Labels", "tagging": "Words and their labels", "masked-lm": "What would stand in the place of each word"}


def _contradictions(trace: LabelTrace) -> Iterator[str]:
    """One sentence for each place where two parts of the trace do not fit together."""
    count = len(trace.words)
    if not count:
        yield "`words` of the trace must hold at least one, got none; a text without words has nothing to show"
    for key, values in _by_word(trace):
        if len(values) != count:
            yield f"`{key}` must hold one value for each of the {count} words, got {len(values)}"
    for place, one in enumerate(trace.explained):
        if one.place is not None and not 0 <= one.place < count:
            yield f"`explained.{place}.place` must be one of the {count} words, counted from 0, got {one.place}"
    for place, span in enumerate(trace.spans):
        if not 0 <= span.start < span.stop <= count:
            yield f"`spans.{place}` must lie within the {count} words, got {span.start} to {span.stop}"
    for name, value in trace.figures.items():
        if not isinstance(value, str | int | float | None):
            yield f"`figures.{name}` must be a number or a word, got {value!r:.80}"


def _by_word(trace: LabelTrace) -> Iterator[tuple[str, Sequence[Any]]]:
    """What must have a value for each word."""
    if trace.attention is not None:
        yield "attention", trace.attention
    for place, sequence in enumerate(trace.sequences):
        yield f"sequences.{place}.labels", sequence.labels
    for place, one in enumerate(trace.explained):
        yield f"explained.{place}.integrated_gradients", one.integrated_gradients
        yield f"explained.{place}.gradient_times_input", one.gradient_times_input


def _cells(trace: LabelTrace, by_place: dict[int | None, int]) -> list[ShownWord]:
    spans = {
        place: ("first" if place == span.start else "inside", span.type) for span in trace.spans for place in range(span.start, span.stop)
    }
    in_spans = bool(trace.spans) or any(word.label == OUTSIDE for word in trace.words)
    cells = []
    for place, word in enumerate(trace.words):
        kind, name = spans.get(place, ("", ""))
        label = "" if word.label is None else clean(word.label)
        shown = (name if kind == "first" else "") if in_spans else label
        probability = finite(word.probability)
        unsure = probability is not None and probability < SURE
        title = f"{visible(word.text)}: {label or 'no label'}" + (
            f", probability {decimal(probability)}" if probability is not None else ""
        )
        cells.append(
            ShownWord(visible(word.text), clean(shown), decimal(probability, 2) if unsure else "", kind, by_place.get(place), title)
        )
    return cells


def _bars(trace: LabelTrace) -> list[Bar]:
    explained = {one.label: number for number, one in enumerate(trace.explained)}
    bars = []
    for label in trace.labels:
        value = finite(label.probability)
        percent = 0.0 if value is None else round(100 * min(max(value, 0.0), 1.0), 1)
        bars.append(Bar(visible(label.name), decimal(value), percent, label.name in trace.found, explained.get(label.name)))
    return bars


def _ranking(trace: LabelTrace) -> list[Ranked]:
    ranking = []
    for sequence in trace.sequences:
        pairs = zip(trace.words, trace.sequences[0].labels, sequence.labels, strict=True)
        changes = [(visible(word.text), clean(label)) for word, best, label in pairs if label != best]
        ranking.append(Ranked(chance(finite(sequence.probability)), changes[:SHOWN_CHANGES], max(0, len(changes) - SHOWN_CHANGES)))
    return ranking


def _name(trace: LabelTrace, one: Explained) -> str:
    """What is explained, in words."""
    return visible(one.label) if one.place is None else f"{one.place + 1} {visible(trace.words[one.place].text)}: {visible(one.label)}"


def _told(trace: LabelTrace, one: Explained) -> str:
    """What is explained in one line, for those who do not see it."""
    values = [(finite(value), word) for value, word in zip(one.integrated_gradients, trace.words, strict=True)]
    strongest = sorted(((value, word) for value, word in values if value is not None), key=lambda pair: -abs(pair[0]))[:TOLD]
    told = ", ".join(f"{visible(word.text)} ({value:+.2f})" for value, word in strongest)
    return f"{_name(trace, one)}: log-odds {decimal(finite(one.score))}; most comes from {told or 'nothing'}."


def _summary(trace: LabelTrace) -> str:
    return {"classification": _of_text, "tagging": _of_words, "masked-lm": _of_guesses}[trace.task](trace)


def _of_text(trace: LabelTrace) -> str:
    given = [label for label in trace.labels if label.name in trace.found]
    told = " and ".join(f"{visible(label.name)} (probability {decimal(finite(label.probability))})" for label in given)
    return f"Labelled {told}." if told else "None of the labels is more likely than not."


def _of_words(trace: LabelTrace) -> str:
    if not trace.spans:
        return f"{len(trace.words)} words, no span." if any(w.label == OUTSIDE for w in trace.words) else f"{len(trace.words)} words."
    texts = [" ".join(visible(word.text) for word in trace.words[span.start : span.stop]) for span in trace.spans]
    told = [f"{text} ({clean(span.type)})" for text, span in zip(texts, trace.spans, strict=True)]
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return f"{len(trace.words)} words, {len(told)} span{'s' * (len(told) > 1)}: {', '.join(told[:TOLD])}{more}."


def _of_guesses(trace: LabelTrace) -> str:
    asked = [word for word in trace.words if word.label is not None]
    right = sum(word.label == word.text or word.label == word.text.lower() for word in asked)
    return f"{right} of {len(asked)} hidden words would be guessed." if len(asked) == len(trace.words) else _filled(asked)


def _filled(asked: Sequence[Word]) -> str:
    return ", ".join(f"{visible(word.label or '')} (probability {decimal(finite(word.probability))})" for word in asked)


def _drawn(trace: LabelTrace) -> dict[str, Any]:
    """What the script needs."""
    inside = {place for span in trace.spans for place in range(span.start, span.stop)}
    return {
        "start": next((number for number, one in enumerate(trace.explained) if one.place in inside), 0),
        "words": [visible(word.text) for word in trace.words],
        "choices": [[[visible(one.name), _short(one.probability)] for one in word.choices] for word in trace.words],
        "attention": None if trace.attention is None else [_short(value) for value in trace.attention],
        "explained": [
            {
                "name": _name(trace, one),
                "label": visible(one.label),
                "place": one.place,
                "score": _short(one.score),
                "baseline": _short(one.baseline_score),
                "gap": _short(one.gap, 5),
                "integrated": [_short(value) for value in one.integrated_gradients],
                "first": [_short(value) for value in one.gradient_times_input],
            }
            for one in trace.explained
        ],
    }


def _short(value: float | None, digits: int = 4) -> float | None:
    value = finite(value)
    return None if value is None else round(value, digits)


def _figure(value: str | int | float | None) -> str:
    if isinstance(value, float):
        found = finite(value)
        return NOTHING if found is None else f"{found:.2g}"
    return clean(setting(value))

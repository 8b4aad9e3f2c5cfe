"""Spans written as one label a token: which scheme a file uses, its spans, broken sequences mended, one scheme made into another.

IOB1 and BIO (IOB2): Ramshaw and Marcus 1995, Tjong Kim Sang and Veenstra 1999; BIOES and BILOU mark ends and single tokens as well. Two
readings of sequences that break their scheme: the lenient one takes whatever can be a span (as `conlleval` and seqeval's default do),
the strict one drops what does not follow the scheme (seqeval's `mode="strict"`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from unrolled.core.errors import DataError
from unrolled.data.label_scores import Score, mean_of, score_of

OUTSIDE = "O"
UNTYPED = "_"
"""The type of a span whose labels are letters alone."""


class Scheme(Enum):
    """How labels tell where spans begin and end."""

    NONE = "none"
    """Labels of single tokens, without spans."""
    IOB1 = "iob1"
    """`B-` only where a span follows another of its type."""
    BIO = "bio"
    """Every span begins with `B-` (IOB2)."""
    BIOES = "bioes"
    BILOU = "bilou"
    """BIOES with `L` for `E` and `U` for `S`."""


class Span(NamedTuple):
    """Neighbouring tokens and what they are together."""

    start: int
    stop: int
    """The first token after it."""
    type: str


class _Letters(NamedTuple):
    first: str
    inside: str
    last: str
    single: str


LETTERS: Mapping[Scheme, _Letters] = MappingProxyType(
    {
        Scheme.IOB1: _Letters("I", "I", "I", "I"),  # and `B` after a span of the same type
        Scheme.BIO: _Letters("B", "I", "I", "B"),
        Scheme.BIOES: _Letters("B", "I", "E", "S"),
        Scheme.BILOU: _Letters("B", "I", "L", "U"),
    }
)
"""What the tokens of a span are marked with."""
SHOWN = 5
FROM_BILOU = MappingProxyType({"L": "E", "U": "S"})


def split_label(label: str) -> tuple[str, str]:
    """The letter and the type of a label.

    Args:
        label: such as `B-person`.

    Returns:
        Such as `("B", "person")`; the type is `_` where the label has none.
    """
    return label[0], label[1:].split("-", maxsplit=1)[-1] or UNTYPED


def is_of(label: str, scheme: Scheme) -> bool:
    """Whether a label can stand in a scheme at all.

    Args:
        label: any label.
        scheme: any scheme.

    Returns:
        True for `O`, and for a letter of the scheme, alone or before a `-` and a type.
    """
    if scheme is Scheme.NONE or label == OUTSIDE:
        return True
    return label[0] in {*LETTERS[scheme], "B"} and (len(label) == 1 or (label[1] == "-" and len(label) > 2))


def label_of(letter: str, kind: str) -> str:
    """What `split_label` splits.

    Args:
        letter: such as `B`.
        kind: a type, `_` for none.

    Returns:
        Such as `B-person`, or the letter alone.
    """
    return letter if kind == UNTYPED else f"{letter}-{kind}"


# --- Detection ----------------------------------------------------------------------------------------------------------


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme of labels: by the letters that occur, and between IOB1 and BIO by how the spans begin.

    Args:
        sentences: the labels of each sentence.

    Returns:
        The scheme; `NONE` where a label is of none, or all are `O`. A file of BIO with a few broken sequences is BIO still.
    """
    sentences = list(sentences)
    labels = set().union(*sentences) - {OUTSIDE}
    fitting = [scheme for scheme in LETTERS if all(is_of(label, scheme) for label in labels)]
    if not labels or not fitting:
        return Scheme.NONE
    if Scheme.BIO not in fitting:
        return fitting[0]
    broken = {scheme: repaired(sentences, scheme).changed for scheme in (Scheme.BIO, Scheme.IOB1)}
    return Scheme.IOB1 if broken[Scheme.IOB1] < broken[Scheme.BIO] else Scheme.BIO


def odd_labels(sentences: Iterable[Sequence[str]]) -> str | None:
    """Whether labels look like spans but for a few, which makes them labels of tokens.

    Args:
        sentences: the labels of each sentence.

    Returns:
        A sentence to warn with, `None` where all or fewer than half of the labels are of one scheme.
    """
    labels = set().union(*sentences) - {OUTSIDE}
    scheme = max(LETTERS, key=lambda scheme: sum(is_of(label, scheme) for label in labels))
    odd = sorted(label for label in labels if not is_of(label, scheme))
    if not odd or len(odd) > len(labels) / 2:
        return None
    shown = ", ".join(f"`{label}`" for label in odd[:SHOWN]) + (f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else "")
    return f"labels look like spans in the scheme {scheme.value}, but {shown} cannot be, so no spans are scored; try mending them"


# --- Spans --------------------------------------------------------------------------------------------------------------


def lenient_spans(labels: Sequence[str]) -> list[Span]:
    """The spans that `conlleval` sees: a span begins where a letter says so or the type changes, and lasts until the next beginning.

    Args:
        labels: of one sentence, of any scheme with the letters B, I, E, S and O.

    Returns:
        The spans in order.
    """
    spans: list[Span] = []
    before, before_type, start = OUTSIDE, UNTYPED, 0
    for place, label in enumerate([*labels, OUTSIDE]):
        letter, kind = split_label(label)
        same_type = kind == before_type
        if before not in "O." and (not same_type or before in "ES" or letter in "BSO"):
            spans.append(Span(start, place, before_type))
        if _begins(before, letter, same_type):
            start = place
        before, before_type = letter, kind
    return spans


def _begins(before: str, letter: str, same_type: bool) -> bool:
    return letter in "BS" or (before in "ESO" and letter in "EI") or (letter not in "O." and not same_type)


class _Rules(NamedTuple):
    """Pairs of neighbours: the letter before, the letter, and whether the types are equal (`=`), differ (`!`), or either (`*`)."""

    begin: tuple[str, ...]
    go_on: tuple[str, ...]
    end: tuple[str, ...]


STRICT: Mapping[Scheme, _Rules] = MappingProxyType(
    {
        Scheme.IOB1: _Rules(("OI*", "II!", "BI*", "IB=", "BB="), ("BI=", "II="), ("II!", "IO*", "IB*", "BO*", "BI!", "BB=")),
        Scheme.BIO: _Rules(("*B*",), ("BI=", "II="), ("B**", "I**")),
        Scheme.BIOES: _Rules(("*B*", "*S*"), ("BI=", "BE=", "II=", "IE="), ("S**", "E**")),
        Scheme.BILOU: _Rules(("*B*", "*U*"), ("BI=", "BL=", "II=", "IL="), ("U**", "L**")),
    }
)


def strict_spans(labels: Sequence[str], scheme: Scheme) -> list[Span]:
    """The spans that follow a scheme to the letter; what does not is no span.

    Args:
        labels: of one sentence.
        scheme: another than `NONE`.

    Returns:
        The spans in order.

    Raises:
        DataError: a label is not of the scheme.
    """
    for place, label in enumerate(labels, 1):
        if not is_of(label, scheme):
            raise DataError(f"labels must be of the scheme {scheme.value}, got `{label}` for token {place}; try another scheme")
    rules, spans, place = STRICT[scheme], [], 0
    parts = [split_label(label) for label in (OUTSIDE, *labels, OUTSIDE)]  # `parts[place]` is the neighbour before the token
    while place < len(labels):
        stop = place + 1
        if _fits(rules.begin, parts[place], parts[stop]):
            while _fits(rules.go_on, parts[stop], parts[stop + 1]):
                stop += 1
            if _fits(rules.end, parts[stop], parts[stop + 1]):
                spans.append(Span(place, stop, parts[place + 1][1]))
        place = stop
    return spans


def _fits(rules: tuple[str, ...], before: tuple[str, str], now: tuple[str, str]) -> bool:
    equal = "=" if before[1] == now[1] else "!"
    return any(rule[0] in ("*", before[0]) and rule[1] in ("*", now[0]) and rule[2] in ("*", equal) for rule in rules)


def spans_to_labels(spans: Iterable[Span], length: int, scheme: Scheme) -> list[str]:
    """The labels of a sentence.

    Args:
        spans: that do not overlap, in order.
        length: how many tokens the sentence has.
        scheme: another than `NONE`.

    Returns:
        One label a token.
    """
    labels, letters, before = [OUTSIDE] * length, LETTERS[scheme], Span(-1, -1, "")
    for span in spans:
        first = letters.first if span.stop - span.start > 1 else letters.single
        if scheme is Scheme.IOB1 and before.stop == span.start and before.type == span.type:
            first = "B"
        labels[span.start] = label_of(first, span.type)
        for place in range(span.start + 1, span.stop):
            labels[place] = label_of(letters.inside if place + 1 < span.stop else letters.last, span.type)
        before = span
    return labels


# --- Repair and conversion ----------------------------------------------------------------------------------------------


class Repaired(NamedTuple):
    """Labels that follow their scheme, and what had to be changed for that."""

    labels: list[list[str]]
    changed: int
    """How many labels were changed."""
    first: tuple[int, int, str, str] | None
    """The first one: its sentence and token, counted from 0, what it was and what it became."""


def repaired(sentences: Iterable[Sequence[str]], scheme: Scheme) -> Repaired:
    """Labels whose broken sequences are mended: they hold the spans that the lenient reading sees (a first `I-x` becomes `B-x`).

    Args:
        sentences: the labels of each sentence.
        scheme: theirs; with `NONE` nothing is changed.

    Returns:
        The labels, how many were changed, and where the first was.
    """
    before = [list(labels) for labels in sentences]
    after = converted(before, scheme, scheme)
    changes = [
        (row, place, old, new)
        for row, (olds, news) in enumerate(zip(before, after, strict=True))
        for place, (old, new) in enumerate(zip(olds, news, strict=True))
        if old != new
    ]
    return Repaired(after, len(changes), changes[0] if changes else None)


def converted(sentences: Iterable[Sequence[str]], source: Scheme, target: Scheme) -> list[list[str]]:
    """The same spans in another scheme, read leniently.

    Args:
        sentences: the labels of each sentence, all of them of their scheme (`first_odd`).
        source: their scheme.
        target: the scheme that is wanted.

    Returns:
        New labels; equal ones where either scheme is `NONE`.
    """
    if Scheme.NONE in (source, target):
        return [list(labels) for labels in sentences]
    return [spans_to_labels(_spans_of(labels, source), len(labels), target) for labels in sentences]


class Fitted(NamedTuple):
    """Labels brought into a scheme."""

    labels: list[list[str]]
    source: Scheme
    """The scheme that they were in."""
    mended: Repaired | None
    """What broke that scheme, where it is the one that was wanted."""
    odd: tuple[int, int, str] | None
    """Sentence, token and text of the first label that can be in no such scheme; then nothing was done."""


def fitted(sentences: Sequence[Sequence[str]], wanted: Scheme, source: Scheme | None = None) -> Fitted:
    """Labels of other sentences in the scheme of a run: broken ones mended, those of another scheme converted.

    Args:
        sentences: the labels of each sentence.
        wanted: the scheme of the run.
        source: theirs; found out when `None`.

    Returns:
        The labels in that scheme.
    """
    found = detect_scheme(sentences) if source is None else source
    source = wanted if Scheme.NONE in (found, wanted) else found
    odd = first_odd(sentences, source)
    if odd is not None:
        return Fitted([list(labels) for labels in sentences], source, None, odd)
    if source is wanted:
        mended = repaired(sentences, wanted)
        return Fitted(mended.labels, source, mended, None)
    return Fitted(converted(sentences, source, wanted), source, None, None)


def first_odd(sentences: Iterable[Sequence[str]], scheme: Scheme) -> tuple[int, int, str] | None:
    """The first label that cannot stand in a scheme.

    Args:
        sentences: the labels of each sentence.
        scheme: any scheme.

    Returns:
        Its sentence and token, counted from 0, and itself; `None` where there is none.
    """
    return next(
        ((row, place, label) for row, labels in enumerate(sentences) for place, label in enumerate(labels) if not is_of(label, scheme)),
        None,
    )


def _spans_of(labels: Sequence[str], scheme: Scheme) -> list[Span]:
    if scheme is Scheme.BILOU:
        labels = [FROM_BILOU.get(label[0], label[0]) + label[1:] for label in labels]
    return lenient_spans(labels)


# --- Scores -------------------------------------------------------------------------------------------------------------


class SpanScores(NamedTuple):
    """How many spans were found, exactly and of the right type."""

    micro: Score
    """Over all spans: the F1 of CoNLL-2003."""
    macro: Score
    """The mean over the types that occur."""
    types: dict[str, Score]


def span_scores(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme = Scheme.BIO, *, strict: bool = False
) -> SpanScores:
    """Precision, recall and F1 of spans, equal to seqeval's.

    Args:
        gold: the right labels of each sentence.
        predicted: the labels to score, as many.
        scheme: of both; the lenient reading needs it for BILOU only.
        strict: whether predicted and right sequences that break the scheme hold no spans there.

    Returns:
        Scores over all, their mean over types, and each type's.

    Raises:
        DataError: there are not as many labels on both sides.
    """
    if len(gold) != len(predicted):
        raise DataError(f"both sides must have as many sentences, got {len(predicted)} for {len(gold)}")
    read: Callable[[Sequence[str]], list[Span]] = partial(strict_spans if strict else _spans_of, scheme=scheme)
    found: dict[str, list[int]] = {}  # of each type: hits, predicted, gold
    for row, (right, guess) in enumerate(zip(gold, predicted, strict=True)):
        if len(right) != len(guess):
            raise DataError(f"both sides must have as many labels, got {len(guess)} for {len(right)} tokens in sentence {row + 1}")
        rights, guesses = set(read(right)), set(read(guess))
        for column, spans in enumerate((rights & guesses, guesses, rights)):
            for span in spans:
                found.setdefault(span.type, [0, 0, 0])[column] += 1
    types = {kind: score_of(*found[kind]) for kind in sorted(found)}
    return SpanScores(score_of(*(sum(counts[i] for counts in found.values()) for i in range(3))), mean_of(types.values()), types)

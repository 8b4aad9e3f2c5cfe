"""Which labels may follow which: every short sequence of labels against a reader of spans."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

from unrolled.core.errors import ConfigurationError
from unrolled.data.label_transitions import SCHEMES, allowed_transitions

LABELS = {
    "bio": ["O", "B-a", "I-a", "B-b", "I-b"],
    "iob1": ["O", "B-a", "I-a", "B-b", "I-b"],
    "bioes": ["O", "B-a", "I-a", "E-a", "S-a", "B-b", "E-b"],
    "bilou": ["O", "B-a", "I-a", "L-a", "U-a", "B-b", "L-b"],
}


def written(spans: list[tuple[int, int, str]], length: int, scheme: str) -> tuple[str, ...]:
    """Spans as labels, by the definition of each scheme."""
    found = ["O"] * length
    for begin, end, kind in spans:
        for t in range(begin, end):
            letter = "B" if t == begin else "I"
            if scheme == "iob1":
                touches = any(e == begin and k == kind for _, e, k in spans)
                letter = "B" if t == begin and touches else "I"
            if scheme in ("bioes", "bilou") and t == end - 1:
                letter = ("E", "S")[begin == t] if scheme == "bioes" else ("L", "U")[begin == t]
            found[t] = f"{letter}-{kind}"
    return tuple(found)


def every_spans(begin: int, length: int) -> list[list[tuple[int, int, str]]]:
    if begin >= length:
        return [[]]
    found = every_spans(begin + 1, length)
    for end, kind in product(range(begin + 1, length + 1), "ab"):
        found = found + [[(begin, end, kind), *rest] for rest in every_spans(end, length)]
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_allowed_is_what_some_spans_are_written_as(scheme: str) -> None:
    labels = LABELS[scheme]
    allowed = allowed_transitions(labels, scheme)
    for length in range(1, 5):
        can_be = {written(spans, length, scheme) for spans in every_spans(0, length)}
        for path in product(range(len(labels)), repeat=length):
            pairs = pairwise(path)
            fits = allowed.first[path[0]] and allowed.last[path[-1]] and all(allowed.transitions[i, j] for i, j in pairs)
            assert bool(fits) == (tuple(labels[i] for i in path) in can_be), [labels[i] for i in path]


def test_labels_of_another_form_may_stand_anywhere() -> None:
    allowed = allowed_transitions(["B-a", "I-a", "NOUN", "X-a", "E-a", ""], "bio")
    assert allowed.transitions[2:].all() and allowed.transitions[:, 2:].all()
    assert allowed.first.tolist() == [True, False, True, True, True, True] and allowed.last.all()


def test_letters_alone_and_types_with_a_hyphen() -> None:
    assert torch.equal(allowed_transitions(["O", "B", "I"], "bio").transitions, allowed_transitions(["O", "B-a", "I-a"], "bio").transitions)
    apart = allowed_transitions(["B-a-b", "I-a-b", "I-a-c"], "bio").transitions
    assert apart.tolist() == [[True, True, False], [True, True, False], [True, False, True]]


def test_no_labels_and_no_scheme() -> None:
    assert [tuple(some.shape) for some in allowed_transitions([], "bio")] == [(0, 0), (0,), (0,)]
    with pytest.raises(ConfigurationError, match="`scheme` must be one of bio, iob1, bioes, bilou, got `bioe`; did you mean `bioes`?"):
        allowed_transitions(["O"], "bioe")

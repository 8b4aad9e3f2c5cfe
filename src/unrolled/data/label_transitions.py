"""Which label may follow which under a scheme that writes spans as labels of tokens (Ramshaw and Marcus 1995; Ratinov and Roth 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from unrolled.core.errors import ConfigurationError, nearest

OUTSIDE = "O"
"""The label of what is in no span."""


class AllowedTransitions(NamedTuple):
    """What a scheme allows, in the order of the labels."""

    transitions: Bool[Tensor, "labels labels"]
    """Whether the label of the row may be followed by that of the column."""
    first: Bool[Tensor, " labels"]
    """Whether a sequence may begin with a label."""
    last: Bool[Tensor, " labels"]
    """Whether a sequence may end with a label."""


class _Scheme(NamedTuple):
    """The letters of a scheme, by what must hold beside them; other letters may stand anywhere."""

    letters: str
    inside: str
    """Letters that need a span of the same type going on before them."""
    unfinished: str
    """Letters after which the span must go on."""
    open: str
    """Letters after which the span can go on."""


SCHEMES = {
    "bio": _Scheme("BI", inside="I", unfinished="", open="BI"),
    "iob1": _Scheme("IB", inside="B", unfinished="", open="BI"),
    "bioes": _Scheme("BIES", inside="IE", unfinished="BI", open="BI"),
    "bilou": _Scheme("BILU", inside="IL", unfinished="BI", open="BI"),
}
"""`bio` (also called IOB2) begins every span with `B`, `iob1` only one that follows another of its type; `bioes` marks the last
token (`E`) and spans of one token (`S`) as well, and `bilou` is the same in other letters."""


class _Part(NamedTuple):
    """A label, taken apart."""

    letter: str
    kind: str


def _taken_apart(label: str, scheme: _Scheme) -> _Part | None:
    """The letter (or `O`) and the type of a label; nothing where it is not of the scheme."""
    letter, _, kind = label.partition("-")
    if label == OUTSIDE:
        return _Part(OUTSIDE, "")
    return _Part(letter, kind) if len(letter) == 1 and letter in scheme.letters else None


def _may_follow(before: _Part | None, after: _Part | None, scheme: _Scheme) -> bool:
    """Whether two labels may stand side by side."""
    if before is None or after is None:
        return True
    if after.letter in scheme.inside:
        return before.letter in scheme.open and before.kind == after.kind
    return before.letter not in scheme.unfinished


def allowed_transitions(labels: Sequence[str], scheme: str) -> AllowedTransitions:
    """What a scheme allows among labels such as `B-person`, `I-person` and `O`; `B` and `I` alone are of a type without a name.

    A label of another form may stand anywhere, beside anything.

    Args:
        labels: names of the labels.
        scheme: one of `SCHEMES`.

    Returns:
        The masks that `unrolled.nn.CRF` takes.

    Raises:
        ConfigurationError: an unknown scheme.

    Example:
        >>> allowed_transitions(["O", "B-a", "I-a"], "bio").transitions.int().tolist()
        [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    """
    if scheme not in SCHEMES:
        raise ConfigurationError(f"`scheme` must be one of {', '.join(SCHEMES)}, got `{scheme}`; {nearest(scheme, SCHEMES)}")
    rules = SCHEMES[scheme]
    parts = [_taken_apart(label, rules) for label in labels]
    # Before the first token and after the last one there is no span.
    edge = _Part(OUTSIDE, "")
    pairs = [[_may_follow(before, after, rules) for after in parts] for before in parts]
    return AllowedTransitions(
        torch.tensor(pairs, dtype=torch.bool).reshape(len(labels), len(labels)),
        torch.tensor([_may_follow(edge, part, rules) for part in parts], dtype=torch.bool),
        torch.tensor([_may_follow(part, edge, rules) for part in parts], dtype=torch.bool),
    )

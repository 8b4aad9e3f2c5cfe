"""The one family of errors that a user can cause and mend: each is one sentence, printed without a traceback, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 20
"""How many known words a sentence lists at most."""


class UserError(ValueError):
    """What a user can mend; the message says what must hold, what was found, where, and what to try."""


class DataError(UserError):
    """A file or text that cannot be used as given."""


class ConfigurationError(UserError):
    """A key or value of a configuration that cannot be used."""


class RunError(UserError):
    """A run folder that cannot be read, written or continued."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that an unknown one was perhaps meant to be.

    Args:
        word: what the user wrote.
        known: the words that exist.

    Returns:
        A known word, or nothing where none is near.
    """
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the nearest known one, or the list of all.

    Args:
        word: what the user wrote.
        known: the words that exist.

    Returns:
        ``did you mean `x`?``, or the known words in a row.
    """
    known = sorted(known)
    close = closest(word, known)
    if close:
        return f"did you mean `{close}`?"
    shown = ", ".join(f"`{k}`" for k in known[:LISTED])
    return f"known: {shown}" + (f" and {len(known) - LISTED} more" if len(known) > LISTED else "")

"""The labels of a run: their names, and how they stand for spans or for several at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from unrolled.core.errors import RunError
from unrolled.core.files import write_json

UNSEEN = -1
"""The id of a label that was not there in training."""


@dataclass(frozen=True)
class LabelSet:
    """The labels of a run; the place of a name is its id."""

    names: tuple[str, ...]
    scheme: str = "none"
    """How labels of words stand for spans: `bio`, `iob1`, `bioes`, or `none`."""
    several: bool = False
    """Whether a text may have several of them, or none."""

    @cached_property
    def id_of(self) -> dict[str, int]:
        """The id of each name."""
        return {name: i for i, name in enumerate(self.names)}

    def encode(self, labels: Sequence[str]) -> Int[np.ndarray, " labels"]:
        """The ids of labels.

        Args:
            labels: their names.

        Returns:
            An id each, -1 for one that was never seen.
        """
        return np.array([self.id_of.get(label, UNSEEN) for label in labels], dtype=np.int64)


def save_labels(labels: LabelSet, path: Path) -> None:
    """Write labels as one JSON file.

    Args:
        labels: of a run.
        path: where the file shall stand.
    """
    write_json(path, asdict(labels))


def load_labels(path: Path) -> LabelSet:
    """Read what `save_labels` wrote.

    Args:
        path: the file.

    Returns:
        The labels.

    Raises:
        RunError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return LabelSet(tuple(str(name) for name in content["names"]), str(content["scheme"]), bool(content["several"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"`{path}` must be the labels that unrolled wrote, but it is damaged ({error}); try a whole copy of the run"
        ) from None

"""Parallel streams through a corpus: what truncated back-propagation through time and scoring read, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import IGNORED
from unrolled.data.corpus import Corpus


class StreamBatch(NamedTuple):
    """One window of every stream."""

    inputs: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    """The token after each input; -100 after the last one of a document and where a stream has ended."""
    resets: Bool[Tensor, "batch time"] | None
    """True where the input is the first of a document, so that the state before it counts no more; `None` where there is none."""


class Streams:
    """A text as `batch_size` streams of equal length read side by side: stream b begins `b * steps` tokens after the first.

    Training drops the few tokens at the end that would make streams unequal. Every stream begins from an initial state, so
    its first input is never marked as a reset.
    """

    def __init__(self, part: Corpus, batch_size: int, *, rows: slice | None = None, offset: int = 0, every_token: bool = False) -> None:
        """Lay the streams out.

        Args:
            part: the text.
            batch_size: streams of all processes together.
            rows: the streams that this process reads; `None` is all.
            offset: tokens left out at the start, for other cuts in every epoch.
            every_token: drop nothing at the end, at the price of streams that differ by one step (`evaluation_streams`).

        Raises:
            DataError: the text is too short for so many streams.
        """
        predictions = len(part) - 1 - offset
        if batch_size < 1 or offset < 0 or predictions < batch_size:
            at_most = f"between 1 and {predictions}" if predictions > 0 else "smaller than the text can ever feed"
            text = f"{part.name} ({len(part)} tokens, the first {offset} left out)" if offset else f"{part.name} ({len(part)} tokens)"
            raise DataError(f"`batch_size` must be {at_most} for {text}, got {batch_size}; try a smaller one or a longer text")
        steps, left = divmod(predictions, batch_size)
        stream = np.arange(batch_size)[rows if rows is not None else slice(None)]
        longer = left if every_token else 0
        self._starts = offset + stream * steps + np.minimum(stream, longer)
        self._lengths = steps + (stream < longer)
        self._tokens = part.tokens
        self._documents = part.documents
        self.steps = steps + (longer > 0)
        """Length of the longest stream, that of every stream in training."""

    @property
    def batch_size(self) -> int:
        """How many streams are read here."""
        return len(self._starts)

    @property
    def predictions(self) -> int:
        """Targets of the streams read here, those across a document border included."""
        return int(self._lengths.sum())

    def window(self, start: int, length: int) -> StreamBatch:
        """Steps `start` to `start + length` of every stream, fewer where the streams end before.

        Args:
            start: a step, below `steps`.
            length: of the window, at least 1.

        Returns:
            The window, on the CPU.
        """
        assert 0 <= start < self.steps
        assert length > 0
        steps = np.arange(start, min(start + length, self.steps) + 1)
        places = np.minimum(self._starts[:, None] + steps, len(self._tokens) - 1)
        tokens = self._tokens[places].astype(np.int64)
        inside = steps[:-1] < self._lengths[:, None]
        first = self._begins_document(places)
        targets = np.where(inside & ~first[:, 1:], tokens[:, 1:], IGNORED)
        resets = first[:, :-1] & inside & (steps[:-1] > 0)
        marked = torch.from_numpy(resets) if resets.any() else None
        return StreamBatch(torch.from_numpy(np.ascontiguousarray(tokens[:, :-1])), torch.from_numpy(targets), marked)

    def windows(self, length: int, *, start: int = 0) -> Iterator[StreamBatch]:
        """All windows in order, the last one as long as what is left.

        Args:
            length: of each window.
            start: the step of the first.

        Yields:
            Window after window.
        """
        for step in range(start, self.steps, length):
            yield self.window(step, length)

    def _begins_document(self, places: Int[np.ndarray, "batch time"]) -> Bool[np.ndarray, "batch time"]:
        if not len(self._documents):
            return np.zeros(places.shape, dtype=bool)
        nearest = np.minimum(np.searchsorted(self._documents, places), len(self._documents) - 1)
        begins: np.ndarray = self._documents[nearest] == places
        return begins


def evaluation_streams(part: Corpus, batch_size: int, *, rows: slice | None = None) -> Streams:
    """Streams that predict every token but the first exactly once, whatever the batch size; the shorter ones end in ignored targets.

    Args:
        part: the text.
        batch_size: streams of all processes together.
        rows: the streams that this process reads; `None` is all.

    Returns:
        The streams.
    """
    return Streams(part, batch_size, rows=rows, every_token=True)

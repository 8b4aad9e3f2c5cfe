"""Stop strings over streamed text: nothing of a stop string is ever handed on."""

from __future__ import annotations

from collections.abc import Sequence

from unrolled.core.errors import ConfigurationError


class StopStrings:
    """Passes streamed text on until a stop string is complete; holds back the longest end that may yet become one.

    The text stops where the first stop string is completed, and is cut before it (the longest, where several are completed by
    the same character). The result does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Begin a stream.

        Args:
            stops: what ends the text; none lets everything pass.

        Raises:
            ConfigurationError: one of them is empty.
        """
        if isinstance(stops, str):
            stops = [stops]
        if "" in stops:
            raise ConfigurationError("a stop string must have at least one character, got an empty one; leave it out for no stop")
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self._finished = False

    @property
    def finished(self) -> bool:
        """True once a stop string was complete; nothing comes out any more."""
        return self._finished

    def push(self, piece: str) -> str:
        """Take the next piece of text.

        Args:
            piece: any length, also empty.

        Returns:
            What may be printed now.
        """
        if self._finished:
            return ""
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._finished, self._held = True, ""
            return text[: min(found)[1]]
        cut = len(text) - self._may_begin(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """End the stream.

        Returns:
            What was held back and turned out not to be a stop string.
        """
        held, self._held = self._held, ""
        return held

    def _may_begin(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0

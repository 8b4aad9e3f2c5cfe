"""Truncated back-propagation through time: windows over parallel streams, with the state carried from one to the next."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.core.padded import IGNORED


@runtime_checkable
class Batch(Protocol):
    """A window of parallel streams; a target of `IGNORED` is not scored."""

    inputs: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    resets: Bool[Tensor, "batch time"] | None


@runtime_checkable
class ParallelStreams(Protocol):
    """Rows of text that are read side by side."""

    steps: int
    """Time steps of every row."""

    def window(self, start: int, length: int) -> Any:
        """Some steps of all rows.

        Args:
            start: the first step.
            length: how many.

        Returns:
            A named tuple with the fields of `Batch`.
        """


class Window(NamedTuple):
    """What one update learns from."""

    batch: Any
    carry_at: int
    """The step of the window after which the state is kept for the next one."""
    fresh: bool
    """Whether the window begins with the initial state."""
    context: int
    """Steps at the beginning that are read again, only so that gradients flow back through them."""


class TruncatedWindows:
    """Windows for truncated back-propagation with k1 and k2 (Williams & Peng 1990, BPTT(h; h')).

    Every `k1` steps there is an update from the loss of those steps; its gradient flows back through `k2 ≥ k1` steps. Where k2
    is larger, a window begins `k2 - k1` steps earlier, from the state kept there, and reads those steps again.
    """

    def __init__(self, streams: ParallelStreams, k1: int, k2: int | None = None) -> None:
        """Cut `streams` into windows.

        Args:
            streams: what is read.
            k1: steps between updates.
            k2: steps through which gradients flow; `k1` when `None`.

        Raises:
            ConfigurationError: k2 below k1, which would leave steps out of the gradient.
        """
        k2 = k1 if k2 is None else k2
        if k2 < k1:
            raise ConfigurationError(
                f"`train.backpropagate` (k2) must be at least `train.window` (k1), or some steps would never be learnt from; got {k2} and {k1}"
            )
        self.streams, self.k1, self.context = streams, k1, k2 - k1
        self.position, self.epoch = 0, 0

    def take(self) -> Window:
        """The next window; after the last one of the streams comes the first again, an epoch later.

        Returns:
            The window.
        """
        start = max(0, self.position - self.context)
        end = min(self.position + self.k1, self.streams.steps)
        context = self.position - start
        window = self.streams.window(start, end - start)
        if context:
            targets = window.targets.clone()
            targets[:, :context] = IGNORED
            window = window._replace(targets=targets)
        fresh = start == 0
        if end == self.streams.steps:
            self.position, self.epoch = 0, self.epoch + 1
        else:
            self.position = end
        next_start = max(0, self.position - self.context)
        return Window(window, min(max(next_start - start, 0), end - start) or end - start, fresh, context)

    @property
    def epochs_done(self) -> float:
        """Passes over the streams so far, with the share of the one under way."""
        return self.epoch + self.position / self.streams.steps

    def state_dict(self) -> dict[str, int]:
        """Where the reading stands.

        Returns:
            What `load_state_dict` takes.
        """
        return {"position": self.position, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another reading stood.

        Args:
            state: from `state_dict`.
        """
        self.position, self.epoch = state["position"], state["epoch"]

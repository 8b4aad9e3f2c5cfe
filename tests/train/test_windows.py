"""Truncated back-propagation: which steps each update scores, from which state it starts, and how far its gradient reaches."""

from typing import NamedTuple

import pytest
import torch

from unrolled.core.errors import ConfigurationError
from unrolled.train.windows import TruncatedWindows


class Batch(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor
    resets: torch.Tensor | None


class Counting:
    """Two streams whose symbols are their own positions."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def window(self, start: int, length: int) -> Batch:
        inputs = torch.arange(start, start + length).repeat(2, 1)
        return Batch(inputs, inputs + 1, None)


@pytest.mark.parametrize(
    ("steps", "k1", "k2"), [(10, 3, None), (10, 3, 3), (10, 3, 5), (10, 1, 4), (7, 10, None), (9, 3, 20), (1, 1, None)]
)
def test_every_step_is_scored_once_an_epoch(steps: int, k1: int, k2: int | None) -> None:
    windows = TruncatedWindows(Counting(steps), k1, k2)
    for epoch in range(2):
        scored: list[int] = []
        while windows.epoch == epoch:
            window = windows.take()
            scored += [int(t) - 1 for t in window.batch.targets[0] if t != -100]
        assert scored == list(range(steps))


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (3, 5), (2, 7), (1, 4), (4, 6)])
def test_the_state_that_is_carried_is_that_before_the_next_window(k1: int, k2: int) -> None:
    windows = TruncatedWindows(Counting(23), k1, k2)
    kept = -1  # the last step whose effect is in the carried state
    while windows.epoch == 0:
        window = windows.take()
        first = int(window.batch.inputs[0, 0])
        assert window.fresh == (first == 0)
        if not window.fresh:
            assert first == kept + 1
        kept = first + window.carry_at - 1


def test_gradients_reach_k2_steps_back() -> None:
    windows = TruncatedWindows(Counting(40), 3, 8)
    seen = [windows.take() for _ in range(8)]
    assert [w.batch.inputs.shape[1] for w in seen] == [3, 6, 8, 8, 8, 8, 8, 8]
    assert [w.context for w in seen] == [0, 3, 5, 5, 5, 5, 5, 5]


def test_k2_below_k1_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"k2\) must be at least `train.window` \(k1\).*got 2 and 3"):
        TruncatedWindows(Counting(10), 3, 2)


def test_goes_on_where_it_stood() -> None:
    one, other = TruncatedWindows(Counting(10), 3, 4), TruncatedWindows(Counting(10), 3, 4)
    for _ in range(5):
        one.take()
    other.load_state_dict(one.state_dict())
    for _ in range(5):
        a, b = one.take(), other.take()
        assert torch.equal(a.batch.inputs, b.batch.inputs) and a[1:] == b[1:]

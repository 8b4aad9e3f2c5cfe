from __future__ import annotations

import pytest
import torch

from unrolled.core.scan import associative_scan


def product(earlier: tuple[torch.Tensor, ...], later: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Affine maps `x -> A x + b`, the earlier first: not commutative."""
    return later[0] @ earlier[0], (later[0] @ earlier[1].unsqueeze(-1)).squeeze(-1) + later[1]


def maps(time: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(time)
    return tuple(torch.randn(2, time, *shape, generator=generator, dtype=torch.float64) for shape in ((3, 3), (3,)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [*range(10), 31, 32, 33])
def test_equals_the_loop(time: int, reverse: bool) -> None:
    elements = maps(time)
    found = associative_scan(product, elements, reverse=reverse)
    steps = [tuple(element[:, t] for element in elements) for t in range(time)]
    assert [part.shape for part in found] == [part.shape for part in elements]
    running = None
    for t in reversed(range(time)) if reverse else range(time):
        running = steps[t] if running is None else product(steps[t], running) if reverse else product(running, steps[t])
        for part, expected in zip(found, running, strict=True):
            torch.testing.assert_close(part[:, t], expected, rtol=1e-9, atol=1e-9)


def test_combines_in_rounds() -> None:
    """Depth: the number of calls grows with the logarithm, the work with the length."""
    calls = []

    def add(earlier: tuple[torch.Tensor, ...], later: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        calls.append(earlier[0].shape[1])
        return (earlier[0] + later[0],)

    (sums,) = associative_scan(add, (torch.ones(1, 1024, dtype=torch.int64),))
    assert sums[0].tolist() == list(range(1, 1025))
    assert len(calls) <= 20 and sum(calls) < 2 * 1024


def test_gradients() -> None:
    elements = tuple(element.requires_grad_() for element in maps(5))
    assert torch.autograd.gradcheck(lambda *parts: associative_scan(product, parts), elements)
    assert torch.autograd.gradcheck(lambda *parts: associative_scan(product, parts, reverse=True), elements)

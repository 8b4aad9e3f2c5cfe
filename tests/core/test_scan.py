from __future__ import annotations

from typing import Any

import pytest
import torch

from unrolled.core.scan import associative_scan, by_pairs, linear_scan


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


# -- linear recurrences of single elements ---------------------------------------------------------------------------

KINDS = [torch.float64, torch.complex128]


def recurrence(time: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(time)
    keep, add, initial = (torch.randn(2, *axes, 3, generator=generator, dtype=dtype) for axes in ((time,), (time,), ()))
    return keep * 0.7, add, initial


def one_by_one(keep: torch.Tensor, add: torch.Tensor, initial: torch.Tensor, reverse: bool) -> torch.Tensor:
    states = [initial]
    for t in reversed(range(keep.shape[1])) if reverse else range(keep.shape[1]):
        states.append(keep[:, t] * states[-1] + add[:, t])
    return torch.stack(states[::-1] if reverse else states, 1)


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three levels within ten steps."""
    monkeypatch.setattr("unrolled.core.scan.CHUNK", 2)


@pytest.mark.parametrize("form", [linear_scan, by_pairs])
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_all_states_at_once_are_those_one_by_one(form: Any, dtype: torch.dtype, reverse: bool) -> None:
    for time in (0, 1, 2, 15, 16, 31, 32, 33, 100, 600):
        given = recurrence(time, dtype)
        torch.testing.assert_close(form(*given, reverse=reverse), one_by_one(*given, reverse))


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives_of_all_kinds(dtype: torch.dtype, reverse: bool) -> None:
    given = [part.requires_grad_() for part in recurrence(9, dtype)]

    def scanned(*parts: torch.Tensor) -> torch.Tensor:
        return linear_scan(*parts, reverse=reverse)

    assert torch.autograd.gradcheck(scanned, given, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(scanned, given, check_batched_grad=True, fast_mode=True)


def test_single_changes() -> None:
    """Derivatives forwards by one of the three alone."""
    given = recurrence(5)
    for place in range(3):
        change = torch.randn_like(given[place])

        def of_one(part: torch.Tensor, place: int = place) -> torch.Tensor:
            return linear_scan(*given[:place], part, *given[place + 1 :])

        _, found = torch.func.jvp(of_one, (given[place],), (change,))
        wanted = torch.autograd.functional.jvp(of_one, given[place], change)[1]
        torch.testing.assert_close(found, wanted)


def test_mapped_over() -> None:
    keep, add, initial = recurrence(40)
    many = torch.stack([add, -add, add.exp()])
    found = torch.func.vmap(linear_scan, in_dims=(None, 0, None), out_dims=0)(keep, many, initial)
    for ours, one in zip(found, many, strict=True):
        torch.testing.assert_close(ours, linear_scan(keep, one, initial))


def test_products_that_underflow_are_zero() -> None:
    """Quotients of products, or sums of logarithms of candidates of either sign, would be no numbers here."""
    keep, add = torch.full((1, 3000, 2), 1e-3), torch.ones(1, 3000, 2)
    keep[:, :, 1] = 0
    states = linear_scan(keep, -add, torch.full((1, 2), 1e30))
    torch.testing.assert_close(states[:, 20:], torch.tensor([-1 / 0.999, -1.0]).expand(1, 2981, 2))


@pytest.mark.parametrize("time", [50, 800])
def test_what_is_kept_for_gradients_grows_with_time_alone(time: int) -> None:
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor):
        linear_scan(*[part.requires_grad_() for part in recurrence(time)])
    assert sum(sizes) == 2 * 3 * (time + time + 1)


@pytest.mark.slow
def test_torch_can_look_into_it() -> None:
    class Scanned(torch.nn.Module):
        def forward(self, *parts: torch.Tensor) -> torch.Tensor:
            return linear_scan(*parts)

    given = recurrence(20)
    program = torch.export.export(Scanned(), given)
    torch.testing.assert_close(program.module()(*given), linear_scan(*given))

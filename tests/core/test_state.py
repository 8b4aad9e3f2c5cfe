"""State trees: every function keeps the form of the tree."""

from typing import NamedTuple

import pytest
import torch

from unrolled.core.state import detach_state, map_state, named_leaves, restore_state, select_state, stack_time, where_state


class Pair(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


def tree() -> dict:
    return {"0": Pair(torch.arange(6.0).view(3, 2), torch.ones(3)), "1": None, "2": (torch.zeros(3, 1, dtype=torch.long),)}


def test_map_keeps_form_and_names() -> None:
    doubled = map_state(lambda leaf: leaf * 2, tree())
    assert type(doubled["0"]) is Pair and doubled["1"] is None and type(doubled["2"]) is tuple
    assert torch.equal(doubled["0"].h, tree()["0"].h * 2)


def test_map_refuses_what_is_no_state() -> None:
    with pytest.raises(TypeError, match="a state is made of tensors"):
        map_state(lambda leaf: leaf, {"h": 3})


def test_select_takes_rows_with_repeats() -> None:
    chosen = select_state(tree(), torch.tensor([2, 0, 2]))
    assert chosen["0"].h.tolist() == [[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]


def test_where_chooses_row_by_row() -> None:
    old, new = tree(), map_state(lambda leaf: leaf + 10, tree())
    mixed = where_state(torch.tensor([True, False, True]), new, old)
    assert mixed["0"].h[:, 0].tolist() == [10.0, 2.0, 14.0]
    assert mixed["2"][0][:, 0].tolist() == [10, 0, 10]


def test_where_does_not_let_nan_through() -> None:
    bad = Pair(torch.full((2, 2), torch.nan), torch.full((2,), torch.nan))
    good = Pair(torch.zeros(2, 2, requires_grad=True), torch.zeros(2))
    result = where_state(torch.tensor([False, False]), bad, good)
    result.h.sum().backward()
    assert good.h.grad is not None and torch.equal(good.h.grad, torch.ones(2, 2))


def test_names_round_trip() -> None:
    leaves = dict(named_leaves(tree(), "carried."))
    assert list(leaves) == ["carried.0.h", "carried.0.c", "carried.2.0"]
    back = restore_state(tree(), leaves, "carried.")
    assert torch.equal(back["0"].c, tree()["0"].c) and back["1"] is None


def test_a_bare_tensor_is_a_tree() -> None:
    leaves = dict(named_leaves(torch.ones(2), "carried."))
    assert torch.equal(restore_state(torch.zeros(2), leaves, "carried."), torch.ones(2))


def test_detach_cuts_the_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    assert not detach_state({"a": weight * 2})["a"].requires_grad


def test_stack_puts_time_second() -> None:
    stacked = stack_time([Pair(torch.full((2, 3), float(t)), torch.zeros(2)) for t in range(4)])
    assert stacked.h.shape == (2, 4, 3) and stacked.h[0, :, 0].tolist() == [0, 1, 2, 3]

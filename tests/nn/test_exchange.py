"""Weights to and from `torch.nn`, exact or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from unrolled.core.errors import ConfigurationError
from unrolled.nn.cells import GRU, LSTM, Elman, GateWeights, ResetAfterGRU
from unrolled.nn.recurrence import Recurrence

PAIRS: dict[str, tuple[Any, type[nn.RNNBase], dict[str, str]]] = {
    "lstm": (LSTM, nn.LSTM, {}),
    "tanh": (Elman, nn.RNN, {"nonlinearity": "tanh"}),
    "relu": (Elman, nn.RNN, {"nonlinearity": "relu"}),
    "reset-after-gru": (ResetAfterGRU, nn.GRU, {}),
}
XS = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> tuple[Any, type[nn.RNNBase], dict[str, str]]:
    torch.manual_seed(1)
    return PAIRS[request.param]


@pytest.mark.parametrize("bias", [True, False])
def test_from_torch_computes_the_same(pair: tuple[Any, Any, Any], bias: bool) -> None:
    ours, theirs, options = pair
    source = theirs(3, 4, batch_first=True, bias=bias, dtype=torch.float64, **options)
    cell = ours.from_torch(source)
    assert next(cell.parameters()).dtype == torch.float64
    torch.testing.assert_close(Recurrence(cell, plain=True)(XS)[0], source(XS)[0])


def test_to_torch_and_back_is_bit_identical(pair: tuple[Any, Any, Any]) -> None:
    ours, theirs, options = pair
    cell = ours.from_torch(theirs(3, 4, dtype=torch.float64, **options))
    layer = cell.to_torch()
    torch.testing.assert_close(layer(XS)[0], Recurrence(cell, plain=True)(XS)[0])
    again = ours.from_torch(layer)
    for name, value in cell.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_copies_share_no_memory(pair: tuple[Any, Any, Any]) -> None:
    ours, theirs, options = pair
    source = theirs(3, 4, **options)
    cell = ours.from_torch(source)
    with torch.no_grad():
        source.weight_hh_l0.zero_()
    assert (cell.from_hidden.weight != 0).any() and cell.from_hidden.weight.requires_grad


def test_the_nonlinearity_comes_along() -> None:
    assert Elman.from_torch(nn.RNN(3, 4, nonlinearity="relu")).activation == "relu"
    assert Elman(3, 4, activation="relu").to_torch().nonlinearity == "relu"


def test_gru_as_published_refuses_torch_weights() -> None:
    with pytest.raises(ConfigurationError) as refused:
        GRU.from_torch(nn.GRU(3, 4))
    assert str(refused.value) == (
        "`GRU` resets before the matrix product and `torch.nn.GRU` after it, which no weights can make equal; try `ResetAfterGRU.from_torch`"
    )


def test_another_class_is_refused(pair: tuple[Any, Any, Any]) -> None:
    ours, theirs, _ = pair
    other = nn.GRU if theirs is nn.LSTM else nn.LSTM
    with pytest.raises(ConfigurationError) as refused:
        ours.from_torch(other(3, 4))
    assert str(refused.value) == f"these weights must come from `torch.nn.{theirs.__name__}`, got `{other.__name__}`"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"num_layers": 2}, "got 2 layers, bidirectional=False, proj_size=0"),
        ({"bidirectional": True}, "got 1 layers, bidirectional=True, proj_size=0"),
        ({"proj_size": 2}, "got 1 layers, bidirectional=False, proj_size=2"),
    ],
)
def test_what_no_single_cell_computes_is_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        LSTM.from_torch(nn.LSTM(3, 4, **options))
    assert str(refused.value) == (
        f"one cell takes the weights of one layer in one direction without projection, {found}; "
        "convert layer by layer into `Stacked` or `Bidirectional`"
    )


def gate() -> GateWeights:
    return GateWeights(torch.randn(4, 3).double(), torch.randn(4, 4).double(), torch.randn(4).double())


def test_a_gate_that_keeps_is_a_gate_that_updates_negated() -> None:
    torch.manual_seed(2)
    reset, candidate, keep = gate(), gate(), gate()
    update = GateWeights(-keep.from_input, -keep.from_hidden, -keep.bias)
    kept = Recurrence(GRU.from_gates(reset=reset, candidate=candidate, keep=keep))(XS)[0]
    updated = Recurrence(GRU.from_gates(reset=reset, candidate=candidate, update=update))(XS)[0]
    wrong = Recurrence(GRU.from_gates(reset=reset, candidate=candidate, update=keep))(XS)[0]
    assert torch.equal(kept, updated) and not torch.allclose(kept, wrong)


@pytest.mark.parametrize("given", [{}, {"update": gate(), "keep": gate()}])
def test_one_convention_must_be_chosen(given: dict[str, GateWeights]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        GRU.from_gates(reset=gate(), candidate=gate(), **given)
    assert (
        str(refused.value)
        == "`from_gates` needs either `update` (multiplies the new content) or `keep` (multiplies the old state), not both"
    )


def test_an_unknown_nonlinearity_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Elman(3, 4, activation="tan")
    assert str(refused.value) == "`activation` must be tanh or relu, got `tan`; did you mean `tanh`?"

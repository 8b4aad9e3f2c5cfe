"""Every cell against something that was written without it: torch.nn, ONNX Runtime, Keras, or plain loops in numpy; gradients by differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import map_state, named_leaves, restore_state
from unrolled.nn.cell import Cell
from unrolled.nn.cells import (
    CELLS,
    GRU,
    LSTM,
    CoupledLSTM,
    Elman,
    FeedForward,
    GateWeights,
    HiddenState,
    LayerNormLSTM,
    LSTMState,
    MinimalGatedUnit,
    OutputState,
    PeepholeLSTM,
    RecurrentDropout,
    RecurrentHighway,
    ResetAfterGRU,
    Zoneout,
)
from unrolled.nn.recurrence import Recurrence

BATCH, TIME, INPUT, HIDDEN = 3, 7, 4, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_random_weights(cell: Cell) -> Any:
    """Every parameter random, so that no bias or gain hides at zero or one."""
    cell.double()
    with torch.no_grad():
        for place, parameter in enumerate(cell.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=100 + place) * 0.7)
    return cell


XS, H, C, WEIGHT = drawn(BATCH, TIME, INPUT), drawn(BATCH, HIDDEN, seed=1), drawn(BATCH, HIDDEN, seed=2), drawn(BATCH, TIME, HIDDEN, seed=3)


# -- torch.nn: forward and gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("kind", "theirs", "options"),
    [
        (Elman, nn.RNN, {"nonlinearity": "tanh"}),
        (Elman, nn.RNN, {"nonlinearity": "relu"}),
        (LSTM, nn.LSTM, {}),
        (ResetAfterGRU, nn.GRU, {}),
    ],
)
def test_torch_layers(kind: Any, theirs: Any, options: dict[str, str], plain: bool) -> None:
    torch.manual_seed(0)
    layer = theirs(INPUT, HIDDEN, batch_first=True, dtype=torch.float64, **options)
    cell = kind.from_torch(layer)
    leaves = [leaf.clone().requires_grad_() for leaf in (XS, H, C)]
    state = LSTMState(*leaves[1:]) if kind is LSTM else HiddenState(leaves[1])
    outputs, final = Recurrence(cell, plain=plain)(leaves[0], state)
    twins = [leaf.clone().requires_grad_() for leaf in (XS, H, C)]
    start = (twins[1][None], twins[2][None]) if kind is LSTM else twins[1][None]
    wanted, last = layer(twins[0], start)
    torch.testing.assert_close(outputs, wanted)
    torch.testing.assert_close(torch.stack(tuple(final)), torch.cat(last) if kind is LSTM else last)

    ((outputs * WEIGHT).sum() + sum((part * C).sum() for part in final)).backward()
    ((wanted * WEIGHT).sum() + (torch.stack(tuple(last)) * C).sum()).backward()
    for ours, twin in zip(leaves, twins, strict=True):
        assert (ours.grad is None) == (twin.grad is None)
        torch.testing.assert_close(ours.grad, twin.grad)
    torch.testing.assert_close(cell.from_input.weight.grad, layer.weight_ih_l0.grad)
    torch.testing.assert_close(cell.from_hidden.weight.grad, layer.weight_hh_l0.grad)
    torch.testing.assert_close(cell.from_input.bias.grad, layer.bias_ih_l0.grad)
    if kind is ResetAfterGRU:
        torch.testing.assert_close(cell.candidate_bias.grad, layer.bias_hh_l0.grad[2 * HIDDEN :])


# -- ONNX Runtime: variants that torch lacks ------------------------------------------------------------------------


def run_onnx(operator: str, tensors: dict[str, Tensor | None], attributes: dict[str, int]) -> list[np.ndarray]:
    """One node with weights `[gates * hidden, …]`, time first inside."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    names = [name if value is not None else "" for name, value in tensors.items()]
    given = {name: value.float().numpy() for name, value in tensors.items() if value is not None}
    outputs = ["Y", "Y_h"] + (["Y_c"] if operator == "LSTM" else [])
    node = onnx.helper.make_node(operator, names, outputs, hidden_size=HIDDEN, **attributes)
    slots = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape) for name, value in given.items()]
    results = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    graph = onnx.helper.make_graph([node], "oracle", slots, results)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)


def reorder(blocks: Tensor, order: list[int]) -> Tensor:
    """Gate blocks in another order, with ONNX's axis for directions in front."""
    parts = blocks.detach().split(HIDDEN)
    return torch.cat([parts[i] for i in order])[None]


def onnx_recurrence(
    operator: str, w: Tensor, r: Tensor, b: Tensor, extra: dict[str, Tensor | None], attributes: dict[str, int]
) -> list[np.ndarray]:
    tensors = {"X": XS.transpose(0, 1), "W": w, "R": r, "B": b, "sequence_lens": None, "initial_h": H[None], **extra}
    return run_onnx(operator, tensors, attributes)


def agree(outputs: Tensor, final: Any, found: list[np.ndarray]) -> None:
    np.testing.assert_allclose(outputs.detach().numpy(), found[0][:, 0].transpose(1, 0, 2), rtol=1e-4, atol=2e-6)
    for part, wanted in zip(final, found[1:], strict=True):
        np.testing.assert_allclose(part.detach().numpy(), wanted[0], rtol=1e-4, atol=2e-6)


IOFC = [0, 3, 1, 2]  # ONNX's order of our input, forget, candidate, output


def test_peepholes_in_onnx_runtime() -> None:
    cell = with_random_weights(PeepholeLSTM(INPUT, HIDDEN))
    peepholes = torch.cat([cell.input_peephole, cell.output_peephole, cell.forget_peephole]).detach()[None]
    bias = torch.cat([reorder(cell.from_input.bias, IOFC), torch.zeros(1, 4 * HIDDEN)], 1)
    w, r = reorder(cell.from_input.weight, IOFC), reorder(cell.from_hidden.weight, IOFC)
    agree(*Recurrence(cell)(XS, LSTMState(H, C)), onnx_recurrence("LSTM", w, r, bias, {"initial_c": C[None], "P": peepholes}, {}))


def test_coupled_gates_in_onnx_runtime() -> None:
    cell = with_random_weights(CoupledLSTM(INPUT, HIDDEN))

    def spread(blocks: Tensor) -> Tensor:
        forget, candidate, output = blocks.detach().split(HIDDEN)
        # ONNX couples as forget = 1 - input and leaves its forget weights unread.
        return torch.cat([-forget, output, torch.full_like(forget, 9.0), candidate])[None]

    bias = torch.cat([spread(cell.from_input.bias), torch.zeros(1, 4 * HIDDEN)], 1)
    found = onnx_recurrence(
        "LSTM", spread(cell.from_input.weight), spread(cell.from_hidden.weight), bias, {"initial_c": C[None]}, {"input_forget": 1}
    )
    agree(*Recurrence(cell)(XS, LSTMState(H, C)), found)


def test_reset_before_in_onnx_runtime() -> None:
    cell = with_random_weights(GRU(INPUT, HIDDEN))
    hidden = torch.cat([cell.gates_from_hidden.weight, cell.candidate_from_hidden.weight])

    def spread(blocks: Tensor) -> Tensor:
        reset, update, candidate = blocks.detach().split(HIDDEN)
        return torch.cat([-update, reset, candidate])[None]  # ONNX's z keeps the old state

    bias = torch.cat([spread(cell.from_input.bias), torch.zeros(1, 3 * HIDDEN)], 1)
    found = onnx_recurrence("GRU", spread(cell.from_input.weight), spread(hidden), bias, {}, {"linear_before_reset": 0})
    agree(*Recurrence(cell)(XS, HiddenState(H)), found)


def test_reset_after_in_onnx_runtime() -> None:
    cell = with_random_weights(ResetAfterGRU(INPUT, HIDDEN))
    zrh = [1, 0, 2]
    hidden_bias = torch.cat([torch.zeros(2 * HIDDEN), cell.candidate_bias.detach()])[None]
    bias = torch.cat([reorder(cell.from_input.bias, zrh), hidden_bias], 1)
    w, r = reorder(cell.from_input.weight, zrh), reorder(cell.from_hidden.weight, zrh)
    agree(*Recurrence(cell)(XS, HiddenState(H)), onnx_recurrence("GRU", w, r, bias, {}, {"linear_before_reset": 1}))


# -- Keras: the published GRU with gradients ------------------------------------------------------------------------


def test_gru_as_published_in_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend")
    layer = keras.layers.GRU(HIDDEN, reset_after=False, return_sequences=True, return_state=True, dtype="float64")
    layer.build((BATCH, TIME, INPUT))
    layer.set_weights([drawn(*weight.shape, seed=20 + i).numpy() * 0.7 for i, weight in enumerate(layer.weights)])
    kernel, recurrent, bias = (torch.tensor(weight) for weight in layer.get_weights())
    # Keras stands in the order z, r, h, its z keeps the old state.
    keep, reset, candidate = (
        GateWeights(u.T, w.T, b) for u, w, b in zip(kernel.split(HIDDEN, 1), recurrent.split(HIDDEN, 1), bias.split(HIDDEN), strict=True)
    )
    cell = GRU.from_gates(reset=reset, candidate=candidate, keep=keep)
    ours, theirs = XS.clone().requires_grad_(), XS.clone().requires_grad_()
    outputs, final = Recurrence(cell)(ours, HiddenState(H))
    wanted, last = layer(theirs, initial_state=H)
    torch.testing.assert_close(outputs, wanted.cpu())
    torch.testing.assert_close(final.h, last.cpu())

    close = {"rtol": 1e-5, "atol": 1e-6}  # somewhere inside, Keras rounds to float32
    (outputs * WEIGHT).sum().backward()
    (wanted * WEIGHT).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, **close)
    update_u, reset_u, candidate_u = layer.weights[0].value.grad.split(HIDDEN, 1)
    torch.testing.assert_close(cell.from_input.weight.grad, torch.cat([reset_u.T, -update_u.T, candidate_u.T]), **close)
    update_w, reset_w, candidate_w = layer.weights[1].value.grad.split(HIDDEN, 1)
    torch.testing.assert_close(cell.gates_from_hidden.weight.grad, torch.cat([reset_w.T, -update_w.T]), **close)
    torch.testing.assert_close(cell.candidate_from_hidden.weight.grad, candidate_w.T, **close)


# -- plain loops in numpy, one unit of one row at a time where that is readable --------------------------------------


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def arrays(cell: Cell) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in cell.named_parameters()}


def loop(step: Callable[..., tuple[np.ndarray, tuple[np.ndarray, ...]]], *state: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    """Row by row and step by step, vectors only."""
    outputs, finals = np.zeros((BATCH, TIME, HIDDEN)), []
    for row in range(BATCH):
        now = tuple(part[row].numpy() for part in state)
        for t in range(TIME):
            outputs[row, t], now = step(XS[row, t].numpy(), *now)
        finals.append(now)
    return outputs, [np.stack(part) for part in zip(*finals, strict=True)]


def numpy_agrees(cell: Cell, state: Any, step: Callable[..., Any]) -> None:
    outputs, final = Recurrence(cell)(XS, state)
    wanted, last = loop(step, *state)
    np.testing.assert_allclose(outputs.detach().numpy(), wanted, rtol=1e-9, atol=1e-12)
    for part, value in zip(final, last, strict=True):
        np.testing.assert_allclose(part.detach().numpy(), value, rtol=1e-9, atol=1e-12)


def test_feed_forward_loop() -> None:
    cell = with_random_weights(FeedForward.two_layers(INPUT, HIDDEN))
    p = arrays(cell)

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        below = np.tanh(p["network.0.weight"][:, :INPUT] @ x + p["network.0.weight"][:, INPUT:] @ y + p["network.0.bias"])
        new = np.tanh(p["network.2.weight"] @ below + p["network.2.bias"])
        return new, (new,)

    numpy_agrees(cell, OutputState(H), step)


def test_minimal_gated_loop() -> None:
    cell = with_random_weights(MinimalGatedUnit(INPUT, HIDDEN))
    p = arrays(cell)
    (u_f, u_h), (b_f, b_h) = np.split(p["from_input.weight"], 2), np.split(p["from_input.bias"], 2)

    def step(x: np.ndarray, h: np.ndarray) -> Any:
        f = sigmoid(u_f @ x + p["forget_from_hidden.weight"] @ h + b_f)
        new = (1 - f) * h + f * np.tanh(u_h @ x + p["candidate_from_hidden.weight"] @ (f * h) + b_h)
        return new, (new,)

    numpy_agrees(cell, HiddenState(H), step)


@pytest.mark.parametrize("depth", [1, 3])
def test_recurrent_highway_loop(depth: int) -> None:
    cell = with_random_weights(RecurrentHighway(INPUT, HIDDEN, depth=depth))
    p = arrays(cell)

    def step(x: np.ndarray, s: np.ndarray) -> Any:
        for layer in range(depth):
            candidate_w, transform_w = np.split(p[f"from_hidden.{layer}.weight"], 2)
            if layer == 0:
                candidate_b, transform_b = np.split(p["from_input.weight"] @ x + p["from_input.bias"], 2)
            else:
                candidate_b, transform_b = np.split(p[f"from_hidden.{layer}.bias"], 2)
            transform = sigmoid(transform_w @ s + transform_b)
            s = np.tanh(candidate_w @ s + candidate_b) * transform + s * (1 - transform)
        return s, (s,)

    numpy_agrees(cell, HiddenState(H), step)


def test_layer_norm_loop() -> None:
    cell = with_random_weights(LayerNormLSTM(INPUT, HIDDEN))
    p = arrays(cell)

    def normal(a: np.ndarray) -> np.ndarray:
        return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-5)

    def step(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> Any:
        from_hidden = p["norm_hidden.weight"] * normal(p["from_hidden.weight"] @ h)
        from_input = p["norm_input.weight"] * normal(p["from_input.weight"] @ x)
        i, f, g, o = np.split(from_hidden + from_input + p["bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(p["norm_cell.weight"] * normal(c) + p["norm_cell.bias"])
        return h, (h, c)

    numpy_agrees(cell, LSTMState(H, C), step)


# -- gradients of every cell by finite differences -------------------------------------------------------------------

ALL: dict[str, Callable[[int, int], Cell]] = {
    **CELLS,
    "recurrent-dropout": lambda i, h: RecurrentDropout(LSTM(i, h), 0.5),
    "zoneout": lambda i, h: Zoneout(RecurrentDropout(LSTM(i, h), 0.5), {"h": 0.3, "c": 0.3}),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(ALL))
def test_gradients_by_differences(name: str, training: bool) -> None:
    cell = with_random_weights(ALL[name](2, 3)).train(training)
    layer, lengths = Recurrence(cell), torch.tensor([2, 0, 3])
    names = [name for name, _ in layer.named_parameters()]
    form = map_state(lambda leaf: drawn(*leaf.shape, seed=8) * 0.5, cell.initial_state(3))
    paths = [path for path, _ in named_leaves(form)]

    def run(xs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state = restore_state(form, dict(zip(paths, rest, strict=False)))
        weights = dict(zip(names, rest[len(paths) :], strict=True))
        noise = Noise(torch.Generator().manual_seed(4))
        outputs, final = torch.func.functional_call(layer, weights, (Padded(xs, lengths), state), {"noise": noise})
        return outputs.data, *(leaf for _, leaf in named_leaves(final))

    given = [drawn(3, 3, 2, seed=9), *(leaf for _, leaf in named_leaves(form)), *layer.parameters()]
    assert torch.autograd.gradcheck(run, [leaf.detach().clone().requires_grad_() for leaf in given])

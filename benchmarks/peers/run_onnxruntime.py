"""ONNX Runtime: its GRU (reset before the product) and its LSTM with peepholes, a worker of `kernels.py`; see turns.py.

Inputs and outputs have time as their first axis, the only layout that its processor kernels have.
"""

from __future__ import annotations

import sys
from typing import Any

from turns import Works, keep_to_threads, serve

if __name__ == "__main__":
    keep_to_threads()

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from parity import difference

Arrays = dict[str, np.ndarray]


def gru(weights: Arrays) -> tuple[Arrays, dict[str, Any]]:
    """Inputs and attributes of the operator. Its gates are update, reset, candidate, and its update gate multiplies the *old* state: 1 - σ(a) = σ(-a)."""
    reset, update, candidate = np.split(weights["from_input.weight"], 3)
    reset_bias, update_bias, candidate_bias = np.split(weights["from_input.bias"], 3)
    reset_hidden, update_hidden = np.split(weights["gates_from_hidden.weight"], 2)
    bias = np.concatenate([-update_bias, reset_bias, candidate_bias])
    given = {
        "W": np.concatenate([-update, reset, candidate]),
        "R": np.concatenate([-update_hidden, reset_hidden, weights["candidate_from_hidden.weight"]]),
        "B": np.concatenate([bias, np.zeros_like(bias)]),
    }
    return given, {"linear_before_reset": 0}


def peephole_lstm(weights: Arrays) -> tuple[Arrays, dict[str, Any]]:
    """Inputs and attributes of the operator. Its gates are input, output, forget, candidate, its peepholes input, output, forget."""

    def ordered(array: np.ndarray) -> np.ndarray:
        into, forget, candidate, output = np.split(array, 4)
        return np.concatenate([into, output, forget, candidate])

    bias = ordered(weights["from_input.bias"])
    given = {
        "W": ordered(weights["from_input.weight"]),
        "R": ordered(weights["from_hidden.weight"]),
        "B": np.concatenate([bias, np.zeros_like(bias)]),
        "P": np.concatenate([weights["input_peephole"], weights["output_peephole"], weights["forget_peephole"]]),
    }
    return given, {}


OPERATORS = {"gru": ("GRU", gru, ("h",)), "peephole-lstm": ("LSTM", peephole_lstm, ("h", "c"))}
"""By the name of a cell: the operator, its weights, and the parts of its state."""


def build(cell: str, weights: Arrays, batch: int, input_size: int, hidden_size: int) -> bytes:
    """A model of one operator: inputs and the state before, to outputs and the state after."""
    operator, convert, parts = OPERATORS[cell]
    given, attributes = convert(weights)
    before, after = [f"{part} before" for part in parts], [f"{part} after" for part in parts]
    # W, R, B, the lengths (none), the state, the peepholes: an empty name leaves a place open.
    names = ["X", "W", "R", "B", "", *before, *(["P"] if "P" in given else [])]
    node = helper.make_node(operator, names, ["Y", *after], hidden_size=hidden_size, **attributes)

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        cell,
        [value("X", "time", batch, input_size), *[value(name, 1, batch, hidden_size) for name in before]],
        [value("Y", "time", 1, batch, hidden_size), *[value(name, 1, batch, hidden_size) for name in after]],
        [numpy_helper.from_array(array[None].astype(np.float32), name) for name, array in given.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make(asked: dict[str, Any], threads: int | None = None) -> tuple[Works, dict[str, Any]]:
    """Read weights and inputs, build a session, compare with our own outputs."""
    with np.load(asked["arrays"]) as stored:
        expected = {name: stored[name] for name in stored.files}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads or int(sys.argv[1]), 1
    batch, hidden = asked["batch"], asked["hidden"]
    model = build(asked["cell"], expected, batch, expected["xs"].shape[2], hidden)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    xs = np.ascontiguousarray(expected["xs"].swapaxes(0, 1))
    start = {f"{part} before": np.zeros((1, batch, hidden), np.float32) for part in OPERATORS[asked["cell"]][2]}

    def read() -> np.ndarray:
        return session.run(None, {"X": xs, **start})[0]

    def stream() -> np.ndarray:
        outputs, state = [], start
        for x in np.split(xs, len(xs)):
            output, *after = session.run(None, {"X": x, **state})
            state = dict(zip(start, after, strict=True))
            outputs.append(output)
        return np.concatenate(outputs)

    work = stream if asked["mode"] == "streaming" else read
    found = {"outputs": work()[:, 0].swapaxes(0, 1)}
    return {"ONNX Runtime": work}, {"difference": difference(expected, found)}


if __name__ == "__main__":
    serve(make)

"""JAX: `lax.scan` and `jit` over the published GRU and the peephole LSTM, a worker of `kernels.py`; see turns.py.

The product with the inputs is taken out of the scan, and inputs and outputs have time as their first axis, as a scan reads and writes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from turns import Works, keep_to_threads, serve

if __name__ == "__main__" and keep_to_threads() == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np
from parity import difference

Arrays = dict[str, Any]


def gru(weights: Arrays, xs: jax.Array) -> jax.Array:
    """As `unrolled.nn.cells.GRU` has it: the reset before the product, `update` multiplies the new content."""
    size = weights["candidate_from_hidden.weight"].shape[0]
    inputs = xs @ weights["from_input.weight"].T + weights["from_input.bias"]
    gates_matrix, candidate_matrix = weights["gates_from_hidden.weight"].T, weights["candidate_from_hidden.weight"].T

    def step(h: jax.Array, given: jax.Array) -> tuple[jax.Array, jax.Array]:
        gates = jax.nn.sigmoid(given[:, : 2 * size] + h @ gates_matrix)
        reset, update = gates[:, :size], gates[:, size:]
        candidate = jnp.tanh(given[:, 2 * size :] + (reset * h) @ candidate_matrix)
        h = (1 - update) * h + update * candidate
        return h, h

    return jax.lax.scan(step, jnp.zeros((xs.shape[1], size), xs.dtype), inputs)[1]


def peephole_lstm(weights: Arrays, xs: jax.Array) -> jax.Array:
    """As `unrolled.nn.cells.PeepholeLSTM` has it: the output gate looks at the new cell."""
    size = weights["from_hidden.weight"].shape[1]
    inputs = xs @ weights["from_input.weight"].T + weights["from_input.bias"]
    matrix = weights["from_hidden.weight"].T

    def step(state: tuple[jax.Array, jax.Array], given: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        h, c = state
        into, forget, candidate, output = jnp.split(given + h @ matrix, 4, -1)
        into = jax.nn.sigmoid(into + weights["input_peephole"] * c)
        forget = jax.nn.sigmoid(forget + weights["forget_peephole"] * c)
        c = forget * c + into * jnp.tanh(candidate)
        h = jax.nn.sigmoid(output + weights["output_peephole"] * c) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((xs.shape[1], size), xs.dtype)
    return jax.lax.scan(step, (zeros, zeros), inputs)[1]


CELLS: dict[str, Callable[[Arrays, jax.Array], jax.Array]] = {"gru": gru, "peephole-lstm": peephole_lstm}


def make(asked: dict[str, Any]) -> tuple[Works, dict[str, Any]]:
    """Read weights and inputs, compile, compare with our own outputs and gradients."""
    with np.load(asked["arrays"]) as stored:
        expected = {name: stored[name] for name in stored.files}
    cell = CELLS[asked["cell"]]
    weights = {name: jnp.asarray(array) for name, array in expected.items() if not name.startswith(("gradient ", "outputs", "xs"))}
    xs = jnp.asarray(expected["xs"].swapaxes(0, 1))
    read = jax.jit(cell)
    found = {"outputs": np.asarray(read(weights, xs)).swapaxes(0, 1)}
    if asked["mode"] == "inference":
        return {"JAX": lambda: jax.block_until_ready(read(weights, xs))}, {"difference": difference(expected, found)}
    step = jax.jit(jax.value_and_grad(lambda weights, xs: cell(weights, xs).sum(), argnums=(0, 1)))
    _, (gradients, xs_gradient) = step(weights, xs)
    found |= {f"gradient {name}": np.asarray(array) for name, array in gradients.items()}
    found["gradient xs"] = np.asarray(xs_gradient).swapaxes(0, 1)
    return {"JAX": lambda: jax.block_until_ready(step(weights, xs))}, {"difference": difference(expected, found)}


if __name__ == "__main__":
    serve(make)

"""What this machine could do at most: its fastest product of matrices, and how fast its cores read their own cache."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.compiler import NoCompiler, system_compiler
from unrolled.nn.cell import Cell

PRODUCTS = ((512, 512, 512), (1024, 1024, 1024), (3200, 512, 1536))
"""Rows, depth and columns of the products that are tried."""
READ_BYTES = 384 * 1024
"""What each thread reads again and again: more than a first-level cache holds, less than a second-level one."""
READ_TIMES = 400

READER = """
// Reads `count` numbers `times` times on each thread, its own ones, and returns a sum, so that nothing can be left out.
extern "C" float read_again(const float* data, long count, long times, int threads) {
  typedef float Wide __attribute__((vector_size(64), aligned(64)));
  float total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    const Wide* own = (const Wide*)(data + thread * count);
    Wide sums[8] = {};
    for (long turn = 0; turn < times; ++turn) {
      for (long i = 0; i + 8 <= count / 16; i += 8)
        for (int j = 0; j < 8; ++j) sums[j] += own[i + j];
      asm volatile("" : : : "memory");
    }
    for (int j = 0; j < 8; ++j)
      for (int k = 0; k < 16; ++k) total += sums[j][k];
  }
  return total;
}
"""


class Limits(NamedTuple):
    """Of a machine, with so many threads as they were measured with."""

    products: float
    """Fastest fp32 product of matrices, in floating point operations a second."""
    reading: float | None
    """Bytes a second that all threads read from the second-level cache; `None` where there is no compiler."""


def measure_limits() -> Limits:
    """With as many threads as torch has now; takes about a second.

    Returns:
        The fastest of several tries.
    """
    return Limits(max(_product_rates()), _reading_rate())


def least_milliseconds(cell: Cell, mode: str, batch: int, steps: int, limits: Limits) -> float | None:
    """The time that the products of a cell alone would take at the machine's limit.

    Products with the input run once over all steps, at the rate of large products. Those with the state do so as well for a batch; for one row each
    step reads the matrix again. A backward pass multiplies by each matrix once more; gradients of matrices are large products.

    Args:
        cell: its matrices whose names begin with `from_input` are read as those of the input.
        mode: training, inference or streaming.
        batch: rows.
        steps: of a sequence.
        limits: of the machine.

    Returns:
        Milliseconds, or `None` where the limit is not known.
    """
    matrices = {name: matrix for name, matrix in cell.named_parameters() if matrix.dim() == 2}
    inputs = sum(matrix.numel() for name, matrix in matrices.items() if name.startswith("from_input"))
    hidden = sum(matrix.numel() for matrix in matrices.values()) - inputs
    if mode == "streaming":
        inputs, hidden = 0, inputs + hidden
    training = mode == "training"
    large = 2 * batch * steps * (inputs * (3 if training else 1) + (hidden if training else 0)) / limits.products
    passes = 2 if training else 1
    if batch > 1:
        return 1000 * (large + 2 * batch * steps * hidden * passes / limits.products)
    if limits.reading is None:
        return None
    return 1000 * (large + 4 * steps * hidden * passes / limits.reading)


def _product_rates() -> Iterator[float]:
    for rows, depth, columns in PRODUCTS:
        left, right = torch.randn(rows, depth), torch.randn(columns, depth)
        for multiply in _ways(left, right):
            # What is not of torch's public interface may ask for other arguments in another version.
            with contextlib.suppress(RuntimeError):
                yield 2 * rows * depth * columns / _fastest(multiply)


def _ways(left: Tensor, right: Tensor) -> Iterator[Callable[[], Any]]:
    """By the library that torch uses, and by oneDNN where this build has it, with the matrix as it lies and as oneDNN would have it."""
    yield lambda: left @ right.t()
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    reorder = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    if linear is None or reorder is None or not torch.backends.mkldnn.is_available():
        return
    yield lambda: linear(left, right, None, "none", [], "")
    with contextlib.suppress(RuntimeError):
        packed = reorder(right, len(left))
        yield lambda: linear(left, packed, None, "none", [], "")


@torch.inference_mode()
def _fastest(work: Callable[[], Any], tries: int = 10) -> float:
    work()
    taken = []
    for _ in range(tries):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _reading_rate() -> float | None:
    try:
        read = system_compiler().load(READER).read_again
    except NoCompiler:
        return None
    read.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    read.restype = ctypes.c_float
    threads = torch.get_num_threads()
    data = torch.ones(threads * READ_BYTES // 4 + 16)
    address = -(-data.data_ptr() // 64) * 64
    return threads * READ_BYTES * READ_TIMES / _fastest(lambda: read(address, READ_BYTES // 4, READ_TIMES, threads))

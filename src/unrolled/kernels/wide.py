"""Products of large matrices, over all steps at once: as fast as the machine multiplies, which torch's own are not on every processor."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.compiler import NoCompiler, system_compiler
from unrolled.kernels.generate_file import HEADERS, TYPES, with_headers

ENOUGH = 1 << 20
"""Multiplications below which torch's product is called: it has less to prepare."""


def multiply(left: Tensor, right: Tensor, *, bfloat16: bool = False) -> Tensor:
    """The product of two matrices, `left @ right`, without gradient.

    Args:
        left: `[rows, count]`.
        right: `[count, columns]`.
        bfloat16: numbers of type float may be rounded to bfloat16 before they are multiplied; sums stay as they are.

    Returns:
        `[rows, columns]`; torch's own product where ours is not made for what is given, or there is no compiler.
    """
    (rows, count), columns = left.shape, right.shape[1]
    strides = *left.stride(), *right.stride()
    usual = left.dtype == right.dtype and left.dtype in TYPES and left.is_cpu and right.is_cpu
    if not usual or rows * count * columns < ENOUGH or 1 not in strides[:2] or 1 not in strides[2:]:
        return left @ right
    library = _library(left.dtype, bfloat16 and left.dtype == torch.float32)
    if library is None:
        return left @ right
    threads = torch.get_num_threads()
    memory = torch.empty(library.wide_memory_bytes(count, columns, threads) + 64, dtype=torch.uint8)
    result = torch.empty(rows, columns, dtype=left.dtype)
    aligned = -(-memory.data_ptr() // 64) * 64
    matrices = left.data_ptr(), *strides[:2], right.data_ptr(), *strides[2:], result.data_ptr()
    library.wide_product(*matrices, rows, count, columns, aligned, min(threads, -(-rows // 8)))
    return result


def has_bfloat16_products() -> bool:
    """Whether what is built here multiplies numbers of bfloat16 by instructions of the processor, which is faster than numbers of type float.

    Returns:
        False too where there is no compiler.
    """
    library = _library(torch.float32, True)
    return library is not None and bool(library.has_bfloat16_products())


@functools.cache
def _library(dtype: torch.dtype, bfloat16: bool) -> Any:
    try:
        library = system_compiler().load(with_headers((*HEADERS[:-1], "wide.h"), dtype, bfloat16_products=bfloat16))
    except NoCompiler:
        return None
    pointer, whole = ctypes.c_void_p, ctypes.c_long
    library.wide_memory_bytes.argtypes, library.wide_memory_bytes.restype = [whole, whole, ctypes.c_int], whole
    matrix: list[Any] = [pointer, whole, whole]
    library.wide_product.argtypes = [*matrix, *matrix, pointer, whole, whole, whole, pointer, ctypes.c_int]
    library.wide_product.restype = None
    return library

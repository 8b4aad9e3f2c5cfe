"""What every generated file begins with: types, headers of the folder `runtime`, and the program as a comment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources

import torch

from unrolled.kernels.graph import LoopProgram, Unsupported

HEADERS = ("vectors.h", "functions.h", "products.h", "in_place.h", "threads.h", "stages.h")
"""What every kernel begins with, from the folder `runtime`."""

TYPES = {
    torch.float32: "using real = float;\nusing integer = int;\nusing unsigned_integer = unsigned;",
    torch.float64: "#define REAL_IS_DOUBLE\nusing real = double;\nusing integer = long long;\nusing unsigned_integer = unsigned long long;",
}
"""Types of elements that kernels compute with."""


def preamble(program: LoopProgram, headers: Sequence[str], parts: Iterable[str] = (), *, bfloat16_products: bool = False) -> str:
    """What a file begins with: types, headers, and the program as text.

    Args:
        program: what each step does.
        headers: names in the folder `runtime`.
        parts: what comes behind.
        bfloat16_products: round what products multiply to bfloat16.

    Returns:
        C++.

    Raises:
        Unsupported: a type of elements that there is no kernel for.
    """
    comment = "\n".join(f"// {line}" for line in str(program).splitlines())
    return with_headers(headers, real_type(program, bfloat16_products), [comment, *parts], bfloat16_products=bfloat16_products)


def with_headers(names: Iterable[str], dtype: torch.dtype, parts: Iterable[str] = (), *, bfloat16_products: bool = False) -> str:
    """The text of one file.

    Args:
        names: headers of the folder `runtime` that it begins with.
        dtype: a key of `TYPES`.
        parts: what comes behind.
        bfloat16_products: round what products multiply to bfloat16.

    Returns:
        C++, which includes nothing but headers of the system.
    """
    bfloat16 = "#define BFLOAT16_PRODUCTS\n#ifdef __AVX512BF16__\n#include <immintrin.h>\n#endif" if bfloat16_products else ""
    headers = [resources.files("unrolled.kernels").joinpath("runtime", name).read_text(encoding="utf-8") for name in names]
    return "\n\n".join(part.strip("\n") for part in [bfloat16, TYPES[dtype], *headers, *parts] if part) + "\n"


def real_type(program: LoopProgram, bfloat16_products: bool = False) -> torch.dtype:
    """The one type of numbers in a program.

    Args:
        program: what each step does.
        bfloat16_products: whether products are wanted in bfloat16.

    Returns:
        A key of `TYPES`.

    Raises:
        Unsupported: another type, or more than one.
    """
    types = {node.dtype for node in (*program.arrays, *program.nodes)} - {torch.bool}
    if len(types) > 1 or not types <= TYPES.keys():
        raise Unsupported(f"elements of type {' and '.join(sorted(map(str, types)))}")
    dtype = types.pop() if types else torch.float32
    if bfloat16_products and dtype != torch.float32:
        raise Unsupported(f"products in bfloat16 of elements of type {dtype}")
    return dtype

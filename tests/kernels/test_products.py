"""The products and functions that every kernel is made of, each against torch in float64."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.kernels.compiler import Compiler, system_compiler
from unrolled.kernels.generate_file import HEADERS, TYPES

FUNCTIONS = {
    "exponential": (torch.exp, -103, 88.7, 1.5),
    "sigmoid": (torch.sigmoid, -87, 30, 3),
    "hyperbolic_tangent": (torch.tanh, -12, 12, 3),
    "square_root": (torch.sqrt, 0, 100, 1),
    "logarithm": (torch.log, 1e-9, 100, 1.5),
    "logarithm_1p": (torch.log1p, -0.99, 100, 2),
    "exponential_m1": (torch.expm1, -20, 80, 1.5),
    "error_function": (torch.erf, -4, 4, 2),
    "sine": (torch.sin, -100, 100, 1.5),
    "cosine": (torch.cos, -100, 100, 1.5),
    "absolute": (torch.abs, -5, 5, 0),
    "rectified": (torch.relu, -5, 5, 0),
    "sign": (torch.sign, -5, 5, 0),
}
"""What torch calls the same, between which numbers it is tried, and by how many units of the last place of a float it may be off."""

WRAPPED = """
template <int width, int together> struct Pass : Tiles<width, together> {};
template <int width, int together>
static void product(long rows, long height, const real* a, const real* const* matrices, int transposed, char* memory, real* out) {
  typedef Pass<width, together> P;
  Arena arena{memory, 0};
  Factor* panels = arena.take<Factor>(P::padded * together * rounded_up(height, depth));
  Factor* factors = arena.take<Factor>(rows * rounded_up(height, depth));
  real* sums = arena.take<real>(rows * P::columns * together);
  const long stride = rounded_up(height, depth);
  for (long i = 0; i < rows * stride; ++i) factors[i] = Factor{};
  pack_rows(a, height, rows, height, factors, stride);
  for (int place = 0; place < together; ++place)
    pack_segment<P>(matrices[place], transposed, height, width, 0, together, place, panels, 0, P::count);
  for (long tile = 0; tile < P::count; ++tile) {
    const bool whole = tile < P::full;
    const long apart = (whole ? (long)P::vectors : (long)P::rest_vectors) * lanes;
    const Factor* panel = panels + tile * P::columns * together * stride;
    if (whole) multiply<together * P::vectors>(rows, stride, factors, stride, panel, sums, together * apart);
    else if constexpr (P::rest > 0) multiply<together * P::rest_vectors>(rows, stride, factors, stride, panel, sums, together * apart);
    for (int place = 0; place < together; ++place)
      for (long row = 0; row < rows; ++row)
        for (long c = 0; c < apart && tile * P::columns + c < width; ++c)
          out[(place * rows + row) * width + tile * P::columns + c] = sums[(row * together + place) * apart + c];
  }
}
"""

Library = Callable[..., ctypes.CDLL]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    compiler = Compiler(system_compiler().command, tmp_path_factory.mktemp("kernels"))

    def build(text: str, dtype: torch.dtype, before: str = "") -> ctypes.CDLL:
        folder = resources.files("unrolled.kernels").joinpath("runtime")
        headers = [folder.joinpath(name).read_text() for name in HEADERS]
        return compiler.load("\n".join([before, TYPES[dtype], *headers, text]))

    return build


def address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def applied(library: Library, dtype: torch.dtype) -> Callable[[str, Tensor], Tensor]:
    lines = [
        f'extern "C" void call_{name}(const real* from, real* to, long count) '
        f"{{ for (long i = 0; i < count; i += lanes) store<lanes>(to + i, {name}(load<lanes>(from + i))); }}"
        for name in FUNCTIONS
    ]
    built = library("\n".join(lines), dtype)

    def call(name: str, given: Tensor) -> Tensor:
        padded = torch.cat([given, given.new_zeros(-len(given) % 64)])
        result = torch.empty_like(padded)
        getattr(built, f"call_{name}")(address(padded), address(result), ctypes.c_long(len(padded)))
        return result[: len(given)]

    return call


def test_functions_are_near_those_of_float64(library: Library) -> None:
    call = applied(library, torch.float32)
    for name, (function, low, high, units) in FUNCTIONS.items():
        given = torch.cat([torch.linspace(low, high, 20_001), (torch.randn(3_000) * 0.01).clamp(low, high)]).float()
        wanted = function(given.double())
        nearest = wanted.float()
        unit = (torch.nextafter(nearest.abs(), torch.tensor(math.inf, dtype=torch.float32)) - nearest.abs()).double()
        off = ((call(name, given).double() - wanted).abs() / unit).max().item()
        assert off <= units + 0.51, f"{name}: {off:.2f} units of the last place"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_at_the_edges_are_those_of_torch(library: Library, dtype: torch.dtype) -> None:
    call = applied(library, dtype)
    small = torch.finfo(dtype).tiny
    edges = [
        0.0,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        1000.0,
        -1000.0,
        1e30,
        -1e30,
        small,
        -small,
        small / 8,
        89.0,
        -89.0,
        -88.5,
        -104.5,
        88.7,
    ]
    given = torch.tensor(edges, dtype=dtype)
    for name, (function, *_) in FUNCTIONS.items():
        if name in ("sine", "cosine"):
            continue  # of huge numbers nothing is known
        got, wanted = call(name, given), function(given)
        torch.testing.assert_close(got, wanted, rtol=5e-7, atol=1e-38, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}")
        if name not in ("rectified", "sign"):
            assert torch.equal(torch.signbit(got[:2]), torch.signbit(wanted[:2])), f"{name} of zeros"


def products(library: Library, dtype: torch.dtype, width: int, together: int, before: str = "") -> Callable[..., Tensor]:
    entry = (
        'extern "C" void entry(long rows, long height, const real* a, const real* const* matrices, int transposed, char* memory, real* out) '
        f"{{ product<{width}, {together}>(rows, height, a, matrices, transposed, memory, out); }}"
    )
    built: Any = library(WRAPPED + entry, dtype, before)

    def call(rows: Tensor, matrices: list[Tensor], transposed: bool) -> Tensor:
        batch, height = rows.shape
        out = torch.full((together, batch, width), 77, dtype=dtype)
        memory = torch.empty(1 << 22, dtype=torch.uint8)
        aligned = ctypes.c_void_p(memory.data_ptr() + -memory.data_ptr() % 64)
        pointers = (ctypes.c_void_p * together)(*[matrix.data_ptr() for matrix in matrices])
        built.entry(ctypes.c_long(batch), ctypes.c_long(height), address(rows), pointers, int(transposed), aligned, address(out))
        return out

    return call


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("width", "together"), [(1, 1), (7, 1), (16, 2), (33, 3), (64, 1), (70, 2)])
def test_products_are_those_of_torch(library: Library, dtype: torch.dtype, width: int, together: int) -> None:
    call = products(library, dtype, width, together)
    for batch in (1, 2, 3, 8, 9, 16, 33):
        for height in (1, 2, 16, 37, 130):
            for transposed in (False, True):
                rows = torch.randn(batch, height, dtype=dtype)
                matrices = [torch.randn(*((width, height) if transposed else (height, width)), dtype=dtype) for _ in range(together)]
                wanted = [rows.double() @ (matrix.t() if transposed else matrix).double() for matrix in matrices]
                torch.testing.assert_close(
                    call(rows, matrices, transposed).double(), torch.stack(wanted), rtol=0, atol=3e-5 if dtype == torch.float32 else 1e-12
                )


@pytest.mark.parametrize("hidden_instructions", [False, True], ids=["as the machine can", "without bfloat16 instructions"])
def test_bfloat16_products_round_what_is_multiplied_and_nothing_else(library: Library, hidden_instructions: bool) -> None:
    before = "#define BFLOAT16_PRODUCTS\n" + ("#undef __AVX512BF16__\n" if hidden_instructions else "#include <immintrin.h>\n")
    call = products(library, torch.float32, 70, 2, before)
    for batch, height, transposed in ((1, 1, True), (3, 37, True), (9, 64, False), (17, 129, True), (2, 33, False)):
        rows = torch.randn(batch, height).float()
        matrices = [torch.randn(*((70, height) if transposed else (height, 70))).float() for _ in range(2)]
        wanted = [rows.bfloat16().double() @ (matrix.t() if transposed else matrix).bfloat16().double() for matrix in matrices]
        torch.testing.assert_close(call(rows, matrices, transposed).double(), torch.stack(wanted), rtol=0, atol=3e-5)
    rows = torch.tensor([[math.nan, 1.0], [math.inf, 0.0]]).float()
    result = call(rows, [torch.ones(70, 2).float()] * 2, True)
    assert result[:, 0].isnan().all() and (result[:, 1] == math.inf).all()

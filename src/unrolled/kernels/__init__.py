"""The recurrence compiler: a traced step of time becomes one loop program; knows no cell by name."""

from __future__ import annotations

from unrolled.kernels.compiler import NoCompiler
from unrolled.kernels.graph import Unsupported
from unrolled.kernels.loop_cpp import CompiledLoop
from unrolled.kernels.recurrence import CompiledStep
from unrolled.kernels.stream import SingleStep
from unrolled.kernels.structure import Step, Unrolling
from unrolled.kernels.wide import has_bfloat16_products, multiply

make_loop: type[CompiledLoop] = CompiledLoop
"""The back end that is used, a `LoopMaker`."""

__all__ = ["CompiledStep", "NoCompiler", "SingleStep", "Step", "Unrolling", "Unsupported", "has_bfloat16_products", "make_loop", "multiply"]

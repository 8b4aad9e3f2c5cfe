"""Loop programs run as C++ that is built for them: what the loop of torch's own operations gives, faster."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.kernels.compiler import Compiler, system_compiler
from unrolled.kernels.generate import source
from unrolled.kernels.graph import LoopProgram

LINE = 64
"""Bytes of a line of the cache, at which memory begins."""


class CompiledLoop:
    """A loop program as machine code, for any time and batch; uses as many threads as torch does."""

    def __init__(self, program: LoopProgram, *, bfloat16_products: bool = False, compiler: Compiler | None = None) -> None:
        """Build the program, or find it built.

        Args:
            program: what each step does.
            bfloat16_products: round what products multiply to bfloat16; sums and all else stay as they are.
            compiler: the system's when `None`.
        """
        self.program = program
        library = (compiler or system_compiler()).load(source(program, bfloat16_products=bfloat16_products))
        self._run, self._memory_bytes = library.run, library.memory_bytes
        pointer, whole = ctypes.c_void_p, ctypes.c_long
        self._run.argtypes = [pointer, pointer, pointer, whole, whole, ctypes.c_int]
        self._run.restype = None
        self._memory_bytes.argtypes, self._memory_bytes.restype = [whole, ctypes.c_int], whole
        self._packed_bytes = library.packed_bytes
        self._packed_bytes.argtypes, self._packed_bytes.restype = [whole], whole

    def __call__(self, arrays: Sequence[Tensor], time: int, batch: int) -> None:
        """Take all steps.

        Args:
            arrays: in the order that `LoopProgram` states; those written to are allocated.
            time: steps.
            batch: rows.
        """
        if time == 0 or batch == 0:
            count = len(self.program.states)
            for before, after in zip(arrays[-2 * count : -count], arrays[-count:], strict=True):
                after.copy_(before)
            return
        threads = torch.get_num_threads()
        panels = _room(self._packed_bytes(batch))
        memory = _room(self._memory_bytes(batch, threads))
        self._run(_pointers(arrays), _aligned(panels), _aligned(memory), time, batch, threads)


def _room(size: int) -> Tensor:
    return torch.empty(size + LINE, dtype=torch.uint8)


def _aligned(room: Tensor) -> int:
    return -(-room.data_ptr() // LINE) * LINE


def _pointers(arrays: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(arrays))(*[array.data_ptr() for array in arrays])

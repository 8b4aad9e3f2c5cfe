"""A loop program as C++ for single steps: matrices are read where they lie, as each is used once a call."""

from __future__ import annotations

from collections.abc import Iterator

from unrolled.kernels.generate import Writer, block, stride_of
from unrolled.kernels.generate_file import HEADERS, preamble
from unrolled.kernels.generate_plan import Group, Plan, Stage
from unrolled.kernels.graph import LoopProgram


def stream_source(program: LoopProgram) -> str:
    """The C++ of one step of a program, for any batch and any number of threads.

    Args:
        program: what a step does.

    Returns:
        The text of one file, which includes nothing but headers of the system.

    Raises:
        Unsupported: a type of elements that there is no kernel for.
    """
    parts = [preamble(program, (*HEADERS, "direct.h")), *StreamWriter(Plan(program)).parts()]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


class StreamWriter(Writer):
    """Writes what is particular to one program."""

    def __init__(self, plan: Plan) -> None:
        """Write a plan.

        Args:
            plan: of the program.
        """
        super().__init__(plan)
        self.packed = []

    def parts(self) -> Iterator[str]:
        """All parts of the file behind the headers.

        Yields:
            C++.
        """
        yield self.step()
        for stage in self.stages:
            yield self.stage(stage)
        yield self.memory()
        yield self.take_step()
        yield self.set_step()
        yield ENTRY.replace("WORK", str(self.work()))

    def _multiplication(self, stage: Stage, group: Group, first: int) -> str:
        rows = f"s.{group.factors.name} + row * {stride_of(group.factors)}, {stride_of(group.factors)}"
        calls = []
        for place, segment in enumerate(group.segments):
            begin = f"{segment.start} + tile * columns, smaller(vectors * lanes, width - tile * columns)"
            sums = f"sums + {first + place} * vectors * lanes, products * vectors * lanes"
            if segment.transposed:
                calls.append(f"multiply_transposed<{group.factors.width}>(rows, {rows}, s.{segment.matrix}, {begin}, {sums});")
            else:
                shape = f"s.{segment.matrix}, {segment.columns}, {begin}"
                calls.append(f"multiply_straight(rows, {group.factors.width}, {rows}, {shape}, {sums});")
        return " ".join(calls)

    def take_step(self) -> str:
        """The function that each thread runs; before its first phase there is nothing to wait for."""
        lines: list[str] = []
        for place, phase in enumerate(self.plan.phases):
            lines += [*(["wait_for_all(*s.barrier, s.parts);"] if place else []), *self._phase(phase)]
        return block("static void take_step(const Step& s)", lines)


ENTRY = """
#include <stdlib.h>

static bool take_split(void* const* arrays, long batch, Split split) {
  Arena counting{nullptr, 0};
  lay_out(counting, batch, split);
  char* memory = (char*)aligned_alloc(64, counting.used);
  Arena arena{memory, 0};
  const Memory m = lay_out(arena, batch, split);
  for (int group = 0; group < split.groups; ++group) m.barriers[group] = Barrier{};
  const bool taken = in_parallel(split.groups * split.parts, [&](int thread, int, Barrier&) {
    const int group = thread / split.parts;
    Step s;
    s.barrier = m.barriers + group;
    s.batch = batch;
    s.begin = share(batch, group, split.groups);
    s.end = share(batch, group + 1, split.groups);
    s.part = thread % split.parts;
    s.parts = split.parts;
    set_once(s, m, nullptr, arrays, batch, thread, split);
    set_step(s, m, arrays, 0, 1, batch);
    take_step(s);
  });
  free(memory);
  return taken;
}

// One step. Nothing is kept from call to call, so that any number of threads may call at once.
extern "C" void step(void* const* arrays, long batch, int threads) {
  if (!take_split(arrays, batch, split(batch, WORK, threads))) take_split(arrays, batch, {1, 1});
}
"""

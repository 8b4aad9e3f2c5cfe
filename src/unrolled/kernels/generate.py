"""A loop program as C++: one file that a compiler turns into `pack`, `run` and the sizes of the memory they need."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from unrolled.kernels.generate_file import HEADERS, preamble
from unrolled.kernels.generate_plan import Factors, Group, Phase, Plan, Segment, Stage
from unrolled.kernels.generate_values import REDUCTIONS, NumberValues, Values, literal
from unrolled.kernels.graph import POINTWISE, LoopProgram, Node


def source(program: LoopProgram, *, bfloat16_products: bool = False) -> str:
    """The C++ of a program, for any batch, any time and any number of threads.

    Args:
        program: what each step does.
        bfloat16_products: round what products multiply to bfloat16.

    Returns:
        The text of one file, which includes nothing but headers of the system.

    Raises:
        Unsupported: a type of elements that there is no kernel for.
    """
    return preamble(program, HEADERS, Writer(Plan(program)).parts(), bfloat16_products=bfloat16_products)


class Writer:
    """Writes what is particular to one program."""

    def __init__(self, plan: Plan) -> None:
        """Write a plan.

        Args:
            plan: of the program.
        """
        self.plan, self.program = plan, plan.program
        self.stages = [stage for phase in plan.phases for stage in phase.stages]
        self.groups = [group for stage in self.stages for group in stage.groups]
        self.packed = self.groups
        """Those whose matrices are packed into panels."""
        self.factors = [factors for phase in plan.phases for factors in phase.factors]
        self.reductions = [node for phase in plan.phases for node in phase.combined]
        self.doubled = [index for index, place in plan.carried.items() if place.pointer.startswith("after")]
        """States that are kept twice, before and after a step."""

    def parts(self) -> Iterator[str]:
        """All parts of the file behind the headers.

        Yields:
            C++.
        """
        yield self.step()
        for stage in self.stages:
            yield self.stage(stage)
        yield self.sizes()
        yield self.memory()
        yield self.pack()
        yield self.take_step()
        yield self.set_step()
        yield ENTRIES.replace("WORK", str(self.work()))

    def work(self) -> int:
        """Multiplications of one row in one step, with what single elements cost in such."""
        products = sum(group.factors.width * segment.node.width for group in self.groups for segment in group.segments)
        functions = (node for stage in self.stages for node in stage.nodes if node.operation in POINTWISE)
        return products + sum(node.width * (40 if POINTWISE[node.operation].costly else 4) for node in functions)

    # --- What lies where --------------------------------------------------------------------------------------------

    def pointers(self) -> Iterator[tuple[str, Node]]:
        """The name and node of each array of rows or shared vectors that a step reads or writes, spare memory left out.

        Yields:
            In the order of the arrays of a loop program.
        """
        program = self.program
        named = (("in", program.streams_in), ("out", program.streams_out), ("constant", program.constants), ("shared", program.shared))
        states = (("before", [state.before for state in program.states]), ("after", [state.after for state in program.states]))
        for name, nodes in (*named, *states):
            for index, node in enumerate(nodes):
                yield f"{name}{index}", node

    def step(self) -> str:
        """The struct of one step."""
        lines = [f"enum {{ may_be_in_place = {self.may_be_in_place()} }};"]
        lines += [f"{_element(node)}* {name};" for name, node in [*self.pointers(), *self.plan.spare]]
        lines += [f"Vector* seen_{self._number_of(node)};" for node in self.reductions]
        lines += [f"Factor* {factors.name};" for factors in self.factors]
        lines += [f"Factor* panels_{group.name};" for group in self.packed]
        lines += [
            "Barrier* barrier;",
            "long batch, begin, end;  // rows, and which are this thread's",
            "int part, parts;  // of the features",
            "bool in_place;  // whether matrices are read where they lie",
        ]
        return block("struct Step", lines) + ";"

    def may_be_in_place(self) -> str:
        """Whether the matrices can be read where they lie, one row at a time: whole vectors of them, and not too many."""
        stages = [stage for stage in self.stages if stage.segments]
        matrices = {segment.matrix: group.factors.width * segment.columns for group in self.groups for segment in group.segments}
        sizes = {stage.width for stage in stages}
        for group in self.groups:
            sizes |= {size for part in group.segments for size in (part.start, group.factors.width if part.transposed else part.columns)}
        if not self.packed or any(stage.width == 1 for stage in stages):
            return "0"
        whole = " && ".join(f"{size} % lanes == 0" for size in sorted(sizes - {0}))
        return f"!rounded_factors && {whole} && {sum(matrices.values())}L * sizeof(real) <= largest_in_place"

    def sizes(self) -> str:
        """How many factors the panels of each group take, and where they begin."""
        lines, before = [], "0"
        for group in self.packed:
            lines.append(f"constexpr long begin_{group.name} = {before};")
            count = f"Stage_{group.name.rpartition('_')[0]}::padded * {len(group.segments)}L * rounded_up({group.factors.width}, depth)"
            lines.append(f"constexpr long size_{group.name} = rounded_up({count}, 64);")
            before = f"begin_{group.name} + size_{group.name}"
        lines.append(f"constexpr long all_panels = {before};")
        return "\n".join(lines)

    def memory(self) -> str:
        """The struct of what is kept between steps and the function that lays it out."""
        fields, takes = ["Barrier* barriers;"], ["m.barriers = arena.take<Barrier>(split.groups);"]
        for index in self.doubled:
            node = self.program.states[index].after
            fields.append(f"{_element(node)}* kept{index}[2];")
            takes.append(f"for (auto& kept : m.kept{index}) kept = arena.take<{_element(node)}>(batch * {node.width}L);")
        for name, node in self.plan.spare:
            fields.append(f"{_element(node)}* {name};")
            count = "threads * batch" if node.width == 1 else f"batch * {node.width}L"
            takes.append(f"m.{name} = arena.take<{_element(node)}>({count});")
        for node in self.reductions:
            fields.append(f"Vector* seen_{self._number_of(node)};")
            takes.append(f"m.seen_{self._number_of(node)} = arena.take<Vector>(split.parts * batch);")
        for factors in self.factors:
            fields.append(f"Factor* {factors.name};")
            takes.append(f"m.{factors.name} = arena.take<Factor>(threads * most_rows(batch, split) * {stride_of(factors)}L);")
        lay_out = ["Memory m;", "const long threads = split.groups * split.parts;", *takes, "return m;"]
        head = "static Memory lay_out(Arena& arena, long batch, Split split)"
        return f"{block('struct Memory', fields)};\n\n{block(head, lay_out)}"

    def _number_of(self, reduction: Node) -> str:
        return self.plan.homes[reduction][0].pointer

    # --- One stage --------------------------------------------------------------------------------------------------

    def stage(self, stage: Stage) -> str:
        """The struct of one pass."""
        numbers = stage.width == 1
        first, multiplications = 0, []
        for group in stage.groups:
            multiplications.append(self._multiplication(stage, group, first))
            first += len(group.segments)
        body = [
            block(
                "template <int vectors>\n  INLINE void multiply_all(const Step& s, long tile, long row, long rows, real* sums)",
                multiplications,
                1,
            )
        ]
        if numbers:
            head = "INLINE void values(const Step& s, const real* sums, long stride, long row, long used)"
            body.append(block(head, NumberValues(self.plan, stage).write(), 1))
        else:
            head = "template <int used, int apart>\n  INLINE void values(const Step& s, const real* sums, long row, long unit)"
            values = Values(self.plan, stage)
            body.append(block(head, values.write(), 1))
            if stage.groups:
                fetches = [f"__builtin_prefetch({address}, {int(written)}, 2);" for address, written in values.streamed.items()]
                body.append(block("INLINE void fetch(const Step& s, long row, long unit)", fetches, 1))
            if self.packed and stage.groups:
                body.append(block(READ_ALL, list(_readings(stage)), 1))
        return f"struct Stage_{stage.name} : Tiles<{stage.width}, {first}> {{\n" + "\n".join(f"  {part}" for part in body) + "\n};"

    def _multiplication(self, stage: Stage, group: Group, first: int) -> str:
        count, factors = len(group.segments), group.factors
        height = f"rounded_up({factors.width}, depth)"
        panel = f"s.panels_{group.name} + tile * columns * {count} * {height}"
        rows = f"s.{factors.name} + row * {stride_of(factors)}, {stride_of(factors)}"
        sums = f"sums + {first} * vectors * lanes, products * vectors * lanes"
        return f"multiply<{count} * vectors>(rows, {height}, {rows}, {panel}, {sums});"

    # --- Before and during the steps --------------------------------------------------------------------------------

    def pack(self) -> str:
        """The function that packs the share of one thread of all matrices."""
        lines = []
        for stage in self.stages:
            for group in stage.groups:
                for place, segment in enumerate(group.segments):
                    lines.append(self._packing(stage, group, segment, place))
        return block("static void pack_share(void* const* arrays, Factor* panels, long place, long places)", lines)

    def _packing(self, stage: Stage, group: Group, segment: Segment, place: int) -> str:
        name = f"Stage_{stage.name}"
        matrix = f"(const real*)arrays[{self._index(segment.matrix)}], {'true' if segment.transposed else 'false'}"
        shape = f"{group.factors.width}, {segment.columns}, {segment.start}, {len(group.segments)}, {place}"
        tiles = f"share({name}::count, place, places), share({name}::count, place + 1, places)"
        return f"pack_segment<{name}>({matrix}, {shape}, panels + begin_{group.name}, {tiles});"

    def _index(self, pointer: str) -> int:
        return [name for name, _ in self.pointers()].index(pointer)

    def take_step(self) -> str:
        """The function that one thread runs for each step."""
        lines: list[str] = []
        for phase in self.plan.phases:
            lines += ["wait_for_all(*s.barrier, s.parts);", *self._phase(phase)]
        return block("static void take_step(const Step& s)", lines)

    def _phase(self, phase: Phase) -> Iterator[str]:
        for node in phase.combined:
            number = self._number_of(node)
            yield f"end_reduction({REDUCTIONS[node.operation][0]}, s.seen_{number}, s.batch, s.parts, s.begin, s.end, s.{number});"
            for home in self.plan.homes[node][1:]:
                target = f"s.{home.pointer}[row * {home.stride}L + {home.offset}]"
                yield f"if (s.part == 0) for (long row = s.begin; row < s.end; ++row) {target} = s.{number}[row];"
        for factors in phase.factors:
            start = 0
            for place, width in factors.parts:
                target = f"s.{factors.name} + {start}, {stride_of(factors)}"
                yield f"pack_rows(s.{place.pointer} + s.begin * {place.stride}L + {place.offset}, {place.stride}, s.end - s.begin, {width}, {target});"
                start += width
        for node in phase.begun:
            neutral = literal(REDUCTIONS[node.operation][1])
            yield f"begin_reduction(s.seen_{self._number_of(node)} + s.part * s.batch, s.begin, s.end, {neutral});"
        for stage in phase.stages:
            yield f"{'run_numbers' if stage.width == 1 else 'run_stage'}<Stage_{stage.name}>(s);"

    def set_step(self) -> str:
        """The functions that set the pointers of a thread, once and for each step, and that copy last states."""
        once: list[str] = []
        each: list[str] = []
        last: list[str] = []
        for index, (name, node) in enumerate(self.pointers()):
            array = f"({_element(node)}*)arrays[{index}]"
            if name.startswith(("in", "out")):
                each.append(f"s.{name} = {array} + t * batch * {node.width}L;")
            elif name.startswith(("constant", "shared")):
                once.append(f"s.{name} = {array};")
        for index, place in self.plan.carried.items():
            self._carry(index, place.pointer, each, last)
        for name, node in self.plan.spare:
            once.append(f"s.{name} = m.{name}{' + thread * batch' if node.width == 1 else ''};")
        once += [f"s.seen_{number} = m.seen_{number};" for number in map(self._number_of, self.reductions)]
        for factors in self.factors:
            once.append(f"s.{factors.name} = m.{factors.name} + thread * most_rows(batch, split) * {stride_of(factors)}L;")
        once += [f"s.panels_{group.name} = panels + begin_{group.name};" for group in self.packed]
        order = "last - i" if self.program.reverse else "i"
        head = f"const long last = time - 1, t = {order}, before = t {'+' if self.program.reverse else '-'} 1;"
        parts = [
            block(
                "static void set_once(Step& s, const Memory& m, Factor* panels, void* const* arrays, long batch, long thread, Split split)",
                once,
            ),
            block("static void set_step(Step& s, const Memory& m, void* const* arrays, long i, long time, long batch)", [head, *each]),
            block("static void copy_last(const Step& s, void* const* arrays)", last),
        ]
        return "\n\n".join(parts)

    def _carry(self, state: int, pointer: str, each: list[str], last: list[str]) -> None:
        node = self.program.states[state].after
        element, width = _element(node), f"{node.width}L"
        first, final = (f"({element}*)arrays[{self._index(f'{name}{state}')}]" for name in ("before", "after"))
        if pointer.startswith("out"):
            stored = f"({element}*)arrays[{self._index(pointer)}] + before * batch * {width}"
            each.append(f"s.before{state} = i == 0 ? {first} : {stored};")
            rows = f"s.{pointer} + s.begin * {width}, (s.end - s.begin) * {width} * sizeof({element})"
            last.append(f"if (s.part == 0) __builtin_memcpy({final} + s.begin * {width}, {rows});")
        else:
            each.append(f"s.before{state} = i == 0 ? {first} : m.kept{state}[(i - 1) & 1];")
            each.append(f"s.after{state} = i == last ? {final} : m.kept{state}[i & 1];")


READ_ALL = "template <class S>\n  INLINE void read_all(const S& s, long first, long columns, real* sums)"
"""A template, as it is compiled only where a step may read matrices in place: with factors of bfloat16 it could not be."""


def _readings(stage: Stage) -> Iterator[str]:
    """The products of one row with matrices where they lie."""
    place = 0
    for group in stage.groups:
        for segment in group.segments:
            columns = f"{segment.start} + first, columns, sums + {place} * vectors_in_chunk * lanes"
            rows = f"s.{group.factors.name}, s.{segment.matrix}"
            if segment.transposed:
                yield f"read_transposed<{group.factors.width}>({rows}, {columns});"
            else:
                yield f"read_straight({group.factors.width}, {rows}, {segment.columns}, {columns});"
            place += 1


def _element(node: Node) -> str:
    return "boolean" if node.dtype == torch.bool else "real"


def stride_of(factors: Factors) -> int:
    """Elements from one row of factors to the next.

    Args:
        factors: of a product.

    Returns:
        Whole lines of the cache, and never a power of two of them: rows would meet in the same places of the cache.
    """
    return (factors.width + 15) // 16 * 16 + 16


def block(head: str, lines: list[str], indent: int = 0) -> str:
    """Lines in braces.

    Args:
        head: what stands before them.
        lines: of C++.
        indent: how deep the head stands.

    Returns:
        C++.
    """
    space = "  " * indent
    return "\n".join([f"{head} {{", *(f"{space}  {line}" for line in lines), f"{space}}}"])


ENTRIES = """
static Split split_work(long batch, int threads) { return split(batch, WORK, threads); }

// Whether no panels are needed.
static bool in_place(long batch) { return Step::may_be_in_place && batch == 1; }

// One thread, from packing to the last state.
static void run_thread(void* const* arrays, Factor* panels, const Memory& m, long time, long batch, Split split, int thread) {
  const int group = thread / split.parts;
  Step s;
  s.barrier = m.barriers + group;
  s.batch = batch;
  s.begin = share(batch, group, split.groups);
  s.end = share(batch, group + 1, split.groups);
  s.part = thread % split.parts;
  s.parts = split.parts;
  s.in_place = in_place(batch);
  set_once(s, m, panels, arrays, batch, thread, split);
  for (long i = 0; i < time; ++i) {
    set_step(s, m, arrays, i, time, batch);
    take_step(s);
  }
  wait_for_all(*s.barrier, s.parts);
  copy_last(s, arrays);
}

extern "C" {

// Bytes of the panels of all matrices.
long packed_bytes(long batch) { return in_place(batch) ? 0 : all_panels * (long)sizeof(Factor); }

// Bytes of what the steps need beside the arrays.
long memory_bytes(long batch, int threads) {
  Arena arena{nullptr, 0};
  lay_out(arena, batch, split_work(batch, threads));
  return arena.used;
}

static bool run_split(void* const* arrays, void* panels, void* memory, long time, long batch, Split split) {
  Arena arena{(char*)memory, 0};
  const Memory m = lay_out(arena, batch, split);
  for (int group = 0; group < split.groups; ++group) m.barriers[group] = Barrier{};
  return in_parallel(split.groups * split.parts, [&](int thread, int threads, Barrier& all) {
    if (!in_place(batch)) pack_share(arrays, (Factor*)panels, thread, threads);
    wait_for_all(all, threads);
    run_thread(arrays, (Factor*)panels, m, time, batch, split, thread);
  });
}

// All steps. Memory and panels begin at a line of the cache.
void run(void* const* arrays, void* panels, void* memory, long time, long batch, int threads) {
  if (!run_split(arrays, panels, memory, time, batch, split_work(batch, threads)))
    run_split(arrays, panels, memory, time, batch, {1, 1});
}

}
"""

// A product of two large matrices, each with the numbers of its rows or of its columns side by side: what is done over all steps at once, before and
// after a loop. Stretches of the second matrix are packed as panels that all threads share; each thread has rows of its own.

struct Matrix {
  const real* numbers;
  long row_stride, column_stride;
  const real* at(long row, long column) const { return numbers + row * row_stride + column * column_stride; }
};

enum : long {
  stretch = 1024,  // of what is summed over: eight rows of it lie in the nearest cache
  run = 256,       // of what is summed up in one go
  slab = 64,       // rows for which a panel is read once
  panel_columns = columns_at_once * lanes,
  copy_stride = stretch + lanes,  // no power of two, for which rows would meet in the same places of the cache
};

// Numbers of a slab as factors: where they lie, or copied so that those of a row are side by side.
static const Factor* slab_rows(Matrix a, long row, long rows, long begin, long count, Factor* copy, long& stride) {
  if (!rounded_factors && a.column_stride == 1) {
    stride = a.row_stride;
    return (const Factor*)a.at(row, begin);
  }
  stride = copy_stride;
  if (a.column_stride == 1) {
    pack_rows(a.at(row, begin), a.row_stride, rows, count, copy, stride);
    if (count % depth) for (long r = 0; r < rows; ++r) copy[r * stride + count] = 0;
  } else {
    pack_columns(a.at(row, begin), a.column_stride, rows, count, copy, stride);
  }
  return copy;
}

static void pack_panel(Matrix b, long begin, long count, long column, long columns, Factor* panel) {
  const long padded = rounded_up(columns, lanes);
  for (long c = 0; c < columns; c += lanes) {
    const real* from = b.at(begin, column + c);
    if (b.row_stride == 1) {
      pack_transposed(from, b.column_stride, count, columns - c, panel + c * depth, padded);
    } else {
      pack_straight(from, b.row_stride, count, columns - c, panel + c * depth, padded);
    }
  }
}

template <int vectors, bool add>
static void multiply_slab(long rows, long columns, long count, const Factor* a, long a_stride, const Factor* panel, real* c, long c_stride) {
  if (columns == vectors * lanes) return multiply<vectors, add>(rows, count, a, a_stride, panel, c, c_stride);
  alignas(64) real sums[slab * vectors * lanes];
  multiply<vectors>(rows, count, a, a_stride, panel, sums, vectors * lanes);
  for (long row = 0; row < rows; ++row)
    for (long i = 0; i < columns; ++i) c[row * c_stride + i] = sums[row * vectors * lanes + i] + (add ? c[row * c_stride + i] : 0);
}

// A slab times a panel, run by run: sums of few numbers are more exact, and a run of a panel stays in the nearest cache.
template <int vectors>
INLINE void multiply_runs(bool add, long rows, long columns, long count, const Factor* a, long a_stride, const Factor* panel, real* c, long c_stride) {
  for (long k = 0; k < count; k += run, add = true) {
    const long now = smaller(run, count - k);
    if (add) {
      multiply_slab<vectors, true>(rows, columns, now, a + k, a_stride, panel + k * vectors * lanes, c, c_stride);
    } else {
      multiply_slab<vectors, false>(rows, columns, now, a + k, a_stride, panel + k * vectors * lanes, c, c_stride);
    }
  }
}

template <class... Rest>
INLINE void multiply_panel(bool add, long rows, long columns, Rest... rest) {
  static_assert(columns_at_once == 3, "one case for each number of vectors");
  if (columns > 2 * lanes) return multiply_runs<3>(add, rows, columns, rest...);
  if (columns > lanes) return multiply_runs<2>(add, rows, columns, rest...);
  multiply_runs<1>(add, rows, columns, rest...);
}

// The share of one thread of `c = a b`, `count` being what is summed over.
static void wide_share(Matrix a, Matrix b, real* c, long rows, long count, long columns, Factor* panels, Factor* copy, int thread, int threads,
                       Barrier& all) {
  const long panel_count = (columns + panel_columns - 1) / panel_columns;
  const long first = share(rows, thread, threads), end = share(rows, thread + 1, threads);
  for (long begin = 0; begin < count; begin += stretch) {
    const long now = smaller(stretch, count - begin), height = rounded_up(now, depth);
    for (long p = share(panel_count, thread, threads); p < share(panel_count, thread + 1, threads); ++p) {
      const long column = p * panel_columns;
      pack_panel(b, begin, now, column, smaller(panel_columns, columns - column), panels + column * height);
    }
    wait_for_all(all, threads);
    for (long row = first; row < end; row += slab) {
      long stride;
      const long some = smaller(slab, end - row);
      const Factor* mine = slab_rows(a, row, some, begin, now, copy, stride);
      for (long column = 0; column < columns; column += panel_columns) {
        const long wide = smaller(panel_columns, columns - column);
        multiply_panel(begin > 0, some, wide, height, mine, stride, panels + column * height, c + row * columns + column, columns);
      }
    }
    wait_for_all(all, threads);
  }
}

static Factor* panels_in(Arena& arena, long count, long columns) { return arena.take<Factor>(rounded_up(smaller(count, stretch), depth) * rounded_up(columns, lanes)); }
static Factor* copies_in(Arena& arena, int threads) { return arena.take<Factor>(threads * slab * copy_stride); }

extern "C" {

int has_bfloat16_products() { return depth == 2; }

long wide_memory_bytes(long count, long columns, int threads) {
  Arena arena{nullptr, 0};
  panels_in(arena, count, columns);
  copies_in(arena, threads);
  return arena.used;
}

// One of the strides of each matrix is 1; `c` is rows behind each other.
void wide_product(const real* a, long a_row, long a_column, const real* b, long b_row, long b_column, real* c, long rows, long count, long columns,
                  void* memory, int threads) {
  Arena arena{(char*)memory, 0};
  Factor* panels = panels_in(arena, count, columns);
  Factor* copies = copies_in(arena, threads);
  auto body = [&](int thread, int threads, Barrier& all) {
    Factor* copy = copies + thread * slab * copy_stride;
    wide_share({a, a_row, a_column}, {b, b_row, b_column}, c, rows, count, columns, panels, copy, thread, threads, all);
  };
  if (!in_parallel(threads, body)) in_parallel(1, body);
}

}

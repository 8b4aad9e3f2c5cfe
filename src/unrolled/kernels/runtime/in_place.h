// Products of one row with matrices as they lie in memory: each is read once a step, as fast as the nearest large cache gives it. To pack them first would
// take as long as many steps do.

// Sums of neighbouring lanes: those of `a`, then those of `b`.
INLINE Vector add_neighbours(Vector a, Vector b) {
#if defined(__clang__) || !defined(__GNUC__)
  Vector sum{};
  UNROLLED for (int i = 0; i < lanes / 2; ++i) {
    sum[i] = a[2 * i] + a[2 * i + 1];
    sum[lanes / 2 + i] = b[2 * i] + b[2 * i + 1];
  }
  return sum;
#else
  Integers even{}, odd{};
  UNROLLED for (int i = 0; i < lanes; ++i) {
    even[i] = 2 * i;
    odd[i] = 2 * i + 1;
  }
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
#endif
}

// The sums of the lanes of each of `count` vectors become the first lanes of the first one; in an order that does not depend on `count`.
template <int count, int apart = 1>
INLINE void add_lanes(Vector* sums) {
  if constexpr (apart < lanes) {
    if constexpr (count > 1) {
      UNROLLED for (int i = 0; i < count / 2; ++i) sums[i] = add_neighbours(sums[2 * i], sums[2 * i + 1]);
    } else {
      sums[0] = add_neighbours(sums[0], sums[0]);
    }
    add_lanes<(count > 1 ? count / 2 : 1), 2 * apart>(sums);
  }
}

// `rows` rows of `a` times `columns` columns of a matrix, of each of which the `count` numbers lie side by side; `rest`: `count` % lanes.
template <int rows, int columns, int rest>
static void multiply_dots(long count, const real* a, long a_stride, const real* matrix, real* sums, long sums_stride) {
  Vector sum[rows][columns] = {};
  long k = 0;
#pragma GCC unroll 1
  for (; k + lanes <= count; k += lanes) {
    Vector left[rows];
    UNROLLED for (int row = 0; row < rows; ++row) left[row] = load<lanes>(a + row * a_stride + k);
    UNROLLED for (int c = 0; c < columns; ++c) {
      const Vector right = load<lanes>(matrix + c * count + k);
      UNROLLED for (int row = 0; row < rows; ++row) sum[row][c] += left[row] * right;
    }
  }
  if constexpr (rest > 0) {
    UNROLLED for (int c = 0; c < columns; ++c) {
      const Vector right = load<rest>(matrix + c * count + k);
      UNROLLED for (int row = 0; row < rows; ++row) sum[row][c] += load<rest>(a + row * a_stride + k) * right;
    }
  }
  UNROLLED for (int row = 0; row < rows; ++row) {
    add_lanes<columns>(sum[row]);
    store<columns>(sums + row * sums_stride, sum[row][0]);
  }
}

enum : long {
  dots_at_once = lanes < 4 ? lanes : 4,  // a cache gives most to few readers that each go straight on
  vectors_in_chunk = 8,                  // of columns: as many sums, and what is read of a row at once
  largest_in_place = 2 << 20,            // bytes of all matrices: what does not stay in the caches near the cores comes faster from panels
};

// Columns `first …` of a matrix `[all columns, count]`; both numbers are multiples of `lanes`.
template <int count>
INLINE void read_transposed(const real* a, const real* matrix, long first, long columns, real* sums) {
  for (long c = 0; c < columns; c += dots_at_once) multiply_dots<1, dots_at_once, 0>(count, a, 0, matrix + (first + c) * count, sums + c, 0);
}

template <int vectors>
static void read_vectors(long count, const real* a, const real* matrix, long all_columns, real* sums) {
  enum { ways = vectors < 3 ? 4 : vectors == 3 ? 2 : 1 };  // sums of their own for every so manieth row, where one would wait for the one before it
  Vector sum[ways][vectors] = {};
  long k = 0;
#pragma GCC unroll 1
  for (; k + ways <= count; k += ways, matrix += ways * all_columns)
    UNROLLED for (int way = 0; way < ways; ++way) UNROLLED for (int v = 0; v < vectors; ++v)
        sum[way][v] += a[k + way] * load<lanes>(matrix + way * all_columns + v * lanes);
  for (; k < count; ++k, matrix += all_columns) UNROLLED for (int v = 0; v < vectors; ++v) sum[0][v] += a[k] * load<lanes>(matrix + v * lanes);
  UNROLLED for (int way = 1; way < ways; ++way) UNROLLED for (int v = 0; v < vectors; ++v) sum[0][v] += sum[way][v];
  UNROLLED for (int v = 0; v < vectors; ++v) store<lanes>(sums + v * lanes, sum[0][v]);
}

template <int vectors>
INLINE void read_some(long now, long count, const real* a, const real* matrix, long all_columns, real* sums) {
  if constexpr (vectors > 0) {
    if (now == vectors) return read_vectors<vectors>(count, a, matrix, all_columns, sums);
    read_some<vectors - 1>(now, count, a, matrix, all_columns, sums);
  }
}

// The same of a matrix `[count, all columns]`; there are at most `vectors_in_chunk` vectors of columns.
INLINE void read_straight(long count, const real* a, const real* matrix, long all_columns, long first, long columns, real* sums) {
  read_some<vectors_in_chunk>(columns / lanes, count, a, matrix + first, all_columns, sums);
}

// Products of rows with a matrix as it lies in memory, for single steps: it is read once, as fast as it comes, and no copy of it can be out of date.

enum { dot_rows = 3 };

// Columns at once, so that all sums stay in registers.
constexpr int dot_columns(int rows) {
  int columns = lanes;
  while (columns > 1 && rows * columns > vector_registers * 3 / 4) columns /= 2;
  return columns;
}

template <int rows, int columns, int rest>
INLINE void multiply_few(long now, long count, const real* a, long a_stride, const real* matrix, real* sums, long sums_stride) {
  if constexpr (rows > 0) {
    if (now == rows) return multiply_dots<rows, columns, rest>(count, a, a_stride, matrix, sums, sums_stride);
    multiply_few<rows - 1, columns, rest>(now, count, a, a_stride, matrix, sums, sums_stride);
  }
}

// Any number of rows, `most` at once, and of columns, as many at once as there still are.
template <int most, int columns, int rest>
static void multiply_columns(long rows, long all, long count, const real* a, long a_stride, const real* matrix, real* sums, long sums_stride) {
  for (; all >= columns; all -= columns, matrix += columns * count, sums += columns) {
    const long blocks = (rows + most - 1) / most;
    for (long block = 0, row = 0; block < blocks; ++block) {
      const long now = (rows - row + blocks - block - 1) / (blocks - block);
      multiply_few<most, columns, rest>(now, count, a + row * a_stride, a_stride, matrix, sums + row * sums_stride, sums_stride);
      row += now;
    }
  }
  if constexpr (columns > 1) {
    if (all > 0) multiply_columns<most, columns / 2, rest>(rows, all, count, a, a_stride, matrix, sums, sums_stride);
  }
}

// The product with columns `first …` of a matrix `[columns, count]`.
template <int count>
static void multiply_transposed(long rows, const real* a, long a_stride, const real* matrix, long first, long columns, real* sums, long sums_stride) {
  matrix += first * count;
  if (rows == 1) return multiply_columns<1, dot_columns(1), count % lanes>(rows, columns, count, a, a_stride, matrix, sums, sums_stride);
  multiply_columns<dot_rows, dot_columns(dot_rows), count % lanes>(rows, columns, count, a, a_stride, matrix, sums, sums_stride);
}

// Of a matrix `[count, all_columns]`: a vector of columns at a time.
template <int rows>
static void multiply_vector(long count, const real* a, long a_stride, const real* matrix, long all_columns, long used, real* sums, long sums_stride) {
  Vector sum[rows] = {};
#pragma GCC unroll 1
  for (long k = 0; k < count; ++k, matrix += all_columns) {
    __builtin_prefetch(matrix + 16 * all_columns);
    const Vector right = used == lanes ? load<lanes>(matrix) : gather(matrix, 1, used);
    UNROLLED for (int row = 0; row < rows; ++row) sum[row] += a[row * a_stride + k] * right;
  }
  UNROLLED for (int row = 0; row < rows; ++row) store<lanes>(sums + row * sums_stride, sum[row]);
}

template <int rows>
INLINE void multiply_few_straight(long now, long count, const real* a, long a_stride, const real* matrix, long all_columns, long used, real* sums,
                                  long sums_stride) {
  if constexpr (rows > 0) {
    if (now == rows) return multiply_vector<rows>(count, a, a_stride, matrix, all_columns, used, sums, sums_stride);
    multiply_few_straight<rows - 1>(now, count, a, a_stride, matrix, all_columns, used, sums, sums_stride);
  }
}

// The product with columns `first …` of a matrix `[count, all_columns]`; there is room for whole vectors of sums.
static void multiply_straight(long rows, long count, const real* a, long a_stride, const real* matrix, long all_columns, long first, long columns,
                              real* sums, long sums_stride) {
  for (long c = 0; c < columns; c += lanes)
    for (long row = 0; row < rows; row += rows_at_once)
      multiply_few_straight<rows_at_once>(smaller(rows_at_once, rows - row), count, a + row * a_stride, a_stride, matrix + first + c, all_columns,
                                          smaller(lanes, columns - c), sums + row * sums_stride + c, sums_stride);
}

// Products of rows with a matrix that is packed once: panels of a few vectors of columns, whose rows lie behind each other in the order of use.
// A block of rows times a panel stays in registers; on the machines measured that runs at the rate of the multipliers from one block of rows on.

#ifdef BFLOAT16_PRODUCTS
// What is multiplied is rounded to bfloat16; sums are float.
INLINE unsigned bfloat16_bits(float x) {
  unsigned bits;
  __builtin_memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 64;  // a NaN stays one
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
#endif

#if defined(BFLOAT16_PRODUCTS) && defined(__AVX512BF16__)
typedef unsigned short Factor;
typedef Factor Factors __attribute__((vector_size(lanes * sizeof(Factor))));
enum { depth = 2, rounded_factors = 1 };  // `depth`: factors that one instruction multiplies and adds up
INLINE Factor to_factor(float x) { return (Factor)bfloat16_bits(x); }
INLINE Factors to_factors(Vector v) { return (Factors)_mm512_cvtneps_pbh((__m512)v); }
#elif defined(BFLOAT16_PRODUCTS)
typedef real Factor;
typedef Vector Factors;
enum { depth = 1, rounded_factors = 1 };
INLINE Factor to_factor(float x) {
  const unsigned bits = bfloat16_bits(x) << 16;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
INLINE Factors to_factors(Vector v) {
  for (int i = 0; i < lanes; ++i) v[i] = to_factor(v[i]);
  return v;
}
#else
typedef real Factor;
typedef Vector Factors;
enum { depth = 1, rounded_factors = 0 };
INLINE Factor to_factor(real x) { return x; }
INLINE Factors to_factors(Vector v) { return v; }
#endif

enum { rows_at_once = 8, columns_at_once = 3, rows_in_chunk = 32 };

constexpr int block_rows(int vectors) {  // so that sums, one row of the panel and one factor fit into registers
  return vector_registers == 32 ? rows_at_once : vectors == 1 ? 8 : vectors == 2 ? 6 : 4;
}

// Vectors of columns of one tile, by the number of products that it makes.
constexpr int tile_vectors(int products) { return products == 0 ? 4 : products == 1 ? 2 : 1; }

#if defined(BFLOAT16_PRODUCTS) && defined(__AVX512BF16__)
INLINE Vector multiply_add(Vector sum, const Factor* a, const Factor* panel) {
  int pair;
  __builtin_memcpy(&pair, a, 4);
  const Integers pairs = pair - Integers{};
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pairs, (__m512bh) * (const Integers*)panel);
}
#else
INLINE Vector multiply_add(Vector sum, const Factor* a, const Factor* panel) { return sum + *a * *(const Vector*)panel; }
#endif

// `rows` rows of `a`, each `count` factors, times a panel of `vectors` vectors of columns; `add` it, summed up, to what is there.
template <int rows, int vectors, bool add>
static void multiply_block(long count, const Factor* a, long a_stride, const Factor* panel, real* sums, long sums_stride) {
  enum { ways = rows * vectors < 4 ? 4 / (rows * vectors) : 1, together = ways * depth };  // so many sums that none waits for the one before it
  Vector sum[rows][vectors] = {}, other[ways][rows][vectors] = {};
  long k = 0;
  if constexpr (ways > 1) {
#pragma GCC unroll 1
    for (; k + together <= count; k += together, panel += vectors * lanes * together)
      UNROLLED for (int way = 0; way < ways; ++way) UNROLLED for (int row = 0; row < rows; ++row) UNROLLED for (int v = 0; v < vectors; ++v)
          other[way][row][v] = multiply_add(other[way][row][v], a + row * a_stride + k + way * depth, panel + (way * vectors + v) * lanes * depth);
  }
#pragma GCC unroll 1
  for (; k < count; k += depth) {
    UNROLLED for (int row = 0; row < rows; ++row) UNROLLED for (int v = 0; v < vectors; ++v)
        sum[row][v] = multiply_add(sum[row][v], a + row * a_stride + k, panel + v * lanes * depth);
    panel += vectors * lanes * depth;
  }
  if constexpr (ways > 1) {
    UNROLLED for (int way = 0; way < ways; ++way) UNROLLED for (int row = 0; row < rows; ++row) UNROLLED for (int v = 0; v < vectors; ++v)
        sum[row][v] += other[way][row][v];
  }
  UNROLLED for (int row = 0; row < rows; ++row) UNROLLED for (int v = 0; v < vectors; ++v)
      store<lanes>(sums + row * sums_stride + v * lanes, add ? load<lanes>(sums + row * sums_stride + v * lanes) + sum[row][v] : sum[row][v]);
}

template <int rows, int vectors, bool add>
INLINE void multiply_rows(long now, long count, const Factor* a, long a_stride, const Factor* panel, real* sums, long sums_stride) {
  if constexpr (rows > 0) {
    if (now == rows) return multiply_block<rows, vectors, add>(count, a, a_stride, panel, sums, sums_stride);
    multiply_rows<rows - 1, vectors, add>(now, count, a, a_stride, panel, sums, sums_stride);
  }
}

// Any number of rows, in blocks as even as can be.
template <int vectors, bool add = false>
static void multiply(long rows, long count, const Factor* a, long a_stride, const Factor* panel, real* sums, long sums_stride) {
  const long blocks = (rows + block_rows(vectors) - 1) / block_rows(vectors);
  for (long block = 0, row = 0; block < blocks; ++block) {
    const long now = (rows - row + blocks - block - 1) / (blocks - block);
    multiply_rows<block_rows(vectors), vectors, add>(now, count, a + row * a_stride, a_stride, panel, sums + row * sums_stride, sums_stride);
    row += now;
  }
}

// The first `used` of lanes times `depth` numbers as factors; the others are 0. As vectors, to be moved about in pairs.
INLINE Vector load_factors(const real* from, long used) {
  Factors factors[depth] = {};
  if (used >= lanes * depth) {
    UNROLLED for (int i = 0; i < depth; ++i) factors[i] = to_factors(load<lanes>(from + i * lanes));
  } else {
    for (long i = 0; i < used; ++i) ((Factor*)factors)[i] = to_factor(from[i]);
  }
  Vector v;
  __builtin_memcpy(&v, factors, sizeof v);
  return v;
}

// Rows become columns: a square of vectors, in as many rounds as the number of lanes can be halved.
template <int apart>
INLINE void transpose(Vector* rows) {
  if constexpr (apart < lanes) {
#if defined(__clang__) || !defined(__GNUC__)
    UNROLLED for (int i = 0; i < lanes; ++i) UNROLLED for (int j = 0; j < lanes; ++j) if (!(i & apart) && (j & apart)) {
      const real other = rows[i][j];
      rows[i][j] = rows[i + apart][j - apart];
      rows[i + apart][j - apart] = other;
    }
#else
    Integers first{}, second{};
    UNROLLED for (int j = 0; j < lanes; ++j) {
      first[j] = j & apart ? lanes + j - apart : j;
      second[j] = j & apart ? lanes + j : j + apart;
    }
    UNROLLED for (int i = 0; i < lanes; ++i) if (!(i & apart)) {
      const Vector upper = rows[i], lower = rows[i + apart];
      rows[i] = __builtin_shuffle(upper, lower, first);
      rows[i + apart] = __builtin_shuffle(upper, lower, second);
    }
#endif
    transpose<2 * apart>(rows);
  }
}

// A vector of columns of a matrix, of whose columns the numbers lie side by side, into a panel that is `width` columns wide.
static void pack_transposed(const real* matrix, long column_stride, long rows, long columns, Factor* panel, long width) {
  for (long k = 0; k < rows; k += lanes * depth) {
    Vector block[lanes];
    if (columns >= lanes && rows - k >= lanes * depth) {
      UNROLLED for (int c = 0; c < lanes; ++c) block[c] = load_factors(matrix + c * column_stride + k, lanes * depth);
    } else {
      UNROLLED for (int c = 0; c < lanes; ++c) block[c] = c < columns ? load_factors(matrix + c * column_stride + k, rows - k) : Vector{};
    }
    transpose<1>(block);
    UNROLLED for (int i = 0; i < lanes; ++i) if (k + i * depth < rows) __builtin_memcpy(panel + (k + i * depth) * width, &block[i], sizeof block[i]);
  }
}

#if defined(BFLOAT16_PRODUCTS) && defined(__AVX512BF16__)
// Two rows of a panel, whose factors alternate.
INLINE void pack_pair(const real* first, const real* second, Factor* panel) {
  const Integers low = __builtin_convertvector(to_factors(load<lanes>(first)), Integers);
  const Integers high = __builtin_convertvector(to_factors(load<lanes>(second)), Integers);
  const Integers pairs = low | high << 16;
  __builtin_memcpy(panel, &pairs, sizeof pairs);
}
#else
INLINE void pack_pair(const real* first, const real*, Factor* panel) {
  UNROLLED for (int c = 0; c < lanes; ++c) panel[c] = to_factor(first[c]);
}
#endif

// The same of a matrix of whose rows the numbers lie side by side.
static void pack_straight(const real* matrix, long row_stride, long rows, long columns, Factor* panel, long width) {
  for (long k = 0; k < rows; k += depth, panel += width * depth)
    if (columns >= lanes && k + depth <= rows) {
      pack_pair(matrix + k * row_stride, matrix + (k + 1) * row_stride, panel);
    } else {
      for (long c = 0; c < lanes; ++c)
        for (long d = 0; d < depth; ++d)
          panel[c * depth + d] = c < columns && k + d < rows ? to_factor(matrix[(k + d) * row_stride + c]) : Factor{};
    }
}

// Rows of a value as factors.
INLINE void pack_rows(const real* from, long stride, long rows, long width, Factor* to, long to_stride) {
  for (long row = 0; row < rows; ++row, from += stride, to += to_stride) {
    long i = 0;
    for (; i + lanes <= width; i += lanes) {
      const Factors factors = to_factors(load<lanes>(from + i));
      __builtin_memcpy(to + i, &factors, sizeof factors);
    }
    for (; i < width; ++i) to[i] = to_factor(from[i]);
  }
}

// The same where the numbers of each column lie side by side. What is left of the last vector of a row becomes 0.
INLINE void pack_columns(const real* from, long column_stride, long rows, long width, Factor* to, long to_stride) {
  for (long i = 0; i < width; i += lanes)
    for (long row = 0; row < rows; row += lanes) {
      Vector block[lanes] = {};
      const long columns = smaller(lanes, width - i), now = smaller(lanes, rows - row);
      for (long c = 0; c < columns; ++c)
        if (now == lanes) {
          block[c] = load<lanes>(from + (i + c) * column_stride + row);
        } else {
          for (long r = 0; r < now; ++r) block[c][r] = from[(i + c) * column_stride + row + r];
        }
      transpose<1>(block);
      for (long r = 0; r < now; ++r) {
        const Factors factors = to_factors(block[r]);
        __builtin_memcpy(to + (row + r) * to_stride + i, &factors, sizeof factors);
      }
    }
}

// One pass over the features of a step, tile by tile: first the products of a tile, then everything on its single elements.
// The generated text gives a `Step` (where everything lies at this step, and which rows and which part of the features are this thread's)
// and for each pass a `Stage`: its width, its products and its values.

template <int stage_width, int stage_products>
struct Tiles {
  enum : long {
    width = stage_width,
    products = stage_products,
    vectors = tile_vectors(products),
    columns = vectors * lanes,
    full = width / columns,
    rest = width % columns,
    rest_vectors = (rest + lanes - 1) / lanes,
    last = rest % lanes ? rest % lanes : lanes,  // lanes used of the last vector
    count = full + (rest > 0),
    padded = full * columns + rest_vectors * lanes,  // columns of each product, with those that fill up the last vector
  };
};

template <class Stage, int vectors, int last, class Step>
static void run_tile(const Step& given, long tile) {
  const Step s = given;  // a copy, which no store can change
  enum { apart = vectors * lanes, stride = (int)Stage::products * apart, whole = last == lanes ? vectors : vectors - 1 };
  alignas(64) real sums[stride ? rows_in_chunk * stride : 1];
  const long unit = tile * Stage::columns;
  for (long begin = s.begin; begin < s.end; begin += rows_in_chunk) {
    const long rows = smaller(rows_in_chunk, s.end - begin);
    if constexpr (stride > 0)  // what comes from far comes while there is something to multiply
      for (long row = 0; row < rows; ++row)
        for (int v = 0; v < vectors; ++v) Stage::fetch(s, begin + row, unit + v * lanes);
    Stage::template multiply_all<vectors>(s, tile, begin - s.begin, rows, sums);
    for (long row = 0; row < rows; ++row) {
      const real* mine = sums + row * stride;
      for (int v = 0; v < whole; ++v) Stage::template values<lanes, apart>(s, mine + v * lanes, begin + row, unit + v * lanes);
      if constexpr (last < lanes) Stage::template values<last, apart>(s, mine + whole * lanes, begin + row, unit + whole * lanes);
    }
  }
}

// The same of one row, with matrices that are not packed.
template <class Stage, class Step>
static void run_in_place(const Step& given) {
  const Step s = given;
  enum : long { apart = vectors_in_chunk * lanes, all = Stage::width / lanes };
  alignas(64) real sums[Stage::products * apart];
  const long end = share(all, s.part + 1, s.parts) * lanes;
  for (long first = share(all, s.part, s.parts) * lanes; first < end; first += apart) {
    const long columns = smaller(apart, end - first);
    for (long c = 0; c < columns; c += lanes) Stage::fetch(s, 0, first + c);
    Stage::read_all(s, first, columns, sums);
    for (long c = 0; c < columns; c += lanes) Stage::template values<lanes, (int)apart>(s, sums + c, 0, first + c);
  }
}

template <class Stage, class Step>
static void run_stage(const Step& s) {
  if constexpr (Step::may_be_in_place && Stage::products > 0) {
    if (s.in_place) return run_in_place<Stage>(s);
  }
  for (long tile = share(Stage::count, s.part, s.parts); tile < share(Stage::count, s.part + 1, s.parts); ++tile) {
    if (tile < Stage::full) {
      run_tile<Stage, (int)Stage::vectors, lanes>(s, tile);
    } else if constexpr (Stage::rest > 0) {
      run_tile<Stage, (int)Stage::rest_vectors, (int)Stage::last>(s, tile);
    }
  }
}

// A pass over the numbers of rows: the lanes are rows.
template <class Stage, class Step>
static void run_numbers(const Step& s) {
  enum { stride = (int)Stage::products * lanes };
  alignas(64) real sums[stride ? rows_in_chunk * stride : 1];
  for (long begin = s.begin; begin < s.end; begin += rows_in_chunk) {
    const long rows = smaller(rows_in_chunk, s.end - begin);
    Stage::template multiply_all<1>(s, 0, begin - s.begin, rows, sums);
    for (long row = 0; row < rows; row += lanes) Stage::values(s, sums + row * stride, stride, begin + row, smaller(lanes, rows - row));
  }
}

// Reductions: each thread keeps a vector a row of what it has seen; the numbers come of all threads' vectors, always in the same order.
INLINE void begin_reduction(Vector* seen, long begin, long end, real neutral) {
  for (long row = begin; row < end; ++row) seen[row] = splat(neutral);
}

template <class Function>
INLINE void end_reduction(Function function, const Vector* seen, long batch, int parts, long begin, long end, real* numbers) {
  for (long row = begin; row < end; ++row) {
    Vector all = seen[row];
    for (int part = 1; part < parts; ++part) all = function(all, seen[part * batch + row]);
    for (int half = lanes / 2; half > 0; half /= 2) {
      Vector other{};
      for (int i = 0; i < half; ++i) other[i] = all[half + i];
      all = function(all, other);
    }
    numbers[row] = all[0];
  }
}

INLINE Vector added(Vector a, Vector b) { return a + b; }

// Columns `start …` of a matrix into the panels of some tiles. Each panel holds `together` products side by side, of which this is number `place`.
template <class Stage>
static void pack_segment(const real* matrix, bool transposed, long rows, long all_columns, long start, int together, int place, Factor* panels,
                         long tile_begin, long tile_end) {
  for (long tile = tile_begin; tile < tile_end; ++tile) {
    const long first = tile * Stage::columns, columns = smaller(Stage::columns, Stage::width - first), padded = rounded_up(columns, lanes);
    Factor* panel = panels + first * together * rounded_up(rows, depth) + place * padded * depth;
    for (long c = 0; c < columns; c += lanes) {
      const long column = start + first + c;
      if (transposed) {
        pack_transposed(matrix + column * rows, rows, rows, columns - c, panel + c * depth, together * padded);
      } else {
        pack_straight(matrix + column, all_columns, rows, columns - c, panel + c * depth, together * padded);
      }
    }
  }
}

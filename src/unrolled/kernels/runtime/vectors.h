// Vectors as wide as the machine's, by the vector extensions that GCC and clang share: no header of any machine is needed.
// `real` (float or double), `integer` and `unsigned_integer` (of the same size) are defined before this text.

#if defined(__AVX512F__)
enum { vector_bytes = 64, vector_registers = 32 };
#elif defined(__AVX__)
enum { vector_bytes = 32, vector_registers = 16 };
#elif defined(__aarch64__)
enum { vector_bytes = 16, vector_registers = 32 };
#else
enum { vector_bytes = 16, vector_registers = 16 };
#endif

enum { lanes = vector_bytes / sizeof(real) };

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 32")

typedef real Vector __attribute__((vector_size(vector_bytes)));
typedef decltype(Vector{} < Vector{}) Mask;  // each lane is 0 or -1
typedef integer Integers __attribute__((vector_size(vector_bytes)));
typedef unsigned char Bytes __attribute__((vector_size(lanes)));
typedef unsigned char boolean;

INLINE long smaller(long a, long b) { return a < b ? a : b; }
constexpr long rounded_up(long count, long unit) { return (count + unit - 1) / unit * unit; }

// `x - 0` is x for every x; `0 + x` would lose the sign of zero.
INLINE Vector splat(real x) { return x - Vector{}; }
INLINE Mask splat_mask(boolean x) { return Mask{} - (x != 0); }
INLINE Vector to_real(Mask m) { return m ? splat(1) : splat(0); }
INLINE Mask to_mask(Vector v) { return v != 0; }

// The first `used` lanes; the others are 0.
template <int used>
INLINE Vector load(const real* from) {
  Vector v{};
  __builtin_memcpy(&v, from, used * sizeof(real));
  return v;
}

template <int used>
INLINE void store(real* to, Vector v) {
  __builtin_memcpy(to, &v, used * sizeof(real));
}

template <int used>
INLINE Mask load_mask(const boolean* from) {
  Bytes bytes{};
  __builtin_memcpy(&bytes, from, used);
  return __builtin_convertvector(bytes, Integers) != 0;
}

template <int used>
INLINE void store_mask(boolean* to, Mask m) {
  const Bytes bytes = __builtin_convertvector(-m, Bytes);
  __builtin_memcpy(to, &bytes, used);
}

// Lane i from or to i * stride: one number of each row of a matrix.
INLINE Vector gather(const real* from, long stride, long used) {
  Vector v{};
  for (long i = 0; i < used; ++i) v[i] = from[i * stride];
  return v;
}

INLINE void scatter(real* to, long stride, long used, Vector v) {
  for (long i = 0; i < used; ++i) to[i * stride] = v[i];
}

INLINE Mask gather_mask(const boolean* from, long stride, long used) {
  Mask m{};
  for (long i = 0; i < used; ++i) m[i] = -(from[i * stride] != 0);
  return m;
}

INLINE void scatter_mask(boolean* to, long stride, long used, Mask m) {
  for (long i = 0; i < used; ++i) to[i * stride] = m[i] != 0;
}

// Lanes past `used` become `other`: what a reduction must not see.
template <int used>
INLINE Vector only(Vector v, real other) {
  UNROLLED for (int i = used; i < lanes; ++i) v[i] = other;
  return v;
}

// Functions of single elements on vectors. In float: own exponential, sigmoid, tanh and logarithm of 1 + z without branches, within about 2 units of the last place,
// right at infinity and NaN (the coefficients are those of Cephes, S. L. Moshier); what is rare, and all of double, goes lane by lane through libm.

template <class Function>
INLINE Vector lane_by_lane(Function function, Vector v) {
  for (int i = 0; i < lanes; ++i) v[i] = function(v[i]);
  return v;
}

#define BY_LIBM(name, of_float, of_double)                                                        \
  INLINE Vector name(Vector v) {                                                                  \
    return lane_by_lane([](real x) -> real { return sizeof(real) == 4 ? of_float(x) : of_double(x); }, v); \
  }

BY_LIBM(square_root, __builtin_sqrtf, __builtin_sqrt)
BY_LIBM(logarithm, __builtin_logf, __builtin_log)
BY_LIBM(exponential_m1, __builtin_expm1f, __builtin_expm1)
BY_LIBM(error_function, __builtin_erff, __builtin_erf)
BY_LIBM(sine, __builtin_sinf, __builtin_sin)
BY_LIBM(cosine, __builtin_cosf, __builtin_cos)

INLINE Vector power(Vector base, Vector exponent) {
  for (int i = 0; i < lanes; ++i) base[i] = sizeof(real) == 4 ? __builtin_powf(base[i], exponent[i]) : __builtin_pow(base[i], exponent[i]);
  return base;
}

INLINE Vector absolute(Vector v) { return (Vector)((Integers)v & (integer)((unsigned_integer)-1 >> 1)); }
INLINE Vector sign(Vector v) { return v > 0 ? splat(1) : v < 0 ? splat(-1) : splat(0); }
INLINE Vector rectified(Vector v) { return v < 0 ? splat(0) : v; }  // a NaN is not below 0 and stays
INLINE Vector greater(Vector a, Vector b) { return (a > b) | (a != a) ? a : b; }
INLINE Vector lesser(Vector a, Vector b) { return (a < b) | (a != a) ? a : b; }

#ifdef REAL_IS_DOUBLE

BY_LIBM(logarithm_1p, __builtin_log1pf, __builtin_log1p)
BY_LIBM(exponential, __builtin_expf, __builtin_exp)
BY_LIBM(hyperbolic_tangent, __builtin_tanhf, __builtin_tanh)

INLINE Vector sigmoid(Vector x) { return 1 / (1 + exponential(-x)); }

#else

INLINE Vector power_of_two(Integers n) { return (Vector)((n + 127) << 23); }

// `x` is `whole` times the logarithm of 2, and a rest near 0.
struct Parted {
  Integers whole;
  Vector rest;
};

INLINE Parted parted(Vector x) {
  const Vector magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number, which the low bits then hold
  const Vector shifted = x * 1.44269504088896341f + magic;
  const Vector n = shifted - magic;
  return {(Integers)shifted - (Integers)magic, x - n * 0.693359375f - n * -2.12194440e-4f};
}

// The exponential, less 1, of a rest.
INLINE Vector exponential_of_rest_m1(Vector r) {
  Vector y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  return y * (r * r) + r;
}

// Comparisons are such that a NaN stays.
INLINE Vector exponential(Vector x) {
  x = x > 89 ? splat(89) : x;  // infinity from 88.73
  x = x < -104 ? splat(-104) : x;  // 0 from -103.98
  const Parted p = parted(x);
  const Integers half = p.whole >> 1;  // in two steps, for results that are subnormal or infinite
  return (exponential_of_rest_m1(p.rest) + 1) * power_of_two(half) * power_of_two(p.whole - half);
}

INLINE Vector sigmoid(Vector x) {
  x = x < -89 ? splat(-89) : x;  // there the power of two is infinite
  x = x > 87 ? splat(87) : x;
  const Parted p = parted(-x);
  return 1 / ((exponential_of_rest_m1(p.rest) + 1) * power_of_two(p.whole) + 1);
}

// e / (e + 2) with e = exp(2 |x|) - 1, which is exact near 0.
INLINE Vector hyperbolic_tangent(Vector x) {
  Vector twice = absolute(x) * 2;
  twice = twice > 20 ? splat(20) : twice;
  const Parted p = parted(twice);
  const Vector power = power_of_two(p.whole);
  const Vector e = exponential_of_rest_m1(p.rest) * power + (power - 1);
  const Integers sign = (Integers)x & (Integers)splat(-0.0f);
  return (Vector)((Integers)(e / (e + 2)) | sign);
}

// log(u) z / (u - 1) with u = 1 + z as it is rounded, which is exact near 0 (W. Kahan).
INLINE Vector logarithm_1p(Vector z) {
  const Vector u = 1 + z;
  // u is a power of two times a number between the root of a half and that of 2, which is 1 + m.
  const integer root_of_half = 0x3f3504f3;
  const Integers exponent = ((Integers)u - root_of_half) >> 23;
  const Vector m = (Vector)((Integers)u - (exponent << 23)) - 1, n = __builtin_convertvector(exponent, Vector), square = m * m;
  Vector y = m * 7.0376836292e-2f - 1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m - 1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m - 1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m - 2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  y = y * m * square + n * -2.12194440e-4f - square * 0.5f;
  const Vector logarithm_of_u = m + y + n * 0.693359375f, rest = u - 1;
  const Vector result = rest == 0 ? z : logarithm_of_u * (z / rest);
  const Vector limit = z == -1 ? splat(-__builtin_inff()) : splat(__builtin_nanf(""));
  return z > 3.4028235e38f ? z : z > -1 ? result : limit;
}

#endif

// Kalman filter, smoother and score for many series at once. The equations are those of `loop.py`, which says where they are
// from; a test holds both to each other. Series lie in the lanes of a vector, so that a step of eight series costs about what one costs.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

// What is read and written, in the order in which Python gives it. Results may be null: they are then not written.
struct Arrays {
  const double *transition, *noise, *rows, *variances, *mean, *covariance, *diffuse, *values, *shift, *weights;
  const int64_t *patterns, *lengths;
  double *log_likelihoods, *predicted_means, *predicted_covariances, *predicted_diffuse, *means, *covariances, *diffuse_covariances;
  double *smoothed_means, *smoothed_covariances, *lagged_covariances;
  double *to_transition, *to_noise, *to_rows, *to_variances, *to_mean, *to_covariance, *to_values, *to_shift;
};

struct Problem {
  Arrays at;
  long batch, time, states, entries, patterns, rank;  // rank: how many states begin diffuse
};

// The rows of a matrix without what is zero: structural models hold little else.
struct Sparse {
  std::vector<long> start, column;
  std::vector<double> value;
  Sparse(const double* matrix, long rows, long columns, bool transposed) {
    for (long i = 0; i < rows; ++i) {
      start.push_back((long)column.size());
      for (long j = 0; j < columns; ++j) {
        const double x = transposed ? matrix[j * rows + i] : matrix[i * columns + j];
        if (x != 0) column.push_back(j), value.push_back(x);
      }
    }
    start.push_back((long)column.size());
  }
};

const double half_log_two_pi = 0.91893853320467274178;
const double diffuse_tolerance = 1e-10;

template <int W>
struct Lanes;
template <>
struct Lanes<2> {
  typedef double Reals __attribute__((vector_size(16)));
  typedef int64_t Integers __attribute__((vector_size(16)));
};
template <>
struct Lanes<8> {
  typedef double Reals __attribute__((vector_size(64)));
  typedef int64_t Integers __attribute__((vector_size(64)));
};

template <int W>
struct Worker {
  typedef typename Lanes<W>::Reals V;
  typedef typename Lanes<W>::Integers I;

  const Problem& p;
  const Arrays& at;
#ifdef STATES
  static constexpr long K = STATES, KK = K * K;  // known when it is built: loops over states are then written out
#else
  const long K, KK;
#endif
  const long D;
  const Sparse forwards, backwards, noise;
  std::vector<void*> owned;
  std::vector<std::vector<long>> used;  // which columns of a row are not zero; all, where rows differ from series to series
  V *shared_rows, *row, *a, *P, *Pi, *product, *second, *M, *Mi;
  // Kept from the way forward for the way back.
  V *kept_mean, *kept_P, *kept_Pi, *gain, *gain1, *error, *c0, *c1, *finite, *infinite;
  std::vector<char> diffuse_at;
  V *r0, *r1, *N0, *N1, *N2, *g0, *g1, *g2, *h0, *h1, *G, *smooth, *cov, *weight;
  // Sums over series of the score.
  V *s_transition, *s_noise, *s_mean, *s_covariance, *s_rows, *s_variances;
  std::vector<double> of_rows, of_variances;
  long first;

  V* room(long count) {
    void* found = std::aligned_alloc(64, ((count > 0 ? count : 1) * sizeof(V) + 63) / 64 * 64);
    if (!found) std::abort();
    owned.push_back(found);
    return (V*)found;
  }
  static V splat(double x) { return V{} + x; }
  static void fill(V* x, long count, double value = 0) {
    for (long i = 0; i < count; ++i) x[i] = splat(value);
  }

  Worker(const Problem& problem, bool back)
      : p(problem), at(problem.at),
#ifndef STATES
        K(problem.states), KK(K * K),
#endif
        D(problem.entries), forwards(at.transition, K, K, false),
        backwards(at.transition, K, K, true), noise(at.noise, K, K, false), used(D), diffuse_at(problem.time) {
    shared_rows = room(D * K), row = room(K), a = room(K), P = room(KK), Pi = room(KK), product = room(KK), second = room(KK), M = room(K), Mi = room(K);
    for (long i = 0; i < D; ++i)
      for (long k = 0; k < K; ++k) {
        shared_rows[i * K + k] = splat(at.rows[i * K + k]);
        if (p.patterns > 1 || at.rows[i * K + k] != 0) used[i].push_back(k);
      }
    const long T = back ? p.time : 1;
    kept_mean = room(T * K), kept_P = room(T * KK), gain = room(T * D * K), error = room(T * D), c0 = room(T * D), finite = room(T * D);
    const long diffuse = p.rank ? T : 0;
    kept_Pi = room(diffuse * KK), gain1 = room(diffuse * D * K), c1 = room(diffuse * D), infinite = room(diffuse * D);
    if (!back) return;
    r0 = room(K), r1 = room(K), N0 = room(KK), N1 = room(KK), N2 = room(KK), g0 = room(K), g1 = room(K), g2 = room(K), h0 = room(K), h1 = room(K);
    G = room(KK), smooth = room(K), cov = room(KK), weight = room(1);
    s_transition = room(KK), s_noise = room(KK), s_mean = room(K), s_covariance = room(KK), s_rows = room(D * K), s_variances = room(D);
    for (V* sum : {s_transition, s_noise, s_covariance}) fill(sum, KK);
    fill(s_mean, K), fill(s_rows, D * K), fill(s_variances, D);
    of_rows.assign(p.patterns * D * K, 0), of_variances.assign(p.patterns * D, 0);
  }
  ~Worker() {
    for (void* each : owned) std::free(each);
  }

  // --- Reading and writing: series lie side by side here, behind each other outside ---

  bool there(int w) const { return first + w < p.batch; }
  long place(int w, long t) const { return (first + w) * p.time + t; }

  void write(double* out, long t, const V* x, long count) const {
    if (!out) return;
    for (int w = 0; w < W && there(w); ++w) {
      double* to = out + place(w, t) * count;
      const bool inside = t < at.lengths[first + w];
      for (long i = 0; i < count; ++i) to[i] = inside ? x[i][w] : 0;
    }
  }
  V read(const double* from, long t, long count, long i, double otherwise) const {
    V x = splat(otherwise);
    for (int w = 0; w < W && there(w); ++w)
      if (t < at.lengths[first + w]) x[w] = from[place(w, t) * count + i];
    return x;
  }
  long pattern(int w, long t) const { return p.patterns > 1 && there(w) ? at.patterns[place(w, t)] : 0; }
  const V* row_of(long t, long i) {
    if (p.patterns == 1) return shared_rows + i * K;
    for (int w = 0; w < W; ++w) {
      const double* from = at.rows + (pattern(w, t) * D + i) * K;
      for (long k = 0; k < K; ++k) row[k][w] = from[k];
    }
    return row;
  }
  V variance_of(long t, long i) const {
    V h = splat(at.variances[i]);
    if (p.patterns > 1)
      for (int w = 0; w < W; ++w) h[w] = at.variances[pattern(w, t) * D + i];
    return h;
  }

  // --- Products ---

  void left(const Sparse& A, const V* x, V* y) const {  // y = A x, x square
    for (long i = 0; i < K; ++i) {
      V* to = y + i * K;
      fill(to, K);
      for (long n = A.start[i]; n < A.start[i + 1]; ++n) {
        const V* from = x + A.column[n] * K;
        const double factor = A.value[n];
        for (long j = 0; j < K; ++j) to[j] += factor * from[j];
      }
    }
  }
  void around(const Sparse& A, V* x, const double* plus) {  // x = A x A' + plus, symmetric
    left(A, x, product);
    for (long i = 0; i < K; ++i)
      for (long j = 0; j <= i; ++j) {
        V sum = splat(plus ? plus[i * K + j] : 0);
        for (long n = A.start[j]; n < A.start[j + 1]; ++n) sum += A.value[n] * product[i * K + A.column[n]];
        x[i * K + j] = x[j * K + i] = sum;
      }
  }
  void times(const Sparse& A, V* x, V* y) const {  // y = A x, x a vector
    for (long i = 0; i < K; ++i) {
      V sum{};
      for (long n = A.start[i]; n < A.start[i + 1]; ++n) sum += A.value[n] * x[A.column[n]];
      y[i] = sum;
    }
    for (long i = 0; i < K; ++i) x[i] = y[i];
  }
  void apply(const V* x, const V* v, V* y) const {  // y = x v
    for (long i = 0; i < K; ++i) {
      V sum{};
      for (long j = 0; j < K; ++j) sum += x[i * K + j] * v[j];
      y[i] = sum;
    }
  }
  V dot(const V* x, const V* y) const {
    V sum{};
    for (long i = 0; i < K; ++i) sum += x[i] * y[i];
    return sum;
  }
  // to (+|-)= x y, all square
  void multiply(const V* x, const V* y, V* to, double sign, bool fresh) const {
    for (long i = 0; i < K; ++i) {
      if (fresh) fill(to + i * K, K);
      for (long k = 0; k < K; ++k) {
        const V factor = sign * x[i * K + k];
        for (long j = 0; j < K; ++j) to[i * K + j] += factor * y[k * K + j];
      }
    }
  }

  // --- Forward ---

  V logarithm(V x) const {
    for (int w = 0; w < W; ++w) x[w] = std::log(x[w]);
    return x;
  }
  V observe(long t, long i, long kept, bool diffuse, I& left_over) {
    const V* z = row_of(t, i);
    const std::vector<long>& columns = used[i];
    const V y = read(at.values, t, D, i, NAN);
    const I seen = y == y;
    V v = y, F = variance_of(t, i);
    for (long k : columns) v -= z[k] * a[k];
    for (long j = 0; j < K; ++j) {
      V sum{};
      for (long k : columns) sum += P[j * K + k] * z[k];
      M[j] = sum;
    }
    for (long k : columns) F += z[k] * M[k];
    v = seen ? v : splat(0);
    const I known = seen & (F > 0);
    V inverse = known ? 1 / F : splat(0), term = splat(half_log_two_pi) + (logarithm(known ? F : splat(1)) + v * v * inverse) / 2;
    term = known ? term : splat(0);
    V* K0 = gain + (kept * D + i) * K;
    const long e = kept * D + i;
    if (!diffuse) {
      for (long j = 0; j < K; ++j) K0[j] = M[j] * inverse, a[j] += K0[j] * v;
      for (long j = 0; j < K; ++j)
        for (long k = 0; k <= j; ++k) P[j * K + k] = P[k * K + j] = P[j * K + k] - K0[j] * M[k];
      error[e] = v, c0[e] = inverse, finite[e] = known ? F : splat(0);
      return -term;
    }
    V Fi{}, size{};
    for (long j = 0; j < K; ++j) {
      V sum{};
      for (long k : columns) sum += Pi[j * K + k] * z[k];
      Mi[j] = sum;
    }
    for (long k : columns) Fi += z[k] * Mi[k], size += z[k] * z[k];
    const I flat = seen & (Fi > diffuse_tolerance * size);
    const V one_over = flat ? 1 / Fi : splat(0);
    V* K1 = gain1 + e * K;
    Fi = flat ? Fi : splat(0);
    F = (flat | known) ? F : splat(0);
    left_over += flat;  // true is -1
    for (long j = 0; j < K; ++j) {
      K0[j] = flat ? Mi[j] * one_over : M[j] * inverse;
      K1[j] = (M[j] - K0[j] * F) * one_over;
      a[j] += K0[j] * v;
    }
    for (long j = 0; j < K; ++j)
      for (long k = 0; k <= j; ++k) {
        P[j * K + k] = P[k * K + j] = P[j * K + k] + K0[j] * K0[k] * F - (M[j] * K0[k] + K0[j] * M[k]);
        Pi[j * K + k] = Pi[k * K + j] = left_over > 0 ? Pi[j * K + k] - K0[j] * K0[k] * Fi : splat(0);
      }
    error[e] = v, c0[e] = flat ? splat(0) : inverse, c1[e] = one_over, finite[e] = F, infinite[e] = Fi;
    return flat ? -logarithm(flat ? Fi : splat(1)) / 2 : -term;
  }

  void forward(long b, bool back) {
    first = b;
    for (long j = 0; j < K; ++j) a[j] = splat(at.mean[j]);
    for (long j = 0; j < KK; ++j) P[j] = splat(at.covariance[j]), Pi[j] = splat(p.rank ? at.diffuse[j] : 0);
    I left_over = I{} + (int64_t)p.rank;
    for (long t = 0; t < p.time; ++t) {
      const long kept = back ? t : 0;
      bool diffuse = false;
      for (int w = 0; w < W; ++w) diffuse |= left_over[w] > 0;
      diffuse_at[t] = diffuse;
      write(at.predicted_means, t, a, K), write(at.predicted_covariances, t, P, KK);
      write(at.predicted_diffuse, t, Pi, KK);
      V total{};
      for (long i = 0; i < D; ++i) total += observe(t, i, kept, diffuse, left_over);
      write(at.log_likelihoods, t, &total, 1);
      write(at.means, t, a, K), write(at.covariances, t, P, KK), write(at.diffuse_covariances, t, Pi, KK);
      if (back) {
        for (long j = 0; j < K; ++j) kept_mean[t * K + j] = a[j];
        for (long j = 0; j < KK; ++j) kept_P[t * KK + j] = P[j];
        if (diffuse)
          for (long j = 0; j < KK; ++j) kept_Pi[t * KK + j] = Pi[j];
      }
      if (t + 1 == p.time) break;
      times(forwards, a, M);
      if (at.shift)
        for (long j = 0; j < K; ++j) a[j] += read(at.shift, t + 1, K, j, 0);
      around(forwards, P, at.noise);
      if (diffuse) around(forwards, Pi, nullptr);
    }
  }

  // --- Backward ---

  void add_outer(V* x, const V* z, const V* g, V corner, const std::vector<long>& columns) const {  // x -= z g' + g z' - corner z z'
    for (long j : columns)
      for (long k = 0; k < K; ++k) {
        const V both = z[j] * g[k];
        x[j * K + k] -= both, x[k * K + j] -= both;
      }
    for (long j : columns)
      for (long k : columns) x[j * K + k] += corner * z[j] * z[k];
  }
  // Smoothed mean and covariance of step t from what is behind it.
  void smoothed(long t, bool diffuse, bool covariance) {
    const V *Pf = kept_P + t * KK, *Pif = kept_Pi + t * KK;
    apply(Pf, r0, smooth);
    if (diffuse) {
      apply(Pif, r1, M);
      for (long j = 0; j < K; ++j) smooth[j] += M[j];
    }
    for (long j = 0; j < K; ++j) smooth[j] += kept_mean[t * K + j];
    if (!covariance) return;
    multiply(Pf, N0, product, 1, true);
    if (diffuse) multiply(Pif, N1, product, 1, false);
    for (long j = 0; j < KK; ++j) cov[j] = Pf[j];
    multiply(product, Pf, cov, -1, false);
    if (!diffuse) return;
    multiply(Pf, N1, product, 1, true), multiply(Pif, N2, product, 1, false);
    multiply(product, Pif, cov, -1, false);
  }
  void sum_row(long t, long i, long e, V u, V d, bool diffuse, V* Pc, V* Pic) {
    const V* K0 = gain + e * K;
    const V w = *weight, to_h = w * (u * u - d) / 2;
    apply(Pc, g0, M);
    if (diffuse) {
      for (long j = 0; j < K; ++j) Mi[j] = g1[j] + h0[j];
      apply(Pic, Mi, row), add(M, row);
    }
    for (long j = 0; j < K; ++j) M[j] = w * (u * smooth[j] - K0[j] + M[j]);
    if (p.patterns == 1) {
      add(s_rows + i * K, M), s_variances[i] += to_h;
    } else {
      for (int lane = 0; lane < W && there(lane); ++lane) {
        const long where = pattern(lane, t) * D + i;
        of_variances[where] += to_h[lane];
        for (long j = 0; j < K; ++j) of_rows[where * K + j] += M[j][lane];
      }
    }
    // Back to the covariances before this entry.
    const V F = finite[e], Fi = diffuse ? infinite[e] : V{};
    const V* K1 = gain1 + e * K;
    for (long j = 0; j < K; ++j)
      for (long k = 0; k < K; ++k) {
        Pc[j * K + k] += F * K0[j] * K0[k];
        if (diffuse) Pc[j * K + k] += Fi * (K1[j] * K0[k] + K0[j] * K1[k]), Pic[j * K + k] += Fi * K0[j] * K0[k];
      }
  }
  void add(V* to, const V* x) const {
    for (long j = 0; j < K; ++j) to[j] += x[j];
  }
  void unobserve(long t, long i, bool diffuse, V* Pc, V* Pic, V& u) {
    const long e = t * D + i;
    const V *K0 = gain + e * K, *K1 = gain1 + e * K;
    const std::vector<long>& columns = used[i];
    apply(N0, K0, g0);
    const V s00 = dot(K0, g0), d = s00 + c0[e];
    u = c0[e] * error[e] - dot(K0, r0);
    V s1{}, s2{}, u1{};
    if (diffuse) {
      apply(N1, K0, g1), apply(N0, K1, h0), apply(N2, K0, g2), apply(N1, K1, h1);
      s1 = c1[e] + dot(K0, g1) + 2 * dot(K1, g0);
      s2 = dot(K0, g2) - finite[e] * c1[e] * c1[e] + 2 * dot(K0, h1) + dot(K1, h0);
      u1 = c1[e] * error[e] - dot(K0, r1) - dot(K1, r0);
    }
    if (Pc) sum_row(t, i, e, u, d, diffuse, Pc, Pic);
    const V* z = row_of(t, i);
    if (diffuse) {
      for (long j = 0; j < K; ++j) g1[j] += h0[j], g2[j] += h1[j];
      add_outer(N2, z, g2, s2, columns), add_outer(N1, z, g1, s1, columns);
      for (long k : columns) r1[k] += z[k] * u1;
    }
    add_outer(N0, z, g0, d, columns);
    for (long k : columns) r0[k] += z[k] * u;
  }
  // G = N A P of the finite parts, with what the infinite ones leave.
  void between(long t, bool diffuse) {
    left(forwards, kept_P + t * KK, product), multiply(N0, product, G, 1, true);
    if (diffuse) left(forwards, kept_Pi + t * KK, product), multiply(N1, product, G, 1, false);
  }
  void sum_transition() {
    for (long j = 0; j < K; ++j)
      for (long k = 0; k < K; ++k) {
        s_noise[j * K + k] += *weight * (r0[j] * r0[k] - N0[j * K + k]) / 2;
        s_transition[j * K + k] -= *weight * G[j * K + k];
      }
  }
  void backward() {
    fill(r0, K), fill(r1, K), fill(N0, KK), fill(N1, KK), fill(N2, KK);
    const bool score = at.to_transition, lagged = at.lagged_covariances, wanted = at.smoothed_covariances || lagged;
    *weight = splat(0);
    for (int w = 0; w < W && there(w); ++w) (*weight)[w] = at.weights ? at.weights[first + w] : 1;
    fill(second, KK);
    write(at.lagged_covariances, 0, second, KK);
    for (long t = p.time - 1; t >= 0; --t) {
      const bool diffuse = diffuse_at[t], behind = t + 1 < p.time;
      if (behind) {
        if (score || lagged) between(t, diffuse);
        if (score) {
          sum_transition();
          for (long j = 0; j < K; ++j) Mi[j] = r0[j] * *weight;
          write(at.to_shift, t + 1, Mi, K);
        }
        times(backwards, r0, M), around(backwards, N0, nullptr);
        if (diffuse) times(backwards, r1, M), around(backwards, N1, nullptr), around(backwards, N2, nullptr);
      }
      smoothed(t, diffuse, wanted);
      if (behind && score)  // Mi still holds what was behind
        for (long j = 0; j < K; ++j)
          for (long k = 0; k < K; ++k) s_transition[j * K + k] += Mi[j] * smooth[k];
      write(at.smoothed_means, t, smooth, K), write(at.smoothed_covariances, t, cov, KK);
      if (lagged && behind) {
        left(forwards, cov, product), left(noise, G, second);
        for (long j = 0; j < KK; ++j) product[j] -= second[j];
        write(at.lagged_covariances, t + 1, product, KK);
      }
      entries_back(t, diffuse, score);
    }
    if (!score) return;
    for (long j = 0; j < K; ++j) {
      s_mean[j] += *weight * r0[j];
      for (long k = 0; k < K; ++k) s_covariance[j * K + k] += *weight * (r0[j] * r0[k] - N0[j * K + k]) / 2;
    }
  }
  void entries_back(long t, bool diffuse, bool score) {
    V *Pc = nullptr, *Pic = nullptr;
    if (score) {
      for (long j = 0; j < KK; ++j) product[j] = kept_P[t * KK + j];
      Pc = product;
      if (diffuse) {
        for (long j = 0; j < KK; ++j) second[j] = kept_Pi[t * KK + j];
        Pic = second;
      }
    }
    for (long i = D - 1; i >= 0; --i) {
      V u;
      unobserve(t, i, diffuse, Pc, Pic, u);
      if (at.to_values)
        for (int w = 0; w < W && there(w); ++w) at.to_values[place(w, t) * D + i] = -u[w] * (*weight)[w];
    }
  }
  static double across(V x) {
    double sum = 0;
    for (int w = 0; w < W; ++w) sum += x[w];
    return sum;
  }
  void add_sums() const {
    for (long j = 0; j < KK; ++j) {
      at.to_transition[j] += across(s_transition[j]), at.to_noise[j] += across(s_noise[j]), at.to_covariance[j] += across(s_covariance[j]);
    }
    for (long j = 0; j < K; ++j) at.to_mean[j] += across(s_mean[j]);
    for (size_t j = 0; j < of_rows.size(); ++j) at.to_rows[j] += of_rows[j] + (p.patterns == 1 ? across(s_rows[j]) : 0);
    for (size_t j = 0; j < of_variances.size(); ++j) at.to_variances[j] += of_variances[j] + (p.patterns == 1 ? across(s_variances[j]) : 0);
  }
};

template <int W>
void run_all(const Problem& problem, bool back, int threads) {
  const long groups = (problem.batch + W - 1) / W;
  if (threads > groups) threads = (int)groups;
  std::mutex turn;
#pragma omp parallel num_threads(threads)
  {
    Worker<W> worker(problem, back);
#pragma omp for schedule(static)
    for (long group = 0; group < groups; ++group) {
      worker.forward(group * W, back);
      if (back) worker.backward();
    }
    if (problem.at.to_transition) {
      std::lock_guard<std::mutex> mine(turn);
      worker.add_sums();
    }
  }
}

}  // namespace

namespace {

// Results are new memory: most of the time would go into making its small pages.
void take_large_pages(const Problem& p) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const long K = p.states, KK = K * K, page = 1 << 21;
  const Arrays& at = p.at;
  const struct { double* start; long count; } results[] = {
      {at.log_likelihoods, 1}, {at.predicted_means, K}, {at.predicted_covariances, KK}, {at.predicted_diffuse, KK}, {at.means, K},
      {at.covariances, KK}, {at.diffuse_covariances, KK}, {at.smoothed_means, K}, {at.smoothed_covariances, KK}, {at.lagged_covariances, KK}};
  for (const auto& result : results) {
    if (!result.start) continue;
    const uintptr_t first = ((uintptr_t)result.start + page - 1) / page * page;
    const uintptr_t end = (uintptr_t)(result.start + result.count * p.batch * p.time) / page * page;
    if (first < end) madvise((void*)first, end - first, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace

extern "C" void run(void* const* arrays, const long* sizes, int back, int threads) {
  Problem problem;
  static_assert(sizeof(Arrays) % sizeof(void*) == 0);
  for (size_t i = 0; i < sizeof(Arrays) / sizeof(void*); ++i) ((void**)&problem.at)[i] = arrays[i];
  problem.batch = sizes[0], problem.time = sizes[1], problem.states = sizes[2], problem.entries = sizes[3], problem.patterns = sizes[4];
  problem.rank = sizes[5];
  take_large_pages(problem);
#ifndef STATES
  if (problem.batch < 3) return run_all<2>(problem, back, threads);
#endif
  run_all<8>(problem, back, threads);
}

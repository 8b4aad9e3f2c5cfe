// Log-densities and weighted moments of Gaussian outputs. Everything lies with the states innermost, so that one instruction serves several of them.
// Sums are made block by block of rows, and the blocks added in turn: the result does not depend on how many threads there are.
#include <algorithm>
#include <vector>

namespace {

constexpr long BLOCK = 2048;

struct Shape {
    long rows, states, features;
    bool full;  // whether features depend on each other
};

// `whitening` is [features, features, states], of which the lower triangle is read, or [features, states]
template <int FIXED>
void scores(const Shape& s, const double* values, const double* means, const double* whitening, const double* constants, double* found, long begin, long end) {
    const long K = FIXED ? FIXED : s.states, D = s.features;
    if (!s.full) {
        for (long n = begin; n < end; ++n) {
            double* __restrict out = found + n * K;
            for (long k = 0; k < K; ++k) out[k] = constants[k];
            for (long d = 0; d < D; ++d)
                for (long k = 0; k < K; ++k) {
                    const double white = (values[n * D + d] - means[d * K + k]) * whitening[d * K + k];
                    out[k] -= 0.5 * white * white;
                }
        }
        return;
    }
    std::vector<double> room((D + 1) * K);
    double *away = room.data(), *white = away + D * K;
    for (long n = begin; n < end; ++n) {
        double* __restrict out = found + n * K;
        for (long k = 0; k < K; ++k) out[k] = constants[k];
        for (long d = 0; d < D; ++d) {
            const double value = values[n * D + d];
            for (long k = 0; k < K; ++k) away[d * K + k] = value - means[d * K + k];
            const double* __restrict row = whitening + d * D * K;
            for (long k = 0; k < K; ++k) white[k] = 0;
            for (long e = 0; e <= d; ++e)
                for (long k = 0; k < K; ++k) white[k] += row[e * K + k] * away[e * K + k];
            for (long k = 0; k < K; ++k) out[k] -= 0.5 * white[k] * white[k];
        }
    }
}

// into `sums`: weight [states], first [features, states], second [features, states] or [features, features, states], lower triangle
template <int FIXED>
void moments(const Shape& s, const double* values, const double* means, const double* weights, double* sums, long begin, long end) {
    const long K = FIXED ? FIXED : s.states, D = s.features;
    std::vector<double> room(2 * D * K);
    double *away = room.data(), *scaled = away + D * K;
    double *first = sums + K, *second = first + D * K;
    for (long n = begin; n < end; ++n) {
        const double* __restrict weight = weights + n * K;
        for (long k = 0; k < K; ++k) sums[k] += weight[k];
        for (long d = 0; d < D; ++d) {
            const double value = values[n * D + d];
            for (long k = 0; k < K; ++k) {
                const double difference = value - means[d * K + k];
                away[d * K + k] = difference;
                scaled[d * K + k] = weight[k] * difference;
                first[d * K + k] += weight[k] * difference;
            }
            double* __restrict into = second + (s.full ? d * D * K : d * K);
            for (long e = s.full ? 0 : d; e <= d; ++e)
                for (long k = 0; k < K; ++k) into[(s.full ? e * K : 0) + k] += scaled[d * K + k] * away[e * K + k];
        }
    }
}

template <class Function>
void by_states(long states, Function&& function) {
    switch (states) {
        case 2: return function.template run<2>();
        case 3: return function.template run<3>();
        case 4: return function.template run<4>();
        case 5: return function.template run<5>();
        case 6: return function.template run<6>();
        case 8: return function.template run<8>();
        case 10: return function.template run<10>();
        case 12: return function.template run<12>();
        case 16: return function.template run<16>();
        default: return function.template run<0>();
    }
}

struct Scoring {
    Shape s;
    const double *values, *means, *whitening, *constants;
    double* found;
    int threads;
    template <int FIXED>
    void run() const {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (long begin = 0; begin < s.rows; begin += BLOCK)
            scores<FIXED>(s, values, means, whitening, constants, found, begin, std::min(begin + BLOCK, s.rows));
    }
};

struct Summing {
    Shape s;
    const double *values, *means, *weights;
    double* sums;
    int threads;
    template <int FIXED>
    void run() const {
        const long size = s.states * (1 + s.features + (s.full ? s.features * s.features : s.features));
        const long blocks = (s.rows + BLOCK - 1) / BLOCK;
        std::vector<double> parts(blocks * size, 0.0);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (long block = 0; block < blocks; ++block)
            moments<FIXED>(s, values, means, weights, parts.data() + block * size, block * BLOCK, std::min((block + 1) * BLOCK, s.rows));
        for (long block = 0; block < blocks; ++block)
            for (long place = 0; place < size; ++place) sums[place] += parts[block * size + place];
    }
};

}  // namespace

extern "C" void gaussian_scores(const double* values, const double* means, const double* whitening, const double* constants, double* found, long rows, long states,
                                long features, int full, int threads) {
    by_states(states, Scoring{{rows, states, features, full != 0}, values, means, whitening, constants, found, threads});
}

extern "C" void gaussian_moments(const double* values, const double* means, const double* weights, double* sums, long rows, long states, long features, int full,
                                 int threads) {
    by_states(states, Summing{{rows, states, features, full != 0}, values, means, weights, sums, threads});
}

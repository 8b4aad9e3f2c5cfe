// Forward-backward and Viterbi of a hidden Markov model, one sequence a thread. The equations are those of serial.py, in probabilities
// instead of logarithms: the weights of one step are relative to the best state that can be reached, so that they never all vanish. Where a
// state becomes fainter than FAINT and the chain has transitions that are (nearly) impossible, its weight could matter later on: such a
// sequence is done again in logarithms.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

constexpr double NEVER = -std::numeric_limits<double>::infinity();
constexpr double FAINT = 1e-200;

// exp of what is at most 0, to the last bit or two; 0 below -700. One without a call, so that one instruction serves several states: x = n log 2 + r,
// the power of two is put together from its bits, and the series of exp(r), |r| < 0.35, is cut where it no longer matters.
inline double exponential(double x) {
    constexpr double SHIFT = 6755399441055744.0;  // 1.5 * 2^52: what is added to it is rounded to a whole number
    const double safe = x < -700 ? -700 : x;
    const double shifted = safe * 1.4426950408889634 + SHIFT;
    const double n = shifted - SHIFT;
    const double r = (safe - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double sum = 1.0 / 6227020800;
    sum = sum * r + 1.0 / 479001600;
    sum = sum * r + 1.0 / 39916800;
    sum = sum * r + 1.0 / 3628800;
    sum = sum * r + 1.0 / 362880;
    sum = sum * r + 1.0 / 40320;
    sum = sum * r + 1.0 / 5040;
    sum = sum * r + 1.0 / 720;
    sum = sum * r + 1.0 / 120;
    sum = sum * r + 1.0 / 24;
    sum = sum * r + 1.0 / 6;
    sum = sum * r + 0.5;
    sum = sum * r + 1.0;
    sum = sum * r + 1.0;
    std::uint64_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return x < -700 ? 0 : sum * power;
}

struct Model {
    const double *initial, *transition, *log_transition, *scores;
    long states;
    long stride;  // of the transition from step to step; 0 where it does not vary
    bool guard;   // whether some transition is below what FAINT leaves room for
};

struct Result {
    double *filtered, *predicted, *evidence, *smoothed, *transitions, *log_likelihood;
};

enum Outcome { DONE, IMPOSSIBLE, TOO_FAINT };

template <int FIXED>
Outcome forward(const Model& m, const Result& r, long first, long time) {
    const long K = FIXED ? FIXED : m.states;
    double sum = 0;
    for (long t = 0; t < time; ++t) {
        const long n = first + t;
        double* __restrict before = r.predicted + n * K;
        double* __restrict after = r.filtered + n * K;
        const double* __restrict score = m.scores + n * K;
        if (t == 0) {
            std::copy(m.initial, m.initial + K, before);
        } else {
            const double* __restrict A = m.transition + n * m.stride;
            const double* __restrict last = r.filtered + (n - 1) * K;
#pragma omp simd
            for (long j = 0; j < K; ++j) before[j] = last[0] * A[j];
            for (long i = 1; i < K; ++i)
#pragma omp simd
                for (long j = 0; j < K; ++j) before[j] += last[i] * A[i * K + j];
        }
        // Where every state can be reached at every step, what an output says does not wait for the step before it.
        const bool masked = m.guard || t == 0;
        double top = NEVER;
#pragma omp simd reduction(max : top)
        for (long j = 0; j < K; ++j) {
            const double reached = !masked || before[j] > 0 ? score[j] : NEVER;
            top = reached > top ? reached : top;
        }
        if (top == NEVER) {
            r.evidence[n] = NEVER;
            return m.guard ? TOO_FAINT : IMPOSSIBLE;
        }
#pragma omp simd
        for (long j = 0; j < K; ++j) after[j] = exponential(score[j] > top ? 0.0 : score[j] - top);
        double total = 0;
#pragma omp simd reduction(+ : total)
        for (long j = 0; j < K; ++j) {
            after[j] *= before[j];
            total += after[j];
        }
        const double scale = 1 / total;
#pragma omp simd
        for (long j = 0; j < K; ++j) after[j] *= scale;
        if (m.guard) {
            bool faint = false;
            for (long j = 0; j < K; ++j) faint |= before[j] > 0 && score[j] > NEVER && after[j] < FAINT;
            if (faint) return TOO_FAINT;
        }
        r.evidence[n] = std::log(total) + top;
        sum += r.evidence[n];
    }
    *r.log_likelihood = sum;
    return DONE;
}

template <int FIXED>
void backward(const Model& m, const Result& r, long first, long time) {
    const long K = FIXED ? FIXED : m.states;
    double fixed_ratio[FIXED ? FIXED : 1], fixed_counts[FIXED ? FIXED * FIXED : 1];
    std::vector<double> room(FIXED ? 0 : K + K * K);
    double* ratio = FIXED ? fixed_ratio : room.data();
    double* counts = FIXED ? fixed_counts : room.data() + K;
    std::fill(counts, counts + K * K, 0.0);
    if (time > 0) std::copy(r.filtered + (first + time - 1) * K, r.filtered + (first + time) * K, r.smoothed + (first + time - 1) * K);
    for (long t = time - 2; t >= 0; --t) {
        const long n = first + t;
        const double* __restrict A = m.transition + (n + 1) * m.stride;
        const double* __restrict after = r.filtered + n * K;
        const double* __restrict before = r.predicted + (n + 1) * K;
        const double* __restrict next = r.smoothed + (n + 1) * K;
        double* __restrict found = r.smoothed + n * K;
#pragma omp simd
        for (long j = 0; j < K; ++j) ratio[j] = before[j] > 0 ? next[j] / before[j] : 0;
        for (long i = 0; i < K; ++i) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (long j = 0; j < K; ++j) sum += A[i * K + j] * ratio[j];
            found[i] = after[i] * sum;
        }
        for (long i = 0; i < K; ++i)
#pragma omp simd
            for (long j = 0; j < K; ++j) counts[i * K + j] += m.stride ? after[i] * A[i * K + j] * ratio[j] : after[i] * ratio[j];
    }
    for (long c = 0; c < K * K; ++c) r.transitions[c] = m.stride ? counts[c] : counts[c] * m.transition[c];
}

// log of the sum of exp(values[i * step]), or minus infinity
double log_sum(const double* values, long count) {
    const double top = *std::max_element(values, values + count);
    if (top == NEVER) return NEVER;
    double sum = 0;
    for (long i = 0; i < count; ++i) sum += std::exp(values[i] - top);
    return top + std::log(sum);
}

Outcome in_logarithms(const Model& m, const Result& r, long first, long time) {
    const long K = m.states;
    std::vector<double> after(time * K), before(time * K), values(K), joint(K), next(K), found(K);
    double total = 0;
    for (long t = 0; t < time; ++t) {
        const double* A = m.log_transition + (first + t) * m.stride;
        for (long j = 0; j < K; ++j) {
            for (long i = 0; t && i < K; ++i) values[i] = after[(t - 1) * K + i] + A[i * K + j];
            before[t * K + j] = t ? log_sum(values.data(), K) : std::log(m.initial[j]);
            joint[j] = before[t * K + j] + m.scores[(first + t) * K + j];
        }
        const double evidence = log_sum(joint.data(), K);
        r.evidence[first + t] = evidence;
        if (evidence == NEVER) return IMPOSSIBLE;
        for (long j = 0; j < K; ++j) {
            after[t * K + j] = joint[j] - evidence;
            r.filtered[(first + t) * K + j] = std::exp(after[t * K + j]);
            r.predicted[(first + t) * K + j] = std::exp(before[t * K + j]);
        }
        total += evidence;
    }
    *r.log_likelihood = total;
    if (!r.smoothed) return DONE;
    std::fill(r.transitions, r.transitions + K * K, 0.0);
    for (long t = time - 1; t >= 0; --t) {
        const double* A = m.log_transition + (first + t + 1) * m.stride;
        for (long i = 0; i < K; ++i) {
            found[i] = after[t * K + i];
            if (t + 1 == time) continue;
            for (long j = 0; j < K; ++j) {
                const double predicted = before[(t + 1) * K + j];
                values[j] = predicted == NEVER ? NEVER : A[i * K + j] + next[j] - predicted;
                r.transitions[i * K + j] += std::exp(found[i] + values[j]);
            }
            found[i] += log_sum(values.data(), K);
        }
        next = found;
        for (long i = 0; i < K; ++i) r.smoothed[(first + t) * K + i] = std::exp(found[i]);
    }
    return DONE;
}

template <int FIXED>
void sequence(const Model& m, const Result& r, long first, long time) {
    const long K = m.states;
    Outcome outcome = forward<FIXED>(m, r, first, time);
    if (outcome == DONE && r.smoothed) backward<FIXED>(m, r, first, time);
    if (outcome == TOO_FAINT) outcome = in_logarithms(m, r, first, time);
    if (outcome == IMPOSSIBLE) *r.log_likelihood = NEVER;
}

using Run = void (*)(const Model&, const Result&, long, long);

Run fitting(long states) {
    switch (states) {
        case 2: return sequence<2>;
        case 3: return sequence<3>;
        case 4: return sequence<4>;
        case 5: return sequence<5>;
        case 6: return sequence<6>;
        case 8: return sequence<8>;
        case 10: return sequence<10>;
        case 12: return sequence<12>;
        case 16: return sequence<16>;
        default: return sequence<0>;
    }
}

}  // namespace

// `pointers` are those of Model, then those of Result, of which `smoothed` and `transitions` may be null.
extern "C" void forward_backward(void** pointers, const long* starts, const long* lengths, long rows, long states, long stride, int guard, int threads) {
    auto input = [&](int place) { return static_cast<const double*>(pointers[place]); };
    auto output = [&](int place) { return static_cast<double*>(pointers[place]); };
    const Model model{input(0), input(1), input(2), input(3), states, stride, guard != 0};
    const Run run = fitting(states);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long row = 0; row < rows; ++row) {
        double* transitions = output(8) ? output(8) + row * states * states : nullptr;
        run(model, Result{output(4), output(5), output(6), output(7), transitions, output(9) + row}, starts[row], lengths[row]);
    }
}

extern "C" void viterbi(void** pointers, const long* starts, const long* lengths, long rows, long states, long stride, int threads) {
    const double *initial = static_cast<const double*>(pointers[0]), *transition = static_cast<const double*>(pointers[1]),
                 *scores = static_cast<const double*>(pointers[2]);
    long* paths = static_cast<long*>(pointers[3]);
    double* totals = static_cast<double*>(pointers[4]);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long row = 0; row < rows; ++row) {
        const long first = starts[row], time = lengths[row], K = states;
        if (time == 0) continue;
        std::vector<int> came_from(time * K);
        std::vector<double> best(K), ways(K);
        for (long j = 0; j < K; ++j) best[j] = initial[j] + scores[first * K + j];
        for (long t = 1; t < time; ++t) {
            const double* A = transition + (first + t) * stride;
            int* from = came_from.data() + t * K;
            for (long j = 0; j < K; ++j) { ways[j] = best[0] + A[j]; from[j] = 0; }
            for (long i = 1; i < K; ++i)
                for (long j = 0; j < K; ++j) {
                    const double way = best[i] + A[i * K + j];
                    from[j] = way > ways[j] ? static_cast<int>(i) : from[j];
                    ways[j] = way > ways[j] ? way : ways[j];
                }
            for (long j = 0; j < K; ++j) best[j] = ways[j] + scores[(first + t) * K + j];
        }
        long state = std::max_element(best.begin(), best.end()) - best.begin();
        totals[row] = best[state];
        for (long t = time - 1; t >= 0; --t) {
            paths[first + t] = state;
            if (t) state = came_from[t * K + state];
        }
    }
}

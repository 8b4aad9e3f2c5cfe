// How threads share a step: batch rows in groups that never wait for each other; within a group, each thread its part of the features.

#ifdef _OPENMP
#include <omp.h>
#endif
#include <sched.h>

struct Barrier {
  alignas(64) int arrived;
  alignas(64) int round;
};

INLINE void rest() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Until all `threads` have come here; what each wrote before, all see behind it.
static void wait_for_all(Barrier& barrier, int threads) {
  if (threads == 1) return;
  const int round = __atomic_load_n(&barrier.round, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&barrier.arrived, 1, __ATOMIC_ACQ_REL) == threads) {
    __atomic_store_n(&barrier.arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&barrier.round, round + 1, __ATOMIC_RELEASE);
    return;
  }
  // Other programs may need the core on which the last thread is to run.
  for (long turns = 0; __atomic_load_n(&barrier.round, __ATOMIC_ACQUIRE) == round; ++turns) turns < 2000 ? rest() : (void)sched_yield();
}

// Memory taken piece by piece; with no memory at all it only counts.
struct Arena {
  char* base;
  long used;
  template <class Type>
  Type* take(long count) {
    Type* piece = (Type*)(base + used);
    used += rounded_up(count * (long)sizeof(Type), 64);
    return piece;
  }
};

// The share of `place` among `places`.
INLINE long share(long count, long place, long places) { return count * place / places; }

// How many groups of rows, and how many threads within each.
struct Split {
  int groups, parts;
};

// Fewer multiplications are done before another thread has heard of them.
#ifndef ENOUGH_WORK
#define ENOUGH_WORK 20000
#endif

// `work`: multiplications of one row in one step.
static Split split(long batch, long work, int threads) {
#ifndef _OPENMP
  threads = 1;
#endif
  threads = (int)smaller(threads, batch * work / ENOUGH_WORK);
  if (threads <= 1) return {1, 1};
  int groups = 1;
  for (int count = 2; count <= threads; ++count)
    if (threads % count == 0 && batch / count >= rows_at_once) groups = count;
  return {groups, threads / groups};
}

INLINE long most_rows(long batch, Split split) { return (batch + split.groups - 1) / split.groups; }

// `body(thread, threads, barrier)` on each of so many threads; false, and nothing is done, where the system gives fewer.
template <class Body>
static bool in_parallel(int threads, Body body) {
  Barrier all{};
#ifdef _OPENMP
  if (threads > 1) {
    bool enough = true;
#pragma omp parallel num_threads(threads)
    {
      if (omp_get_num_threads() == threads)
        body(omp_get_thread_num(), threads, all);
      else
        enough = false;
    }
    return enough;
  }
#endif
  body(0, 1, all);
  return true;
}

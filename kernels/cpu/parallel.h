/* Threads: how many are worth waking, what each of them does, and the memory that they work in. */

#ifndef LOWRANK_PARALLEL_H
#define LOWRANK_PARALLEL_H

#include <stdint.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
static inline int team(void) { return omp_get_num_threads(); }
static inline int member(void) { return omp_get_thread_num(); }
#else
static inline int team(void) { return 1; }
static inline int member(void) { return 0; }
#endif

/* A thread that has less to do than this many weights costs more to wake than it saves. */
#define WEIGHTS_A_THREAD (1 << 15)

static inline int useful_threads(int threads, int64_t weights)
{
    int64_t most = weights / WEIGHTS_A_THREAD + 1;
    return threads < 1 ? 1 : threads < most ? threads : (int)most;
}

typedef struct {
    int64_t first, end;
} range;

/* This thread's share of `count` things, in whole steps. */
static inline range share(int64_t count, int64_t step)
{
    int64_t steps = (count + step - 1) / step;
    int64_t first = steps * member() / team() * step, end = steps * (member() + 1) / team() * step;
    return (range){first < count ? first : count, end < count ? end : count};
}

static inline int64_t up_to(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Aligned for whole vectors; never of no bytes, for which NULL would not mean that there is no memory. */
static inline void *buffer(int64_t bytes) { return aligned_alloc(64, up_to(bytes + 1, 64)); }

#endif

/* Threads of a parallel region: how many are worth starting, the range of each, and the memory that they work in. */

#ifndef LOWRANK_PARALLEL_H
#define LOWRANK_PARALLEL_H

#include <stdint.h>
#include <stdlib.h>

#include "isa.h"

#ifdef _OPENMP
#include <omp.h>
static inline int team_size(void) { return omp_get_num_threads(); }
static inline int thread_id(void) { return omp_get_thread_num(); }
#else
static inline int team_size(void) { return 1; }
static inline int thread_id(void) { return 0; }
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
static inline range thread_range(int64_t count, int64_t step)
{
    int64_t steps = (count + step - 1) / step;
    int64_t first = steps * thread_id() / team_size() * step, end = steps * (thread_id() + 1) / team_size() * step;
    return (range){first < count ? first : count, end < count ? end : count};
}

static inline int64_t round_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Asks memory for up to 64 KB from p on, into the second-level cache: more would drive out what is there. */
static inline void ask_for(const void *p, int64_t bytes)
{
    for (int64_t i = 0; i < min_i64(bytes, 1 << 16); i += 64)
        __builtin_prefetch((const char *)p + i, 0, 2);
}

/* Aligned for whole vectors; never of no bytes, for which NULL would not mean that there is no memory. */
static inline void *alloc_aligned(int64_t bytes) { return aligned_alloc(64, round_up(bytes + 1, 64)); }

/* Bytes between what one thread writes and what the next one does. The processor fetches ahead of a reader, by many of
   its strides, and takes those lines from the thread that writes them: with less, products by dot products lost up to a
   third of their speed on some runs and not on others, for where memory lay decided. */
#define THREADS_APART (1 << 16)

/* The `team_` functions are called by every thread of a parallel region, and each does its own range. */

/* Bytes that `team_linears` works in, for m rows of x and up to `threads` threads. */
int64_t linears_bytes(const linear_part *parts, int64_t count, int64_t m, enum dtype dtype, int threads);

/* `lowrank_linears`. The team has passed a barrier when it returns. memory: aligned for whole vectors. next: what the
   team multiplies by after these, of which memory is asked for the beginning meanwhile; or NULL. */
void team_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype, char *memory,
                  const linear_part *next);

/* The weights that are read. */
int64_t weights_of(const linear_part *parts, int64_t count);

/* The functions of api.h of the same names, called inside a parallel region; no barrier follows them. scores:
 * DECODE_ATTENTION_FLOATS of floats a thread. */
void team_rms_norm(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t rows,
                   int64_t channels, float eps, void *h, float *rstd, void *y);
void team_swiglu(const void *gate, const void *up, enum dtype dtype, int64_t count, void *y);
void team_decode_attention(const decode_sizes *sizes, enum dtype dtype, const void *q, const void *k, const void *v,
                           const uint8_t *mask, float *scores, void *y);

#endif

/* SwiGLU and its gradients, a stretch of numbers a thread. */

#include "threads.h"

#define STRETCH 64 /* numbers: whole vectors, and no cache line that two threads write */

void team_swiglu(const void *gate, const void *up, enum dtype dtype, int64_t count, void *y)
{
    const range mine = thread_range(count, STRETCH);
    const int64_t at = mine.first * (int64_t)size_of(dtype);
    chosen_set()->swiglu((const char *)gate + at, (const char *)up + at, dtype, mine.end - mine.first, (char *)y + at);
}

int lowrank_swiglu(const void *gate, const void *up, enum dtype dtype, int64_t count, void *y, int threads)
{
#pragma omp parallel num_threads(useful_threads(threads, count))
    team_swiglu(gate, up, dtype, count, y);
    return 0;
}

int lowrank_swiglu_backward(const void *dy, const void *gate, const void *up, enum dtype dtype, int64_t count,
                            void *dgate, void *dup, int threads)
{
#pragma omp parallel num_threads(useful_threads(threads, count))
    {
        const range mine = thread_range(count, STRETCH);
        const int64_t at = mine.first * (int64_t)size_of(dtype);
        chosen_set()->swiglu_backward((const char *)dy + at, (const char *)gate + at, (const char *)up + at, dtype,
                                      mine.end - mine.first, (char *)dgate + at, (char *)dup + at);
    }
    return 0;
}

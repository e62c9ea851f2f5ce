/* RMSNorm, of a sum too, and its gradients: whole rows a thread. */

#include <string.h>

#include "threads.h"

#define MIN_ROWS 16   /* of dweight that are added up by one thread, */
#define MAX_GROUPS 32 /* in so many groups, whatever the number of threads */

void team_rms_norm(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t rows,
                   int64_t channels, float eps, void *h, float *rstd, void *y)
{
    const int64_t size = channels * (int64_t)size_of(dtype);
    const range mine = thread_range(rows, 1);
    for (int64_t row = mine.first; row < mine.end; row++) {
        const float scale = chosen_set()->norm(
            (const char *)x + row * size, residual ? (const char *)residual + row * size : NULL, weight, dtype,
            channels, eps, residual ? (char *)h + row * size : NULL, (char *)y + row * size);
        if (rstd)
            rstd[row] = scale;
    }
}

int lowrank_rms_norm(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t rows,
                     int64_t channels, float eps, void *h, float *rstd, void *y, int threads)
{
#pragma omp parallel num_threads(useful_threads(threads, rows *channels))
    team_rms_norm(x, residual, weight, dtype, rows, channels, eps, h, rstd, y);
    return 0;
}

int lowrank_rms_norm_backward(const void *dy, const void *dh, const void *h, const float *rstd, const void *weight,
                              enum dtype dtype, int64_t rows, int64_t channels, void *dx, float *dweight, int threads)
{
    const int64_t size = channels * (int64_t)size_of(dtype);
    int64_t group_rows = (rows + MAX_GROUPS - 1) / MAX_GROUPS;
    group_rows = group_rows < MIN_ROWS ? MIN_ROWS : group_rows;
    const int64_t groups = (rows + group_rows - 1) / group_rows, bytes = groups * channels * (int64_t)sizeof(float);
    float *sums = dweight ? alloc_aligned(bytes) : NULL;
    if (dweight && !sums)
        return -1;
    if (sums)
        memset(sums, 0, bytes);
#pragma omp parallel num_threads(useful_threads(threads, rows *channels))
    {
        const range mine = thread_range(groups, 1);
        for (int64_t group = mine.first; group < mine.end; group++)
            for (int64_t row = group * group_rows; row < min_i64(rows, (group + 1) * group_rows); row++)
                chosen_set()->norm_backward((const char *)dy + row * size, dh ? (const char *)dh + row * size : NULL,
                                            (const char *)h + row * size, rstd[row], weight, dtype, channels,
                                            (char *)dx + row * size, sums ? sums + group * channels : NULL);
    }
    if (sums) {
        memset(dweight, 0, channels * sizeof(float));
        for (int64_t group = 0; group < groups; group++)
            chosen_set()->add(sums + group * channels, channels, 1, dweight);
    }
    free(sums);
    return 0;
}

/* RMSNorm, of a sum too, and its gradients: whole rows a thread. */

#include <string.h>

#include "parallel.h"
#include "team.h"

#define FEWEST_ROWS 16 /* of dweight that are added up by one thread, */
#define MOST_GROUPS 32 /* in so many groups, whatever the number of threads */

void team_rms_norm(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t rows,
                   int64_t channels, float eps, void *h, float *rstd, void *y)
{
    const int64_t size = channels * (int64_t)size_of(dtype);
    const range mine = share(rows, 1);
    for (int64_t row = mine.first; row < mine.end; row++) {
        const float scale = chosen_set()->norm((const char *)x + row * size,
                                               residual ? (const char *)residual + row * size : NULL, weight, dtype,
                                               channels, eps, residual ? (char *)h + row * size : NULL,
                                               (char *)y + row * size);
        if (rstd)
            rstd[row] = scale;
    }
}

int lowrank_rms_norm(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t rows,
                     int64_t channels, float eps, void *h, float *rstd, void *y, int threads)
{
#pragma omp parallel num_threads(useful_threads(threads, rows * channels))
    team_rms_norm(x, residual, weight, dtype, rows, channels, eps, h, rstd, y);
    return 0;
}

int lowrank_rms_norm_dx(const void *dy, const void *dh, const void *h, const float *rstd, const void *weight,
                        enum dtype dtype, int64_t rows, int64_t channels, void *dx, float *dweight, int threads)
{
    const int64_t size = channels * (int64_t)size_of(dtype);
    int64_t together = (rows + MOST_GROUPS - 1) / MOST_GROUPS;
    together = together < FEWEST_ROWS ? FEWEST_ROWS : together;
    const int64_t groups = (rows + together - 1) / together, bytes = groups * channels * (int64_t)sizeof(float);
    float *sums = dweight ? buffer(bytes) : NULL;
    if (dweight && !sums)
        return -1;
    if (sums)
        memset(sums, 0, bytes);
#pragma omp parallel num_threads(useful_threads(threads, rows * channels))
    {
        const range mine = share(groups, 1);
        for (int64_t group = mine.first; group < mine.end; group++)
            for (int64_t row = group * together; row < least(rows, (group + 1) * together); row++)
                chosen_set()->norm_dx((const char *)dy + row * size, dh ? (const char *)dh + row * size : NULL,
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

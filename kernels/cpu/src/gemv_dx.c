/* dX = dY W for few rows, straight from the codes: no row of W is ever in memory but the one at hand. */

#include <string.h>

#include "threads.h"

#define SUMMED 16

/* Columns [first, first + count) of a row of W, in float32. */
typedef void decoder(const void *w, int64_t row, int64_t first, int64_t count, float *to);

static void decode_int8(const void *weight, int64_t row, int64_t first, int64_t count, float *to)
{
    const rowwise_int8 *w = weight;
    chosen_set()->decode_int8(w->codes + row * w->columns + first, count, w->scale[row] / 127, FLOAT32, to);
}

static void decode_4bit(const void *weight, int64_t row, int64_t first, int64_t count, float *to)
{
    const blockwise_4bit *w = weight;
    decode_weights(w, row * w->columns + first, count, FLOAT32, to);
}

/* dx [m, k] in float32: each thread has columns of its own, and goes through all rows of W. dy float32 [m, n].
   SUMMED rows are added up before they join the sum, which keeps its rounding small. */
static int multiply_back(decoder *decode, const void *w, int64_t n, int64_t k, int64_t step, const float *dy, int64_t m,
                         float *dx, int threads)
{
    const instruction_set *set = chosen_set();
    const int64_t spacing = round_up(k, 16);
    float *rows = alloc_aligned(sizeof(float) * threads * spacing), *parts = alloc_aligned(sizeof(float) * m * k);
    if (rows && parts)
#pragma omp parallel num_threads(threads)
    {
        float *row = rows + thread_id() * spacing;
        const range mine = thread_range(k, step);
        const int64_t count = mine.end - mine.first;
        for (int64_t i = 0; i < m; i++)
            memset(dx + i * k + mine.first, 0, sizeof(float) * count);
        for (int64_t first = 0; count && first < n; first += SUMMED) {
            for (int64_t i = 0; i < m; i++)
                memset(parts + i * k + mine.first, 0, sizeof(float) * count);
            for (int64_t r = first; r < min_i64(first + SUMMED, n); r++) {
                decode(w, r, mine.first, count, row);
                for (int64_t i = 0; i < m; i++)
                    set->add(row, count, dy[i * n + r], parts + i * k + mine.first);
            }
            for (int64_t i = 0; i < m; i++)
                set->add(parts + i * k + mine.first, count, 1, dx + i * k + mine.first);
        }
    }
    const int status = rows && parts ? 0 : -1;
    free(rows);
    free(parts);
    return status;
}

/* dx [m, k] = dy W, in float32 between two conversions. */
static int multiply_back_as(decoder *decode, const void *w, int64_t n, int64_t k, int64_t step, const void *dy,
                            int64_t m, enum dtype dtype, void *dx, int threads)
{
    const instruction_set *set = chosen_set();
    float *wide = alloc_aligned(sizeof(float) * m * n),
          *sums = dtype == FLOAT32 ? dx : alloc_aligned(sizeof(float) * m * k);
    int status = -1;
    if (wide && sums) {
        set->to_f32(dy, dtype, m * n, wide);
        status = multiply_back(decode, w, n, k, step, wide, m, sums, useful_threads(threads, n * k));
        if (status == 0 && dtype != FLOAT32)
            set->from_f32(sums, m * k, dtype, dx);
    }
    free(wide);
    if (dtype != FLOAT32)
        free(sums);
    return status;
}

int lowrank_linear_dx(const blockwise_4bit *w, const void *dy, int64_t m, enum dtype dtype, void *dx, int threads)
{ return multiply_back_as(decode_4bit, w, w->rows, w->columns, w->blocksize, dy, m, dtype, dx, threads); }

int lowrank_linear_dx_int8(const rowwise_int8 *w, const void *dy, int64_t m, enum dtype dtype, void *dx, int threads)
{ return multiply_back_as(decode_int8, w, w->rows, w->columns, 16, dy, m, dtype, dx, threads); }

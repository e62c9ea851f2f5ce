/* y = x W^T and dX = dY W for few rows, straight from the codes: no row of W is ever in memory but the one at hand. */

#include <string.h>

#include "isa.h"
#include "parallel.h"

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

/* y [m, n] in float32, by rows of W that are decoded first. x float32 [m, k]. */
static int multiply(decoder *decode, const void *w, int64_t n, int64_t k, const float *x, int64_t m, float *y,
                    int threads)
{
    const instruction_set *set = chosen_set();
    const int64_t spacing = up_to(k, 16);
    float *rows = buffer(sizeof(float) * threads * spacing);
    if (!rows)
        return -1;
#pragma omp parallel num_threads(threads)
    {
        float *row = rows + member() * spacing;
        const range mine = share(n, 1);
        for (int64_t r = mine.first; r < mine.end; r++) {
            decode(w, r, 0, k, row);
            for (int64_t i = 0; i < m; i += MOST_ROWS) {
                float sums[MOST_ROWS];
                const int here = (int)least(m - i, MOST_ROWS);
                set->dot_float(row, k, x + i * k, k, here, sums);
                for (int j = 0; j < here; j++)
                    y[(i + j) * n + r] = sums[j];
            }
        }
    }
    free(rows);
    return 0;
}

/* dx [m, k] in float32: each thread has columns of its own, and goes through all rows of W. dy float32 [m, n].
   SUMMED rows are added up before they join the sum, which keeps its rounding small. */
static int multiply_back(decoder *decode, const void *w, int64_t n, int64_t k, int64_t step, const float *dy, int64_t m,
                         float *dx, int threads)
{
    const instruction_set *set = chosen_set();
    const int64_t spacing = up_to(k, 16);
    float *rows = buffer(sizeof(float) * threads * spacing), *parts = buffer(sizeof(float) * m * k);
    if (rows && parts)
#pragma omp parallel num_threads(threads)
    {
        float *row = rows + member() * spacing;
        const range mine = share(k, step);
        const int64_t count = mine.end - mine.first;
        for (int64_t i = 0; i < m; i++)
            memset(dx + i * k + mine.first, 0, sizeof(float) * count);
        for (int64_t first = 0; count && first < n; first += SUMMED) {
            for (int64_t i = 0; i < m; i++)
                memset(parts + i * k + mine.first, 0, sizeof(float) * count);
            for (int64_t r = first; r < least(first + SUMMED, n); r++) {
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

/* The maxima of rows first and first + 1 of W, as far as they are below `end`, `spacing` floats apart. */
static void maxima_of_two(const blockwise_4bit *w, int64_t first, int64_t end, float *to, int64_t spacing)
{
    const int64_t blocks = w->columns / w->blocksize;
    for (int64_t r = first; r < least(first + 2, end); r++, to += spacing)
        chosen_set()->maxima(w, r * blocks, blocks, to);
}

/* y = x W^T where the rows of W are whole blocks: the codes of a row meet x in registers. x arranged, y float32. */
static int multiply_blocks(const blockwise_4bit *w, const float *x, int64_t stride, int64_t m, float *y, int threads)
{
    const instruction_set *set = chosen_set();
    const int64_t n = w->rows, k = w->columns, blocks = k / w->blocksize;
    const int64_t spacing = blocks + MAXIMA_BEYOND;
    const int64_t maxima_bytes = up_to(sizeof(float) * 4 * spacing, 64), own_bytes = up_to(k + CODES_BEYOND, 64);
    char *own = buffer(threads * (maxima_bytes + own_bytes));
    if (!own)
        return -1;
    memset(own, 0, threads * (maxima_bytes + own_bytes)); /* what `dot` reads beyond the maxima must be finite */
#pragma omp parallel num_threads(threads)
    {
        /* Maxima are written while the two rows before are multiplied: what was written a moment ago is slow to read. */
        float *maxima = (float *)(own + member() * (maxima_bytes + own_bytes)), *next = maxima + 2 * spacing;
        uint8_t *copy = (uint8_t *)maxima + maxima_bytes;
        const range mine = share(n, 2);
        maxima_of_two(w, mine.first, mine.end, next, spacing);
        for (int64_t r = mine.first; r < mine.end; r += 2) {
            const int count = (int)least(mine.end - r, 2);
            const uint8_t *codes = w->codes + r * k / 2;
            float *const free_again = maxima;
            maxima = next;
            next = free_again;
            maxima_of_two(w, r + 2, mine.end, next, spacing);
            if ((r + count) * k / 2 + CODES_BEYOND > n * k / 2) /* what follows is not ours to read */
                codes = memcpy(copy, codes, count * k / 2);
            if (m == 1 && count == 2) {
                set->dot_two(codes, k, w->levels, maxima, spacing, w->blocksize, x, y + r);
                continue;
            }
            for (int j = 0; j < count; j++)
                for (int64_t i = 0; i < m; i += MOST_ROWS) {
                    float sums[MOST_ROWS];
                    const int here = (int)least(m - i, MOST_ROWS);
                    set->dot(codes + j * k / 2, k, w->levels, maxima + j * spacing, w->blocksize, x + i * stride,
                             stride, here, sums);
                    for (int l = 0; l < here; l++)
                        y[(i + l) * n + r + j] = sums[l];
                }
        }
    }
    free(own);
    return 0;
}

/* x in float32, in rows of `stride`; `arranged` for `dot`, or as it is. */
static float *wide_rows(const void *x, int64_t m, int64_t columns, enum dtype dtype, int64_t stride, int arranged)
{
    const instruction_set *set = chosen_set();
    float *to = buffer(sizeof(float) * m * stride), *row = buffer(sizeof(float) * columns);
    for (int64_t i = 0; to && row && i < m; i++) {
        const char *from = (const char *)x + i * columns * size_of(dtype);
        set->widen(from, dtype, columns, arranged ? row : to + i * stride);
        if (arranged)
            set->arrange(row, columns, to + i * stride);
    }
    if (!row) {
        free(to);
        to = NULL;
    }
    free(row);
    return to;
}

/* Runs `statement`, which takes x as float32 in `wide` and leaves float32 in `sums`, between the conversions. */
#define IN_FLOAT32(x, m, columns, stride, arranged, y, count, dtype, statement)                                        \
    float *wide = wide_rows(x, m, columns, dtype, stride, arranged);                                                   \
    float *sums = dtype == FLOAT32 ? y : buffer(sizeof(float) * (count));                                              \
    int status = -1;                                                                                                   \
    if (wide && sums && (status = (statement)) == 0 && dtype != FLOAT32)                                               \
        chosen_set()->narrow(sums, count, dtype, y);                                                                   \
    free(wide);                                                                                                        \
    if (dtype != FLOAT32)                                                                                              \
        free(sums);                                                                                                    \
    return status

int lowrank_linear(const blockwise_4bit *w, const void *x, int64_t m, enum dtype dtype, void *y, int threads)
{
    const int64_t n = w->rows, k = w->columns, stride = up_to(k, chosen_set()->chunk);
    threads = useful_threads(threads, n * k);
    if (k % w->blocksize) {
        IN_FLOAT32(x, m, k, k, 0, y, m * n, dtype, multiply(decode_4bit, w, n, k, wide, m, sums, threads));
    }
    IN_FLOAT32(x, m, k, stride, 1, y, m * n, dtype, multiply_blocks(w, wide, stride, m, sums, threads));
}

int lowrank_linear_int8(const rowwise_int8 *w, const void *x, int64_t m, enum dtype dtype, void *y, int threads)
{
    const int64_t n = w->rows, k = w->columns;
    threads = useful_threads(threads, n * k);
    IN_FLOAT32(x, m, k, k, 0, y, m * n, dtype, multiply(decode_int8, w, n, k, wide, m, sums, threads));
}

int lowrank_linear_dx(const blockwise_4bit *w, const void *dy, int64_t m, enum dtype dtype, void *dx, int threads)
{
    const int64_t n = w->rows, k = w->columns;
    threads = useful_threads(threads, n * k);
    IN_FLOAT32(dy, m, n, n, 0, dx, m * k, dtype,
               multiply_back(decode_4bit, w, n, k, w->blocksize, wide, m, sums, threads));
}

int lowrank_linear_dx_int8(const rowwise_int8 *w, const void *dy, int64_t m, enum dtype dtype, void *dx, int threads)
{
    const int64_t n = w->rows, k = w->columns;
    threads = useful_threads(threads, n * k);
    IN_FLOAT32(dy, m, n, n, 0, dx, m * k, dtype, multiply_back(decode_int8, w, n, k, 16, wide, m, sums, threads));
}

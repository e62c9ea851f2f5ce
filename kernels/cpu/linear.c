/* y = x W^T for few rows, straight from the codes, and what an adapter adds to it: no row of W is ever in memory but the
   one at hand. */

#include <string.h>

#include "isa.h"
#include "parallel.h"

/* x [m, k] in float32: `plain`, in rows of `stride`, and `arranged` for `dot`. */
typedef struct {
    int64_t m, stride;
    float *plain, *arranged;
} input;

static int64_t rows_of(const linear_part *part) { return part->w ? part->w->rows : part->w_int8->rows; }
static int64_t columns_of(const linear_part *part) { return part->w ? part->w->columns : part->w_int8->columns; }

/* The maxima of rows first and first + 1 of W, as far as they are below `end`, `spacing` floats apart. */
static void maxima_of_two(const blockwise_4bit *w, int64_t first, int64_t end, float *to, int64_t spacing)
{
    const int64_t blocks = w->columns / w->blocksize;
    for (int64_t r = first; r < least(first + 2, end); r++, to += spacing)
        chosen_set()->maxima(w, r * blocks, blocks, to);
}

/* What a thread works in: maxima of two pairs of rows, and a copy of the codes of one; or a row of W in float32. */
static int64_t own_bytes(const linear_part *part)
{
    const int64_t k = columns_of(part), blocks = part->w ? k / part->w->blocksize : 0;
    return up_to(sizeof(float) * 4 * (blocks + MAXIMA_BEYOND), 64) + up_to(sizeof(float) * k + CODES_BEYOND, 64);
}

/* y[i, r] for the rows r of a W whose rows are whole blocks: the codes of a row meet x in registers. y float32 [m, n]. */
static void multiply_blocks(const blockwise_4bit *w, range rows, const input *x, float *y, char *own)
{
    const instruction_set *set = chosen_set();
    const int64_t n = w->rows, k = w->columns, spacing = k / w->blocksize + MAXIMA_BEYOND;
    /* Maxima are written while the two rows before are multiplied: what was written a moment ago is slow to read. */
    float *maxima = (float *)own, *next = maxima + 2 * spacing;
    uint8_t *copy = (uint8_t *)own + up_to(sizeof(float) * 4 * spacing, 64);
    maxima_of_two(w, rows.first, rows.end, next, spacing);
    for (int64_t r = rows.first; r < rows.end; r += 2) {
        const int count = (int)least(rows.end - r, 2);
        const uint8_t *codes = w->codes + r * k / 2;
        float *const free_again = maxima;
        maxima = next;
        next = free_again;
        maxima_of_two(w, r + 2, rows.end, next, spacing);
        if ((r + count) * k / 2 + CODES_BEYOND > n * k / 2) /* what follows is not ours to read */
            codes = memcpy(copy, codes, count * k / 2);
        if (x->m == 1 && count == 2) {
            set->dot_two(codes, k, w->levels, maxima, spacing, w->blocksize, x->arranged, y + r);
            continue;
        }
        for (int j = 0; j < count; j++)
            for (int64_t i = 0; i < x->m; i += MOST_ROWS) {
                float sums[MOST_ROWS];
                const int here = (int)least(x->m - i, MOST_ROWS);
                set->dot(codes + j * k / 2, k, w->levels, maxima + j * spacing, w->blocksize,
                         x->arranged + i * x->stride, x->stride, here, sums);
                for (int l = 0; l < here; l++)
                    y[(i + l) * n + r + j] = sums[l];
            }
    }
}

/* y[i, r] for the rows r of any other W, each decoded first. */
static void multiply_decoded(const linear_part *part, range rows, const input *x, float *y, char *own)
{
    const instruction_set *set = chosen_set();
    const int64_t n = rows_of(part), k = columns_of(part);
    float *row = (float *)own;
    for (int64_t r = rows.first; r < rows.end; r++) {
        if (part->w)
            decode_weights(part->w, r * k, k, FLOAT32, row);
        else
            set->decode_int8(part->w_int8->codes + r * k, k, part->w_int8->scale[r] / 127, FLOAT32, row);
        for (int64_t i = 0; i < x->m; i += MOST_ROWS) {
            float sums[MOST_ROWS];
            const int here = (int)least(x->m - i, MOST_ROWS);
            set->dot_float(row, k, x->plain + i * x->stride, x->stride, here, sums);
            for (int l = 0; l < here; l++)
                y[(i + l) * n + r] = sums[l];
        }
    }
}

/* u[i, j] = scaling (x A^T)[i, j] for the columns j of u [m, rank] in `columns`. */
static void inner(const linear_part *part, range columns, const input *x, float *u)
{
    const int64_t k = columns_of(part);
    for (int64_t j = columns.first; j < columns.end; j++)
        for (int64_t i = 0; i < x->m; i += MOST_ROWS) {
            float sums[MOST_ROWS];
            const int here = (int)least(x->m - i, MOST_ROWS);
            chosen_set()->dot_float(part->lora_a + j * k, k, x->plain + i * x->stride, x->stride, here, sums);
            for (int l = 0; l < here; l++)
                u[(i + l) * part->rank + j] = part->scaling * sums[l];
        }
}

/* A thread's share of one linear but for its adapter: columns of u, and rows of W with x. */
static void first_half(const linear_part *part, const input *x, float *u, float *y, char *own)
{
    const range rows = share(rows_of(part), 2);
    inner(part, share(part->rank, 1), x, u);
    if (part->w && part->w->columns % part->w->blocksize == 0)
        multiply_blocks(part->w, rows, x, y, own);
    else
        multiply_decoded(part, rows, x, y, own);
}

/* y += u B^T, which is rounded to its dtype then, for the thread's rows of W. */
static void second_half(const linear_part *part, int64_t m, const float *u, float *y, enum dtype dtype)
{
    const instruction_set *set = chosen_set();
    const int64_t n = rows_of(part), rank = part->rank;
    const range rows = share(n, 2);
    for (int64_t i = 0; i < m; i++) {
        float *sums = y + i * n + rows.first;
        if (rank)
            set->add_inner(part->lora_b + rows.first * rank, rows.end - rows.first, rank, u + i * rank, sums);
        if (dtype != FLOAT32)
            set->narrow(sums, rows.end - rows.first, dtype, (char *)part->y + (i * n + rows.first) * size_of(dtype));
    }
}

static void prepare(const void *x, int64_t k, enum dtype dtype, input *to)
{
    for (int64_t i = 0; i < to->m; i++) {
        float *row = to->plain + i * to->stride;
        chosen_set()->widen((const char *)x + i * k * size_of(dtype), dtype, k, row);
        chosen_set()->arrange(row, k, to->arranged + i * to->stride);
    }
}

int lowrank_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype, int threads)
{
    const int64_t k = columns_of(parts), stride = up_to(k, chosen_set()->chunk);
    int64_t ranks = 0, rows = 0, own = 0;
    for (int64_t i = 0; i < count; i++) {
        ranks += parts[i].rank;
        rows += rows_of(parts + i);
        own = most(own, own_bytes(parts + i));
    }
    threads = useful_threads(threads, rows * k);
    const int64_t sums = dtype == FLOAT32 ? 0 : m * rows;
    float *memory = buffer(sizeof(float) * (2 * m * stride + up_to(m * ranks + sums, 16)) + threads * own);
    if (!memory)
        return -1;
    input wide = {m, stride, memory, memory + m * stride};
    float *const us = memory + 2 * m * stride, *const ys = us + m * ranks;
    char *const owns = (char *)(us + up_to(m * ranks + sums, 16));
    memset(owns, 0, threads * own); /* `dot` reads beyond the maxima, where numbers must be finite */
    prepare(x, k, dtype, &wide);
#pragma omp parallel num_threads(threads)
    for (int half = 0; half < 2; half++) {
        float *u = us, *y = ys;
        for (const linear_part *part = parts; part < parts + count; part++) {
            float *const to = dtype == FLOAT32 ? part->y : y;
            if (half == 0)
                first_half(part, &wide, u, to, owns + member() * own);
            else
                second_half(part, m, u, to, dtype);
            u += m * part->rank;
            y += m * rows_of(part);
        }
#pragma omp barrier /* every thread has its columns of u from all of them */
    }
    free(memory);
    return 0;
}

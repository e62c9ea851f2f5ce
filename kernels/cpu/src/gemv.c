/* y = x W^T for few rows, straight from the codes, and what an adapter adds to it: no row of W is ever in memory but
   the one at hand. */

#include <string.h>

#include "bf16/gemv.h"
#include "panel_gemm.h"

/* x [m, k], rows of `stride` numbers: `plain` in float32, `packed` for `dot`, and `pairs` for dot products of bfloat16;
   of these what some part needs. */
typedef struct {
    int64_t m, stride;
    float *plain, *packed;
    uint16_t *pairs;
} input;

static input input_rows(const input *x, int64_t first, int64_t count)
{
    const int64_t at = first * x->stride;
    return (input){count, x->stride, x->plain ? x->plain + at : NULL, x->packed ? x->packed + at : NULL,
                   x->pairs ? x->pairs + at : NULL};
}

/* The way in which W meets an x of some dtype: in rows that are decoded one by one, or need no
   decoding; in whole blocks whose codes meet x in registers; or in whole blocks that meet x in bfloat16. */
enum method { ROWS, BLOCKS, PAIRS };

static enum method method_of(const linear_part *part, enum dtype dtype)
{
    if (!is_in_blocks(part))
        return ROWS;
    return dtype == BFLOAT16 && part->w->blocksize % 64 == 0 && uses_bf16() ? PAIRS : BLOCKS;
}

/* Rows of W that more than MAX_ROWS of x meet before the next ones come. */
#define ROWS_OF_W 64

/* Floats from the maxima of one row of W to those of the next. */
static int64_t spacing_of(const blockwise_4bit *w) { return w->columns / w->blocksize + ABSMAX_PADDING; }
static int64_t maxima_bytes(const blockwise_4bit *w) { return round_up(sizeof(float) * 4 * spacing_of(w), 64); }

/* Bytes that a thread works in: maxima of two pairs of rows, and copies of the codes of one, or a row of W in float32;
   nothing for a W that is met as it is stored. */
static int64_t scratch_bytes(const linear_part *part, enum dtype dtype)
{
    const int64_t k = columns_of(part);
    if (method_of(part, dtype) == PAIRS)
        return bf16_rows_bytes(part->w);
    if (!part->w)
        return 0;
    return maxima_bytes(part->w) + round_up(max_i64(sizeof(float) * k, k + 2 * CODES_PADDING), 64);
}

/* Rows of W that are read side by side: row i of each of two stretches of them, or of one. */
typedef struct {
    range rows;
    int64_t length; /* of a stretch; the second may be one row shorter */
} stretches;

static int rows_at(const stretches *s, int64_t i)
{ return i >= s->length ? 0 : s->rows.first + s->length + i < s->rows.end ? 2 : 1; }

static int64_t row_at(const stretches *s, int64_t i, int stretch) { return s->rows.first + stretch * s->length + i; }

static void maxima_at(const blockwise_4bit *w, const stretches *s, int64_t i, float *to)
{
    const int64_t blocks = w->columns / w->blocksize;
    for (int j = 0; j < rows_at(s, i); j++)
        chosen_set()->maxima(w, row_at(s, i, j) * blocks, blocks, to + j * spacing_of(w));
}

/* The codes of a row of W, or a copy where what follows them is not ours to read. */
static const uint8_t *codes_at(const blockwise_4bit *w, int64_t row, uint8_t *copy)
{
    const int64_t bytes = w->columns / 2, end = (row + 1) * bytes;
    return end + CODES_PADDING > w->rows * bytes ? memcpy(copy, w->codes + end - bytes, bytes) : w->codes + end - bytes;
}

/* y[i, r] for the rows r of a W whose rows are whole blocks, and up to MAX_ROWS of x: the codes of a row meet x in
   registers. y float32 [m, n].

   A few rows of x meet two rows of W at a time, to be loaded once for both. They are far apart: the processor fetches
   what follows in a page, of which two readers would be in each other's way. */
static void multiply_blocks(const blockwise_4bit *w, range rows, const input *x, float *y, char *own)
{
    const instruction_set *set = chosen_set();
    const int64_t k = w->columns, count = rows.end - rows.first;
    const stretches s = {rows, x->m <= DOT_ROWS ? (count + 1) / 2 : count};
    /* Maxima are written while the rows before are multiplied: what was written a moment ago is slow to read. */
    float *maxima = (float *)own, *next = maxima + 2 * spacing_of(w);
    uint8_t *copy = (uint8_t *)own + maxima_bytes(w), *other = copy + k / 2 + CODES_PADDING;
    memset(own, 0, maxima_bytes(w)); /* `dot` reads beyond the maxima, where numbers must be finite */
    maxima_at(w, &s, 0, next);
    for (int64_t i = 0; i < s.length; i++) {
        float *const free_again = maxima;
        maxima = next;
        next = free_again;
        maxima_at(w, &s, i + 1, next);
        const int64_t row = row_at(&s, i, 0);
        const uint8_t *const codes[2] = {codes_at(w, row, copy),
                                         rows_at(&s, i) == 2 ? codes_at(w, row_at(&s, i, 1), other) : NULL};
        if (codes[1]) {
            float sums[2 * DOT_ROWS];
            const int m = (int)x->m;
            set->dot_two(codes, k, w->levels, maxima, spacing_of(w), w->blocksize, x->packed, x->stride, m, sums);
            for (int j = 0; j < m; j++) {
                y[j * w->rows + row] = sums[2 * j];
                y[j * w->rows + row_at(&s, i, 1)] = sums[2 * j + 1];
            }
            continue;
        }
        float sums[MAX_ROWS];
        set->dot(codes[0], k, w->levels, maxima, w->blocksize, x->packed, x->stride, (int)x->m, sums);
        for (int j = 0; j < x->m; j++)
            y[j * w->rows + row] = sums[j];
    }
}

/* y[i, r] = W[r] x[i] for all rows i of x, `n` outputs from one to the next; W[r] in plain order. */
static void multiply_row(const void *row, enum dtype dtype, int64_t k, const input *x, float *y, int64_t n)
{
    for (int64_t i = 0; i < x->m; i += MAX_ROWS) {
        float sums[MAX_ROWS];
        const int here = (int)min_i64(x->m - i, MAX_ROWS);
        chosen_set()->dot_plain(row, dtype, k, x->plain + i * x->stride, x->stride, here, sums);
        for (int j = 0; j < here; j++)
            y[(i + j) * n] = sums[j];
    }
}

/* The same for a row of codes in int8. */
static void multiply_int8_row(const rowwise_int8 *w, int64_t row, const input *x, float *y)
{
    const int8_t *codes = w->codes + row * w->columns;
    for (int64_t i = 0; i < x->m; i += MAX_ROWS) {
        float sums[MAX_ROWS];
        const int here = (int)min_i64(x->m - i, MAX_ROWS);
        chosen_set()->dot_int8(codes, w->scale[row] / 127, w->columns, x->plain + i * x->stride, x->stride, here, sums);
        for (int j = 0; j < here; j++)
            y[(i + j) * w->rows] = sums[j];
    }
}

/* The same for the rows of a W that is no blocks: 4 bits are decoded a row at a time. */
static void multiply_rows(const linear_part *part, range rows, const input *x, float *y, char *own)
{
    const int64_t n = rows_of(part), k = columns_of(part);
    const dense *w = part->w_dense;
    for (int64_t r = rows.first; r < rows.end; r++) {
        if (part->w_int8) {
            multiply_int8_row(part->w_int8, r, x, y + r);
            continue;
        }
        if (part->w)
            decode_weights(part->w, r * k, k, FLOAT32, own);
        const void *row = w ? (const char *)w->weights + r * k * size_of(w->dtype) : own;
        multiply_row(row, w ? w->dtype : FLOAT32, k, x, y + r, n);
    }
}

/* The adapters of the rows of an x, and the rank of the largest: numbers from one row of u to the next. */
typedef struct {
    const lora_span *spans;
    int64_t count, rank;
    lora_span all; /* where every row has the same */
} adapters;

static int64_t largest_rank(const linear_part *part)
{
    int64_t rank = part->spans ? 0 : part->rank;
    for (int64_t i = 0; i < part->span_count; i++)
        rank = max_i64(rank, part->spans[i].rank);
    return rank;
}

static void find_adapters(const linear_part *part, int64_t m, adapters *to)
{
    to->rank = largest_rank(part);
    to->all = (lora_span){0, m, part->lora_a, part->lora_b, part->rank, part->scaling};
    to->spans = part->spans ? part->spans : &to->all;
    to->count = part->spans ? part->span_count : 1;
}

/* u [m, rank] = x A^T, for each span the columns of this thread. */
static void lora_inner(const linear_part *part, const input *x, float *u)
{
    const int64_t k = columns_of(part);
    adapters of;
    find_adapters(part, x->m, &of);
    for (const lora_span *span = of.spans; span < of.spans + of.count; span++) {
        if (!span->rank)
            continue;
        const range columns = thread_range(span->rank, 1);
        const input rows = input_rows(x, span->first, span->end - span->first);
        for (int64_t j = columns.first; j < columns.end; j++)
            multiply_row(span->lora_a + j * k, FLOAT32, k, &rows, u + span->first * of.rank + j, of.rank);
    }
}

/* A thread's share of what it reads first of a part: A, and W where its beginning would be waited for. */
static void ask_for_part(const linear_part *part, enum dtype dtype)
{
    const int64_t k = columns_of(part);
    adapters of;
    find_adapters(part, 0, &of);
    for (const lora_span *span = of.spans; span < of.spans + of.count; span++) {
        if (!span->rank)
            continue;
        const range columns = thread_range(span->rank, 1);
        ask_for(span->lora_a + columns.first * k, (columns.end - columns.first) * k * (int64_t)sizeof(float));
    }
    if (method_of(part, dtype) == PAIRS)
        bf16_ask_for_rows(part->w, thread_range(rows_of(part), 2));
}

/* B of a thread's rows of W, which is read when they have met x. */
static void ask_for_lora_b(const linear_part *part)
{
    const range rows = thread_range(rows_of(part), 2);
    adapters of;
    find_adapters(part, 0, &of);
    for (const lora_span *span = of.spans; span < of.spans + of.count; span++)
        if (span->rank)
            ask_for(span->lora_b + rows.first * span->rank,
                    (rows.end - rows.first) * span->rank * (int64_t)sizeof(float));
}

/* A thread's share of u and of y without the adapter, in float32. Many rows of x go by eights, over so few rows of W
   that their codes stay in the second-level cache until all have met them. */
static void multiply(const linear_part *part, const input *x, enum dtype dtype, float *u, float *y, char *own,
                     const linear_part *next)
{
    const range rows = thread_range(rows_of(part), 2);
    lora_inner(part, x, u);
    ask_for_lora_b(part);
    if (next)
        ask_for_part(next, dtype);
    if (method_of(part, dtype) == PAIRS) {
        bf16_rows(part->w, rows, x->pairs, x->m, x->stride, y, own);
        return;
    }
    const int64_t step = x->m > MAX_ROWS ? ROWS_OF_W : rows.end - rows.first;
    for (range some = rows; some.first < rows.end; some.first = some.end) {
        some.end = min_i64(some.first + step, rows.end);
        for (int64_t i = 0; i < x->m; i += MAX_ROWS) {
            const input few = input_rows(x, i, min_i64(x->m - i, MAX_ROWS));
            if (method_of(part, dtype) == BLOCKS)
                multiply_blocks(part->w, some, &few, y + i * rows_of(part), own);
            else
                multiply_rows(part, some, &few, y + i * rows_of(part), own);
        }
    }
}

/* y += scaling u B^T for the thread's rows of W, rounded to its dtype then. */
static void add_lora_and_round(const linear_part *part, int64_t m, const float *u, float *y, enum dtype dtype)
{
    const instruction_set *set = chosen_set();
    const int64_t n = rows_of(part);
    const range rows = thread_range(n, 2);
    adapters of;
    find_adapters(part, m, &of);
    for (const lora_span *span = of.spans; span < of.spans + of.count; span++)
        for (int64_t i = span->first; i < span->end; i++) {
            float *sums = y + i * n + rows.first;
            if (span->rank)
                set->add_inner(span->lora_b + rows.first * span->rank, rows.end - rows.first, span->rank, span->scaling,
                               u + i * of.rank, sums);
            if (dtype != FLOAT32)
                set->from_f32(sums, rows.end - rows.first, dtype,
                              (char *)part->y + (i * n + rows.first) * size_of(dtype));
        }
}

/* Rows of x are prepared by one thread each. */
static void prepare(const void *x, int64_t k, enum dtype dtype, const input *to)
{
    const instruction_set *set = chosen_set();
    const range rows = thread_range(to->m, 1);
    for (int64_t i = rows.first; i < rows.end; i++) {
        const char *row = (const char *)x + i * k * size_of(dtype);
        const int64_t place = i * to->stride;
        if (to->pairs)
            bf16_arrange((const uint16_t *)row, k, to->pairs + place);
        if (to->plain)
            set->to_f32(row, dtype, k, to->plain + place);
        if (to->packed)
            set->pack_x(to->plain + place, k, to->packed + place);
    }
}

/* Where everything is in the memory that linears work in: bytes from its beginning, and from the end of what comes
   before. u and y are those of all parts, one behind another, in float32: y only where its dtype is another. */
typedef struct {
    int64_t plain_bytes, packed_bytes, pairs_bytes, u, y, own, scratch_bytes, end;
} layout;

static layout plan_memory(const linear_part *parts, int64_t count, int64_t m, enum dtype dtype, int threads)
{
    const int64_t numbers = m * round_up(columns_of(parts), chosen_set()->chunk);
    int64_t ranks = 0, rows = 0;
    layout in = {0};
    for (const linear_part *part = parts; part < parts + count; part++) {
        const enum method method = method_of(part, dtype);
        const int64_t rank = largest_rank(part);
        ranks += rank;
        rows += rows_of(part);
        in.scratch_bytes = max_i64(in.scratch_bytes, scratch_bytes(part, dtype));
        if (method == PAIRS)
            in.pairs_bytes = sizeof(uint16_t) * numbers;
        if (method == BLOCKS)
            in.packed_bytes = sizeof(float) * numbers;
        if (method != PAIRS || rank)
            in.plain_bytes = sizeof(float) * numbers;
    }
    in.u = in.plain_bytes + in.packed_bytes + in.pairs_bytes;
    in.y = round_up(in.u + sizeof(float) * m * ranks, 64);
    in.own = round_up(in.y + (dtype == FLOAT32 ? 0 : sizeof(float) * m * rows), 64);
    in.scratch_bytes += THREADS_APART;
    in.end = in.own + threads * in.scratch_bytes;
    return in;
}

/* 1 if W becomes panels: rows with spans keep the bits that each has alone, which panels would not give them. */
static int meets_panels(const linear_part *parts, int64_t m, enum dtype dtype)
{ return !parts->spans && takes_panels(m, dtype); }

int64_t weights_of(const linear_part *parts, int64_t count)
{
    int64_t weights = 0;
    for (const linear_part *part = parts; part < parts + count; part++)
        weights += rows_of(part) * columns_of(part);
    return weights;
}

int64_t linears_bytes(const linear_part *parts, int64_t count, int64_t m, enum dtype dtype, int threads)
{
    return meets_panels(parts, m, dtype) ? panel_linears_bytes(parts, count, m, threads)
                                         : plan_memory(parts, count, m, dtype, threads).end;
}

void team_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype, char *memory,
                  const linear_part *next)
{
    if (meets_panels(parts, m, dtype)) {
        team_panel_linears(parts, count, x, m, dtype, memory);
        return;
    }
    const layout in = plan_memory(parts, count, m, dtype, team_size());
    const int64_t k = columns_of(parts), stride = round_up(k, chosen_set()->chunk);
    const input own_x = {
        m,
        stride,
        in.plain_bytes ? (float *)memory : NULL,
        in.packed_bytes ? (float *)(memory + in.plain_bytes) : NULL,
        in.pairs_bytes ? (uint16_t *)(memory + in.plain_bytes + in.packed_bytes) : NULL,
    };
    prepare(x, k, dtype, &own_x);
#pragma omp barrier
    float *u = (float *)(memory + in.u), *y = (float *)(memory + in.y);
    for (const linear_part *part = parts; part < parts + count;
         u += m * largest_rank(part), y += m * rows_of(part), part++)
        multiply(part, &own_x, dtype, u, dtype == FLOAT32 ? part->y : y,
                 memory + in.own + thread_id() * in.scratch_bytes, part + 1 < parts + count ? part + 1 : next);
#pragma omp barrier /* u is complete */
    u = (float *)(memory + in.u), y = (float *)(memory + in.y);
    for (const linear_part *part = parts; part < parts + count;
         u += m * largest_rank(part), y += m * rows_of(part), part++)
        add_lora_and_round(part, m, u, dtype == FLOAT32 ? part->y : y, dtype);
#pragma omp barrier
}

int lowrank_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype, int threads)
{
    threads = useful_threads(threads, weights_of(parts, count));
    char *memory = alloc_aligned(linears_bytes(parts, count, m, dtype, threads));
    if (!memory)
        return -1;
#pragma omp parallel num_threads(threads)
    team_linears(parts, count, x, m, dtype, memory, NULL);
    free(memory);
    return 0;
}

/* y = x W^T in float32 with panels of W, for any number of rows of x; x is widened, and y rounded once.

   A block of rows of x is packed panel by panel, so that what meets a panel lies together and stays in the second level
   of the cache. A thread takes W_BLOCK rows of W at a time: their sums are near, and each panel of x meets all of them
   before the next one comes. The sums of an output depend on K alone. */

#include <string.h>

#include "panel_gemm.h"

#define X_BLOCK 126 /* rows of x at most: half of a second level of 512 kB */
#define W_BLOCK 64

/* The memory that all threads see: rows of x as they are packed, `block` of them in a panel of PANEL_COLUMNS, in the
   order of `pack_x` and in plain order, each NULL where nobody asks for it; and u of all parts. */
typedef struct {
    int64_t block;
    float *packed, *plain, *u;
} packed_x;

/* The memory of one thread. */
typedef struct {
    float *sums, *panel, *maxima;
    uint8_t *tails;
} thread_buffers;

/* Bytes from the beginning of the memory that linears work in. */
typedef struct {
    int64_t block, packed, plain, u, own, own_bytes, end;
    int64_t panel, maxima, tails; /* from the beginning of what a thread has, which is the sums */
} layout;

void decode_blocks(const blockwise_4bit *w, int64_t row, int64_t rows, int64_t k, int64_t count, const float *maxima,
                   int64_t maxima_stride, const uint8_t *next, uint8_t *tails, float *to, int64_t stride)
{
    const instruction_set *set = chosen_set();
    const int64_t chunk = set->chunk, whole = count / chunk * chunk, rest = count - whole;
    panel_source from = {
        .codes = w->codes + (row * w->columns + k) / 2,
        .next = next,
        .codes_stride = w->columns / 2,
        .maxima = maxima,
        .maxima_stride = maxima_stride,
        .levels = w->levels,
        .blocksize = w->blocksize,
    };
    set->decode_panel(&from, rows, whole, to, stride);
    if (!rest)
        return;
    for (int64_t r = 0; r < rows; r++) { /* what follows the last row is not ours to read */
        memset(tails + r * chunk / 2, 0, chunk / 2);
        memcpy(tails + r * chunk / 2, from.codes + r * from.codes_stride + whole / 2, rest / 2);
    }
    from.codes = from.next = tails;
    from.codes_stride = chunk / 2;
    from.maxima += whole / w->blocksize;
    set->decode_panel(&from, rows, chunk, to + whole, stride);
}

void decode_plain(const linear_part *part, int64_t row, int64_t rows, int64_t k, int64_t count, float *to,
                  int64_t stride)
{
    const instruction_set *set = chosen_set();
    const int64_t filled = round_up(count, set->chunk);
    for (int64_t r = row; r < row + rows; r++, to += stride) {
        const int64_t first = r * columns_of(part) + k;
        if (part->w)
            decode_weights(part->w, first, count, FLOAT32, to);
        else if (part->w_int8)
            set->decode_int8(part->w_int8->codes + first, count, part->w_int8->scale[r] / 127, FLOAT32, to);
        else
            set->to_f32((const char *)part->w_dense->weights + first * size_of(part->w_dense->dtype),
                        part->w_dense->dtype, count, to);
        memset(to + count, 0, sizeof(float) * (filled - count));
    }
}

/* sums[i, r] = W[row + r] x[i] for up to W_BLOCK rows of W and the rows [first, end) of x. */
static void multiply(const linear_part *part, int64_t row, int64_t rows, const packed_x *x, int64_t first, int64_t end,
                     const thread_buffers *own)
{
    const instruction_set *set = chosen_set();
    const int64_t k = columns_of(part), blocks = is_in_blocks(part) ? k / part->w->blocksize : 0;
    if (blocks)
        set->maxima(part->w, row * blocks, rows * blocks, own->maxima);
    for (int64_t column = 0; column < k; column += PANEL_COLUMNS) {
        const int64_t count = min_i64(PANEL_COLUMNS, k - column);
        const float *xs = (blocks ? x->packed : x->plain) + column * x->block + first * PANEL_COLUMNS;
        for (int64_t r = 0; r < rows; r += PANEL_ROWS) {
            const int64_t here = min_i64(PANEL_ROWS, rows - r);
            if (blocks) {
                const int64_t after = column + count < k ? row * k + column + count : (row + W_BLOCK) * k;
                decode_blocks(part->w, row + r, here, column, count,
                              own->maxima + r * blocks + column / part->w->blocksize, blocks,
                              part->w->codes + (after + r * k) / 2, own->tails, own->panel, PANEL_STRIDE);
            } else
                decode_plain(part, row + r, here, column, count, own->panel, PANEL_STRIDE);
            set->multiply_panel(own->panel, round_up(count, set->chunk), xs, end - first,
                                own->sums + first * W_BLOCK + r, W_BLOCK, column > 0);
        }
    }
}

/* u [m, rank] = x A^T: a thread has rows of x. */
static void lora_inner(const linear_part *part, const packed_x *x, int64_t m, float *u, const thread_buffers *own)
{
    const dense a = {part->lora_a, FLOAT32, part->rank, columns_of(part)};
    const linear_part inner = {.w_dense = &a};
    const range mine = thread_range(m, 1);
    for (int64_t row = 0; row < part->rank; row += W_BLOCK) {
        const int64_t rows = min_i64(W_BLOCK, part->rank - row);
        multiply(&inner, row, rows, x, mine.first, mine.end, own);
        for (int64_t i = mine.first; i < mine.end; i++)
            memcpy(u + i * part->rank + row, own->sums + i * W_BLOCK, sizeof(float) * rows);
    }
}

/* y [m, N], the columns of this thread, from the row y on. */
static void multiply_and_round(const linear_part *part, const packed_x *x, int64_t m, const float *u, char *y,
                               enum dtype dtype, const thread_buffers *own)
{
    const instruction_set *set = chosen_set();
    const int64_t n = rows_of(part), rank = part->rank;
    const range mine = thread_range(n, PANEL_ROWS);
    for (int64_t row = mine.first; row < mine.end; row += W_BLOCK) {
        const int64_t rows = min_i64(W_BLOCK, mine.end - row);
        multiply(part, row, rows, x, 0, m, own);
        for (int64_t i = 0; i < m; i++) {
            float *sums = own->sums + i * W_BLOCK;
            if (rank)
                set->add_inner(part->lora_b + row * rank, rows, rank, part->scaling, u + i * rank, sums);
            set->from_f32(sums, rows, dtype, y + (i * n + row) * size_of(dtype));
        }
    }
}

/* Rows of x are packed by one thread each. */
static void pack(const void *x, int64_t k, int64_t m, enum dtype dtype, const packed_x *to)
{
    const instruction_set *set = chosen_set();
    const range mine = thread_range(m, 1);
    for (int64_t i = mine.first; i < mine.end; i++)
        for (int64_t column = 0; column < k; column += PANEL_COLUMNS) {
            const int64_t count = min_i64(PANEL_COLUMNS, k - column), at = column * to->block + i * PANEL_COLUMNS;
            float row[PANEL_COLUMNS], *plain = to->plain ? to->plain + at : row;
            set->to_f32((const char *)x + (i * k + column) * size_of(dtype), dtype, count, plain);
            memset(plain + count, 0, sizeof(float) * (PANEL_COLUMNS - count));
            if (to->packed)
                set->pack_x(plain, count, to->packed + at);
        }
}

static layout plan_memory(const linear_part *parts, int64_t count, int64_t m, int threads)
{
    const int64_t k = columns_of(parts), passes = (m + X_BLOCK - 1) / X_BLOCK, block = (m + passes - 1) / passes;
    int64_t ranks = 0, maxima = 0;
    int packed = 0, plain = 0;
    for (const linear_part *part = parts; part < parts + count; part++) {
        ranks += part->rank;
        packed |= is_in_blocks(part);
        plain |= part->rank || !is_in_blocks(part);
        if (is_in_blocks(part))
            maxima = max_i64(maxima, W_BLOCK * (k / part->w->blocksize) + ABSMAX_PADDING);
    }
    const int64_t x = sizeof(float) * block * round_up(k, PANEL_COLUMNS);
    layout in = {.block = block, .plain = packed * x};
    in.u = in.plain + plain * x;
    in.own = round_up(in.u + sizeof(float) * block * ranks, 64);
    in.panel = sizeof(float) * block * W_BLOCK;
    in.maxima = in.panel + sizeof(float) * PANEL_ROWS * PANEL_STRIDE;
    in.tails = round_up(in.maxima + sizeof(float) * maxima, 64);
    in.own_bytes = round_up(in.tails + PANEL_ROWS * chosen_set()->chunk / 2, 64) + APART;
    in.end = in.own + threads * in.own_bytes;
    return in;
}

int64_t panel_linears_bytes(const linear_part *parts, int64_t count, int64_t m, int threads)
{ return plan_memory(parts, count, m, threads).end; }

void team_panel_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype,
                        char *memory)
{
    const layout in = plan_memory(parts, count, m, team_size());
    const int64_t k = columns_of(parts);
    char *mine = memory + in.own + thread_id() * in.own_bytes;
    const packed_x packed = {in.block, in.plain ? (float *)(memory + in.packed) : NULL,
                             in.u > in.plain ? (float *)(memory + in.plain) : NULL, (float *)(memory + in.u)};
    const thread_buffers own = {(float *)mine, (float *)(mine + in.panel), (float *)(mine + in.maxima),
                                (uint8_t *)(mine + in.tails)};
    memset(mine + in.panel, 0,
           in.tails - in.panel); /* rows that are not there, and maxima behind the last, are multiplied with too */
    for (int64_t first = 0; first < m; first += in.block) {
        const int64_t here = min_i64(in.block, m - first);
        pack((const char *)x + first * k * size_of(dtype), k, here, dtype, &packed);
#pragma omp barrier
        float *u = packed.u;
        for (const linear_part *part = parts; part < parts + count; u += here * part->rank, part++)
            lora_inner(part, &packed, here, u, &own);
#pragma omp barrier
        u = packed.u;
        for (const linear_part *part = parts; part < parts + count; u += here * part->rank, part++)
            multiply_and_round(part, &packed, here, u, (char *)part->y + first * rows_of(part) * size_of(dtype), dtype,
                               &own);
#pragma omp barrier
    }
}

/* dX = dY W in float32 with panels of W, for any number of rows; dY is widened, and dX rounded once.

   A thread has stripes of columns, as wide as a line of the cache in codes, and goes through all rows of W for each.
   The sums of an output depend on N alone. */

#include <string.h>

#include "panel_gemm.h"

#define DY_BLOCK 252 /* rows of dY at most, whose sums stay in the second level of the cache */

/* A product under way: what all threads see. */
typedef struct {
    linear_part part;
    const void *dy;
    void *dx;
    int64_t m, block;
    enum dtype dtype;
    int64_t panel_rows;
    int64_t maxima_of_stripe; /* of a row */
    float *packed;            /* dY in float32: [panel][block][panel_rows] */
    float *maxima;            /* [stripe][row of W][maxima_of_stripe]: those of a stripe would be a line each */
} backward;

/* The memory of one thread. */
typedef struct {
    float *sums, *panel, *row;
    uint8_t *tails;
} thread_buffers;

static void gather_maxima(const backward *b, float *row)
{
    const blockwise_4bit *w = b->part.w;
    const int64_t blocks = w->columns / w->blocksize, per = b->maxima_of_stripe;
    const range mine = thread_range(w->rows, 1);
    for (int64_t r = mine.first; r < mine.end; r++) {
        chosen_set()->maxima(w, r * blocks, blocks, row);
        for (int64_t column = 0; column < w->columns; column += STRIPE)
            memcpy(b->maxima + (column / STRIPE * w->rows + r) * per, row + column / w->blocksize, sizeof(float) * per);
    }
}

/* Rows [first, first + m) of dY, by one thread each. */
static void pack(const backward *b, int64_t first, int64_t m)
{
    const int64_t n = rows_of(&b->part);
    const range mine = thread_range(m, 1);
    for (int64_t i = mine.first; i < mine.end; i++)
        for (int64_t r = 0; r < n; r += b->panel_rows)
            chosen_set()->to_f32((const char *)b->dy + ((first + i) * n + r) * size_of(b->dtype), b->dtype,
                                 min_i64(b->panel_rows, n - r), b->packed + r * b->block + i * b->panel_rows);
}

/* sums [m, STRIPE] = dY W, columns [first, first + columns) of W. */
static void multiply(const backward *b, int64_t first, int64_t columns, int64_t m, const thread_buffers *own)
{
    const instruction_set *set = chosen_set();
    const linear_part *part = &b->part;
    const int64_t n = rows_of(part), k = columns_of(part);
    for (int64_t r = 0; r < n; r += b->panel_rows) {
        const int64_t rows = min_i64(b->panel_rows, n - r);
        for (int64_t c = 0; c < columns; c += set->chunk) {
            const int64_t count = min_i64(set->chunk, columns - c);
            if (is_in_blocks(part))
                decode_blocks(part->w, r, rows, first + c, count,
                              b->maxima + (first / STRIPE * n + r) * b->maxima_of_stripe + c / part->w->blocksize,
                              b->maxima_of_stripe, part->w->codes + ((r + b->panel_rows) * k + first + c) / 2,
                              own->tails, own->panel, set->chunk);
            else
                decode_plain(part, r, rows, first + c, count, own->panel, set->chunk);
            set->multiply_panel_backward(own->panel, rows, b->packed + r * b->block, m, own->sums + c, r > 0);
        }
    }
}

/* Rows [first, first + m) of dX, the columns of this thread. */
static void multiply_and_round(const backward *b, int64_t first, int64_t m, const thread_buffers *own)
{
    const instruction_set *set = chosen_set();
    const int64_t k = columns_of(&b->part);
    const range mine = thread_range(k, STRIPE);
    for (int64_t column = mine.first; column < mine.end; column += STRIPE) {
        const int64_t columns = min_i64(STRIPE, mine.end - column);
        multiply(b, column, columns, m, own);
        for (int64_t i = 0; i < m; i++) {
            const float *sums = own->sums + i * STRIPE;
            float plain[STRIPE];
            if (is_in_blocks(&b->part))
                set->unpack_dx(sums, columns, plain);
            set->from_f32(is_in_blocks(&b->part) ? plain : sums, columns, b->dtype,
                          (char *)b->dx + ((first + i) * k + column) * size_of(b->dtype));
        }
    }
}

static void team_linear_backward(const backward *b, char *mine, int64_t sums_bytes)
{
    float *const panel = (float *)(mine + sums_bytes);
    uint8_t *const tails = (uint8_t *)(panel + PANEL_FLOATS);
    const thread_buffers own = {(float *)mine, panel, (float *)(tails + PANEL_FLOATS / 2), tails};
    if (is_in_blocks(&b->part))
        gather_maxima(b, own.row);
    for (int64_t first = 0; first < b->m; first += b->block) {
        const int64_t here = min_i64(b->block, b->m - first);
        pack(b, first, here);
#pragma omp barrier
        multiply_and_round(b, first, here, &own);
#pragma omp barrier
    }
}

static int linear_backward(const linear_part *part, const void *dy, int64_t m, enum dtype dtype, void *dx, int threads)
{
    const int64_t n = rows_of(part), k = columns_of(part), passes = (m + DY_BLOCK - 1) / DY_BLOCK;
    const int64_t blocksize = is_in_blocks(part) ? part->w->blocksize : STRIPE;
    backward b = {
        .part = *part,
        .dy = dy,
        .dx = dx,
        .m = m,
        .block = (m + passes - 1) / passes,
        .dtype = dtype,
        .panel_rows = PANEL_FLOATS / chosen_set()->chunk,
        .maxima_of_stripe = max_i64(STRIPE / blocksize, 1),
    };
    /* A row of maxima, and what is copied beyond it; those of all rows, and what is read beyond. */
    const int64_t row_bytes = is_in_blocks(part) ? sizeof(float) * (k / blocksize + ABSMAX_PADDING) : 0;
    const int64_t maxima = round_up(k, STRIPE) / STRIPE * n * b.maxima_of_stripe + ABSMAX_PADDING;
    const int64_t sums_bytes = sizeof(float) * b.block * STRIPE;
    const int64_t panel_bytes = sizeof(float) * PANEL_FLOATS, tails_bytes = PANEL_FLOATS / 2;
    const int64_t own_bytes = round_up(sums_bytes + panel_bytes + tails_bytes + row_bytes, 64) + APART;
    const int64_t packed_bytes = round_up(sizeof(float) * b.block * round_up(n, b.panel_rows), 64);
    threads = useful_threads(threads, n * k);
    char *own = alloc_aligned(threads * own_bytes), *packed = alloc_aligned(packed_bytes),
         *gathered = alloc_aligned(row_bytes ? sizeof(float) * maxima : 0);
    const int status = own && packed && gathered ? 0 : -1;
    if (status == 0) {
        b.packed = (float *)packed;
        b.maxima = (float *)gathered;
        if (row_bytes)
            memset(b.maxima + maxima - ABSMAX_PADDING, 0, sizeof(float) * ABSMAX_PADDING);
#pragma omp parallel num_threads(threads)
        {
            memset(own + thread_id() * own_bytes, 0, own_bytes); /* also what is copied beyond a row of maxima */
            team_linear_backward(&b, own + thread_id() * own_bytes, sums_bytes);
        }
    }
    free(own);
    free(packed);
    free(gathered);
    return status;
}

int lowrank_linear_backward(const blockwise_4bit *w, const void *dy, int64_t m, enum dtype dtype, void *dx, int threads)
{ return linear_backward(&(linear_part){.w = w}, dy, m, dtype, dx, threads); }

int lowrank_linear_int8_backward(const rowwise_int8 *w, const void *dy, int64_t m, enum dtype dtype, void *dx,
                                 int threads)
{ return linear_backward(&(linear_part){.w_int8 = w}, dy, m, dtype, dx, threads); }

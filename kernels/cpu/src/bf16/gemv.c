/* y = x W^T for few rows of x by dot products of bfloat16 pairs: see dots.h.

   R rows of W meet up to eight of x along K, R M <= 16 sums in registers, and the weights are there for one chunk only.
   A row of W is read once, in 4 bits. The R rows are far apart, each the next of a stretch of its own: the processor
   fetches what follows in a page, of which two readers would be in each other's way (half of the memory's speed). */

#include "bf16/gemv.h"
#include "bf16/dots.h"

#ifdef HAS_DOTS

#define SIDE 16
#define MOST_STREAMS 4      /* rows of W that are read side by side */
#define PREFETCH_BYTES 2048 /* ahead in the codes of each of them */

BEGIN_DOTS

typedef struct {
    const uint8_t *codes[MOST_STREAMS];
    const float *maxima; /* [stream], of halves of chunks */
    int64_t maxima_stride;
    const float *levels;
} weight_rows;

void bf16_arrange(const uint16_t *x, int64_t k, uint16_t *to)
{
    uint16_t orders[2][32]; /* vectors 0 and 1, or 2 and 3, of 64 numbers: 16 numbers of each */
    for (int i = 0; i < 64; i++)
        orders[i / 32][i % 32] = i % 16 * 4 + (i / 16 ^ 1);
    const __m512i low = _mm512_loadu_si512(orders[0]), high = _mm512_loadu_si512(orders[1]);
    for (int64_t c = 0; c < k; c += CHUNK) {
        __m512i first[2], second[2]; /* of each half of a chunk: vectors 0 and 1, 2 and 3 */
        for (int half = 0; half < 2; half++) {
            const int there = c + HALF * half < k;
            const __m512i a = there ? _mm512_loadu_si512(x + c + HALF * half) : _mm512_setzero_si512();
            const __m512i b = there ? _mm512_loadu_si512(x + c + HALF * half + 32) : _mm512_setzero_si512();
            first[half] = _mm512_permutex2var_epi16(a, low, b);
            second[half] = _mm512_permutex2var_epi16(a, high, b);
        }
        _mm512_store_si512(to + c, _mm512_shuffle_i64x2(first[0], first[1], 0x44));
        _mm512_store_si512(to + c + 32, _mm512_shuffle_i64x2(first[0], first[1], 0xee));
        _mm512_store_si512(to + c + 64, _mm512_shuffle_i64x2(second[0], second[1], 0x44));
        _mm512_store_si512(to + c + 96, _mm512_shuffle_i64x2(second[0], second[1], 0xee));
    }
}

/* to[r M + i] of R rows of W and M of x. */
INLINE void dot_rows(const int R, const int M, const weight_rows *w, int64_t k, const uint16_t *x, int64_t stride,
                     float *to)
{
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const __m512i second = second_half();
    __m512 sums[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        sums[i] = _mm512_setzero_ps();
    for (int64_t c = 0; c < k; c += CHUNK) {
        const __mmask16 there = c + CHUNK <= k ? 0xffff : 0xff; /* else half a chunk is left of the row */
        __m512i words[MOST_STREAMS], tables[MOST_STREAMS];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const float *maxima = w->maxima + r * w->maxima_stride + c / HALF;
            words[r] = _mm512_maskz_loadu_epi32(there, w->codes[r] + c / 2);
            tables[r] = two_tables(levels, maxima[0], maxima[1]);
            _mm_prefetch((const char *)w->codes[r] + c / 2 + PREFETCH_BYTES, _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++) {
            __m512i xs[MAX_ROWS];
#pragma GCC unroll 8
            for (int i = 0; i < M; i++)
                xs[i] = _mm512_load_si512(x + i * stride + c + 32 * s);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const __m512i weights = look_up(words[r], s, second, tables[r]);
#pragma GCC unroll 8
                for (int i = 0; i < M; i++)
                    sums[r * M + i] = dot_pairs(sums[r * M + i], weights, xs[i]);
            }
        }
    }
    if (R * M <= 2)
        for (int i = 0; i < R * M; i++)
            to[i] = _mm512_reduce_add_ps(sums[i]);
    else
        _mm512_storeu_ps(to, sums_of_16(sums));
}

typedef void row_kernel(const weight_rows *w, int64_t k, const uint16_t *x, int64_t stride, float *to);
#define KERNEL(R, M)                                                                                                   \
    NOINLINE void dot_##R##_##M(const weight_rows *w, int64_t k, const uint16_t *x, int64_t stride, float *to)         \
    { dot_rows(R, M, w, k, x, stride, to); }
KERNEL(2, 1)
KERNEL(4, 2)
KERNEL(4, 3)
KERNEL(4, 4)
KERNEL(2, 5)
KERNEL(2, 6)
KERNEL(2, 7)
KERNEL(2, 8)

/* By rows of x less one. */
static const struct {
    int streams;
    row_kernel *run;
} kernels[MAX_ROWS] = {{2, dot_2_1}, {4, dot_4_2}, {4, dot_4_3}, {4, dot_4_4},
                       {2, dot_2_5}, {2, dot_2_6}, {2, dot_2_7}, {2, dot_2_8}};

/* Floats from the maxima of one row to those of the next: `chosen_set()->maxima` and the last half need a few more. */
static int64_t maxima_stride(const blockwise_4bit *w) { return round_up(w->columns / HALF + 1, ABSMAX_PADDING); }

int64_t bf16_rows_bytes(const blockwise_4bit *w)
{ return round_up(2 * MOST_STREAMS * maxima_stride(w) * (int64_t)sizeof(float), 64); }

/* Row i of each of the stretches of `rows`; a row that is behind the end is that of the first stretch once more. */
static int64_t row_at(range rows, int64_t length, int64_t i, int stretch)
{
    const int64_t row = rows.first + stretch * length + i;
    return row < rows.end ? row : rows.first + i;
}

/* The sums of rows [i, i + count) of each stretch, [16][stretch][row of x], to y [m, n]: rows of y are long, and often
   a power of two apart, so a number alone at each of them would cost a cache line. */
static void store_block(float sums[SIDE][SIDE], range rows, int64_t length, int streams, int64_t i, int64_t count,
                        int m, float *y, int64_t n)
{
    __m512i v[SIDE];
    for (int j = 0; j < SIDE; j++)
        v[j] = _mm512_load_si512(sums[j]);
    transpose_words(v);
    for (int r = 0; r < streams; r++) {
        const int64_t row = rows.first + r * length + i;
        const __mmask16 here = lanes_below(min_i64(count, rows.end - row));
        for (int j = 0; j < m; j++)
            _mm512_mask_storeu_epi32(y + j * n + row, here, v[r * m + j]);
    }
}

/* All of that for M <= MAX_ROWS rows of x. */
static void multiply(const blockwise_4bit *w, range rows, const uint16_t *x, int m, int64_t stride, float *y, char *own)
{
    const int streams = kernels[m - 1].streams;
    const int64_t k = w->columns, chunks = round_up(k, CHUNK) / CHUNK;
    const int64_t length = round_up(rows.end - rows.first, streams) / streams;
    weight_rows now = {.maxima_stride = maxima_stride(w), .levels = w->levels};
    float sums[SIDE][SIDE] __attribute__((aligned(64))) = {{0}};
    /* Maxima are written while the rows before are multiplied: what was written a moment ago is slow to read. */
    float *maxima = (float *)own, *next = maxima + MOST_STREAMS * now.maxima_stride;
    for (int64_t i = -1; i < length; i++) {
        for (int r = 0; r < streams && i + 1 < length; r++)
            maxima_of_row(w, row_at(rows, length, i + 1, r), 0, chunks, next + r * now.maxima_stride);
        if (i >= 0) {
            now.maxima = maxima;
            for (int r = 0; r < streams; r++)
                now.codes[r] = w->codes + row_at(rows, length, i, r) * (k / 2);
            kernels[m - 1].run(&now, k, x, stride, sums[i % SIDE]);
            if (i % SIDE == SIDE - 1 || i == length - 1)
                store_block(sums, rows, length, streams, i / SIDE * SIDE, i % SIDE + 1, m, y, w->rows);
        }
        float *const free_again = maxima;
        maxima = next;
        next = free_again;
    }
}

void bf16_rows(const blockwise_4bit *w, range rows, const uint16_t *x, int64_t m, int64_t stride, float *y, char *own)
{
    for (int64_t i = 0; i < m; i += MAX_ROWS)
        multiply(w, rows, x + i * stride, (int)min_i64(m - i, MAX_ROWS), stride, y + i * w->rows, own);
}

END_DOTS

#else

int64_t bf16_rows_bytes(const blockwise_4bit *w) { return (void)w, 0; }
void bf16_arrange(const uint16_t *x, int64_t k, uint16_t *to) { (void)x, (void)k, (void)to; }
void bf16_rows(const blockwise_4bit *w, range rows, const uint16_t *x, int64_t m, int64_t stride, float *y, char *own)
{ (void)w, (void)rows, (void)x, (void)m, (void)stride, (void)y, (void)own; }

#endif

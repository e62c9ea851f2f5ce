/* dX = dY W by dot products of bfloat16 pairs: see dots.h.

   Pairs of rows of W, 64 columns of 192 rows, are decoded into a panel in the first-level cache: vector s of a pair has
   both rows' weights of the columns 4 j + (s ^ 1). A pair of numbers of dY is two words that lie side by side, and is
   broadcast from where it lies; 24 sums are in registers, of 6 rows of dY and 4 vectors of columns.

   Columns go by 128: a cache line of codes has one reader, and is read for its second half while it is near. */

#include "bf16/dots.h"
#include "bf16/transposed_absmax.h"

#ifdef HAS_DOTS

#define SIDE 16
#define PAIRS 96                 /* of rows of W in a panel, 24 kB */
#define DEPTH (2 * PAIRS)        /* rows of W in a panel */
#define PANEL (PAIRS * 2 * HALF) /* words */
#define GROUP 6                  /* rows of dY whose sums are in registers */
#define MOST_ROWS 384            /* of dY that meet a panel: their sums stay in the second-level cache */

BEGIN_DOTS

/* A product under way: what all threads see. */
typedef struct {
    const blockwise_4bit *w;
    const uint16_t *dy;
    uint16_t *dx;
    int64_t m, most;  /* rows of dY, and of a pass over W */
    int64_t panels;   /* of rows of W */
    int64_t stride;   /* of maxima: rows of W in whole panels */
    float *maxima;    /* [block of a row][row of W], zero behind the last row */
    uint16_t *packed; /* dY: [panel][row][row of W] */
} backward;

/* Rows of dY, cut as panels are, so that they are not a large power of two apart; by the whole team. */
static void pack_dy(const backward *b)
{
    const int64_t n = b->w->rows;
    const range mine = thread_range(b->panels * b->m, 1);
    for (int64_t i = mine.first; i < mine.end; i++) {
        const int64_t first = i / b->m * DEPTH, here = min_i64(DEPTH, n - first);
        uint16_t *to = b->packed + i * DEPTH;
        memcpy(to, b->dy + i % b->m * n + first, here * sizeof *to);
        memset(to + here, 0, (DEPTH - here) * sizeof *to);
    }
}

/* 64 columns of `pairs` pairs of rows of W from row `first` on; `rows` of them are there. */
NOINLINE void decode_panel(const backward *b, int64_t column, int64_t first, int64_t pairs, uint16_t *to)
{
    const blockwise_4bit *w = b->w;
    uint16_t turns[32];
    for (int i = 0; i < 32; i++)
        turns[i] = i / 2 + i % 2 * 16;
    const __m512i in_turn = _mm512_loadu_si512(turns), second = _mm512_set1_epi32(16 << 16);
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const int64_t bytes = w->columns / 2;
    const uint8_t *codes = w->codes + first * bytes + column / 2;
    const float *maxima = b->maxima + column / w->blocksize * b->stride + first;
    for (int64_t p = 0; p < pairs; p++, codes += 2 * bytes, maxima += 2, to += 2 * HALF) {
        const int both = first + 2 * p + 1 < w->rows; /* or there is only one row left */
        const __m256i one = _mm256_loadu_si256((const __m256i *)codes);
        const __m256i other = both ? _mm256_loadu_si256((const __m256i *)(codes + bytes)) : _mm256_setzero_si256();
        const __m512i words =
            _mm512_permutexvar_epi16(in_turn, _mm512_inserti64x4(_mm512_castsi256_si512(one), other, 1));
        const __m512i tables = two_tables(levels, maxima[0], maxima[1]);
        _mm_prefetch((const char *)codes + DEPTH * bytes, _MM_HINT_T1);
        _mm_prefetch((const char *)codes + (DEPTH + 1) * bytes, _MM_HINT_T1);
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++)
            _mm512_store_si512(to + 32 * s, look_up(words, s, second, tables));
    }
}

/* c[M][4] += dY panel over `pairs` pairs of rows of W, and nothing before it unless `onto`. */
INLINE void multiply(const int M, const uint16_t *panel, const uint16_t *dy, int64_t pairs, int onto, float *c,
                     int64_t c_stride)
{
    const __mmask16 before = onto ? 0xffff : 0;
    __m512 sums[4 * GROUP];
#pragma GCC unroll 6
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++)
            sums[4 * i + s] = _mm512_maskz_loadu_ps(before, c + i * c_stride + 16 * s);
    for (int64_t p = 0; p < pairs; p++) {
        __m512i weights[4];
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++)
            weights[s] = _mm512_load_si512(panel + 2 * HALF * p + 32 * s);
#pragma GCC unroll 6
        for (int i = 0; i < M; i++) {
            const __m512i pair = two_words(dy + i * DEPTH + 2 * p);
#pragma GCC unroll 4
            for (int s = 0; s < 4; s++)
                sums[4 * i + s] = dot_pairs(sums[4 * i + s], weights[s], pair);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++)
            _mm512_storeu_ps(c + i * c_stride + 16 * s, sums[4 * i + s]);
}

typedef void kernel(const uint16_t *panel, const uint16_t *dy, int64_t pairs, int onto, float *c, int64_t c_stride);
#define KERNEL(M)                                                                                                      \
    NOINLINE void multiply_##M(const uint16_t *panel, const uint16_t *dy, int64_t pairs, int onto, float *c,           \
                               int64_t c_stride)                                                                       \
    { multiply(M, panel, dy, pairs, onto, c, c_stride); }
KERNEL(1)
KERNEL(2)
KERNEL(3)
KERNEL(4)
KERNEL(5)
KERNEL(6)

static kernel *const kernels[GROUP] = {multiply_1, multiply_2, multiply_3, multiply_4, multiply_5, multiply_6};

/* Sums of 64 columns to rows of dX, in the order of the columns. */
static void store_dx(const float *c, int64_t m, int64_t c_stride, int64_t k, uint16_t *dx)
{
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_or_si512(low, _mm512_set1_epi32(8));
    for (int64_t i = 0; i < m; i++, c += c_stride, dx += k) {
        __m512i pairs[2]; /* columns 4 j and 4 j + 1, or 4 j + 2 and 4 j + 3 */
        for (int half = 0; half < 2; half++) {
            const __m512i even =
                _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(c + 32 * half + 16)));
            const __m512i odd = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(c + 32 * half)));
            pairs[half] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
        }
        _mm512_storeu_si512(dx, _mm512_permutex2var_epi32(pairs[0], low, pairs[1]));
        _mm512_storeu_si512(dx + 32, _mm512_permutex2var_epi32(pairs[0], high, pairs[1]));
    }
}

/* This thread's columns of `count` rows of dX from `row` on. */
static void multiply_rows(const backward *b, int64_t row, int64_t count, uint16_t *panel, float *sums)
{
    const int64_t k = b->w->columns;
    const range mine = thread_range(k, 2 * HALF);
    for (int64_t line = mine.first; line < mine.end; line += 2 * HALF) {
        const int64_t columns = min_i64(2 * HALF, mine.end - line);
        for (int64_t i = 0; i < b->panels; i++) {
            const int64_t pairs = (min_i64(DEPTH, b->w->rows - i * DEPTH) + 1) / 2;
            const uint16_t *dy = b->packed + (i * b->m + row) * DEPTH;
            for (int64_t half = 0; half < columns; half += HALF) {
                decode_panel(b, line + half, i * DEPTH, pairs, panel);
                for (int64_t j = 0, here; j < count; j += here) {
                    const int64_t left = count - j; /* the last two groups are of much the same length */
                    here = left >= 2 * GROUP || left == GROUP ? GROUP : left > GROUP ? (left + 1) / 2 : left;
                    kernels[here - 1](panel, dy + j * DEPTH, pairs, i > 0, sums + j * 2 * HALF + half, 2 * HALF);
                }
            }
        }
        for (int64_t half = 0; half < columns; half += HALF)
            store_dx(sums + half, count, 2 * HALF, k, b->dx + row * k + line + half);
    }
}

int lowrank_linear_bf16_backward(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    backward b = {.w = w, .dy = dy, .dx = dx, .m = m, .panels = round_up(w->rows, DEPTH) / DEPTH};
    const int64_t passes = round_up(m, MOST_ROWS) / MOST_ROWS;
    b.most = round_up((m + passes - 1) / passes, GROUP);
    b.stride = round_up(w->rows, SIDE);
    threads = useful_threads(threads, w->rows * w->columns);
    const int64_t of_panel = PANEL * (int64_t)sizeof(uint16_t);
    const int64_t of_thread = of_panel + b.most * 2 * HALF * (int64_t)sizeof(float) + THREADS_APART;
    char *memory = alloc_aligned(threads * of_thread);
    b.maxima = alloc_aligned(w->columns / w->blocksize * b.stride * (int64_t)sizeof(float));
    b.packed = alloc_aligned(b.panels * m * DEPTH * (int64_t)sizeof(uint16_t));
    const int enough = memory && b.maxima && b.packed;
    if (enough)
#pragma omp parallel num_threads(threads)
    {
        char *mine = memory + thread_id() * of_thread;
        pack_dy(&b);
        transpose_absmax(b.w, b.stride, b.maxima);
#pragma omp barrier
        for (int64_t row = 0; row < m; row += b.most)
            multiply_rows(&b, row, min_i64(b.most, m - row), (uint16_t *)mine, (float *)(mine + of_panel));
    }
    free(memory);
    free(b.maxima);
    free(b.packed);
    return enough ? 0 : -1;
}

END_DOTS

#else

int lowrank_linear_bf16_backward(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    (void)w, (void)dy, (void)m, (void)dx, (void)threads;
    return -1;
}

#endif

/* dX = dY W by the matrix unit: see tiles.h. */

#include "bf16/transposed_absmax.h"
#include "tiles.h"

#ifdef HAS_TILES

#define STEPS 8 /* of 32 rows that are decoded before they are multiplied: 32 kB, as in gemm.c */
#define PANEL (4 * STEPS * TILE)
#define X_TILES 32 /* tiles of rows of dY that meet a panel when it is decoded */

/* A product under way: what all threads see. */
typedef struct {
    const blockwise_4bit *w;
    const uint16_t *dy;
    uint16_t *dx;
    int64_t m, tiles;        /* rows of dY, and tiles of them, an even number */
    int64_t steps, resident; /* of 32 rows of W, and how many of them of the packed dY stay near */
    int64_t groups; /* of 128 columns of W, whose sums are kept till the next steps come near; 0 if all are near */
    int64_t stride; /* of maxima: rows of W in whole steps */
    float *maxima;  /* [block of a row][row of W], zero behind the last row */
    char *packed;   /* AT_ONCE tiles of dY: [panel][tile][step of the panel] */
    float *sums;    /* [group, or thread][half of a cache line][s][tile of dY] */
} backward;

/* Steps [step, step + count) of 32 numbers of a tile of rows of dY [m, n] as A, rows as they are. */
static void pack_dy(const uint16_t *dy, int64_t m, int64_t n, int64_t tile, int64_t step, int64_t count, char *to)
{
    for (int64_t i = 0; i < SIDE; i++)
        for (int64_t j = 0; j < count; j++) {
            const int64_t row = tile * SIDE + i, column = 32 * (step + j), left = row < m ? n - column : 0;
            const __mmask32 here = left >= 32 ? 0xffffffff : (1u << left) - 1;
            _mm512_store_si512(to + j * TILE + i * 64, _mm512_maskz_loadu_epi16(here, dy + row * n + column));
        }
}

/* `count` tiles of rows of dY from tile `first` on, by the whole team. */
static void pack_block(const backward *b, int64_t first, int64_t count)
{
    const int64_t panels = round_up(b->steps, STEPS) / STEPS;
    const range mine = thread_range(count * panels, 1);
    for (int64_t i = mine.first; i < mine.end; i++) {
        const int64_t tile = i / panels, step = i % panels * STEPS, steps = min_i64(STEPS, b->steps - step);
        pack_dy(b->dy, b->m, b->w->rows, first + tile, step, steps, b->packed + (step * count + tile * steps) * TILE);
    }
}

INLINE __m256i codes_of_half(const blockwise_4bit *w, int64_t row, int64_t column)
{
    const uint8_t *codes = w->codes + (row * w->columns + column) / 2;
    return row < w->rows ? _mm256_loadu_si256((const __m256i *)codes) : _mm256_setzero_si256();
}

/* 64 columns of rows [first, first + 32 steps) of W, as B: [s][step], pair r of a step being rows 2 r and 2 r + 1, and
   column j being column 4 j + (s ^ 1) of the 64. From `next` on are codes that are wanted soon: of every second row. */
NOINLINE void panel_of_columns(const blockwise_4bit *w, int64_t column, int64_t first, int64_t steps,
                               const float *maxima, const uint8_t *next, char *to)
{
    const __m512i second = _mm512_set1_epi32(16 << 16);
    const __m512 levels = _mm512_loadu_ps(w->levels);
    uint16_t turns[32];
    for (int i = 0; i < 32; i++)
        turns[i] = i / 2 + i % 2 * 16;
    const __m512i in_turn = _mm512_loadu_si512(turns);
    for (int64_t pair = 0; pair < 16 * steps; pair++) {
        const int64_t row = first + 2 * pair;
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(codes_of_half(w, row, column)),
                                                codes_of_half(w, row + 1, column), 1);
        _mm_prefetch((const char *)next + pair * w->columns, _MM_HINT_T1);
        lookup_tiles(_mm512_permutexvar_epi16(in_turn, both), second, two_tables(levels, maxima[row], maxima[row + 1]),
                     to + pair / SIDE * TILE + pair % SIDE * 64, STEPS * TILE);
    }
}

/* C[4][count] += dY W of a panel of `steps` steps, and nothing before it where it is the first. */
NOINLINE void multiply_panel(const char *panel, const char *dy, int64_t count, int64_t steps, int onto, float *c)
{
    for (int64_t s = 0; s < 4; s += 2)
        for (int64_t i = 0; i < count; i += 2)
            multiply_tiles(2, onto, dy + i * steps * TILE, steps * TILE, panel + s * STEPS * TILE, STEPS * TILE, steps,
                           c + (s * count + i) * FLOATS, FLOATS, count * FLOATS);
}

/* Rows of C to rows of dX, in the order of the columns of W: dX[i, column] for the tiles [s][tile of m]. */
static void store_dx(const float *c, int64_t m_tiles, int64_t rows_of_dx, int64_t k, uint16_t *dx)
{
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_or_si512(low, _mm512_set1_epi32(8));
    const int64_t next = m_tiles * FLOATS;
    for (int64_t i = 0; i < min_i64(rows_of_dx, m_tiles * SIDE); i++, c += SIDE, dx += k) {
        const __m512i first = rounded_pairs(_mm512_load_ps(c + next), _mm512_load_ps(c));
        const __m512i second = rounded_pairs(_mm512_load_ps(c + 3 * next), _mm512_load_ps(c + 2 * next));
        _mm512_storeu_si512(dx, _mm512_permutex2var_epi32(first, low, second));
        _mm512_storeu_si512(dx + 32, _mm512_permutex2var_epi32(first, high, second));
    }
}

/* Steps [first, end) of this thread's columns of W, times `count` tiles of rows of dY from `tile` on, which are packed.
   Columns go by 128: a cache line of codes has one reader, and is read for its second half when its first has been. */
static void multiply_near(const backward *b, char *panel, int64_t tile, int64_t count, int64_t first, int64_t end)
{
    const blockwise_4bit *w = b->w;
    const int64_t k = w->columns, a_half = 4 * count * FLOATS, a_group = 8 * min_i64(X_TILES, b->tiles) * FLOATS;
    const range mine = thread_range(k, 2 * HALF);
    for (int64_t line = mine.first; line < mine.end; line += 2 * HALF) {
        const int64_t after = min_i64(line + 2 * HALF, k);
        float *sums = b->sums + (b->groups ? line / (2 * HALF) : thread_id()) * a_group;
        for (int64_t step = first; step < end; step += STEPS) {
            const int64_t steps = min_i64(STEPS, end - step), last = step + STEPS >= end;
            const uint8_t *next = w->codes + (last ? 32 * first * k + after : 32 * (step + STEPS) * k + line) / 2;
            float *c = sums;
            for (int64_t column = line; column < after; column += HALF, c += a_half, next += k / 2) {
                const float *maxima = b->maxima + column / w->blocksize * b->stride;
                panel_of_columns(w, column, 32 * step, steps, maxima, next, panel);
                multiply_panel(panel, b->packed + step * count * TILE, count, steps, step > 0, c);
            }
        }
        if (end == b->steps)
            for (int64_t column = line; column < after; column += HALF, sums += a_half)
                store_dx(sums, count, b->m - tile * SIDE, k, b->dx + tile * SIDE * k + column);
    }
}

int lowrank_linear_amx_backward(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    backward b = {.w = w, .dy = dy, .dx = dx, .m = m, .tiles = round_up(m, 2 * SIDE) / SIDE};
    const int64_t most = min_i64(X_TILES, b.tiles);
    b.steps = round_up(w->rows, 32) / 32;
    b.resident = stretch(round_up(b.steps, STEPS) / STEPS, RESIDENT_BYTES / (most * STEPS * TILE)) * STEPS;
    b.groups = b.resident < b.steps ? round_up(w->columns, 2 * HALF) / (2 * HALF) : 0;
    b.stride = 32 * b.steps;
    threads = useful_threads(threads, w->rows * w->columns);
    char *panels = alloc_aligned(threads * PANEL);
    b.maxima = alloc_aligned(w->columns / w->blocksize * b.stride * sizeof(float));
    b.packed = alloc_aligned(most * b.steps * TILE);
    b.sums = alloc_aligned((b.groups ? b.groups : threads) * 8 * most * TILE);
    const int enough = panels && b.maxima && b.packed && b.sums;
    if (enough)
#pragma omp parallel num_threads(threads)
    {
        transpose_absmax(b.w, b.stride, b.maxima);
        configure_tiles();
        for (int64_t tile = 0; tile < b.tiles; tile += X_TILES) {
            const int64_t count = min_i64(X_TILES, b.tiles - tile);
            pack_block(&b, tile, count);
#pragma omp barrier
            for (int64_t first = 0; first < b.steps; first += b.resident)
                multiply_near(&b, panels + thread_id() * PANEL, tile, count, first,
                              min_i64(first + b.resident, b.steps));
#pragma omp barrier
        }
        _tile_release();
    }
    free(panels);
    free(b.maxima);
    free(b.packed);
    free(b.sums);
    return enough ? 0 : -1;
}

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

int lowrank_linear_amx_backward(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    (void)w, (void)dy, (void)m, (void)dx, (void)threads;
    return -1;
}

#endif

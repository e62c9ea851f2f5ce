/* dX = dY W by the matrix unit: see tiles.h. */

#include "tiles.h"

#ifdef HAS_TILES

#define HALF 64           /* weights of a row that become half a row of four tiles, beside the next row of W */
#ifndef STEPS
#define STEPS 8           /* of 32 rows that are decoded before they are multiplied */
#endif
#define PANEL (4 * STEPS * TILE)

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

/* The maxima of all blocks by the whole team, [block of a row][row of W], `stride` from one to the next. */
static void maxima_of_columns(const blockwise_4bit *w, float *to, int64_t stride)
{
    const int64_t blocks = w->columns / w->blocksize;
    const range mine = share(w->rows, SIDE);
    float of_rows[SIDE][64];
    for (int64_t row = mine.first; row < mine.end; row += SIDE)
        for (int64_t block = 0; block < blocks; block += 64) {
            const int64_t count = least(64, blocks - block);
            for (int64_t r = 0; r < least(SIDE, w->rows - row); r++)
                chosen_set()->maxima(w, (row + r) * blocks + block, count, of_rows[r]);
            for (int64_t part = 0; part < count; part += SIDE) {
                __m512i turned[SIDE];
                for (int r = 0; r < SIDE; r++)
                    turned[r] = _mm512_loadu_si512(of_rows[r] + part);
                turn_words(turned);
                for (int64_t i = 0; i < least(SIDE, count - part); i++)
                    _mm512_storeu_si512(to + (block + part + i) * stride + row, turned[i]);
            }
        }
}

/* 64 columns of rows [first, first + 32 steps) of W, as B: [s][step], pair r of a step being rows 2 r and 2 r + 1, and
   column j being column 4 j + (s ^ 1) of the 64. `next` is where the codes begin that are wanted after these. */
static void panel_of_columns(const blockwise_4bit *w, int64_t column, int64_t first, int64_t steps, const float *maxima,
                             const uint8_t *next, char *to)
{
    const __m512i nibble = _mm512_set1_epi16(15), upper = _mm512_set1_epi32(16 << 16);
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const int64_t bytes = w->columns / 2;
    uint16_t turns[32];
    for (int i = 0; i < 32; i++)
        turns[i] = i / 2 + i % 2 * 16;
    const __m512i in_turn = _mm512_loadu_si512(turns);
    for (int64_t pair = 0; pair < 16 * steps; pair++) {
        char *place = to + pair / SIDE * TILE + pair % SIDE * 64;
        const int64_t row = first + 2 * pair;
        __m256i a = _mm256_setzero_si256(), b = a;
        float largest[2] = {0, 0};
        if (row < w->rows) {
            a = _mm256_loadu_si256((const __m256i *)(w->codes + row * bytes + column / 2));
            largest[0] = maxima[row];
            if (next)_mm_prefetch((const char *)next + 2 * pair * bytes, _MM_HINT_T1);
        }
        if (row + 1 < w->rows) {
            b = _mm256_loadu_si256((const __m256i *)(w->codes + (row + 1) * bytes + column / 2));
            largest[1] = maxima[row + 1];
            if (next)_mm_prefetch((const char *)next + (2 * pair + 1) * bytes, _MM_HINT_T1);
        }
        const __m512i table = (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(levels, _mm512_set1_ps(largest[1])),
                                                           _mm512_mul_ps(levels, _mm512_set1_ps(largest[0])));
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
        const __m512i words = _mm512_permutexvar_epi16(in_turn, both);
        for (int s = 0; s < 4; s++, place += STEPS * TILE) { /* (words >> 4 s & 15) | upper: an index into two tables */
            const __m512i shifted = s ? _mm512_srli_epi16(words, 4 * s) : words;
            const __m512i index = _mm512_ternarylogic_epi32(shifted, nibble, upper, 0xea);
            _mm512_store_si512(place, _mm512_permutexvar_epi16(index, table));
        }
    }
}

/* Rows of C to rows of dX, in the order of the columns of W: dX[i, column] for the tiles [s][tile of m]. */
static void store_dx(const float *c, int64_t m_tiles, int64_t rows_of_dx, int64_t k, uint16_t *dx)
{
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_or_si512(low, _mm512_set1_epi32(8));
    const int64_t next = m_tiles * FLOATS;
    for (int64_t i = 0; i < least(rows_of_dx, m_tiles * SIDE); i++, c += SIDE, dx += k) {
        const __m512i first = rounded_pairs(_mm512_load_ps(c + next), _mm512_load_ps(c));
        const __m512i second = rounded_pairs(_mm512_load_ps(c + 3 * next), _mm512_load_ps(c + 2 * next));
        _mm512_storeu_si512(dx, _mm512_permutex2var_epi32(first, low, second));
        _mm512_storeu_si512(dx + 32, _mm512_permutex2var_epi32(first, high, second));
    }
}

int lowrank_linear_dx_tiles(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    const int64_t n = w->rows, k = w->columns, steps = up_to(n, 32) / 32, panels = up_to(steps, STEPS) / STEPS;
    const int64_t m_tiles = up_to(m, 2 * SIDE) / SIDE, most = least(AT_ONCE, m_tiles);
    const int64_t near = stretch(panels, NEAR / (most * STEPS * TILE)) * STEPS, stride = up_to(n, SIDE);
    const int64_t groups = near < steps ? up_to(k, 2 * HALF) / (2 * HALF) : 0;
    threads = useful_threads(threads, n * k);
    char *packed = buffer(m_tiles * steps * TILE), *decoded = buffer(threads * PANEL);
    float *sums = buffer((groups + threads) * 8 * most * TILE), *maxima = buffer(k / w->blocksize * stride * sizeof(float));
    if (packed && decoded && sums && maxima)
#pragma omp parallel num_threads(threads)
    {
        char *panel = decoded + member() * PANEL;
        const range parts = share(m_tiles * panels, 1), mine = share(k, 2 * HALF); /* a cache line of codes has one reader */
        for (int64_t i = parts.first; i < parts.end; i++) { /* [block][panel][tile][step] */
            const int64_t tile = i / panels, step = i % panels * STEPS, block = tile / AT_ONCE * AT_ONCE;
            const int64_t count = least(STEPS, steps - step), here = least(AT_ONCE, m_tiles - block);
            pack_dy(dy, m, n, tile, step, count, packed + (block * steps + step * here + (tile - block) * count) * TILE);
        }
        maxima_of_columns(w, maxima, stride);
        whole_tiles();
#pragma omp barrier
        for (int64_t block = 0; block < m_tiles; block += AT_ONCE) {
            const int64_t here = least(AT_ONCE, m_tiles - block);
            for (int64_t first = 0; first < steps; first += near)
                for (int64_t two = mine.first; two < mine.end; two += 2 * HALF) {
                    const int64_t end = least(first + near, steps), after = least(two + 2 * HALF, mine.end);
                    float *c = sums + (groups ? two / (2 * HALF) : member()) * 8 * most * FLOATS;
                    for (int64_t step = first; step < end; step += STEPS)
                        for (int64_t column = two; column < after; column += HALF) {
                            const int64_t count = least(STEPS, end - step);
                            const char *a = packed + (block * steps + step * here) * TILE;
                            const uint8_t *next = column == two ? w->codes + (step + count < end ? 32 * (step + count) * k + two : 32*first*k+ two+2*HALF) / 2 : 0;
                            if (!(step + count < end) && after == mine.end) next = 0;
                            if (next && (step+2*count)*32 > n) next = 0;
                            panel_of_columns(w, column, 32 * step, count, maxima + column / w->blocksize * stride, next, panel);
                            float *here_c = c + (column - two) / HALF * 4 * here * FLOATS;
#if ORDER == 0
                            for (int s = 0; s < 4; s += 2)
                                for (int64_t i = 0; i < here; i += 2)
#else
                                for (int64_t i = 0; i < here; i += 2)
                            for (int s = 0; s < 4; s += 2)
#endif
                                    multiply_tiles(2, step > 0, a + i * count * TILE, count * TILE,
                                                   panel + s * STEPS * TILE, STEPS * TILE, count,
                                                   here_c + (s * here + i) * FLOATS, FLOATS, here * FLOATS);
                        }
                    if (end == steps)
                        for (int64_t column = two; column < after; column += HALF)
                            store_dx(c + (column - two) / HALF * 4 * here * FLOATS, here, m - block * SIDE, k,
                                     dx + block * SIDE * k + column);
                }
        }
        _tile_release();
    }
    const int status = packed && decoded && sums && maxima ? 0 : -1;
    free(packed);
    free(decoded);
    free(sums);
    free(maxima);
    return status;
}

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

int lowrank_linear_dx_tiles(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    (void)w, (void)dy, (void)m, (void)dx, (void)threads;
    return -1;
}

#endif

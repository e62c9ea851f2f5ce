/* dX = dY W by the matrix unit: see tiles.h. */

#include "tiles.h"

#ifdef HAS_TILES

#define HALF 64           /* weights of a row that become half a row of four tiles, beside the next row of W */
#define STEPS 4           /* of 32 rows that are decoded before they are multiplied, likewise */
#define AHEAD 16          /* rows of W that are fetched before they are looked up */

/* Tiles of rows of dY [m, n] as A: [tile][32 of n], rows as they are. */
static void pack_dy(const uint16_t *dy, int64_t m, int64_t n, int64_t tile, char *to)
{
    const int64_t steps = up_to(n, 32) / 32;
    for (int64_t i = tile * SIDE; i < (tile + 1) * SIDE; i++)
        for (int64_t step = 0; step < steps; step++) {
            char *row = to + step * TILE + i % SIDE * 64;
            memset(row, 0, 64);
            if (i < m)
                memcpy(row, dy + i * n + 32 * step, 2 * least(32, n - 32 * step));
        }
}

/* 64 columns of rows [first, first + 32 steps) of W, as B: [s][step], pair r of a step being rows
   2 r and 2 r + 1, and column 8 h + 4 l + j being column 32 l + 16 h + 4 j + (s ^ 1) of the 64. */
static void panel_of_columns(const blockwise_4bit *w, int64_t column, int64_t first, int64_t steps, const float *maxima,
                             char *to)
{
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const int64_t blocks = w->columns / w->blocksize;
    maxima += column / w->blocksize;
    for (int64_t pair = 0; pair < 16 * steps; pair++) {
        __m256i found[2][4];
        for (int j = 0; j < 2; j++) {
            const int64_t row = first + 2 * pair + j;
            if (row >= w->rows) {
                memset(found[j], 0, sizeof found[j]);
                continue;
            }
            const uint8_t *codes = w->codes + (row * w->columns + column) / 2;
            const __m256i words = _mm256_loadu_si256((const __m256i *)codes);
            const __m512 weights = _mm512_mul_ps(levels, _mm512_set1_ps(maxima[row * blocks]));
            _mm_prefetch((const char *)codes + AHEAD * w->columns / 2, _MM_HINT_T0);
            const __m256i table = (__m256i)_mm512_cvtneps_pbh(weights);
            for (int s = 0; s < 4; s++)
                found[j][s] = _mm256_permutexvar_epi16(s ? _mm256_srli_epi16(words, 4 * s) : words, table);
        }
        char *place = to + pair / SIDE * TILE + pair % SIDE * 64;
        for (int s = 0; s < 4; s++, place += STEPS * TILE) {
            _mm256_store_si256((__m256i *)place, _mm256_unpacklo_epi16(found[0][s], found[1][s]));
            _mm256_store_si256((__m256i *)(place + 32), _mm256_unpackhi_epi16(found[0][s], found[1][s]));
        }
    }
}

/* Rows of C to rows of dX, in the order of the columns of W: dX[i, column] for the tiles [s][tile of m]. */
static void store_dx(const float *c, int64_t m_tiles, int64_t rows_of_dx, int64_t k, uint16_t *dx)
{
    /* Of four tiles' rows laid out one behind the other, where each of the 64 columns is. */
    int32_t place[HALF];
    for (int column = 0; column < HALF; column++)
        place[column] = ((column & 3) ^ 1) * (int)m_tiles * FLOATS + (column >> 4 & 1) * 8 + (column >> 5) * 4 +
                        (column >> 2 & 3);
    for (int64_t i = 0; i < least(rows_of_dx, m_tiles * SIDE); i++)
        for (int part = 0; part < HALF; part += 16) {
            const __m512i index = _mm512_loadu_si512(place + part);
            const __m512 row = _mm512_i32gather_ps(index, c + i / SIDE * FLOATS + i % SIDE * SIDE, 4);
            _mm256_storeu_si256((__m256i *)(dx + i * k + part), rounded(row));
        }
}

int lowrank_linear_dx_tiles(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    const int64_t n = w->rows, k = w->columns, steps = up_to(n, 32) / 32, blocks = k / w->blocksize;
    const int64_t m_tiles = up_to(m, 2 * SIDE) / SIDE, near = stretch(steps, NEAR / 32);
    const int64_t panel_bytes = 4 * STEPS * TILE, most = least(AT_ONCE, m_tiles);
    threads = useful_threads(threads, n * k);
    char *packed = buffer(m_tiles * steps * TILE), *panels = buffer(threads * panel_bytes);
    float *sums = buffer(k / HALF * 4 * most * TILE), *maxima = buffer(n * blocks * sizeof(float));
    if (packed && panels && sums && maxima)
#pragma omp parallel num_threads(threads)
    {
        char *panel = panels + member() * panel_bytes;
        const range tiles = share(m_tiles, 1), mine = share(k, 2 * HALF); /* a cache line of codes has one reader */
        for (int64_t tile = tiles.first; tile < tiles.end; tile++)
            pack_dy(dy, m, n, tile, packed + tile * steps * TILE);
        all_maxima(w, maxima);
        whole_tiles();
#pragma omp barrier
        for (int64_t block = 0; block < m_tiles; block += AT_ONCE) {
            const int64_t here = least(AT_ONCE, m_tiles - block);
            memset(sums + mine.first / HALF * 4 * most * FLOATS, 0, (mine.end - mine.first) / HALF * 4 * most * TILE);
            for (int64_t first = 0; first < steps; first += near)
                for (int64_t two = mine.first; two < mine.end; two += 2 * HALF)
                    for (int64_t step = first; step < least(first + near, steps); step += STEPS)
                        for (int64_t column = two; column < least(two + 2 * HALF, mine.end); column += HALF) {
                            const int64_t count = least(STEPS, least(first + near, steps) - step);
                            float *c = sums + column / HALF * 4 * most * FLOATS;
                            panel_of_columns(w, column, 32 * step, count, maxima, panel);
                            for (int64_t i = 0; i < here; i += 2)
                                for (int s = 0; s < 4; s += 2)
                                    multiply(2, packed + ((block + i) * steps + step) * TILE, steps * TILE,
                                             panel + s * STEPS * TILE, STEPS * TILE, count, c + (s * here + i) * FLOATS,
                                             FLOATS, here * FLOATS);
                        }
            for (int64_t column = mine.first; column < mine.end; column += HALF)
                store_dx(sums + column / HALF * 4 * most * FLOATS, here, m - block * SIDE, k,
                         dx + block * SIDE * k + column);
        }
        _tile_release();
    }
    const int status = packed && panels && sums && maxima ? 0 : -1;
    free(packed);
    free(panels);
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

/* y = x W^T by the matrix unit: see tiles.h. */

#include "tiles.h"

#ifdef HAS_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK 128         /* weights of a row that become a row of four tiles */
#ifndef CHUNKS
#define CHUNKS 2
#endif
#define HALF (CHUNK / 2)
#define PANEL (2 * CHUNKS * 4 * TILE)

int tiles_are_here(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) /* AMX-BF16, AMX-TILE */
        return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) /* AVX512-BF16 */
        return 0;
    /* Linux hands the registers of the tiles (state component 18) out to those who ask (ARCH_REQ_XCOMP_PERM). */
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

/* Chunk `chunk` of a tile of rows of x [m, k] as B: [s], pair p of column i being x[i, 8 p + (s ^ 1)],
   x[i, 8 p + 4 + (s ^ 1)] of the chunk. */
static void pack_x(const uint16_t *x, int64_t m, int64_t k, int64_t tile, int64_t chunk, char *to)
{
    uint16_t pairs[32];
    for (int i = 0; i < 32; i++)
        pairs[i] = i / 8 * 8 + (i / 2 % 4 ^ 1) + i % 2 * 4;
    const __m512i order = _mm512_loadu_si512(pairs);
    for (int part = 0; part < 4; part++) {
        const int64_t column = chunk * CHUNK + 32 * part;
        __m512i rows[SIDE];
        for (int i = 0; i < SIDE; i++) {
            const int64_t row = tile * SIDE + i;
            const __m512i there = row < m && column < k ? _mm512_loadu_si512(x + row * k + column) : _mm512_setzero_si512();
            rows[i] = _mm512_permutexvar_epi16(order, there);
        }
        turn_words(rows);
        for (int i = 0; i < SIDE; i++)
            _mm512_store_si512(to + i % 4 * TILE + (4 * part + i / 4) * 64, rows[i]);
    }
}

/* Two tiles of rows of W from row `first` on, chunks [chunk, chunk + count), as A: [tile][chunk][s]. Maxima are those of
   blocks `from` on, `blocks` from one row to the next. */
static void panel_of_rows(const blockwise_4bit *w, int64_t first, int64_t chunk, int64_t count, const float *maxima,
                          int64_t blocks, int64_t from, char *to)
{
    const __m512i nibble = _mm512_set1_epi16(15);
    const __m512i upper = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const int shift = __builtin_ctz(w->blocksize);
    for (int r = 0; r < 2 * SIDE; r++) {
        char *row = to + r / SIDE * CHUNKS * 4 * TILE + r % SIDE * 64;
        if (first + r >= w->rows) {
            for (int64_t i = 0; i < 4 * count; i++)
                _mm512_store_si512(row + i * TILE, _mm512_setzero_si512());
            continue;
        }
        const uint8_t *codes = w->codes + (first + r) * w->columns / 2 + chunk * CHUNK / 2;
        const float *largest = maxima + r * blocks;
        for (int64_t column = chunk * CHUNK; column < (chunk + count) * CHUNK; column += CHUNK, codes += CHUNK / 2) {
            const int whole = column + CHUNK <= w->columns; /* else half of the chunk is behind the row */
            const float second = whole ? largest[((column + HALF) >> shift) - from] : 0;
            const __m512i words = whole ? _mm512_loadu_si512(codes)
                                        : _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)codes));
            const __m512i table = (__m512i)_mm512_cvtne2ps_pbh(
                _mm512_mul_ps(levels, _mm512_set1_ps(second)),
                _mm512_mul_ps(levels, _mm512_set1_ps(largest[(column >> shift) - from])));
            _mm_prefetch((const char *)codes + CHUNKS * CHUNK / 2, _MM_HINT_T0); /* the next panel's */
            for (int s = 0; s < 4; s++, row += TILE) { /* (words >> 4 s & 15) | upper: an index into two tables */
                const __m512i shifted = s ? _mm512_srli_epi16(words, 4 * s) : words;
                const __m512i index = _mm512_ternarylogic_epi32(shifted, nibble, upper, 0xea);
                _mm512_store_si512(row, _mm512_permutexvar_epi16(index, table));
            }
        }
    }
}

/* Columns of C to rows of y: y[i, n] = C[n, i] for the tiles [tile of n][tile of m] of a panel. */
static void store_y(const float *c, int64_t m_tiles, int64_t rows_of_y, int64_t n, int64_t columns, uint16_t *y)
{
    const __mmask32 here = columns < 32 ? (1u << columns) - 1 : 0xffffffff;
    for (int64_t tile = 0; tile < m_tiles; tile++, c += FLOATS) {
        __m512i turned[2][SIDE];
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < SIDE; i++)
                turned[half][i] = _mm512_load_si512(c + half * m_tiles * FLOATS + i * SIDE);
            turn_words(turned[half]);
        }
        for (int64_t i = 0; i < least(rows_of_y - tile * SIDE, SIDE); i++) {
            const __m256i low = rounded(_mm512_castsi512_ps(turned[0][i])), high = rounded(_mm512_castsi512_ps(turned[1][i]));
            _mm512_mask_storeu_epi16(y + (tile * SIDE + i) * n, here,
                                     _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
        }
    }
}

/* The maxima of chunks [first, end) of up to 32 rows of W, `blocks` from one row to the next. Returns the first block. */
static int64_t maxima_of_rows(const blockwise_4bit *w, int64_t row, int64_t first, int64_t end, float *to, int64_t blocks)
{
    const int64_t of_a_row = w->columns / w->blocksize, from = first * CHUNK / w->blocksize;
    const int64_t count = least((end * CHUNK - 1) / w->blocksize + 1, of_a_row) - from;
    for (int64_t r = 0; r < least(2 * SIDE, w->rows - row); r++)
        chosen_set()->maxima(w, (row + r) * of_a_row + from, count, to + r * blocks);
    return from;
}

int lowrank_linear_tiles(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    const int64_t n = w->rows, k = w->columns, panels = up_to(k, CHUNKS * CHUNK) / (CHUNKS * CHUNK);
    const int64_t chunks = up_to(k, CHUNK) / CHUNK;
    const int64_t m_tiles = m <= SIDE ? 1 : up_to(m, 2 * SIDE) / SIDE, most = least(AT_ONCE, m_tiles);
    const int64_t near = stretch(panels, NEAR / (most * PANEL / 2)) * CHUNKS, blocks = near * CHUNK / w->blocksize + 2;
    const int64_t groups = near < chunks ? up_to(n, 2 * SIDE) / (2 * SIDE) : 0;
    threads = useful_threads(threads, n * k);
    char *packed = buffer(m_tiles * chunks * 4 * TILE), *decoded = buffer(threads * PANEL);
    float *sums = buffer((groups + threads) * 2 * most * TILE), *maxima = buffer(threads * 2 * SIDE * blocks * sizeof(float));
    if (packed && decoded && sums && maxima)
#pragma omp parallel num_threads(threads)
    {
        char *panel = decoded + member() * PANEL;
        float *largest = maxima + member() * 2 * SIDE * blocks;
        const range parts = share(m_tiles * chunks, 1), mine = share(n, 2 * SIDE);
        for (int64_t i = parts.first; i < parts.end; i++) { /* [block][panel][tile][chunk] */
            const int64_t tile = i / chunks, chunk = i % chunks, block = tile / AT_ONCE * AT_ONCE;
            const int64_t before = chunk / CHUNKS * CHUNKS, count = least(CHUNKS, chunks - before);
            const int64_t here = least(AT_ONCE, m_tiles - block);
            pack_x(x, m, k, tile, chunk,
                   packed + (block * chunks + before * here + (tile - block) * count + chunk - before) * 4 * TILE);
        }
        whole_tiles();
#pragma omp barrier
        for (int64_t block = 0; block < m_tiles; block += AT_ONCE) {
            const int64_t here = least(AT_ONCE, m_tiles - block);
            for (int64_t first = 0; first < chunks; first += near)
                for (int64_t row = mine.first; row < mine.end; row += 2 * SIDE) {
                    const int64_t end = least(first + near, chunks);
                    float *c = sums + (groups ? row / (2 * SIDE) : member()) * 2 * most * FLOATS;
                    const int64_t from = maxima_of_rows(w, row, first, end, largest, blocks);
                    for (int64_t chunk = first; chunk < end; chunk += CHUNKS) {
                        const int64_t count = least(CHUNKS, end - chunk), next = count * 4 * TILE;
                        const char *b = packed + (block * chunks + chunk * here) * 4 * TILE;
                        panel_of_rows(w, row, chunk, count, largest, blocks, from, panel);
                        if (here == 1)
                            multiply_tiles(1, chunk > 0, panel, PANEL / 2, b, 0, 4 * count, c, FLOATS, 0);
                        else
                            for (int64_t i = 0; i < here; i += 2, b += 2 * next)
                                multiply_tiles(2, chunk > 0, panel, PANEL / 2, b, next, 4 * count, c + i * FLOATS,
                                               here * FLOATS, FLOATS);
                    }
                    if (end == chunks)
                        store_y(c, here, m - block * SIDE, n, least(2 * SIDE, n - row), y + block * SIDE * n + row);
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

int tiles_are_here(void) { return 0; }
int lowrank_linear_tiles(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    (void)w, (void)x, (void)m, (void)y, (void)threads;
    return -1;
}

#endif

/* y = x W^T by the matrix unit: see tiles.h. */

#include "tiles.h"

#ifdef HAS_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK 128         /* weights of a row that become a row of four tiles */
#define CHUNKS 2          /* that are decoded before they are multiplied: 32 rows of them stay in the first-level cache */
#define HALF (CHUNK / 2)

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

/* Tiles of rows of x [m, k] as B: [tile][chunk][s], pair p of column i being x[i, 8 p + (s ^ 1)], x[i, 8 p + 4 + (s ^ 1)].
   A row has an even number of numbers: they are taken two by two. */
static void pack_x(const uint16_t *x, int64_t m, int64_t k, int64_t tile, char *to)
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i rows = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)(k / 2)));
    const __m512i low = _mm512_set1_epi32(0xffff);
    const __mmask16 here = lanes_below(m - tile * SIDE);
    for (int64_t p = 0; p < up_to(k, CHUNK) / 8; p++) {
        __m512i two[4];
        for (int j = 0; j < 4; j++) {
            const int *from = (const int *)(x + tile * SIDE * k + 8 * p + 2 * j);
            two[j] = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 8 * p < k ? here : 0, rows, from, 4);
        }
        char *row = to + p / SIDE * 4 * TILE + p % SIDE * 64;
        for (int j = 0; j < 2; j++) {
            const __m512i first = _mm512_or_si512(_mm512_and_si512(two[j], low), _mm512_slli_epi32(two[j + 2], 16));
            const __m512i second = _mm512_or_si512(_mm512_srli_epi32(two[j], 16), _mm512_andnot_si512(low, two[j + 2]));
            _mm512_store_si512(row + ((2 * j) ^ 1) * TILE, first);
            _mm512_store_si512(row + ((2 * j + 1) ^ 1) * TILE, second);
        }
    }
}

/* Two tiles of rows of W from row `first` on, chunks [chunk, chunk + count), as A: [tile][chunk][s]. */
static void panel_of_rows(const blockwise_4bit *w, int64_t first, int64_t chunk, int64_t count, const float *maxima,
                          int64_t blocks, char *to)
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
            const float second = whole ? largest[(column + HALF) >> shift] : 0;
            const __m512i words = whole ? _mm512_loadu_si512(codes)
                                        : _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)codes));
            const __m512i table = (__m512i)_mm512_cvtne2ps_pbh(
                _mm512_mul_ps(levels, _mm512_set1_ps(second)),
                _mm512_mul_ps(levels, _mm512_set1_ps(largest[column >> shift])));
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
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i down = _mm512_slli_epi32(lane, 4);
    for (int64_t i = 0; i < least(rows_of_y, m_tiles * SIDE); i++)
        for (int tile = 0; tile < 2; tile++) {
            const __mmask16 here = lanes_below(columns - tile * SIDE);
            const float *from = c + (tile * m_tiles + i / SIDE) * FLOATS + i % SIDE;
            const __m512 column = _mm512_i32gather_ps(down, from, 4);
            _mm256_mask_storeu_epi16(y + i * n + tile * SIDE, here, rounded(column));
        }
}

int lowrank_linear_tiles(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    const int64_t n = w->rows, k = w->columns, chunks = up_to(k, CHUNK) / CHUNK, blocks = k / w->blocksize;
    const int64_t m_tiles = m <= SIDE ? 1 : up_to(m, 2 * SIDE) / SIDE, near = stretch(chunks, NEAR / CHUNK);
    const int64_t panel_bytes = 2 * CHUNKS * 4 * TILE, n_tiles = up_to(n, 2 * SIDE) / SIDE, most = least(AT_ONCE, m_tiles);
    threads = useful_threads(threads, n * k);
    char *packed = buffer(m_tiles * chunks * 4 * TILE), *panels = buffer(threads * panel_bytes);
    float *sums = buffer(n_tiles * most * TILE), *maxima = buffer(n * blocks * sizeof(float));
    if (packed && panels && sums && maxima)
#pragma omp parallel num_threads(threads)
    {
        char *panel = panels + member() * panel_bytes;
        const range tiles = share(m_tiles, 1), mine = share(n, 2 * SIDE);
        for (int64_t tile = tiles.first; tile < tiles.end; tile++)
            pack_x(x, m, k, tile, packed + tile * chunks * 4 * TILE);
        all_maxima(w, maxima);
        whole_tiles();
#pragma omp barrier
        for (int64_t block = 0; block < m_tiles; block += AT_ONCE) {
            const int64_t here = least(AT_ONCE, m_tiles - block);
            for (int64_t first = 0; first < chunks; first += near)
                for (int64_t row = mine.first; row < mine.end; row += 2 * SIDE) {
                    float *c = sums + row / SIDE * most * FLOATS;
                    if (!first)
                        memset(c, 0, 2 * here * TILE);
                    for (int64_t chunk = first; chunk < least(first + near, chunks); chunk += CHUNKS) {
                        const int64_t count = least(CHUNKS, least(first + near, chunks) - chunk);
                        const char *b = packed + (block * chunks + chunk) * 4 * TILE;
                        panel_of_rows(w, row, chunk, count, maxima + row * blocks, blocks, panel);
                        if (here == 1)
                            multiply(1, panel, CHUNKS * 4 * TILE, b, 0, 4 * count, c, FLOATS, 0);
                        else
                            for (int64_t i = 0; i < here; i += 2, b += 2 * chunks * 4 * TILE)
                                multiply(2, panel, CHUNKS * 4 * TILE, b, chunks * 4 * TILE, 4 * count, c + i * FLOATS,
                                         here * FLOATS, FLOATS);
                    }
                    if (first + near >= chunks)
                        store_y(c, here, m - block * SIDE, n, least(2 * SIDE, n - row), y + block * SIDE * n + row);
                }
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

int tiles_are_here(void) { return 0; }
int lowrank_linear_tiles(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    (void)w, (void)x, (void)m, (void)y, (void)threads;
    return -1;
}

#endif

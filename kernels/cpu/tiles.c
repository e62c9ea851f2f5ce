/* Products by the matrix unit (AMX): W becomes tiles of bfloat16 in the first-level cache, from codes, as it is wanted.

   A tile is 16 rows of 64 bytes, a kilobyte. C += A B takes A as 16 rows of 32 numbers, B as 16 rows of 16 pairs, pair r
   of a column being its numbers 2 r and 2 r + 1, and C as 16 x 16 in float32. Four tiles of C are summed at a time, from
   two of A and two of B.

       y^T = W x^T      A: rows of W, as they are decoded         B: x, packed once
       dX  = dY W       A: dY, packed once                        B: pairs of rows of W, interleaved

   Weights are rounded to bfloat16 as `dequantize` rounds them, through a table of the sixteen products of a block. The
   unit takes denormal numbers for zero. Sums are in float32, in an order that only the shape decides.

   Codes are looked up as words of 16 bits: look-up s finds nibble s of every word w, which is weight 4 w + (s ^ 1). So
   tile s has every fourth weight, and what meets it is packed to match. */

#include "isa.h"
#include "parallel.h"

#if defined(__x86_64__) && defined(__linux__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")
#endif
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIDE 16
#define TILE 1024         /* bytes */
#define FLOATS (TILE / 4) /* of a tile of C */
#define CHUNK 128         /* weights of a row that become a row of four tiles */
#define CHUNKS 2          /* that are decoded before they are multiplied: 32 rows of them stay in the first-level cache */
#define HALF 64           /* weights of a row that become half a row of four tiles, beside the next row of W */
#define STEPS 4           /* of 32 rows that are decoded before they are multiplied, likewise */
#define AHEAD 16          /* rows of W that are fetched before they are looked up */
#define AT_ONCE 16        /* tiles of rows that are multiplied with a panel of W while it is there */
#define NEAR 2304         /* numbers of such a row that are summed before C is put aside: they stay in the second cache */
#define INLINE static inline __attribute__((always_inline))

/* The compiler is not told what the tile instructions read: without this it might store it later, or never. */
#define MEMORY_IS_READ(p) __asm__ volatile("" : : "r"(p) : "memory")

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) tile_shapes;

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

static void whole_tiles(void)
{
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.bytes[i] = 64;
        shapes.rows[i] = SIDE;
    }
    MEMORY_IS_READ(&shapes);
    _tile_loadconfig(&shapes);
}

/* `length` in as few stretches of at most `most` as will do, of much the same length. */
static int64_t stretch(int64_t length, int64_t most)
{
    const int64_t stretches = up_to(length, most) / most;
    return (length + stretches - 1) / stretches;
}

/* The maxima of all blocks, by the whole team. */
static void all_maxima(const blockwise_4bit *w, float *maxima)
{
    const range mine = share(w->rows * w->columns / w->blocksize, 16);
    chosen_set()->maxima(w, mine.first, mine.end - mine.first, maxima + mine.first);
}

/* C[2][columns] += A[2] B[columns] over `steps` tiles; the second of a pair is `..._next` bytes, or floats, on. */
INLINE void multiply(const int columns, const char *a, int64_t a_next, const char *b, int64_t b_next, int64_t steps,
                     float *c, int64_t c_row, int64_t c_column)
{
    MEMORY_IS_READ(a);
    _tile_loadd(0, c, 64);
    _tile_loadd(2, c + c_row, 64);
    if (columns == 2) {
        _tile_loadd(1, c + c_column, 64);
        _tile_loadd(3, c + c_row + c_column, 64);
    }
    for (int64_t i = 0; i < steps; i++, a += TILE, b += TILE) {
        _tile_loadd(6, b, 64); /* from the second-level cache, so first */
        if (columns == 2)
            _tile_loadd(7, b + b_next, 64);
        _tile_loadd(4, a, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (columns == 2)
            _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + a_next, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (columns == 2)
            _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 64);
    _tile_stored(2, c + c_row, 64);
    if (columns == 2) {
        _tile_stored(1, c + c_column, 64);
        _tile_stored(3, c + c_row + c_column, 64);
    }
}

/* Sixteen numbers to bfloat16, to nearest even; a NaN stays one. */
INLINE __m256i rounded(__m512 v)
{
    const __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_set1_epi32(_mm512_srli_epi32(up, 16), nan, 0x7fc0));
}

INLINE __mmask16 lanes_below(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1; }

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

int tiles_are_here(void) { return 0; }
int lowrank_linear_tiles(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    (void)w, (void)x, (void)m, (void)y, (void)threads;
    return -1;
}
int lowrank_linear_dx_tiles(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads)
{
    (void)w, (void)dy, (void)m, (void)dx, (void)threads;
    return -1;
}
#endif

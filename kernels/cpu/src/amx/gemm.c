/* y = x W^T by the matrix unit: see tiles.h. */

#include "tiles.h"

#ifdef HAS_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNKS                                                                                                         \
    2 /* that are decoded before they are multiplied: two tiles of rows of them, 32 kB, stay in the first              \
         level of the cache */
#define PANEL (2 * CHUNKS * 4 * TILE)
#define X_TILES 16 /* tiles of rows of x that meet a panel when it is decoded */

/* A product under way: what all threads see. */
typedef struct {
    const blockwise_4bit *w;
    const uint16_t *x;
    uint16_t *y;
    int64_t m, tiles;         /* rows of x, and tiles of them: an even number, or one */
    int64_t chunks, resident; /* of a row, and how many of them of the packed x stay near */
    int64_t groups; /* of 32 rows of W, whose sums are kept till the next chunks come near; 0 if all are near */
    char *packed;   /* AT_ONCE tiles of x: [panel][tile][chunk of the panel][s] */
    float *sums;    /* [group, or thread][tile of W][tile of x] */
} forward;

/* The memory of one thread. */
typedef struct {
    char *panel;
    float *maxima; /* [row of 32][half of a near chunk] */
    float *sums;
} thread_buffers;

int has_amx(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) /* AMX-BF16, AMX-TILE */
        return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) /* AVX512-BF16 */
        return 0;
    /* Linux hands the registers of the tiles (state component 18) out to those who ask (ARCH_REQ_XCOMP_PERM). */
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

/* `count` tiles of rows of x from tile `first` on, by the whole team. */
static void pack_block(const forward *f, int64_t first, int64_t count)
{
    const range mine = thread_range(count * f->chunks, 1);
    for (int64_t i = mine.first; i < mine.end; i++) {
        const int64_t tile = i / f->chunks, chunk = i % f->chunks, before = chunk / CHUNKS * CHUNKS;
        const int64_t place = before * count + tile * min_i64(CHUNKS, f->chunks - before) + chunk - before;
        const int64_t row = (first + tile) * SIDE, k = f->w->columns;
        pack_x(f->x + row * k, f->m - row, k, chunk, (uint32_t *)(f->packed + place * 4 * TILE));
    }
}

/* The maxima of halves of chunks [first, end) of up to 32 rows of W, `stride` from one row to the next. */
static void maxima_of_rows(const blockwise_4bit *w, int64_t row, int64_t first, int64_t end, float *to, int64_t stride)
{
    for (int64_t r = 0; r < min_i64(2 * SIDE, w->rows - row); r++)
        maxima_of_row(w, row + r, first, end, to + r * stride);
}

/* A chunk of up to 32 rows of W, from row `first` on, as A: [tile][chunk][s]. */
NOINLINE void decode_chunk(const blockwise_4bit *w, int64_t first, int64_t chunk, const float *maxima, int64_t stride,
                           char *to)
{
    const __m512i second = second_half();
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const __mmask16 there = (chunk + 1) * CHUNK <= w->columns ? 0xffff : 0xff; /* else a half is behind the row */
    const int64_t rows = min_i64(2 * SIDE, w->rows - first), bytes = w->columns / 2;
    const uint8_t *codes = w->codes + first * bytes + chunk * CHUNK / 2;
    for (int64_t r = 0; r < rows; r++, codes += bytes, maxima += stride) {
        _mm_prefetch((const char *)codes + CHUNKS * CHUNK / 2, _MM_HINT_T0); /* the next panel's */
        lookup_tiles(_mm512_maskz_loadu_epi32(there, codes), second, two_tables(levels, maxima[0], maxima[1]),
                     to + r / SIDE * (PANEL / 2) + r % SIDE * 64, TILE);
    }
}

/* C[2][count] += W x^T of `chunks` chunks of a panel, and nothing before it where they are the first. */
INLINE void multiply_chunks(const char *panel, const char *x, int64_t count, const int64_t chunks, int onto, float *c)
{
    const int64_t next = chunks * 4 * TILE;
    if (count == 1)
        multiply_tiles(1, onto, panel, PANEL / 2, x, 0, 4 * chunks, c, FLOATS, 0);
    else
        for (int64_t i = 0; i < count; i += 2)
            multiply_tiles(2, onto, panel, PANEL / 2, x + i * next, next, 4 * chunks, c + i * FLOATS, count * FLOATS,
                           FLOATS);
}

/* The same for a whole panel and for the rest of a row: where the compiler knows how many steps there are, there is no
   loop over them, which is worth a quarter of the time of few rows. */
NOINLINE void multiply_panel(const char *panel, const char *x, int64_t count, int64_t chunks, int onto, float *c)
{
    if (chunks == CHUNKS)
        multiply_chunks(panel, x, count, CHUNKS, onto, c);
    else
        multiply_chunks(panel, x, count, chunks, onto, c);
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
            transpose_words(turned[half]);
        }
        for (int64_t i = 0; i < min_i64(rows_of_y - tile * SIDE, SIDE); i++) {
            const __m256i low = rounded(_mm512_castsi512_ps(turned[0][i]));
            const __m256i high = rounded(_mm512_castsi512_ps(turned[1][i]));
            _mm512_mask_storeu_epi16(y + (tile * SIDE + i) * n, here,
                                     _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
        }
    }
}

/* Chunks [first, end) of this thread's rows of W, times `count` tiles of rows of x from `tile` on, which are packed. */
static void multiply_near(const forward *f, const thread_buffers *own, int64_t tile, int64_t count, int64_t first,
                          int64_t end)
{
    const int64_t n = f->w->rows, stride = f->resident * CHUNK / HALF;
    const range mine = thread_range(n, 2 * SIDE);
    for (int64_t row = mine.first; row < mine.end; row += 2 * SIDE) {
        float *c = f->groups ? f->sums + row / SIDE * min_i64(X_TILES, f->tiles) * FLOATS : own->sums;
        maxima_of_rows(f->w, row, first, end, own->maxima, stride);
        if (row + 2 * SIDE > n)
            memset(own->panel, 0, PANEL); /* rows that are not there stay so */
        for (int64_t chunk = first; chunk < end; chunk += CHUNKS) {
            const int64_t chunks = min_i64(CHUNKS, end - chunk);
            for (int64_t i = 0; i < chunks; i++)
                decode_chunk(f->w, row, chunk + i, own->maxima + (chunk + i - first) * CHUNK / HALF, stride,
                             own->panel + i * 4 * TILE);
            multiply_panel(own->panel, f->packed + chunk * count * 4 * TILE, count, chunks, chunk > 0, c);
        }
        if (end == f->chunks)
            store_y(c, count, f->m - tile * SIDE, n, min_i64(2 * SIDE, n - row), f->y + tile * SIDE * n + row);
    }
}

int lowrank_linear_amx(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    forward f = {.w = w, .x = x, .y = y, .m = m, .tiles = m <= SIDE ? 1 : round_up(m, 2 * SIDE) / SIDE};
    const int64_t most = min_i64(X_TILES, f.tiles), panels = round_up(w->columns, CHUNKS * CHUNK) / (CHUNKS * CHUNK);
    f.chunks = round_up(w->columns, CHUNK) / CHUNK;
    f.resident = stretch(panels, RESIDENT_BYTES / (most * PANEL / 2)) * CHUNKS;
    f.groups = f.resident < f.chunks ? round_up(w->rows, 2 * SIDE) / (2 * SIDE) : 0;
    threads = useful_threads(threads, w->rows * w->columns);
    const int64_t maxima = 2 * SIDE * f.resident * CHUNK / HALF;
    char *panels_of_all = alloc_aligned(threads * PANEL);
    float *maxima_of_all = alloc_aligned(threads * maxima * sizeof(float));
    f.packed = alloc_aligned(most * f.chunks * 4 * TILE);
    f.sums = alloc_aligned((f.groups ? f.groups : threads) * 2 * most * TILE);
    const int enough = panels_of_all && maxima_of_all && f.packed && f.sums;
    if (enough)
#pragma omp parallel num_threads(threads)
    {
        const thread_buffers own = {.panel = panels_of_all + thread_id() * PANEL,
                                    .maxima = maxima_of_all + thread_id() * maxima,
                                    .sums = f.sums + thread_id() * 2 * most * FLOATS};
        configure_tiles();
        for (int64_t tile = 0; tile < f.tiles; tile += X_TILES) {
            const int64_t count = min_i64(X_TILES, f.tiles - tile);
            pack_block(&f, tile, count);
#pragma omp barrier
            for (int64_t first = 0; first < f.chunks; first += f.resident)
                multiply_near(&f, &own, tile, count, first, min_i64(first + f.resident, f.chunks));
#pragma omp barrier
        }
        _tile_release();
    }
    free(panels_of_all);
    free(maxima_of_all);
    free(f.packed);
    free(f.sums);
    return enough ? 0 : -1;
}

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

int has_amx(void) { return 0; }
int lowrank_linear_amx(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    (void)w, (void)x, (void)m, (void)y, (void)threads;
    return -1;
}

#endif

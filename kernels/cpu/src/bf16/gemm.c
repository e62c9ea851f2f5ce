/* y = x W^T by dot products of bfloat16 pairs: see dots.h.

   x is packed in tiles of 16 rows, pair by pair of its columns in the order in which weights are decoded, so that a
   vector is one pair of 16 rows. Of W, 24 rows of 256 weights are decoded into a panel in the first-level cache, row
   after row, and broadcast from there pair by pair, which costs nothing (two loads a cycle): 24 sums are in registers
   always, of 24, 12, 8 or 6 rows of W and 1, 2, 3 or 4 tiles of x.

   What decodes shares a port with what multiplies, but waits for stores where that one waits for nothing: the next
   panel is decoded between the dot products of this one, a row at a time. With one tile there is no room for that:
   loads are the limit there, so codes are only asked for.

   Rows of x behind the last tile that are few go by gemv.c. */

#include "bf16/gemv.h"
#include "bf16/dots.h"

#ifdef HAS_DOTS

#define SIDE 16             /* rows of x in a tile */
#define ROWS 24             /* of W in a panel */
#define DEPTH 256           /* weights of a row in a panel */
#define STRIDE (DEPTH + 32) /* words from one row of a panel to the next: no divisor of 4096 bytes */
#define PAIRS (DEPTH / 2)
#define PANEL (ROWS * STRIDE) /* words */
#define MAX_TILES 32          /* of x that meet a panel: their sums stay in the second-level cache, */
#define NARROW 1024           /* K up to which x stays there as well, */
#define MAX_TILES_NARROW 16   /* of so many tiles */

BEGIN_DOTS

/* A product under way: what all threads see. */
typedef struct {
    const blockwise_4bit *w;
    const uint16_t *x;
    uint16_t *y;
    int64_t m, tiles, chunks; /* tiles of x, and chunks of a row */
    int64_t rest;             /* rows of x behind the tiles */
    uint32_t *packed;         /* x: [tile][pair in decode order][row] */
    uint16_t *arranged;       /* the rest of x, as gemv.c takes it */
    float *rest_sums;         /* [rest][N] */
} forward;

/* Constants that are read where they lie: beside 24 sums there are no registers to keep them in. */
typedef struct {
    float levels[16];
    uint16_t nibble[32], second[32];
} constants;

/* The memory of one thread. */
typedef struct {
    uint16_t *panels; /* two */
    float *maxima;    /* two times [row of W][half of a chunk] */
    float *sums;      /* [row of W][row of x] */
    char *rows;       /* what gemv.c works in */
    const constants *constants;
} thread_buffers;

/* Rows of a panel to be: where the codes and the maxima of the first are, and those of each next. */
typedef struct {
    const uint8_t *codes;
    int64_t bytes;
    const float *maxima;
    int64_t maxima_stride;
    uint16_t *to;
} panel_rows;

/* x as the product takes it, by the whole team. */
static void pack(const forward *f)
{
    const int64_t k = f->w->columns;
    const range mine = thread_range(f->tiles * f->chunks, 1), rest = thread_range(f->rest, 1);
    for (int64_t i = mine.first; i < mine.end; i++) {
        const int64_t row = i / f->chunks * SIDE;
        pack_x(f->x + row * k, f->m - row, k, i % f->chunks, f->packed + i * (CHUNK / 2) * SIDE);
    }
    for (int64_t i = rest.first; i < rest.end; i++)
        bf16_arrange(f->x + (f->tiles * SIDE + i) * k, k, f->arranged + i * f->chunks * CHUNK);
}

/* A chunk of a row of W to bfloat16, in decode order; there: which words of its codes are in the row. */
INLINE void decode_chunk(const uint8_t *codes, const float *maxima, __mmask16 there, const constants *c, uint16_t *to)
{
    __asm__("" : "+r"(c)); /* so that the compiler does not load them ahead, and spill */
    const __m512i tables = two_tables(_mm512_load_ps(c->levels), maxima[0], maxima[1]);
    const __m512i words = there == 0xffff ? _mm512_loadu_si512(codes) : _mm512_maskz_loadu_epi32(there, codes);
    const __m512i second = _mm512_load_si512(c->second);
    _mm_prefetch((const char *)codes + DEPTH / 2, _MM_HINT_T0);
#pragma GCC unroll 4
    for (int s = 0; s < 4; s++) {
        const __m512i shifted = s ? _mm512_srli_epi16(words, 4 * s) : words;
        const __m512i index = _mm512_ternarylogic_epi32(second, shifted, _mm512_load_si512(c->nibble), 0xf8);
        _mm512_store_si512(to + 32 * s, _mm512_permutexvar_epi16(index, tables));
    }
}

/* A panel of `depth` weights of each of `rows` rows, filled up to whole chunks. */
NOINLINE void decode_panel(panel_rows p, int64_t rows, int64_t depth, const constants *c)
{
    for (int64_t r = 0; r < rows; r++, p.codes += p.bytes, p.maxima += p.maxima_stride, p.to += STRIDE)
        for (int64_t k = 0; k < depth; k += CHUNK)
            if (depth - k >= CHUNK)
                decode_chunk(p.codes + k / 2, p.maxima + k / HALF, 0xffff, c, p.to + k);
            else
                decode_chunk(p.codes + k / 2, p.maxima + k / HALF, 0xff, c, p.to + k);
}

/* sums[24 / V rows of W][V tiles of x] += one pair of each. */
INLINE void add_pair(const int V, const uint16_t *panel, const uint32_t *x, int64_t x_next, __m512 *sums)
{
    const int R = ROWS / V;
    __m512i xs[4];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        xs[v] = _mm512_load_si512(x + v * x_next);
#pragma GCC unroll 24
    for (int r = 0; r < R; r++) {
        const __m512i weights = two_words(panel + r * STRIDE);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            sums[r * V + v] = dot_pairs(sums[r * V + v], xs[v], weights);
    }
}

/* How the next panel is prepared meanwhile: not at all, its codes asked for, or decoded. */
enum meanwhile { NOTHING, ASK, DECODE };

/* c[24 / V rows of W][V tiles of x] += panel x^T over `pairs` pairs, and nothing before it unless `onto`. */
INLINE void multiply(const int V, const enum meanwhile meanwhile, const uint16_t *panel, const uint32_t *x,
                     int64_t x_next, int64_t pairs, int onto, float *c, int64_t c_stride, panel_rows next,
                     const constants *constants)
{
    const int R = ROWS / V, between = (PAIRS - 8) / R; /* pairs from one row that is decoded to the next */
    const __mmask16 before = onto ? 0xffff : 0;
    __m512 sums[ROWS];
#pragma GCC unroll 24
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            sums[r * V + v] = _mm512_maskz_loadu_ps(before, c + r * c_stride + SIDE * v);
    if (meanwhile == DECODE)
        for (int r = 0; r < R; r++, next.codes += next.bytes, next.maxima += next.maxima_stride, next.to += STRIDE) {
#pragma GCC unroll 2
            for (int k = 0; k < DEPTH; k += CHUNK)
                decode_chunk(next.codes + k / 2, next.maxima + k / HALF, 0xffff, constants, next.to + k);
            for (int i = 0; i < between; i++, panel += 2, x += SIDE)
                add_pair(V, panel, x, x_next, sums);
            pairs -= between;
        }
    if (meanwhile == ASK)
        for (int r = 0; r < R; r++, next.codes += next.bytes) {
            _mm_prefetch((const char *)next.codes, _MM_HINT_T0);
            _mm_prefetch((const char *)next.codes + 64, _MM_HINT_T0);
            for (int i = 0; i < between; i++, panel += 2, x += SIDE)
                add_pair(V, panel, x, x_next, sums);
            pairs -= between;
        }
    for (int64_t i = 0; i < pairs; i++, panel += 2, x += SIDE)
        add_pair(V, panel, x, x_next, sums);
#pragma GCC unroll 24
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            _mm512_storeu_ps(c + r * c_stride + SIDE * v, sums[r * V + v]);
}

typedef void kernel(const uint16_t *panel, const uint32_t *x, int64_t x_next, int64_t pairs, int onto, float *c,
                    int64_t c_stride, panel_rows next, const constants *constants);
#define KERNEL(V, meanwhile)                                                                                           \
    NOINLINE void multiply_##V##_##meanwhile(const uint16_t *panel, const uint32_t *x, int64_t x_next, int64_t pairs,  \
                                             int onto, float *c, int64_t c_stride, panel_rows next,                    \
                                             const constants *constants)                                               \
    { multiply(V, meanwhile, panel, x, x_next, pairs, onto, c, c_stride, next, constants); }
KERNEL(1, NOTHING)
KERNEL(2, NOTHING)
KERNEL(3, NOTHING)
KERNEL(4, NOTHING)
KERNEL(1, ASK)
KERNEL(2, DECODE)
KERNEL(3, DECODE)
KERNEL(4, DECODE)

static kernel *const plain[] = {multiply_1_NOTHING, multiply_2_NOTHING, multiply_3_NOTHING, multiply_4_NOTHING};
static kernel *const preparing[] = {multiply_1_ASK, multiply_2_DECODE, multiply_3_DECODE, multiply_4_DECODE};

/* A panel times `tiles` tiles of x; returns whether the next one, where there is a whole one, is decoded. */
static int multiply_panel(const uint16_t *panel, const uint32_t *x, int64_t x_next, int64_t tiles, int64_t pairs,
                          int onto, float *c, int64_t c_stride, const panel_rows *next, const constants *constants)
{
    int prepare = next != NULL;
    for (int64_t tile = 0; tile < tiles;) {
        const int64_t left = tiles - tile, V = left == 5 ? 3 : min_i64(left, 4), rows = ROWS / V;
        panel_rows then = next ? *next : (panel_rows){0};
        kernel *const run = prepare ? preparing[V - 1] : plain[V - 1];
        for (int64_t r = 0; r < ROWS; r += rows) {
            run(panel + r * STRIDE, x + tile * x_next, x_next, pairs, onto, c + r * c_stride + tile * SIDE, c_stride,
                then, constants);
            then.codes += rows * then.bytes;
            then.maxima += rows * then.maxima_stride;
            then.to += rows * STRIDE;
        }
        prepare = 0;
        tile += V;
    }
    return next && tiles > 1;
}

/* Columns of sums [row of W][row of x] to rows of y. */
static void store_y(const float *sums, int64_t stride, int64_t m, int64_t rows, int64_t n, uint16_t *y)
{
    for (int64_t i = 0; i < m; i += SIDE)
        for (int64_t r = 0; r < rows; r += SIDE) {
            const __mmask16 here = lanes_below(rows - r);
            __m512i v[SIDE];
            for (int j = 0; j < SIDE; j++)
                v[j] = r + j < rows ? _mm512_loadu_si512(sums + (r + j) * stride + i) : _mm512_setzero_si512();
            transpose_words(v);
            for (int64_t j = 0; j < min_i64(m - i, SIDE); j++)
                _mm256_mask_storeu_epi16(y + (i + j) * n + r, here,
                                         (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(v[j])));
        }
}

/* The maxima of a panel's rows; those behind the last row of W are of no account. */
static void load_maxima(const forward *f, int64_t row, float *to)
{
    for (int64_t r = 0; r < min_i64(ROWS, f->w->rows - row); r++)
        maxima_of_row(f->w, row + r, 0, f->chunks, to + r * (f->chunks * 2 + ABSMAX_PADDING));
}

/* This thread's rows of W times `count` tiles of x from `tile` on. */
static void multiply_tiles(const forward *f, const thread_buffers *own, int64_t tile, int64_t count)
{
    const int64_t n = f->w->rows, k = f->w->columns, bytes = k / 2;
    const int64_t maxima_stride = f->chunks * 2 + ABSMAX_PADDING, x_next = f->chunks * (CHUNK / 2) * SIDE;
    const int64_t c_stride = count * SIDE;
    const range mine = thread_range(n, ROWS);
    float *maxima = own->maxima, *maxima_next = maxima + ROWS * maxima_stride;
    int which = 0, ready = 0; /* of two panels, and whether it is decoded */
    load_maxima(f, mine.first, maxima);
    for (int64_t row = mine.first; row < mine.end; row += ROWS) {
        const int64_t rows = min_i64(ROWS, mine.end - row), whole_follows = row + 2 * ROWS <= mine.end;
        if (row + ROWS < mine.end)
            load_maxima(f, row + ROWS, maxima_next);
        for (int64_t column = 0; column < k; column += DEPTH) {
            const int64_t depth = min_i64(DEPTH, k - column), after = column + depth < k ? column + depth : 0;
            uint16_t *panel = own->panels + which * PANEL;
            if (!ready)
                decode_panel((panel_rows){f->w->codes + row * bytes + column / 2, bytes, maxima + column / HALF,
                                          maxima_stride, panel},
                             rows, depth, own->constants);
            const panel_rows next = {f->w->codes + (after ? row : row + ROWS) * bytes + after / 2, bytes,
                                     (after ? maxima : maxima_next) + after / HALF, maxima_stride,
                                     own->panels + !which * PANEL};
            const int prepare = depth == DEPTH && k - after >= DEPTH && (after ? rows == ROWS : whole_follows);
            ready = multiply_panel(panel, f->packed + tile * x_next + column / 2 * SIDE, x_next, count,
                                   round_up(depth, CHUNK) / 2, column > 0, own->sums, c_stride, prepare ? &next : NULL,
                                   own->constants);
            which ^= ready;
        }
        store_y(own->sums, c_stride, min_i64(f->m - tile * SIDE, c_stride), rows, n, f->y + tile * SIDE * n + row);
        float *const free_again = maxima;
        maxima = maxima_next;
        maxima_next = free_again;
    }
}

/* This thread's rows of W times the rows of x behind the tiles. */
static void multiply_rest(const forward *f, char *own)
{
    const int64_t n = f->w->rows, first = f->tiles * SIDE;
    const range mine = thread_range(n, ROWS);
    bf16_rows(f->w, mine, f->arranged, f->rest, f->chunks * CHUNK, f->rest_sums, own);
    for (int64_t i = 0; i < f->rest; i++)
        chosen_set()->from_f32(f->rest_sums + i * n + mine.first, mine.end - mine.first, BFLOAT16,
                               f->y + (first + i) * n + mine.first);
}

int lowrank_linear_bf16(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    forward f = {.w = w, .x = x, .y = y, .m = m, .chunks = round_up(w->columns, CHUNK) / CHUNK};
    f.rest = m % SIDE <= MAX_ROWS ? m % SIDE : 0;
    f.tiles = (m - f.rest + SIDE - 1) / SIDE;
    threads = useful_threads(threads, w->rows * w->columns);
    constants constants __attribute__((aligned(64)));
    memcpy(constants.levels, w->levels, sizeof constants.levels);
    for (int i = 0; i < 32; i++) {
        constants.nibble[i] = 15;
        constants.second[i] = i / 16 * 16;
    }
    const int64_t max_tiles = w->columns <= NARROW ? MAX_TILES_NARROW : MAX_TILES;
    const int64_t most = min_i64(max_tiles, f.tiles), of_panels = 2 * PANEL * (int64_t)sizeof(uint16_t);
    const int64_t of_maxima = round_up(2 * ROWS * (f.chunks * 2 + ABSMAX_PADDING) * (int64_t)sizeof(float), 64);
    const int64_t of_sums = ROWS * most * SIDE * (int64_t)sizeof(float);
    const int64_t of_thread = of_panels + of_maxima + of_sums + bf16_rows_bytes(w) + THREADS_APART;
    char *memory = alloc_aligned(threads * of_thread);
    f.packed = alloc_aligned(f.tiles * SIDE * f.chunks * CHUNK * (int64_t)sizeof(uint16_t));
    f.arranged = alloc_aligned(f.rest * f.chunks * CHUNK * (int64_t)sizeof(uint16_t));
    f.rest_sums = alloc_aligned(f.rest * w->rows * (int64_t)sizeof(float));
    const int enough = memory && f.packed && f.arranged && f.rest_sums;
    if (enough)
#pragma omp parallel num_threads(threads)
    {
        char *mine = memory + thread_id() * of_thread;
        const thread_buffers own = {.panels = (uint16_t *)mine,
                                    .maxima = (float *)(mine + of_panels),
                                    .sums = (float *)(mine + of_panels + of_maxima),
                                    .constants = &constants};
        pack(&f);
#pragma omp barrier
        for (int64_t tile = 0; tile < f.tiles; tile += max_tiles)
            multiply_tiles(&f, &own, tile, min_i64(max_tiles, f.tiles - tile));
        if (f.rest)
            multiply_rest(&f, mine + of_panels + of_maxima + of_sums);
    }
    free(memory);
    free(f.packed);
    free(f.arranged);
    free(f.rest_sums);
    return enough ? 0 : -1;
}

END_DOTS

#else

int lowrank_linear_bf16(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads)
{
    (void)w, (void)x, (void)m, (void)y, (void)threads;
    return -1;
}

#endif

/* y = x W^T for few rows of x by dot products of bfloat16 pairs: see dots.h.

   R rows of W meet up to eight of x along K, R M <= 16 sums in registers, and the weights are there for one chunk only.
   A row of W is read once, in 4 bits. The R rows are far apart, each the next of a stretch of its own: the processor
   fetches what follows in a page, of which two readers would be in each other's way (half of the memory's speed).

   An x that would not stay in the first-level cache goes by slabs of columns: each meets a group of rows of W before
   the next one comes. A sum waits in memory meanwhile, as it is, so slabs change no bit. */

#include "bf16/gemv.h"
#include "bf16/dots.h"

#ifdef HAS_DOTS

#define SIDE 16
#define MOST_STREAMS 4      /* rows of W that are read side by side */
#define PREFETCH_BYTES 2048 /* ahead in the codes of each of them, or twice that */
#define ROOMY (48 << 10)    /* bytes of a first-level cache that holds x and codes: a Zen 5's, not a Zen 4's of 32 KB */
#define UNCUT 30000         /* numbers of x that go whole, of any size for the kernels of four streams */
#define SLAB 12288          /* numbers of x in a slab of columns: 24 KB */
#define MAXIMA_AHEAD 8      /* rows whose maxima are asked for ahead */
#define MOST_MAXIMA 32      /* rows whose maxima are there: SIDE of each of two streams */
#define PLANES 1024         /* bytes of `split_table` */

/* Bytes b of the 256 floats of a table: planes[b][256]. */
__attribute__((target("avx512f"))) static void split_table(const float *table, uint8_t *planes)
{
    for (int i = 0; i < 256; i += 16) {
        const __m512i words = _mm512_loadu_si512(table + i);
        _mm_storeu_si128((__m128i *)(planes + i), _mm512_cvtepi32_epi8(words));
        _mm_storeu_si128((__m128i *)(planes + 256 + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(words, 8)));
        _mm_storeu_si128((__m128i *)(planes + 512 + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(words, 16)));
        _mm_storeu_si128((__m128i *)(planes + 768 + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(words, 24)));
    }
}

/* `chosen_set()->maxima` of nested maxima, nested blocks of 16 or more: 64 at a time, a byte of each float after
   another. Beside few rows of x the look-up among 256 floats would cost a tenth of the product. Writes up to 15 floats
   more. */
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi"))) static void
nested_maxima(const blockwise_4bit *w, const uint8_t *planes, int64_t first, int64_t count, float *to)
{
    /* Bytes are put together within quarters of a vector: so the codes of a quarter are every fourth four. */
    const __m512i turn = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512 offset = _mm512_set1_ps(*w->offset);
    const int shift = __builtin_ctz(w->nested_blocksize);
    const int64_t last = (first + count - 1) >> shift;
    for (int64_t i = 0; i < count; i += 64) {
        const __mmask64 here = count - i >= 64 ? ~0ull : (1ull << (count - i)) - 1;
        const __m512i codes =
            _mm512_permutexvar_epi32(turn, _mm512_maskz_loadu_epi8(here, w->absmax_codes + first + i));
        const __mmask64 upper = _mm512_movepi8_mask(codes);
        __m512i bytes[4], pairs[4], words[4];
#pragma GCC unroll 4
        for (int b = 0; b < 4; b++) {
            const __m512i *plane = (const __m512i *)(planes + 256 * b);
            const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(plane), codes, _mm512_load_si512(plane + 1));
            bytes[b] = _mm512_mask_blend_epi8(
                upper, low,
                _mm512_permutex2var_epi8(_mm512_load_si512(plane + 2), codes, _mm512_load_si512(plane + 3)));
        }
        for (int b = 0; b < 4; b += 2) {
            pairs[b] = _mm512_unpacklo_epi8(bytes[b], bytes[b + 1]);
            pairs[b + 1] = _mm512_unpackhi_epi8(bytes[b], bytes[b + 1]);
        }
        for (int b = 0; b < 2; b++) {
            words[2 * b] = _mm512_unpacklo_epi16(pairs[b], pairs[b + 2]);
            words[2 * b + 1] = _mm512_unpackhi_epi16(pairs[b], pairs[b + 2]);
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const int64_t at = first + i + 16 * j;
            if (at >= first + count)
                return;
            const int64_t block = at >> shift, after = block < last ? block + 1 : block;
            const __mmask16 behind =
                _mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32((int)min_i64(((block + 1) << shift) - at, 16)));
            const __m512 scale = _mm512_mask_blend_ps(behind, _mm512_set1_ps(w->nested_absmax[block]),
                                                      _mm512_set1_ps(w->nested_absmax[after]));
            const __m512 maximum = _mm512_mul_ps(_mm512_castsi512_ps(words[j]), scale);
            _mm512_storeu_ps(to + i + 16 * j, _mm512_add_ps(maximum, offset));
        }
    }
}

BEGIN_DOTS

/* Rows of W that are read side by side; the maxima are of halves of chunks. */
typedef struct {
    const uint8_t *codes[MOST_STREAMS];
    const float *maxima[MOST_STREAMS];
    const float *levels;
    int64_t ahead; /* bytes: codes that far on are asked for */
    int is_near;   /* into the first-level cache */
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

/* A vector that the compiler does not load again for each use: loads would take as long as the dot products. */
INLINE __m512i in_register(__m512i v)
{
    __asm__ volatile("" : "+v"(v));
    return v;
}

/* The table of row r for the chunk from column c on; behind the last chunk it means nothing. */
INLINE __m512i table_at(const weight_rows *w, __m512 levels, int r, int64_t c)
{ return in_register(two_tables(levels, w->maxima[r][c / HALF], w->maxima[r][c / HALF + 1])); }

/* sums[r M + i] += the chunk from column c on; there: which words of its codes are in the row. The tables of the next
   chunk are made before the last dot products of this one: a product, a rounding and a look-up one after another take
   longer than the processor looks ahead. */
INLINE void add_chunk(const int R, const int M, const weight_rows *w, __m512 levels, int64_t c, const __mmask16 there,
                      const uint16_t *x, int64_t stride, __m512i *tables, __m512 *sums)
{
    const __m512i second = second_half();
    __m512i words[MOST_STREAMS];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const uint8_t *codes = w->codes[r] + c / 2;
        words[r] = there == 0xffff ? _mm512_loadu_si512(codes) : _mm512_maskz_loadu_epi32(there, codes);
        if (w->is_near)
            _mm_prefetch((const char *)codes + w->ahead, _MM_HINT_T0);
        else
            _mm_prefetch((const char *)codes + w->ahead, _MM_HINT_T1);
    }
#pragma GCC unroll 4
    for (int s = 0; s < 4; s++) {
        __m512i xs[MAX_ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < M; i++)
            xs[i] = in_register(_mm512_load_si512(x + i * stride + c + 32 * s));
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const __m512i weights = in_register(look_up(words[r], s, second, tables[r]));
            if (s == 3)
                tables[r] = table_at(w, levels, r, c + CHUNK);
#pragma GCC unroll 8
            for (int i = 0; i < M; i++)
                sums[r * M + i] = dot_pairs(sums[r * M + i], weights, xs[i]);
        }
    }
}

/* Columns [first, end) of R rows of W and M of x, added to `waiting`; behind the last column to[r M + i] instead. */
INLINE void dot_rows(const int R, const int M, const weight_rows *rows, range columns, int64_t k, const uint16_t *x,
                     int64_t stride, __m512 *waiting, float *to)
{
    const weight_rows w = *rows;
    const __m512 levels = _mm512_loadu_ps(w.levels);
    __m512 sums[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        sums[i] = i < R * M && columns.first ? waiting[i] : _mm512_setzero_ps();
    __m512i tables[MOST_STREAMS];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
        tables[r] = table_at(&w, levels, r, columns.first);
    const int64_t whole = columns.end / CHUNK * CHUNK;
    for (int64_t c = columns.first; c < whole; c += CHUNK)
        add_chunk(R, M, &w, levels, c, 0xffff, x, stride, tables, sums);
    if (whole < columns.end) /* half a chunk is left of the row */
        add_chunk(R, M, &w, levels, whole, 0xff, x, stride, tables, sums);
    if (columns.end < k) {
#pragma GCC unroll 16
        for (int i = 0; i < R * M; i++)
            waiting[i] = sums[i];
    } else if (R * M <= 4)
        _mm_storeu_ps(to, sums_of_4(sums));
    else
        _mm512_storeu_ps(to, sums_of_16(sums));
}

typedef void row_kernel(const weight_rows *w, range columns, int64_t k, const uint16_t *x, int64_t stride,
                        __m512 *waiting, float *to);
#define KERNEL(R, M)                                                                                                   \
    NOINLINE void dot_##R##_##M(const weight_rows *w, range columns, int64_t k, const uint16_t *x, int64_t stride,     \
                                __m512 *waiting, float *to)                                                            \
    { dot_rows(R, M, w, columns, k, x, stride, waiting, to); }
KERNEL(4, 1)
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
} kernels[MAX_ROWS] = {{4, dot_4_1}, {4, dot_4_2}, {4, dot_4_3}, {4, dot_4_4},
                       {2, dot_2_5}, {2, dot_2_6}, {2, dot_2_7}, {2, dot_2_8}};

/* Floats from the maxima of one row to those of the next: two are read for the chunk behind the last, too. */
static int64_t maxima_stride(const blockwise_4bit *w) { return round_up(w->columns / HALF + 3, 16); }

int64_t bf16_rows_bytes(const blockwise_4bit *w)
{ return PLANES + 2 * MOST_MAXIMA * maxima_stride(w) * (int64_t)sizeof(float); }

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

/* The maxima of a row, one for each half of a chunk, and 0 where the last is behind the end. planes: of the table of
   nested maxima, or NULL. */
static void load_maxima(const blockwise_4bit *w, const uint8_t *planes, int64_t row, float *to)
{
    const int64_t blocks = w->columns / w->blocksize, halves = w->columns / HALF;
    const int shift = __builtin_ctz(w->blocksize / HALF);
    if (planes)
        nested_maxima(w, planes, row * blocks, blocks, to);
    else
        chosen_set()->maxima(w, row * blocks, blocks, to);
    for (int64_t i = halves - 1; shift && i >= 0; i--) /* downwards: what is still to be read is not written */
        to[i] = to[i >> shift];
    if (halves % 2)
        to[halves] = 0;
}

/* Asks for the maxima of a row as they are stored: they lie apart from the codes, where no reader has been. */
static void ask_for_maxima(const blockwise_4bit *w, int64_t row)
{
    const int64_t first = row * (w->columns / w->blocksize);
    _mm_prefetch(w->absmax ? (const char *)(w->absmax + first) : (const char *)(w->absmax_codes + first), _MM_HINT_T0);
}

/* All of that for M <= MAX_ROWS rows of x. */
static void multiply(const blockwise_4bit *w, const uint8_t *planes, range rows, const uint16_t *x, int m,
                     int64_t stride, float *y, float *maxima)
{
    const int streams = kernels[m - 1].streams, is_cut = streams == 2 && m * w->columns > UNCUT;
    const int group = is_cut ? SIDE : 1;
    const int64_t k = w->columns, slabs = is_cut ? (m * k + SLAB - 1) / SLAB : 1;
    const int64_t slab = round_up((k + slabs - 1) / slabs, CHUNK);
    const int64_t length = round_up(rows.end - rows.first, streams) / streams;
    /* Of one or two rows of x memory is the limit: codes are asked for far ahead, and where they and x would drive each
       other out of the first-level cache, into the second. In slabs, what comes next is in the next rows. */
    const int is_far = m <= 2;
    weight_rows now = {.levels = w->levels,
                       .ahead = is_cut   ? k
                                : is_far ? 2 * PREFETCH_BYTES
                                         : PREFETCH_BYTES,
                       .is_near = !is_far || first_level_bytes() >= ROOMY};
    const int64_t of_row = maxima_stride(w);
    __m512 waiting[SIDE][16];
    float sums[SIDE][SIDE] __attribute__((aligned(64))) = {{0}};
    /* Maxima are written while the rows before are multiplied: what was written a moment ago is slow to read. */
    float *next = maxima + MOST_MAXIMA * of_row;
    for (int64_t i = -group; i < length; i += group) {
        for (int64_t j = i + group; j < min_i64(i + 2 * group, length); j++)
            for (int r = 0; r < streams; r++) {
                load_maxima(w, planes, row_at(rows, length, j, r), next + ((j - i - group) * streams + r) * of_row);
                ask_for_maxima(w, row_at(rows, length, min_i64(j + MAXIMA_AHEAD, length - 1), r));
            }
        for (int64_t c = 0; i >= 0 && c < k; c += slab)
            for (int64_t j = i; j < min_i64(i + group, length); j++) {
                for (int r = 0; r < streams; r++) {
                    now.codes[r] = w->codes + row_at(rows, length, j, r) * (k / 2);
                    now.maxima[r] = maxima + ((j - i) * streams + r) * of_row;
                }
                kernels[m - 1].run(&now, (range){c, min_i64(c + slab, k)}, k, x, stride, waiting[j % SIDE],
                                   sums[j % SIDE]);
            }
        const int64_t done = min_i64(i + group, length);
        if (done > 0 && (done % SIDE == 0 || done == length))
            store_block(sums, rows, length, streams, (done - 1) / SIDE * SIDE, (done - 1) % SIDE + 1, m, y, w->rows);
        float *const free_again = maxima;
        maxima = next;
        next = free_again;
    }
}

void bf16_rows(const blockwise_4bit *w, range rows, const uint16_t *x, int64_t m, int64_t stride, float *y, char *own)
{
    const int split = !w->absmax && w->nested_blocksize >= 16 && __builtin_popcount(w->nested_blocksize) == 1 &&
                      __builtin_cpu_supports("avx512vbmi");
    if (split)
        split_table(w->dynamic8, (uint8_t *)own);
    for (int64_t i = 0; i < m; i += MAX_ROWS)
        multiply(w, split ? (uint8_t *)own : NULL, rows, x + i * stride, (int)min_i64(m - i, MAX_ROWS), stride,
                 y + i * w->rows, (float *)(own + PLANES));
}

void bf16_ask_for_rows(const blockwise_4bit *w, range rows)
{
    const int64_t k = w->columns, length = round_up(rows.end - rows.first, MOST_STREAMS) / MOST_STREAMS;
    for (int r = 0; r < MOST_STREAMS; r++) {
        const int64_t row = row_at(rows, length, 0, r);
        ask_for(w->codes + row * (k / 2), min_i64(2 * PREFETCH_BYTES, length * (k / 2)));
        ask_for_maxima(w, row);
    }
}

END_DOTS

#else

int64_t bf16_rows_bytes(const blockwise_4bit *w) { return (void)w, 0; }
void bf16_arrange(const uint16_t *x, int64_t k, uint16_t *to) { (void)x, (void)k, (void)to; }
void bf16_rows(const blockwise_4bit *w, range rows, const uint16_t *x, int64_t m, int64_t stride, float *y, char *own)
{ (void)w, (void)rows, (void)x, (void)m, (void)stride, (void)y, (void)own; }
void bf16_ask_for_rows(const blockwise_4bit *w, range rows) { (void)w, (void)rows; }

#endif

/* Causal attention by the matrix unit: what forward and backward share. See tiles.h for tiles.

       S = scale Q K^T        P = softmax(S) over the keys up to the query's own        O = P V

   Queries and keys go in blocks of 32. A tile is 16 x 16 words, of a pair of numbers each; turned, it is a tile of the
   transposed matrix for the other side: A of X [16, 32] is B of X^T, and B of X [32, 16] is A of X^T.

   Exponentials are of base 2, and so is the logarithm that forward leaves for backward: L = log2 sum_j exp S[i, j].
   One thread does all of a key/value head with its query heads. */

#ifndef LOWRANK_ATTENTION_H
#define LOWRANK_ATTENTION_H

#include "tiles.h"

#ifdef HAS_TILES

#define BLOCK 32   /* queries, or keys */
#define WIDEST 128 /* channels of a head */
#define LOG2_E 1.4426950408889634f

/* 2^x to within two units of the last place: 2^n (1 + f p(f)), n the nearest integer and f = x - n. */
INLINE __m512 exp2_of(__m512 x)
{
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n);
    const float p[] = {1.339887440e-3f, 9.618437357e-3f, 5.550332471e-2f, 2.402264791e-1f, 6.931472029e-1f, 1};
    __m512 power = _mm512_set1_ps(1.535336188e-4f);
    for (int i = 0; i < 6; i++)
        power = _mm512_fmadd_ps(power, f, _mm512_set1_ps(p[i]));
    return _mm512_scalef_ps(power, n);
}

INLINE const uint16_t *rows_of(const head_tensor *x, int64_t batch, int64_t head, int64_t time)
{ return x->first + batch * x->batch + head * x->head + time * x->time; }

/* 32 rows [32, h] as A: [tile of 16 rows][32 of h]. What is behind `count` rows is zero. */
static inline void pack_rows(const uint16_t *rows, int64_t stride, int64_t count, int64_t h, char *to)
{
    for (int64_t i = 0; i < BLOCK; i++)
        for (int64_t c = 0; c < h; c += 32) {
            const __m512i row = i < count ? _mm512_loadu_si512(rows + i * stride + c) : _mm512_setzero_si512();
            _mm512_store_si512(to + (i / SIDE * h + c) / 32 * TILE + i % SIDE * 64, row);
        }
}

/* 32 rows [32, h] as B: [tile of 16 of h], `next` bytes from one to the next. */
static inline void pack_pairs(const uint16_t *rows, int64_t stride, int64_t count, int64_t h, char *to, int64_t next)
{
    for (int64_t i = 0; i < BLOCK; i += 2)
        for (int64_t c = 0; c < h; c += SIDE) {
            __m512i two[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
            for (int j = 0; j < 2; j++)
                if (i + j < count)
                    two[j] = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(rows + (i + j) * stride + c)));
            const __m512i pairs = _mm512_or_si512(two[0], _mm512_slli_epi32(two[1], 16));
            _mm512_store_si512(to + c / SIDE * next + i / 2 * 64, pairs);
        }
}

/* The transpose of `tiles` tiles, one behind the other. */
static inline void transpose_tiles(const char *from, int64_t tiles, char *to)
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i down = _mm512_slli_epi32(lane, 4);
    for (int64_t tile = 0; tile < tiles; tile++, from += TILE, to += TILE)
        for (int i = 0; i < SIDE; i++)
            _mm512_store_si512(to + i * 64, _mm512_i32gather_epi32(down, from + 4 * i, 4));
}

/* All of a head [T, h], as B of its transpose: [tile of 16 rows][32 of h]. */
static inline void pack_transposed(const uint16_t *rows, int64_t stride, int64_t length, int64_t h, char *to)
{
    char block[2 * WIDEST / 32 * TILE] __attribute__((aligned(64)));
    for (int64_t first = 0; first < length; first += BLOCK, to += 2 * h / 32 * TILE) {
        pack_rows(rows + first * stride, stride, length - first, h, block);
        transpose_tiles(block, 2 * h / 32, to);
    }
}

/* All of a head [T, h], as B: [tile of 16 of h][32 rows]. */
static inline void pack_paired(const uint16_t *rows, int64_t stride, int64_t length, int64_t h, char *to)
{
    const int64_t next = round_up(length, BLOCK) / BLOCK * TILE;
    for (int64_t first = 0; first < length; first += BLOCK, to += TILE)
        pack_pairs(rows + first * stride, stride, length - first, h, to, next);
}

/* Of the keys [key, key + 16), those that a query sees. */
INLINE __mmask16 seen(int64_t query, int64_t key) { return lanes_below(query + 1 - key); }

/* Four tiles of C, [tile of rows][tile of columns], to `count` rows of 32 numbers, each row times its factor. */
static inline void store_rows(const float *c, int64_t count, const float *factors, uint16_t *to, int64_t stride)
{
    for (int64_t i = 0; i < count; i++, to += stride) {
        const float *row = c + i / SIDE * 2 * FLOATS + i % SIDE * SIDE;
        const __m512 factor = _mm512_set1_ps(factors[i]);
        _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(_mm512_load_ps(row + FLOATS), factor),
                                                             _mm512_mul_ps(_mm512_load_ps(row), factor)));
    }
}

#endif
#endif

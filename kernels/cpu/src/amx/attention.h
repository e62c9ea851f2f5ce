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
#include "attention_math.h"

#define BLOCK 32 /* queries, or keys */

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
            __m256i two[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (int j = 0; j < 2; j++)
                if (i + j < count)
                    two[j] = _mm256_loadu_si256((const __m256i *)(rows + (i + j) * stride + c));
            _mm512_store_si512(to + c / SIDE * next + i / 2 * 64, interleave(two[0], two[1]));
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

/* Those of the keys [key, key + 16) that a query sees. */
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

/* Causal attention by dot products of bfloat16 pairs (AVX512-BF16): what forward and backward share.

       S = scale Q K^T        P = softmax(S) over the keys up to the query's own        O = P V

   A product C = A B takes A as it lies, a row of numbers whose pairs are broadcast one by one, and B as [pair][column]:
   word c of row p is numbers 2 p and 2 p + 1 of column c. Six rows and 64 columns of C are 24 sums in registers, which
   four loads and six broadcasts keep busy; each adds the pairs in their order. Rows of a head [T, h] become B in two
   ways: for X^T the pairs are of channels (`pack_channels`), for X of rows (`pack_rows`).

   Everything goes by blocks of 64 queries or keys. What is behind a head's last row is packed as zero.

   Exponentials are of base 2, and so is the logarithm that forward leaves for backward: L = log2 sum_j exp S[i, j].
   One thread does all of a key/value head with its query heads. The instruction takes denormal numbers for zero. */

#ifndef LOWRANK_DOTS_ATTENTION_H
#define LOWRANK_DOTS_ATTENTION_H

#include "attention_math.h"

#ifdef HAS_DOTS

#define BLOCK 64 /* queries, or keys */
#define PAIRS (BLOCK / 2)
#define ROWS 6   /* of C at a time */
#define APART 16 /* floats between rows of scores, of which a power of two would crowd some sets of the cache */

BEGIN_DOTS

/* C[rows][16 vectors] (+)= A[rows] B over `pairs`; rows are `..._next` numbers, words and floats apart. */
INLINE void multiply_block(const int rows, const int vectors, const int onto, const uint16_t *a, int64_t a_next,
                           const uint32_t *b, int64_t b_next, int64_t pairs, float *c, int64_t c_next)
{
    __m512 sums[ROWS][BLOCK / 16];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            sums[i][j] = onto ? _mm512_loadu_ps(c + i * c_next + 16 * j) : _mm512_setzero_ps();
    for (int64_t pair = 0; pair < pairs; pair++, a += 2, b += b_next) {
        __m512i column[BLOCK / 16];
        for (int j = 0; j < vectors; j++)
            column[j] = _mm512_load_si512(b + 16 * j);
        for (int i = 0; i < rows; i++) {
            const __m512i two = two_words(a + i * a_next);
            for (int j = 0; j < vectors; j++)
                sums[i][j] = dot_pairs(sums[i][j], column[j], two);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            _mm512_storeu_ps(c + i * c_next + 16 * j, sums[i][j]);
}

/* Blocks of 64 rows, and of the channels of a head, leave over four rows or two. */
#define MULTIPLY(rows, vectors)                                                                                        \
    NOINLINE void multiply_##rows##_##vectors(int onto, const uint16_t *a, int64_t a_next, const uint32_t *b,          \
                                              int64_t b_next, int64_t pairs, float *c, int64_t c_next)                 \
    {                                                                                                                  \
        if (onto)                                                                                                      \
            multiply_block(rows, vectors, 1, a, a_next, b, b_next, pairs, c, c_next);                                  \
        else                                                                                                           \
            multiply_block(rows, vectors, 0, a, a_next, b, b_next, pairs, c, c_next);                                  \
    }
MULTIPLY(6, 4)
MULTIPLY(4, 4)
MULTIPLY(2, 4)
MULTIPLY(6, 2)
MULTIPLY(4, 2)
MULTIPLY(2, 2)

/* C[rows][columns] (+)= A[rows] B over `pairs`, columns a multiple of 32 and rows even. */
static void multiply(int64_t rows, int64_t columns, int onto, const uint16_t *a, int64_t a_next, const uint32_t *b,
                     int64_t b_next, int64_t pairs, float *c, int64_t c_next)
{
    typedef void kernel(int, const uint16_t *, int64_t, const uint32_t *, int64_t, int64_t, float *, int64_t);
    static kernel *const wide[] = {multiply_2_4, multiply_4_4, multiply_6_4}, *const narrow[] = {multiply_2_2,
                                                                                                 multiply_4_2,
                                                                                                 multiply_6_2};
    for (int64_t column = 0; column < columns; column += BLOCK) {
        kernel *const *const kernels = columns - column < BLOCK ? narrow : wide;
        for (int64_t row = 0; row < rows; row += ROWS)
            kernels[min_i64(ROWS, rows - row) / 2 - 1](onto, a + row * a_next, a_next, b + column, b_next, pairs,
                                                       c + row * c_next + column, c_next);
    }
}

/* C [64][64] = A B^T over the channels of a head. */
INLINE void multiply_channels(const uint16_t *a, int64_t h, const uint32_t *b, float *c, int64_t c_next)
{ multiply(BLOCK, BLOCK, 0, a, h, b, BLOCK, h / 2, c, c_next); }

/* A block of rows [64, h] behind each other, zero behind `count` of them. */
static inline void copy_block(const uint16_t *rows, int64_t stride, int64_t count, int64_t h, uint16_t *to)
{
    for (int64_t i = 0; i < BLOCK; i++, to += h)
        if (i < count)
            memcpy(to, rows + i * stride, h * sizeof *to);
        else
            memset(to, 0, h * sizeof *to);
}

/* All of a head [T, h] as B of its transpose: [block of 64 rows][h / 2][64]. */
static inline void pack_channels(const uint16_t *rows, int64_t stride, int64_t length, int64_t h, uint32_t *to)
{
    for (int64_t first = 0; first < round_up(length, BLOCK); first += 16) {
        uint32_t *const block = to + first / BLOCK * h / 2 * BLOCK + first % BLOCK;
        for (int64_t c = 0; c < h; c += 32) {
            __m512i words[16];
            for (int64_t i = 0; i < 16; i++)
                words[i] =
                    first + i < length ? _mm512_loadu_si512(rows + (first + i) * stride + c) : _mm512_setzero_si512();
            transpose_words(words);
            for (int64_t i = 0; i < 16; i++)
                _mm512_store_si512(block + (c / 2 + i) * BLOCK, words[i]);
        }
    }
}

/* All of a head [T, h] as B: [pair of rows][h], whole blocks of 64 rows. */
static inline void pack_rows(const uint16_t *rows, int64_t stride, int64_t length, int64_t h, uint32_t *to)
{
    for (int64_t row = 0; row < round_up(length, BLOCK); row += 2, to += h)
        for (int64_t c = 0; c < h; c += 16) {
            __m256i two[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (int64_t i = 0; i < 2 && row + i < length; i++)
                two[i] = _mm256_loadu_si256((const __m256i *)(rows + (row + i) * stride + c));
            _mm512_store_si512(to + c, interleave(two[0], two[1]));
        }
}

/* A row of h sums, times a factor, to bfloat16. */
INLINE void store_row(const float *sums, int64_t h, float factor, uint16_t *to)
{
    for (int64_t c = 0; c < h; c += 16)
        _mm256_storeu_si256((__m256i *)(to + c),
                            f32_to_bf16(_mm512_mul_ps(_mm512_load_ps(sums + c), _mm512_set1_ps(factor))));
}

END_DOTS

#endif
#endif

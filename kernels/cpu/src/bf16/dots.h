/* Products by dot products of bfloat16 pairs (AVX512-BF16, vdpbf16ps), for processors without a matrix unit: what they
   share with each other, and with the tiles of amx/tiles.h.

   A dot product adds 2 products to each of 16 sums in float32. Weights are rounded to bfloat16 as `dequantize` rounds
   them, through a table of the sixteen products of a block. Denormal numbers count for zero. Sums are in float32, in an
   order that only the shape decides.

   Codes are looked up as words of 16 bits: look-up s finds nibble s of every word w, which is weight 4 w + (s ^ 1). So
   vector s has every fourth weight, and what meets it is packed to match. 64 bytes of a row, a chunk of 128 weights,
   become four vectors; no block is smaller than a half of that.

       gemv.c     y = x W^T, few rows of x: summed along K, weights in registers
       gemm.c     y = x W^T: weights in a panel in the first-level cache, broadcast in pairs
       gemm_backward.c  dX = dY W: pairs of rows of W in a panel, dY broadcast in pairs */

#ifndef LOWRANK_DOTS_H
#define LOWRANK_DOTS_H

#include "threads.h"

#if defined(__x86_64__)
#define HAS_DOTS
#include <immintrin.h>
#include <string.h>

#ifdef __clang__
#define BEGIN_DOTS                                                                                                     \
    _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx512bw,avx512dq,avx512vl,avx512bf16\"))), "        \
            "apply_to = function)")
#define END_DOTS _Pragma("clang attribute pop")
#else
#define BEGIN_DOTS _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx512bw,avx512dq,avx512vl,avx512bf16\")")
#define END_DOTS _Pragma("GCC pop_options")
#endif

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline)) /* an inner loop that has the registers to itself */

#define CHUNK 128 /* weights of a row that are looked up at a time */
#define HALF 64   /* weights: no block is smaller */

BEGIN_DOTS

INLINE __m512 dot_pairs(__m512 sums, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)b); }

INLINE __m512i two_words(const void *p)
{
    int32_t words;
    memcpy(&words, p, sizeof words);
    return _mm512_set1_epi32(words);
}

/* The transpose of 16 rows of 16 words of 32 bits. */
INLINE void transpose_words(__m512i v[16])
{
    __m512i u[16];
    for (int i = 0; i < 16; i += 2) {
        u[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        u[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(u[i + j], u[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(u[i + j], u[i + j + 2]);
        }
    for (int i = 0; i < 16; i += 8) /* v[i + c] has, of rows [i, i + 4), columns c, c + 4, c + 8 and c + 12 */
        for (int c = 0; c < 4; c++) {
            u[i + c] = _mm512_shuffle_i32x4(v[i + c], v[i + c + 4], 0x88);
            u[i + c + 4] = _mm512_shuffle_i32x4(v[i + c], v[i + c + 4], 0xdd);
        }
    for (int c = 0; c < 4; c++) {
        v[c] = _mm512_shuffle_i32x4(u[c], u[c + 8], 0x88);
        v[c + 8] = _mm512_shuffle_i32x4(u[c], u[c + 8], 0xdd);
        v[c + 4] = _mm512_shuffle_i32x4(u[c + 4], u[c + 12], 0x88);
        v[c + 12] = _mm512_shuffle_i32x4(u[c + 4], u[c + 12], 0xdd);
    }
}

/* Chunk `chunk` of sixteen rows of x, of which `rows` are there: pair 16 s + p of row i is x[i, 8 p + (s ^ 1)] and
   x[i, 8 p + 4 + (s ^ 1)] of the chunk, so [s][p][i], four tiles of pairs. */
static inline void pack_x(const uint16_t *x, int64_t rows, int64_t k, int64_t chunk, uint32_t *to)
{
    uint16_t pairs[32];
    for (int i = 0; i < 32; i++)
        pairs[i] = i / 8 * 8 + (i / 2 % 4 ^ 1) + i % 2 * 4;
    const __m512i order = _mm512_loadu_si512(pairs), none = _mm512_setzero_si512();
    for (int part = 0; part < 4; part++) {
        const int64_t column = chunk * CHUNK + 32 * part;
        __m512i v[16];
        for (int i = 0; i < 16; i++) {
            const int there = i < rows && column < k;
            v[i] = _mm512_permutexvar_epi16(order, there ? _mm512_loadu_si512(x + i * k + column) : none);
        }
        transpose_words(v);
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(to + (16 * (i % 4) + 4 * part + i / 4) * 16, v[i]);
    }
}

/* The sums of 16 vectors, in their order. (An array of vectors stays in registers only where all loops over it are
   unrolled.) */
INLINE __m512 sums_of_16(const __m512 v[16])
{
    __m512 pairs[8], fours[4], halves[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        pairs[i] =
            _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i] =
            _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                                  _mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88),
                         _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd));
}

/* The sums of 4 vectors, of the same numbers in the same order: to the bit those of `sums_of_16`. */
INLINE __m128 sums_of_4(const __m512 v[4])
{
    __m512 pairs[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        pairs[i] =
            _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    const __m512d a = _mm512_castps_pd(pairs[0]), b = _mm512_castps_pd(pairs[1]);
    const __m512 four =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    const __m128 first = _mm_add_ps(_mm512_castps512_ps128(four), _mm512_extractf32x4_ps(four, 1));
    const __m128 second = _mm_add_ps(_mm512_extractf32x4_ps(four, 2), _mm512_extractf32x4_ps(four, 3));
    return _mm_add_ps(first, second);
}

/* Sixteen weights of a block whose maximum is `first`, then those of another, in bfloat16. */
INLINE __m512i two_tables(__m512 levels, float first, float second)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(levels, _mm512_set1_ps(second)),
                                        _mm512_mul_ps(levels, _mm512_set1_ps(first)));
}

/* 16 in the words of a chunk that are for the second of two tables: those of its second half. */
INLINE __m512i second_half(void) { return _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1); }

/* Nibble s of 32 words of codes: an index is (word >> 4 s & 15) | second. */
INLINE __m512i look_up(__m512i words, const int s, __m512i second, __m512i tables)
{
    const __m512i shifted = s ? _mm512_srli_epi16(words, 4 * s) : words;
    return _mm512_permutexvar_epi16(_mm512_ternarylogic_epi32(shifted, _mm512_set1_epi16(15), second, 0xea), tables);
}

/* The maxima of halves of chunks [first, end) of a row of W: zero behind the end of the row. */
INLINE void maxima_of_row(const blockwise_4bit *w, int64_t row, int64_t first, int64_t end, float *to)
{
    const int64_t halves = min_i64(end * CHUNK, w->columns) / HALF - first * CHUNK / HALF;
    const int shift = __builtin_ctz(w->blocksize / HALF);
    const int64_t half = (row * w->columns + first * CHUNK) / HALF, block = half >> shift;
    chosen_set()->maxima(w, block, ((half + halves - 1) >> shift) - block + 1, to);
    for (int64_t i = halves - 1; shift && i >= 0; i--) /* downwards: what is still to be read is not written */
        to[i] = to[((half + i) >> shift) - block];
    if (halves % 2)
        to[halves] = 0;
}

INLINE __mmask16 lanes_below(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1; }

END_DOTS

#endif
#endif

/* Vectors of AVX-512 in kernels for bfloat16, whether a matrix unit multiplies or dot products do. Included behind the
   line that says for which instructions to compile. */

#ifndef LOWRANK_VECTORS_H
#define LOWRANK_VECTORS_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline)) /* an inner loop that has the registers to itself */

/* The first `count` of 16 lanes. */
INLINE __mmask16 lanes_below(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1; }

INLINE __m512 bf16_to_f32(__m256i v) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16); }

INLINE __m256i f32_to_bf16(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }

/* The numbers of two rows side by side, a pair in each lane. */
INLINE __m512i interleave(__m256i even, __m256i odd)
{ return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)); }

INLINE __m512i pairs_of(__m512 even, __m512 odd) { return interleave(f32_to_bf16(even), f32_to_bf16(odd)); }

/* The transpose of 16 rows of 16 words. */
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

#endif

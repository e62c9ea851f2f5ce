/* Causal attention, by the matrix unit or by dot products: what both compute alike. */

#ifndef LOWRANK_ATTENTION_MATH_H
#define LOWRANK_ATTENTION_MATH_H

#include "bf16/dots.h"

#ifdef HAS_DOTS

#define WIDEST 128 /* channels of a head */
#define LOG2_E 1.4426950408889634f
#define UNSEEN (-1e30f) /* the score of a key that a query does not see */

BEGIN_DOTS

INLINE __m512 bf16_to_f32(__m256i v) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16); }

INLINE __m256i f32_to_bf16(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }

/* The numbers of two rows side by side, a pair in each lane. */
INLINE __m512i interleave(__m256i even, __m256i odd)
{ return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)); }

INLINE __m512i pairs_of(__m512 even, __m512 odd) { return interleave(f32_to_bf16(even), f32_to_bf16(odd)); }

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

/* sum_c a[c] b[c] of two rows of h numbers */
INLINE float dot_rows(const uint16_t *a, const uint16_t *b, int64_t h)
{
    __m512 sum = _mm512_setzero_ps();
    for (int64_t c = 0; c < h; c += 16)
        sum = _mm512_fmadd_ps(bf16_to_f32(_mm256_loadu_si256((const __m256i *)(a + c))),
                              bf16_to_f32(_mm256_loadu_si256((const __m256i *)(b + c))), sum);
    return _mm512_reduce_add_ps(sum);
}

END_DOTS

#endif
#endif

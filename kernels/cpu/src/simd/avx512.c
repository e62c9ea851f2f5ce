/* AVX-512 (F, BW, DQ, VL) with FMA and F16C: Skylake-X and later, Zen 4 and later. */

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))),                   \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")
#endif
#include <immintrin.h>
#include <stdint.h>

#define LANES 16
#define NAME "avx512"
#define SET avx512_set

typedef __m512 table16;
#define load_table(p) _mm512_loadu_ps(p)
#define lookup(table, index) (F) _mm512_permutexvar_ps((__m512i)(index), table)
#define fma_(a, b, c) (F) _mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c))
#define half_to_float(p) (F) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define float_to_half(v, p) _mm256_storeu_si256((__m256i *)(p), _mm512_cvtps_ph((__m512)(v), _MM_FROUND_TO_NEAREST_INT))
/* One instruction for sixteen numbers, where the compiler would take two halves apart. */
#define bfloat16_to_float(p) (F) _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))), 16)
#define int8_to_float(p) (F) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define larger(a, b) (F) _mm512_max_ps((__m512)(a), (__m512)(b))
#define total(v) _mm512_reduce_add_ps((__m512)(v))

static inline __attribute__((always_inline)) __m128 totals_(const __m512 *v)
{
    __m256 half[4];
    for (int i = 0; i < 4; i++)
        half[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i]), _mm512_extractf32x8_ps(v[i], 1));
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}
#define totals(v) (F4) totals_((const __m512 *)(v))

/* Loads have ports of their own, but not enough of them for a vector that the compiler loads again for each use. */
static inline __attribute__((always_inline)) __m512 in_register_(__m512 v)
{
    __asm__("" : "+v"(v));
    return v;
}
#define in_register(v) (F) in_register_((__m512)(v))

/* Nibbles 2, 4 and 6 are the first nibbles one, two and three bytes on: another load instead of a shift, whose port is
   the one that is short of time. */
#define nibble(p, s) (U) odd_shift(in_register_(_mm512_loadu_ps((p) + (s) / 2)), (s) & 1)

static inline __attribute__((always_inline)) __m512i odd_shift(__m512 words, int odd)
{ return odd ? _mm512_srli_epi32((__m512i)words, 4) : (__m512i)words; }

/* The maximum of each word's block: up to four of them are in a chunk, from p on. */
#define broadcast_absmax(p, lane) (F) _mm512_permutexvar_ps((__m512i)(lane), _mm512_castps128_ps512(_mm_loadu_ps(p)))

/* 8 bytes to 16 nibbles in order: the first of a byte is its high one. */
static inline __attribute__((always_inline)) __m512i in_order_(const uint8_t *p)
{
    const __m512i high = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m512i shift = _mm512_set_epi32(24, 28, 16, 20, 8, 12, 0, 4, 24, 28, 16, 20, 8, 12, 0, 4);
    __m512i words = _mm512_castsi128_si512(_mm_loadl_epi64((const __m128i *)p));
    return _mm512_srlv_epi32(_mm512_permutexvar_epi32(high, words), shift);
}
#define in_order(p) (U) in_order_(p)

/* 256 floats as eight tables of 32, chosen among by the upper three bits: quicker than a gather. */
static inline __attribute__((always_inline)) __m512 lookup256_(const float *table, const uint8_t *codes)
{
    const __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
    __m512 found[8];
    for (int i = 0; i < 8; i++)
        found[i] = _mm512_permutex2var_ps(_mm512_loadu_ps(table + 32 * i), index, _mm512_loadu_ps(table + 32 * i + 16));
    for (int bit = 0; bit < 3; bit++) {
        const __mmask16 set = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32 << bit));
        for (int i = 0; i < 4 >> bit; i++)
            found[i] = _mm512_mask_mov_ps(found[2 * i], set, found[2 * i + 1]);
    }
    return found[0];
}
#define lookup256(table, codes) (F) lookup256_(table, codes)

#include "vector.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif

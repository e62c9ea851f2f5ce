/* AVX2 with FMA and F16C: Haswell and later, every Zen. */

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>
#include <stdint.h>

#define LANES 8
#define NAME "avx2"
#define SET avx2_set

/* A permutation reaches eight floats; bit 3 chooses between the results of two. */
typedef struct {
    __m256 lower, upper;
} table16;

static inline __attribute__((always_inline)) table16 load_table(const float *p)
{ return (table16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }

static inline __attribute__((always_inline)) __m256 lookup_(table16 table, __m256i index)
{
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.lower, index), _mm256_permutevar8x32_ps(table.upper, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
#define lookup(table, index) (F) lookup_(table, (__m256i)(index))
#define larger(a, b) (F) _mm256_max_ps((__m256)(a), (__m256)(b))
#define fma_(a, b, c) (F) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c))
#define half_to_float(p) (F) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define float_to_half(v, p) _mm_storeu_si128((__m128i *)(p), _mm256_cvtps_ph((__m256)(v), _MM_FROUND_TO_NEAREST_INT))
#define broadcast_absmax(p, lane) (F) _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), (__m256i)(lane))

/* 4 bytes to 8 nibbles in order: the first of a byte is its high one. */
static inline __attribute__((always_inline)) __m256i in_order_(const uint8_t *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return _mm256_srlv_epi32(_mm256_set1_epi32(word), _mm256_set_epi32(24, 28, 16, 20, 8, 12, 0, 4));
}
#define in_order(p) (U) in_order_(p)

#include "vector.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif

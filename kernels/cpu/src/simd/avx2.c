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

/* Sixteen levels as four tables of their bytes: one look-up finds a byte of 32 levels, and unpacking joins the four.
   That is three instructions for a vector of eight, where two permutations, two shifts and a choice are five. */
typedef struct {
    __m256i byte[4];
} level_table;

static inline __attribute__((always_inline)) level_table load_levels(const float *p)
{
    const __m128i bytes = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m128i quarter[4]; /* byte 0 of four levels, then byte 1, 2, 3 */
    for (int i = 0; i < 4; i++)
        quarter[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 4 * i)), bytes);
    const __m128i low[2] = {_mm_unpacklo_epi32(quarter[0], quarter[1]), _mm_unpacklo_epi32(quarter[2], quarter[3])};
    const __m128i high[2] = {_mm_unpackhi_epi32(quarter[0], quarter[1]), _mm_unpackhi_epi32(quarter[2], quarter[3])};
    return (level_table){{_mm256_broadcastsi128_si256(_mm_unpacklo_epi64(low[0], low[1])),
                          _mm256_broadcastsi128_si256(_mm_unpackhi_epi64(low[0], low[1])),
                          _mm256_broadcastsi128_si256(_mm_unpacklo_epi64(high[0], high[1])),
                          _mm256_broadcastsi128_si256(_mm_unpackhi_epi64(high[0], high[1]))}};
}

/* Vectors 0 .. 3 are of the high nibbles of 32 bytes, 4 .. 7 of the low ones. Unpacking stays within 16 bytes: lane j
   of vector i is of byte 4 i + j of the first, or from lane 4 on of the second half. */
#define LEVELS_AT_ONCE 4
#define position(s, j) (2 * (16 * ((j) / 4) + 4 * ((s) % 4) + (j) % 4) + (s) / 4)

static inline __attribute__((always_inline)) void look_up_(level_table table, const uint8_t *codes, int s, __m256 *to)
{
    const __m256i loaded = _mm256_loadu_si256((const __m256i *)codes);
    const __m256i index = _mm256_and_si256(s ? loaded : _mm256_srli_epi16(loaded, 4), _mm256_set1_epi8(15));
    __m256i byte[4];
    for (int i = 0; i < 4; i++)
        byte[i] = _mm256_shuffle_epi8(table.byte[i], index);
    const __m256i low[2] = {_mm256_unpacklo_epi8(byte[0], byte[1]), _mm256_unpackhi_epi8(byte[0], byte[1])};
    const __m256i high[2] = {_mm256_unpacklo_epi8(byte[2], byte[3]), _mm256_unpackhi_epi8(byte[2], byte[3])};
    for (int i = 0; i < 2; i++) {
        to[2 * i] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low[i], high[i]));
        to[2 * i + 1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low[i], high[i]));
    }
}
#define look_up(table, codes, s, to) look_up_(table, codes, s, (__m256 *)(to))
#define look_up_within look_up

static inline __attribute__((always_inline)) __m128 totals_(const __m256 *v)
{
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}
#define totals(v) (F4) totals_((const __m256 *)(v))

/* 4 bytes to 8 nibbles in order: the first of a byte is its high one. */
static inline __attribute__((always_inline)) __m256i in_order_(const uint8_t *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return _mm256_srlv_epi32(_mm256_set1_epi32(word), _mm256_set_epi32(24, 28, 16, 20, 8, 12, 0, 4));
}
#define in_order(p) (U) in_order_(p)

#define int8_to_float(p) (F) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p))))

#include "vector.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif

/* Any processor: vectors of four floats in plain C, which the compiler maps to what there is. */

#include <stdint.h>
#include <string.h>

#define LANES 4
#define NAME "portable"
#define SET portable_set

typedef float four __attribute__((vector_size(16)));
typedef uint32_t four_words __attribute__((vector_size(16)));
typedef double four_doubles __attribute__((vector_size(32)));

typedef const float *table16;
#define load_table(p) (p)
#define lookup(table, index) lookup_(table, (four_words)(index))
#define fma_(a, b, c) fma_in_double(a, b, c)
#define broadcast_absmax(p, lane) ((void)(lane), all(*(p))) /* a chunk of 32 weights is within a block */
#define in_order(p) ((four_words){(p)[0] >> 4, (p)[0], (p)[1] >> 4, (p)[1]})
#define half_to_float(p) half_to_float_(p)
#define float_to_half(v, p) float_to_half_(v, p)

static inline four lookup_(const float *table, four_words index)
{ return (four){table[index[0] & 15], table[index[1] & 15], table[index[2] & 15], table[index[3] & 15]}; }

/* A product of two floats is exact in double: the sum is rounded to 53 bits and to 24, where one that is rounded twice
   in 24 would be less exact than a vendor's. */
static inline __attribute__((always_inline)) four fma_in_double(four a, four b, four c)
{
    const four_doubles product = __builtin_convertvector(a, four_doubles) * __builtin_convertvector(b, four_doubles);
    return __builtin_convertvector(product + __builtin_convertvector(c, four_doubles), four);
}

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 mantissa bits. */
static float from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff, bits;
    float value;
    if (magnitude < 0x0400) { /* zero or denormal: a whole number of 2^-24 */
        value = (float)magnitude * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
    } else
        bits = (magnitude << 13) + (magnitude < 0x7c00 ? (127 - 15) << 23 : (255 - 31) << 23);
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To nearest even. */
static uint16_t to_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return sign | 0x7e00; /* NaN */
    if (bits >= 0x477ff000)
        return sign | 0x7c00; /* 65520 and more round to infinity */
    if (bits < 0x38800000) {  /* below 2^-14, the least normal number: adding 0.5 rounds to a multiple of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, sizeof bits);
        return sign | (bits - 0x3f000000);
    }
    return sign | ((bits - ((127 - 15) << 23) + 0xfff + (bits >> 13 & 1)) >> 13);
}

static inline four half_to_float_(const void *p)
{
    uint16_t half[4];
    memcpy(half, p, sizeof half);
    return (four){from_half(half[0]), from_half(half[1]), from_half(half[2]), from_half(half[3])};
}

static inline void float_to_half_(four v, void *p)
{
    uint16_t half[4] = {to_half(v[0]), to_half(v[1]), to_half(v[2]), to_half(v[3])};
    memcpy(p, half, sizeof half);
}

#include "vector.inc"

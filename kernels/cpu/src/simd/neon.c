/* NEON, which every 64-bit Arm has. */

#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>

#define LANES 4
#define NAME "neon"
#define SET neon_set

/* Sixteen floats are the 64 bytes that one TBL reaches: float i is the bytes 4 i .. 4 i + 3. */
typedef uint8x16x4_t table16;
#define load_table(p) vld1q_u8_x4((const uint8_t *)(p))

static inline __attribute__((always_inline)) float32x4_t lookup_(table16 table, uint32x4_t index)
{
    uint32x4_t code = vandq_u32(index, vdupq_n_u32(15));
    uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100), code, vdupq_n_u32(0x04040404));
    return vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(bytes)));
}
#define lookup(table, index) (F) lookup_(table, (uint32x4_t)(index))
#define fma_(a, b, c) (F) vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b))
#define half_to_float(p) (F) vcvt_f32_f16(vld1_f16((const __fp16 *)(p)))
#define float_to_half(v, p) vst1_f16((__fp16 *)(p), vcvt_f16_f32((float32x4_t)(v)))
#define broadcast_absmax(p, lane) ((void)(lane), (F)vdupq_n_f32(*(p))) /* a chunk of 32 weights is within a block */
#define total(v) vaddvq_f32((float32x4_t)(v))

static inline __attribute__((always_inline)) float32x4_t totals_(const float32x4_t *v)
{ return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])); }
#define totals(v) (F4) totals_((const float32x4_t *)(v))

/* 2 bytes to 4 nibbles in order: the first of a byte is its high one. */
static inline __attribute__((always_inline)) uint32x4_t in_order_(const uint8_t *p)
{
    const int32x4_t shift = {-4, 0, -12, -8};
    return vshlq_u32(vdupq_n_u32((uint32_t)p[0] | (uint32_t)p[1] << 8), shift);
}
#define in_order(p) (U) in_order_(p)

#include "vector.inc"
#endif

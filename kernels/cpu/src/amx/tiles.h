/* Products by the matrix unit (AMX): W becomes tiles of bfloat16 in the first-level cache, from codes, as it is wanted.

   A tile is 16 rows of 64 bytes, a kilobyte. C += A B takes A as 16 rows of 32 numbers, B as 16 rows of 16 pairs, pair
   r of a column being its numbers 2 r and 2 r + 1, and C as 16 x 16 in float32. Four tiles of C are summed at a time,
   from two of A and two of B.

       y^T = W x^T      A: rows of W, as they are decoded         B: x, packed once
       dX  = dY W       A: dY, packed once                        B: pairs of rows of W, interleaved

   Rows of x or dY go by blocks of `X_TILES` tiles, which are packed, and the dimension that is summed over by stretches
   of which the packed block stays in the second-level cache (`RESIDENT_BYTES`). A thread takes its part of W panel by
   panel: a panel is decoded into the first-level cache, once, and multiplied with the whole block. Sums in float32 are
   put aside from one stretch to the next.

   How codes become bfloat16 is in bf16/dots.h: tile s has every fourth weight, and what meets it is packed to match. */

#ifndef LOWRANK_TILES_H
#define LOWRANK_TILES_H

#include "bf16/dots.h"

#if defined(__x86_64__) && defined(__linux__)
#define HAS_TILES
#ifdef __clang__
#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")
#endif

#define SIDE 16
#define TILE 1024         /* bytes */
#define FLOATS (TILE / 4) /* of a tile of C */
#define RESIDENT_BYTES                                                                                                 \
    (1 << 20) /* bytes of what is packed that stay in the second-level cache, beside sums and codes */

/* The compiler is not told what the tile instructions read: without this it might store it later, or never. */
#define MEMORY_IS_READ(p) __asm__ volatile("" : : "r"(p) : "memory")

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) tile_shapes;

static inline void configure_tiles(void)
{
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.bytes[i] = 64;
        shapes.rows[i] = SIDE;
    }
    MEMORY_IS_READ(&shapes);
    _tile_loadconfig(&shapes);
}

/* `length` in as few stretches of at most `most` as will do, of much the same length. */
static inline int64_t stretch(int64_t length, int64_t most)
{
    const int64_t stretches = round_up(length, most) / most;
    return (length + stretches - 1) / stretches;
}

/* C[2][columns] (+)= A[2] B[columns] over `steps` tiles; the second of a pair is `..._next` bytes, or floats, on. */
INLINE void multiply_tiles(const int columns, const int onto, const char *a, int64_t a_next, const char *b,
                           int64_t b_next, int64_t steps, float *c, int64_t c_row, int64_t c_column)
{
    MEMORY_IS_READ(a);
    if (onto) {
        _tile_loadd(0, c, 64);
        _tile_loadd(2, c + c_row, 64);
        if (columns == 2) {
            _tile_loadd(1, c + c_column, 64);
            _tile_loadd(3, c + c_row + c_column, 64);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t i = 0; i < steps; i++, a += TILE, b += TILE) {
        _tile_loadd(6, b, 64); /* from the second-level cache, so first */
        if (columns == 2)
            _tile_loadd(7, b + b_next, 64);
        _tile_loadd(4, a, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (columns == 2)
            _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + a_next, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (columns == 2)
            _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 64);
    _tile_stored(2, c + c_row, 64);
    if (columns == 2) {
        _tile_stored(1, c + c_column, 64);
        _tile_stored(3, c + c_row + c_column, 64);
    }
}

/* C[2][columns] += A[2] B[columns] */
INLINE void multiply(const int columns, const char *a, int64_t a_next, const char *b, int64_t b_next, int64_t steps,
                     float *c, int64_t c_row, int64_t c_column)
{ multiply_tiles(columns, 1, a, a_next, b, b_next, steps, c, c_row, c_column); }

/* C[2][2] = A[2] B[2] */
INLINE void product(const char *a, int64_t a_next, const char *b, int64_t b_next, int64_t steps, float *c,
                    int64_t c_row, int64_t c_column)
{ multiply_tiles(2, 0, a, a_next, b, b_next, steps, c, c_row, c_column); }

/* Sixteen numbers to bfloat16, to nearest even, in the upper halves of words; a NaN stays one. */
INLINE __m512i rounded_above(__m512 v)
{
    const __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_mask_set1_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), 0x7fc00000);
}

/* The same, one behind the other. */
INLINE __m256i rounded(__m512 v) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_above(v), 16)); }

/* Numbers of `first` and `second` in turn. */
INLINE __m512i rounded_pairs(__m512 first, __m512 second)
{ return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(rounded_above(first), 16), rounded_above(second)); }

/* Nibble s of 32 words of codes to a row of tile s, `next` bytes on. `second`: see `look_up`. */
INLINE void lookup_tiles(__m512i words, __m512i second, __m512i tables, char *to, int64_t next)
{
    for (int s = 0; s < 4; s++)
        _mm512_store_si512(to + s * next, look_up(words, s, second, tables));
}

#endif
#endif

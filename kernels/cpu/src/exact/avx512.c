/* AVX-512 (F, BW, DQ, VL): Skylake-X and later, Zen 4 and later. Twenty-four sums of the thirty-two registers. */

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define VECTOR 16
#define TILE_ROWS 12
#define SET avx512_exact
#include "set.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif

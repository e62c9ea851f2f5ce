/* AVX2: Haswell and later, every Zen. Twelve sums of the sixteen registers. */

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define VECTOR 8
#define TILE_ROWS 6
#define SET avx2_exact
#include "set.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif

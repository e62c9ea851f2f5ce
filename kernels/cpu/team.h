/* What a team of threads does together, for whoever has one already: each thread its share. */

#ifndef LOWRANK_TEAM_H
#define LOWRANK_TEAM_H

#include "isa.h"

/* Bytes that `team_linears` works in, for m rows of x and up to `threads` threads. */
int64_t linears_bytes(const linear_part *parts, int64_t count, int64_t m, enum dtype dtype, int threads);

/* `lowrank_linears`. The team has passed a barrier when it returns. memory: aligned for whole vectors. */
void team_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype, char *memory);

/* The weights that are read. */
int64_t weights_of(const linear_part *parts, int64_t count);

/* Those of the same names in native.h, without a barrier behind them. scores: ATTEND_MEMORY of floats a thread. */
void team_rms_norm(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t rows,
                   int64_t channels, float eps, void *h, float *rstd, void *y);
void team_swiglu(const void *gate, const void *up, enum dtype dtype, int64_t count, void *y);
void team_decode_attention(const decode_sizes *sizes, enum dtype dtype, const void *q, const void *k, const void *v,
                           const uint8_t *seen, float *scores, void *y);

#endif

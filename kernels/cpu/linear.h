/* The linears of one x, for whoever has a team of threads already. */

#ifndef LOWRANK_LINEAR_H
#define LOWRANK_LINEAR_H

#include "isa.h"

/* Bytes that `team_linears` works in, for m rows of x and up to `threads` threads. */
int64_t linears_bytes(const linear_part *parts, int64_t count, int64_t m, enum dtype dtype, int threads);

/* `lowrank_linears` by the whole team, which has passed a barrier when it returns. memory: aligned for whole vectors. */
void team_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype, char *memory);

/* The weights that are read. */
int64_t weights_of(const linear_part *parts, int64_t count);

#endif

/* Few rows of x by dot products of bfloat16 pairs: what a thread calls. Only where `uses_bf16`, and rows of W are whole
   blocks of a multiple of 64. */

#ifndef LOWRANK_BF16_GEMV_H
#define LOWRANK_BF16_GEMV_H

#include "threads.h"

/* Bytes that a thread works in, aligned for whole vectors. */
int64_t bf16_rows_bytes(const blockwise_4bit *w);

/* A row of x [k] as `bf16_rows` takes it, filled up with zeros to whole chunks of 128. */
void bf16_arrange(const uint16_t *x, int64_t k, uint16_t *to);

/* y[i, r] = sum_k W[r, k] x[i, k] for the rows r of W and all m rows of an arranged x, which are `stride` apart, in
   float32; y [m, N]. own: memory of the thread. */
void bf16_rows(const blockwise_4bit *w, range rows, const uint16_t *x, int64_t m, int64_t stride, float *y, char *own);

/* Asks memory for what `bf16_rows` reads first of these rows, for one row of x. */
void bf16_ask_for_rows(const blockwise_4bit *w, range rows);

#endif

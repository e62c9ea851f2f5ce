/* The ground of gemv.c, panel_gemm.c and panel_gemm_backward.c: y = x W^T in float32, up to a few rows of x with W
   looked up in registers, from PANELS_FROM on with W in panels, which for dX is the one way. */

#ifndef LOWRANK_PANEL_GEMM_H
#define LOWRANK_PANEL_GEMM_H

#include "threads.h"

/* Rows of x. Up to eight, gemv.c gives a row the same bits whatever their number: tokens that are drafted are verified
   so. Panels would be a fifth faster from five rows of x on for 4 bits, and half as fast for a dense W. */
#define PANELS_FROM 9

/* Bytes between what two threads write. The processor fetches ahead of a stride of sums, by some 4 kB, and would take
   the panel behind them from the other thread each time: up to half of the speed. */
#define APART 8192

static inline int64_t rows_of(const linear_part *part)
{ return part->w ? part->w->rows : part->w_int8 ? part->w_int8->rows : part->w_dense->rows; }

static inline int64_t columns_of(const linear_part *part)
{ return part->w ? part->w->columns : part->w_int8 ? part->w_int8->columns : part->w_dense->columns; }

/* 1 if rows of W are whole blocks of 4 bits, whose weights are decoded in the order of `pack_x`. */
static inline int is_in_blocks(const linear_part *part)
{ return part->w && part->w->columns % part->w->blocksize == 0; }

/* 1 if so many rows of x meet W in panels: what takes bfloat16 by dot products has panels of its own (bf16/gemm.c). */
static inline int takes_panels(int64_t m, enum dtype dtype)
{ return m >= PANELS_FROM && !(dtype == BFLOAT16 && uses_bf16()); }

/* `linears_bytes` and `team_linears`, with panels. */
int64_t panel_linears_bytes(const linear_part *parts, int64_t count, int64_t m, int threads);
void team_panel_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype,
                        char *memory);

/* Columns [k, k + count) of `rows` rows of W in float32, `stride` apart, in the order of `pack_x` where `is_in_blocks`,
   or in plain order, and filled up with zeros to whole chunks. maxima: of the first row on, of the block of `k`.
   next: codes that will be decoded then. tails: `rows` halves of a chunk in bytes. */
void decode_blocks(const blockwise_4bit *w, int64_t row, int64_t rows, int64_t k, int64_t count, const float *maxima,
                   int64_t maxima_stride, const uint8_t *next, uint8_t *tails, float *to, int64_t stride);
void decode_plain(const linear_part *part, int64_t row, int64_t rows, int64_t k, int64_t count, float *to,
                  int64_t stride);

#endif

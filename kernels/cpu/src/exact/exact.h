/* Training with the same bits on every processor: `numerics = "exact"`.

   IEEE 754 says what one addition, multiplication, division or square root of floats gives, to the last bit. What
   differs between processors is what is made of these: the order of a sum, products that are fused with an addition,
   and the exp, log, sin and cos of a library. So this folder has all of its own, in plain C: every file that ends in
   .inc is compiled once for each instruction set (portable.c, avx2.c, avx512.c; NEON is what portable.c becomes on
   Arm), with -ffp-contract=off and without -ffast-math, which lets a compiler vectorize, and never reorder. Three rules
   are left:

       products   C[i][j] is summed over k ascending, in chunks of 64 that begin at zero, each then added to C[i][j].
                  Vectors and threads hold other outputs, never other parts of a sum (multiply.inc).
       row sums   term i goes to lane i % 8 of eight in double, ascending; the lanes are then added in halves (`total`).
       functions  Taylor's series after a reduction of the argument, its coefficients 1/k! and 1/(2k+1) (functions.inc).

   Threads take whole rows, columns, heads or numbers. */

#ifndef LOWRANK_EXACT_H
#define LOWRANK_EXACT_H

#include "../api.h"

#define EXACT_CHUNK 64            /* terms of a product that are summed from zero */
#define EXACT_QUERIES EXACT_CHUNK /* of attention, at a time: the chunks of dK and dV */
#define PACKED_K 256              /* of the terms, and of the columns, that are packed at a time */
#define PACKED_ROWS 96            /* of a: a multiple of the rows of every set's tile */
#define PACKED_FLOATS (PACKED_K * (PACKED_K + PACKED_ROWS)) /* memory of one `multiply` */

typedef struct {
    /* c[i][j] = sum_k a(i, k) b(k, j), added to c[i][j] where `onto`; c_stride floats from one row of c to the next.
       memory: PACKED_FLOATS, aligned for whole vectors */
    void (*multiply)(exact_matrix a, exact_matrix b, int64_t m, int64_t n, int64_t k, float *c, int64_t c_stride,
                     int onto, float *memory);

    void (*function)(enum exact_function which, const float *x, int64_t count, float *y);

    double (*sum)(const float *x, int64_t count);
    double (*dot)(const float *x, const float *y, int64_t count);

    /* A row each of lowrank_exact_rms_norm and its gradient, of rope for the heads of a position, of cross_entropy. */
    float (*norm)(const float *x, const float *weight, int64_t channels, float eps, float *y);
    void (*norm_backward)(const float *dy, const float *x, float rstd, const float *weight, int64_t channels,
                          float *dx);
    void (*rotate)(const float *x, int64_t heads, int64_t channels, int interleaved, int inverse, const float *cos,
                   const float *sin, float *y);
    float (*cross_entropy)(float *logits, int64_t vocabulary, int64_t target);

    void (*swiglu)(const float *gate, const float *up, int64_t count, float *y);
    void (*swiglu_backward)(const float *dy, const float *gate, const float *up, int64_t count, float *dgate,
                            float *dup);
    void (*adamw)(const exact_adamw *constants, const float *gradient, int64_t count, float *parameter, float *m,
                  float *v);

    /* y of one query head [length][channels], with the keys and values of its own.
       starts [length]: the first key that each query sees, or NULL for 0. memory: EXACT_ATTENTION_FLOATS. */
    void (*attention)(const float *q, const float *k, const float *v, const int64_t *starts, int64_t length,
                      int64_t channels, float *memory, float *y);

    /* dq of that head; dk and dv are added to. */
    void (*attention_backward)(const float *dy, const float *q, const float *k, const float *v, const int64_t *starts,
                               int64_t length, int64_t channels, float *memory, float *dq, float *dk, float *dv);
} exact_set;

/* Scores and their gradient, a block of queries each, and a product. */
#define EXACT_ATTENTION_FLOATS(length) (PACKED_FLOATS + 2 * EXACT_QUERIES * (length))

extern const exact_set portable_exact;
#if defined(__x86_64__)
extern const exact_set avx2_exact, avx512_exact;
#endif

#endif

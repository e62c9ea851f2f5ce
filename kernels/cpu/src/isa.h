/* The functions of an instruction set: the same ones, compiled from vector.inc for each set. */

#ifndef LOWRANK_ISA_H
#define LOWRANK_ISA_H

#include <stddef.h>

#include "api.h"

#define MAX_ROWS 8 /* rows of x that are multiplied with a row of W at a time */

#define DOT_ROWS 4 /* that are multiplied with two of W: for more the sums are too many */

/* Bytes after the codes of a row that `dot` may read, and floats after its maxima, and which count for nothing. */
#define CODES_PADDING 68
#define ABSMAX_PADDING 16

/* A panel is a part of W in float32 that stays in the first level of the cache while rows of x, or dY, go by. Forward
   it has PANEL_ROWS rows of up to PANEL_COLUMNS weights; for dX it has one chunk of as many rows as are as large. */
#define PANEL_ROWS 8
#define PANEL_COLUMNS 512
#define PANEL_STRIDE (PANEL_COLUMNS + 16) /* rows begin in different sets of the cache */
#define PANEL_FLOATS (PANEL_ROWS * PANEL_COLUMNS)
#define STRIPE 128 /* columns of W, 64 bytes of codes: dX is computed for so many at a time */

/* Where the rows of a panel are decoded from, each so many bytes, and floats, after the one before. */
typedef struct {
    const uint8_t *codes, *next; /* next: what will be decoded then, and is asked for from memory */
    int64_t codes_stride;
    const float *maxima; /* readable for ABSMAX_PADDING floats more */
    int64_t maxima_stride;
    const float *levels;
    int blocksize;
} panel_source;

typedef struct {
    const char *name;
    int chunk; /* weights that are decoded at a time: x is arranged, and K filled up, for whole chunks */

    /* Between float32 and another dtype, rounded to nearest even. */
    void (*to_f32)(const void *from, enum dtype dtype, int64_t count, float *to);
    void (*from_f32)(const float *from, int64_t count, enum dtype dtype, void *to);

    /* maxima [count], from block `first` on. */
    void (*maxima)(const blockwise_4bit *w, int64_t first, int64_t count, float *maxima);

    /* `count` weights, a multiple of 32, the first of which begins a byte and a block: W in their order. */
    void (*decode)(const uint8_t *codes, int64_t count, const float *levels, const float *maxima, int blocksize,
                   enum dtype dtype, void *to);

    /* x in the order in which `dot` meets the weights, filled up with zeros to whole chunks. */
    void (*pack_x)(const float *x, int64_t count, float *to);

    /* y[m] = sum_k W[n, k] x[m, k] for the m <= MAX_ROWS rows of a packed x, `stride` floats from one to the next. */
    void (*dot)(const uint8_t *codes, int64_t columns, const float *levels, const float *maxima, int blocksize,
                const float *x, int64_t stride, int m, float *y);

    /* The same for two rows of W, wherever their codes are, and m <= DOT_ROWS of x: y[i][0], y[i][1]. */
    void (*dot_two)(const uint8_t *const codes[2], int64_t columns, const float *levels, const float *maxima,
                    int64_t maxima_stride, int blocksize, const float *x, int64_t stride, int m, float *y);

    /* y[m] = sum_k W[k] x[m, k] in plain order, W in any dtype. */
    void (*dot_plain)(const void *w, enum dtype dtype, int64_t columns, const float *x, int64_t stride, int m,
                      float *y);

    /* The same for W[k] = codes[k] * factor: to the bit what `dot_plain` makes of `decode_int8`'s row. */
    void (*dot_int8)(const int8_t *codes, float factor, int64_t columns, const float *x, int64_t stride, int m,
                     float *y);

    /* y[n] += scaling sum_j b[n, j] u[j], for all rows of b [rows, rank]. */
    void (*add_inner)(const float *b, int64_t rows, int64_t rank, float scaling, const float *u, float *y);

    /* to[k] += factor * w[k] */
    void (*add)(const float *w, int64_t count, float factor, float *to);

    /* to[r][k] for `rows` rows of W, `stride` floats apart, `count` weights of each, whole chunks, in the order of
       `pack_x`. */
    void (*decode_panel)(const panel_source *from, int64_t rows, int64_t count, float *to, int64_t stride);

    /* c[i][r] = sum_k panel[r][k] x[i][k], r < PANEL_ROWS, k < count, a multiple of the chunk; `onto`: added to c.
       panel [][PANEL_STRIDE], x [m][PANEL_COLUMNS], `c_stride` floats from one row of c to the next. */
    void (*multiply_panel)(const float *panel, int64_t count, const float *x, int64_t m, float *c, int64_t c_stride,
                           int onto);

    /* c[i][k] = sum_r dy[i][r] panel[r][k], k < chunk, r < rows; `onto`: added to c.
       panel [][chunk], dy [m][PANEL_FLOATS / chunk], c [m][STRIPE]. */
    void (*multiply_panel_backward)(const float *panel, int64_t rows, const float *dy, int64_t m, float *c, int onto);

    /* The way back from the order of `pack_x`. */
    void (*unpack_dx)(const float *from, int64_t count, float *to);

    /* codes[k] * factor */
    void (*decode_int8)(const int8_t *codes, int64_t count, float factor, enum dtype dtype, void *to);

    /* The largest magnitude of `count` weights as bits: 0x7f800000 or more where one is infinite or NaN. */
    uint32_t (*max_bits)(const float *w, int64_t count);

    /* Codes of a whole block: the nearest level to w[i] * reciprocal, or w[i] / maximum where `divide`. */
    void (*encode)(const float *w, int count, float scale, int divide, const float *boundaries, const uint8_t *order,
                   uint8_t *codes);

    /* y[i] = x[i] cos[i] + x[j] sin[i], as `spread_angles` gives them, j the other channel of the pair of i: (i, i +
       channels / 2), or (2 i, 2 i + 1) where `interleaved`. */
    void (*rotate)(const void *x, enum dtype dtype, int64_t channels, int interleaved, const float *cos,
                   const float *sin, void *y);

    /* silu(gate) up, and its gradients by gate and up. */
    void (*swiglu)(const void *gate, const void *up, enum dtype dtype, int64_t count, void *y);
    void (*swiglu_backward)(const void *dy, const void *gate, const void *up, enum dtype dtype, int64_t count,
                            void *dgate, void *dup);

    /* A row of lowrank_rms_norm, which returns rstd, and of lowrank_rms_norm_backward, where dweight [channels] is
     * added to.
     */
    float (*norm)(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t channels,
                  float eps, void *h, void *y);
    void (*norm_backward)(const void *dy, const void *dh, const void *h, float rstd, const void *weight,
                          enum dtype dtype, int64_t channels, void *dx, float *dweight);

    /* A row of lowrank_cross_entropy, whose target is one of `vocabulary`. */
    float (*cross_entropy)(void *logits, enum dtype dtype, int64_t vocabulary, int64_t target, int with_gradient);

    /* y = softmax(scale q k^T) v for a query and `length` keys, which are `stride` numbers apart, as values are: those
       that `mask` names, or all where it is NULL. memory: DECODE_ATTENTION_FLOATS floats. */
    void (*decode_attention)(const void *q, const void *k, const void *v, int64_t stride, const uint8_t *mask,
                             enum dtype dtype, int64_t length, int64_t channels, float scale, float *memory, void *y);
} instruction_set;

/* The query, the sums, and the scores, each up to a whole vector of any set. */
#define DECODE_ATTENTION_FLOATS(length, channels) (2 * round_up(channels, 16) + round_up(length, 16))

extern const instruction_set portable_set;
#if defined(__x86_64__)
extern const instruction_set avx2_set, avx512_set;
#elif defined(__aarch64__)
extern const instruction_set neon_set;
#endif

const instruction_set *chosen_set(void);

/* 1 if this processor has a matrix unit, and the kernel of the system lets us use it. */
int has_amx(void);

/* 1 if this processor has dot products of bfloat16 pairs (AVX512-BF16) beside AVX-512; 1 if they are what the
   instruction set in use takes for bfloat16: then no matrix unit is. */
int has_bf16(void);
int uses_bf16(void);

/* The size of the first-level cache of data, or 0 where the system does not tell. */
int64_t first_level_bytes(void);

static inline size_t size_of(enum dtype dtype) { return dtype == FLOAT32 ? 4 : 2; }

/* The angles of the pairs of a head, [channels / 2], as the channels meet them: a takes cos and -sin, b cos and sin. */
void spread_angles(const float *cos, const float *sin, int64_t channels, int interleaved, int inverse, float *own,
                   float *other);

/* `count` weights from number `begin` of the flattened W on, wherever in a block or a byte that is. */
void decode_weights(const blockwise_4bit *w, int64_t begin, int64_t count, enum dtype dtype, void *out);

#endif

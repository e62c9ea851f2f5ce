/* Products with quantized weights on a CPU, straight from their codes.

   W [N, K] is flattened row by row and cut into blocks of `blocksize` weights (kernels/weights/quantized_weight.py,
   kernels/reference/weights.py say what is computed; this is how). Every pointer comes from a torch tensor that the
   caller has checked and keeps alive. Nothing here keeps state but the choice of instruction set. The sums of an output
   are always taken in one order, by one thread, so the number of threads changes no result.

   N out_features, K in_features, M rows of x. */

#ifndef LOWRANK_NATIVE_H
#define LOWRANK_NATIVE_H

#include <stdint.h>

enum dtype { FLOAT32, BFLOAT16, FLOAT16 };

/* W.flatten()[i] = levels[code i] * maximum[i / blocksize], two codes a byte, the first in the high nibble;
   maximum[b] = absmax[b], or where absmax is NULL:
   maximum[b] = dynamic8[absmax_codes[b]] * nested_absmax[b / nested_blocksize] + *offset */
typedef struct {
    const uint8_t *codes;
    const float *absmax;
    const uint8_t *absmax_codes;
    const float *nested_absmax;
    const float *offset;
    const float *levels;   /* [16] */
    const float *dynamic8; /* [256] */
    int64_t rows, columns;
    int32_t blocksize, nested_blocksize;
} blockwise_4bit;

/* W[n, k] = codes[n, k] * (scale[n] / 127) */
typedef struct {
    const int8_t *codes;
    const float *scale; /* [N] */
    int64_t rows, columns;
} rowwise_int8;

#define API __attribute__((visibility("default")))

/* The text of this file as the library was compiled with it: kernels/cpu/library.py compares it with the one beside it,
   for by another one it would pass other structs and arguments. */
API const char *lowrank_api_header(void);

/* Chooses an instruction set by name ("amx", "avx512bf16", "avx512", "avx2", "neon", "portable"), or with NULL the
   first of these that the processor has. Before anything else is called. Returns 0, or -1 if the processor has none of
   that name. */
API int lowrank_choose(const char *name);
API const char *lowrank_instruction_set(void);

/* Vendor and family ("AuthenticAMD 25"), or "" where the processor does not name them. */
API const char *lowrank_processor(void);

/* Functions that return int return 0, or -1 where there was no memory, if nothing else is said. */

/* Codes and maxima of `count` weights. Returns 1, and leaves the rest undone, if one is NaN or infinite; else 0.
   boundaries [15] ascending, order [16]: the code of each level in ascending order, zero_code: that of zero. */
API int lowrank_quantize(const void *w, enum dtype dtype, int64_t count, int blocksize, const float *boundaries,
                         const uint8_t *order, uint8_t zero_code, uint8_t *codes, float *absmax, int threads);

/* Nested codes and maxima of `count` maxima: the nearest of the 256 levels whose boundaries [255] are given. */
API void lowrank_quantize_absmax(const float *absmax, int64_t count, float offset, int nested_blocksize,
                                 const float *boundaries, uint8_t *codes, float *nested_absmax, int threads);

/* A part of a matrix: rows [row, row + rows), columns [column, column + columns). */
typedef struct {
    int64_t row, rows, column, columns;
} submatrix;

/* A part of W into out, `stride` elements from one row to the next. */
API void lowrank_dequantize(const blockwise_4bit *w, const submatrix *part, enum dtype dtype, void *out, int64_t stride,
                            int threads);
API void lowrank_dequantize_int8(const rowwise_int8 *w, const submatrix *part, enum dtype dtype, void *out,
                                 int64_t stride, int threads);

/* W [N, K] as it is. */
typedef struct {
    const void *weights;
    enum dtype dtype;
    int64_t rows, columns;
} dense;

/* The adapter of rows [first, end) of x: lora_a [rank, K] and lora_b [N, rank]; rank 0 is none. */
typedef struct {
    int64_t first, end;
    const float *lora_a, *lora_b;
    int64_t rank;
    float scaling;
} lora_span;

/* One of the linears of an x [M, K]: y [M, N] = x W^T + scaling (x A^T) B^T, W in one of the formats, the others NULL.
   lora_a [rank, K] and lora_b [N, rank] are float32; rank 0 is no adapter. Where there are spans they stand in the
   place of these: of all rows, one span behind another, and each row has the bits that it has alone, whatever M is. */
typedef struct {
    const blockwise_4bit *w;
    const rowwise_int8 *w_int8;
    const dense *w_dense;
    const float *lora_a, *lora_b;
    int64_t rank;
    float scaling;
    void *y;
    const lora_span *spans; /* or NULL */
    int64_t span_count;
} linear_part;

/* All linears of x. x and y of one dtype and contiguous; a y is summed in float32, and rounded once. */
API int lowrank_linears(const linear_part *parts, int64_t count, const void *x, int64_t m, enum dtype dtype,
                        int threads);

/* dx [M, K] = dy W, both of one dtype and contiguous; sums in float32. */
API int lowrank_linear_backward(const blockwise_4bit *w, const void *dy, int64_t m, enum dtype dtype, void *dx,
                                int threads);
API int lowrank_linear_int8_backward(const rowwise_int8 *w, const void *dy, int64_t m, enum dtype dtype, void *dx,
                                     int threads);

/* y = x W^T and dx = dy W in bfloat16 by the matrix unit, with W rounded to bfloat16 first: only where the instruction
   set is "amx", and rows of W are whole blocks of a multiple of 64. */
API int lowrank_linear_amx(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads);
API int lowrank_linear_amx_backward(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads);

/* The same by dot products of bfloat16 pairs: only where the instruction set is "avx512bf16" (or the processor has
   them), for the same W. */
API int lowrank_linear_bf16(const blockwise_4bit *w, const uint16_t *x, int64_t m, uint16_t *y, int threads);
API int lowrank_linear_bf16_backward(const blockwise_4bit *w, const uint16_t *dy, int64_t m, uint16_t *dx, int threads);

/* Heads of bfloat16 [batch, heads, time, channels]: the channels of a row are contiguous; strides are in numbers. */
typedef struct {
    const uint16_t *first;
    int64_t batch, head, time;
} head_tensor;

/* `channels` is a multiple of 32, at most 128; `heads` a multiple of `kv_heads`. */
typedef struct {
    int64_t batch, heads, kv_heads, length, channels;
    float scale;
} attention_sizes;

/* y = softmax(scale q k^T) v over the keys up to the query's own: by the matrix unit, only where the instruction set is
   "amx", or by dot products of bfloat16 pairs, only where it is "avx512bf16".
   k and v have kv_heads heads, q and y all of them. logarithms [batch, heads, length], or NULL: see attention.h. */
API int lowrank_attention_amx(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                              const head_tensor *v, const head_tensor *y, float *logarithms, int threads);
API int lowrank_attention_bf16(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                               const head_tensor *v, const head_tensor *y, float *logarithms, int threads);
API int lowrank_attention_amx_backward(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                                       const head_tensor *v, const head_tensor *y, const float *logarithms,
                                       const head_tensor *dy, const head_tensor *dq, const head_tensor *dk,
                                       const head_tensor *dv, int threads);
API int lowrank_attention_bf16_backward(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                                        const head_tensor *v, const head_tensor *y, const float *logarithms,
                                        const head_tensor *dy, const head_tensor *dq, const head_tensor *dk,
                                        const head_tensor *dv, int threads);

/* y = x [positions, heads, channels] with its pairs of channels turned: (a cos - b sin, a sin + b cos), -sin where
   `inverse`. cos, sin [positions, channels / 2]; pairs are (i, i + channels / 2), or (2 i, 2 i + 1). */
API int lowrank_rope(const void *x, enum dtype dtype, int64_t positions, int64_t heads, int64_t channels,
                     int interleaved, int inverse, const float *cos, const float *sin, void *y, int threads);

/* y = silu(gate) up; dgate = dy up silu'(gate), dup = dy silu(gate): `count` numbers each. */
API int lowrank_swiglu(const void *gate, const void *up, enum dtype dtype, int64_t count, void *y, int threads);
API int lowrank_swiglu_backward(const void *dy, const void *gate, const void *up, enum dtype dtype, int64_t count,
                                void *dgate, void *dup, int threads);

/* h = x + residual, or x where residual is NULL, and h is not written; rstd = 1 / sqrt(mean(h^2) + eps) of each row,
   or NULL where nobody asks for it; y = h rstd weight. */
API int lowrank_rms_norm(const void *x, const void *residual, const void *weight, enum dtype dtype, int64_t rows,
                         int64_t channels, float eps, void *h, float *rstd, void *y, int threads);

/* dx = rstd (weight dy - n mean(weight dy n)) + dh, n = h rstd, with dh NULL for none; dweight [channels], or NULL:
   the sum of dy n over rows. */
API int lowrank_rms_norm_backward(const void *dy, const void *dh, const void *h, const float *rstd, const void *weight,
                                  enum dtype dtype, int64_t rows, int64_t channels, void *dx, float *dweight,
                                  int threads);

/* losses[m] = log sum_v exp(logits[m, v]) - logits[m, targets[m]], and where `with_gradient`, logits [rows, vocabulary]
   become softmax(logits) - one_hot(target). A row whose target is `ignored` has zero for both; another target is one of
   the vocabulary. */
API int lowrank_cross_entropy(void *logits, enum dtype dtype, int64_t rows, int64_t vocabulary, const int64_t *targets,
                              int64_t ignored, int with_gradient, float *losses, int threads);

/* Keys, or values: [batch, kv_heads, length, channels], channels contiguous, strides in numbers. Of the `queries` of a
   row the last one sees all `length` keys, and each one before it a key less. */
typedef struct {
    int64_t batch, queries, heads, kv_heads, length, channels;
    int64_t batch_stride, head_stride, key_stride;
    int64_t mask_stride; /* from one row of the batch to the next: 0 where all have the same mask */
} decode_sizes;

/* y = softmax(q k^T / sqrt(channels)) v for a few queries a row, q and y [batch, queries, heads, channels], contiguous,
   `heads` a multiple of `kv_heads`; each query to the byte what it gives alone. mask [batch or 1, length]: which keys
   count (one of them at least, or y is NaN), the others are not read; NULL for all. */
API int lowrank_decode_attention(const decode_sizes *sizes, enum dtype dtype, const void *q, const void *k,
                                 const void *v, const uint8_t *mask, void *y, int threads);

/* A block of Llama: weights of its norms in the dtype of x, and its linears, whose y are not read. */
enum { WQ, WK, WV, WO, W1, W3, W2, LINEARS };
typedef struct {
    const void *attention_norm, *ffn_norm;
    linear_part linears[LINEARS];
} llama_block;

typedef struct {
    int64_t batch, tokens, dim, hidden_dim, heads, kv_heads, head_dim;
    float eps;
    int interleaved;
} llama_sizes;

/* The past of a row of the batch. k, v [kv_heads, capacity, head_dim] of the first block, and of each further one
   `layer` numbers behind. */
typedef struct {
    void *k, *v;
    int64_t layer, capacity;
    int64_t position;    /* that the first of the row's tokens fills: a token sees its own, and those before it */
    const uint8_t *mask; /* [position + tokens]: which positions count, or NULL for all */
} cached_row;

/* Rows [first, end) of the batch, which have the adapters of these blocks: the same ones in all else. */
#define MOST_SPANS 64
typedef struct {
    int64_t first, end;
    const llama_block *blocks;
} adapter_rows;

/* y = norm(all blocks(x)) for a few tokens a row, one behind another, x and y [batch, tokens, dim]; their keys and
   values are put into the rows' own, [batch]. cos, sin [batch, tokens, head_dim / 2]. To the byte what the functions
   above give, called one after another; and for up to MAX_ROWS tokens of all rows together (isa.h), what each token
   gives in a call of its own. spans: the adapters of rows, one span behind another, in the place of those of `blocks`,
   at most MOST_SPANS: each token then has the bits of a call of its own, however many there are. Or NULL. */
API int lowrank_llama_step(const llama_block *blocks, int64_t count, const llama_sizes *sizes, enum dtype dtype,
                           const cached_row *rows, const adapter_rows *spans, int64_t span_count, const float *cos,
                           const float *sin, const void *norm, const void *x, void *y, int threads);

/* Training with the same bits on every processor, all in float32: exact/exact.h has the rules. No function keeps or
   reads anything but its arguments, and numbers of a tensor are contiguous if nothing else is said. */

/* element (i, j) is at[i * row + j * column] */
typedef struct {
    const float *at;
    int64_t row, column;
} exact_matrix;

/* c[i][j] = sum_k a(i, k) b(k, j), i < m, j < n, k < terms, added to c[i][j] where `onto`; c_stride floats from one row
   of c to the next. */
API int lowrank_exact_product(const exact_matrix *a, const exact_matrix *b, int64_t m, int64_t n, int64_t terms,
                              float *c, int64_t c_stride, int onto, int threads);

/* y[i] = f(x[i]) */
enum exact_function { EXACT_EXP, EXACT_LOG, EXACT_COS, EXACT_SIN };
API int lowrank_exact_function(enum exact_function which, const float *x, int64_t count, float *y, int threads);

/* *to = sum of x[i] y[i], or where y is NULL of x[i]: in double, by one thread. */
API int lowrank_exact_sum(const float *x, const float *y, int64_t count, double *to, int threads);

/* As the functions of these names above, without what they can leave out. */
API int lowrank_exact_rms_norm(const float *x, const float *weight, int64_t rows, int64_t channels, float eps,
                               float *rstd, float *y, int threads);
API int lowrank_exact_rms_norm_backward(const float *dy, const float *x, const float *rstd, const float *weight,
                                        int64_t rows, int64_t channels, float *dx, int threads);
API int lowrank_exact_rope(const float *x, int64_t positions, int64_t heads, int64_t channels, int interleaved,
                           int inverse, const float *cos, const float *sin, float *y, int threads);
API int lowrank_exact_swiglu(const float *gate, const float *up, int64_t count, float *y, int threads);
API int lowrank_exact_swiglu_backward(const float *dy, const float *gate, const float *up, int64_t count, float *dgate,
                                      float *dup, int threads);
API int lowrank_exact_cross_entropy(float *logits, int64_t rows, int64_t vocabulary, const int64_t *targets,
                                    float *losses, int threads);

/* `heads` a multiple of `kv_heads` */
typedef struct {
    int64_t batch, heads, kv_heads, length, channels;
} exact_heads;

/* y = softmax(q k^T / sqrt(channels)) v over keys starts[t] .. t of query t, starts [batch, length] or NULL for 0.
   q, y, dq [batch, heads, length, channels]; k, v, dk, dv [batch, kv_heads, length, channels]. */
API int lowrank_exact_attention(const exact_heads *sizes, const float *q, const float *k, const float *v,
                                const int64_t *starts, float *y, int threads);
API int lowrank_exact_attention_backward(const exact_heads *sizes, const float *dy, const float *q, const float *k,
                                         const float *v, const int64_t *starts, float *dq, float *dk, float *dv,
                                         int threads);

/* m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  p = kept p - step m / (sqrt(v) / root + eps) */
typedef struct {
    float beta1, one_less_beta1, beta2, one_less_beta2, kept, step, root, eps;
} exact_adamw;
API int lowrank_exact_adamw(const exact_adamw *constants, const float *gradient, int64_t count, float *parameter,
                            float *m, float *v, int threads);

/* Asks for pages of 2 MB under `bytes` of memory that is filled already, where Linux has them. Changes no byte. */
API void lowrank_prefer_huge_pages(void *p, int64_t bytes);

/* With 1, pieces below 32 MB that are freed stay with the process, whatever they come to; with 0 they are given back.
 */
API void lowrank_keep_freed_memory(int keep);

#endif

/* All blocks of Llama for a few tokens a row, by one team of threads, which meets at barriers instead of going home.

   Every step but the rotation is what the threads of its own entry do (threads.h), on the same numbers rounded in the
   same places: the result is the same to the byte. Tokens of one row are to the linears, norms and activations what
   rows of a batch are; only the angles, the place in the cache and what attention sees tell them apart. */

#include <string.h>

#include "threads.h"

/* Rows of x, `tokens` for each of the batch, in the dtype of x, then float32: angles [rows][2][head_dim], scores of
   each thread, and what linears work in. */
enum { H, NORMED, Q, K, V, ROTATED, ATTENDED, GATE, UP, GATED, ADDED, ANGLES, SCORES, LINEARS_SCRATCH, SLOTS };

typedef struct {
    const llama_sizes *n;
    enum dtype dtype;
    const uint8_t *mask;
    char *memory;
    int64_t at[SLOTS + 1];
} step;

static int64_t rows_of_x(const step *s) { return s->n->batch * s->n->tokens; }

static char *slot(const step *s, int place) { return s->memory + s->at[place]; }

/* The largest scratch memory of linears that have one input, over a block. */
static int64_t linears_scratch_bytes(const llama_block *b, const step *s, int threads)
{
    static const int first[] = {WQ, WO, W1, W2, LINEARS};
    int64_t bytes = 0;
    for (int i = 0; i < 4; i++)
        bytes = max_i64(bytes,
                        linears_bytes(b->linears + first[i], first[i + 1] - first[i], rows_of_x(s), s->dtype, threads));
    return bytes;
}

static void plan_memory(step *s, const llama_block *blocks, int64_t count, int threads)
{
    const llama_sizes *n = s->n;
    const int64_t row = rows_of_x(s) * size_of(s->dtype), q = row * n->heads * n->head_dim,
                  kv = row * n->kv_heads * n->head_dim;
    int64_t linears = 0;
    for (int64_t i = 0; i < count; i++)
        linears = max_i64(linears, linears_scratch_bytes(blocks + i, s, threads));
    const int64_t bytes[SLOTS] = {
        [H] = row * n->dim,
        [NORMED] = row * n->dim,
        [Q] = q,
        [K] = kv,
        [V] = kv,
        [ROTATED] = q,
        [ATTENDED] = q,
        [GATE] = row * n->hidden_dim,
        [UP] = row * n->hidden_dim,
        [GATED] = row * n->hidden_dim,
        [ADDED] = row * n->dim,
        [ANGLES] = rows_of_x(s) * 2 * n->head_dim * sizeof(float),
        [SCORES] = threads * DECODE_ATTENTION_FLOATS(n->position + n->tokens, n->head_dim) * sizeof(float),
        [LINEARS_SCRATCH] = linears,
    };
    for (int i = 0; i < SLOTS; i++)
        s->at[i + 1] = s->at[i] + round_up(bytes[i], 64);
}

/* The linears [first, end) of a block from x to `y`, one place after another. */
static void linears(const step *s, const llama_block *b, int first, int end, int x, int y)
{
    linear_part parts[LINEARS];
    for (int i = first; i < end; i++) {
        parts[i] = b->linears[i];
        parts[i].y = slot(s, y + i - first);
    }
    team_linears(parts + first, end - first, slot(s, x), rows_of_x(s), s->dtype, slot(s, LINEARS_SCRATCH));
}

/* h = x + added, or x where nothing is added; y = rms_norm(h). */
static void norm(const step *s, const void *x, const void *added, const void *weight, void *h, void *y)
{
    team_rms_norm(x, added, weight, s->dtype, rows_of_x(s), s->n->dim, s->n->eps, h, NULL, y);
#pragma omp barrier
}

/* Queries are turned, and keys on their way into the cache of a layer; values go as they are. */
static void rotate(const step *s, char *k, char *v)
{
    const llama_sizes *n = s->n;
    const int64_t head_bytes = n->head_dim * size_of(s->dtype);
    const range heads = thread_range(rows_of_x(s) * n->heads, 1);
    for (int64_t i = heads.first; i < heads.end; i++) {
        const int64_t row = i / n->heads, head = i % n->heads, kv = row * n->kv_heads + head;
        const float *own = (const float *)slot(s, ANGLES) + row * 2 * n->head_dim, *other = own + n->head_dim;
        chosen_set()->rotate(slot(s, Q) + i * head_bytes, s->dtype, n->head_dim, n->interleaved, own, other,
                             slot(s, ROTATED) + i * head_bytes);
        if (head < n->kv_heads) {
            const int64_t of_batch = row / n->tokens * n->kv_heads + head;
            const int64_t place = (of_batch * n->capacity + n->position + row % n->tokens) * head_bytes;
            chosen_set()->rotate(slot(s, K) + kv * head_bytes, s->dtype, n->head_dim, n->interleaved, own, other,
                                 k + place);
            memcpy(v + place, slot(s, V) + kv * head_bytes, head_bytes);
        }
    }
#pragma omp barrier
}

static void attention(const step *s, const char *k, const char *v)
{
    const llama_sizes *n = s->n;
    const int64_t head = n->capacity * n->head_dim;
    const decode_sizes sizes = {
        .batch = n->batch,
        .queries = n->tokens,
        .heads = n->heads,
        .kv_heads = n->kv_heads,
        .length = n->position + n->tokens,
        .channels = n->head_dim,
        .batch_stride = n->kv_heads * head,
        .head_stride = head,
        .key_stride = n->head_dim,
        .mask_stride = n->position + n->tokens,
    };
    team_decode_attention(&sizes, s->dtype, slot(s, ROTATED), k, v, s->mask, (float *)slot(s, SCORES),
                          slot(s, ATTENDED));
#pragma omp barrier
}

static void swiglu(const step *s)
{
    team_swiglu(slot(s, GATE), slot(s, UP), s->dtype, rows_of_x(s) * s->n->hidden_dim, slot(s, GATED));
#pragma omp barrier
}

/* H is what the block begins with, without what the block before it adds: that is in ADDED. */
static void block(const step *s, const llama_block *b, const void *x, const void *added, char *k, char *v)
{
    norm(s, x, added, b->attention_norm, slot(s, H), slot(s, NORMED));
    linears(s, b, WQ, WO, NORMED, Q);
    rotate(s, k, v);
    attention(s, k, v);
    linears(s, b, WO, W1, ATTENDED, ADDED);
    norm(s, added ? slot(s, H) : x, slot(s, ADDED), b->ffn_norm, slot(s, H), slot(s, NORMED));
    linears(s, b, W1, W2, NORMED, GATE);
    swiglu(s);
    linears(s, b, W2, LINEARS, GATED, ADDED);
}

int lowrank_llama_step(const llama_block *blocks, int64_t count, const llama_sizes *n, enum dtype dtype,
                       const float *cos, const float *sin, const uint8_t *mask, const void *norm_weight, void *k,
                       void *v, const void *x, void *y, int threads)
{
    const int64_t layer = n->batch * n->kv_heads * n->capacity * n->head_dim * size_of(dtype);
    step s = {.n = n, .dtype = dtype, .mask = mask};
    int64_t weights = 0;
    for (int64_t i = 0; i < count; i++)
        weights += weights_of(blocks[i].linears, LINEARS);
    threads = useful_threads(threads, weights);
    plan_memory(&s, blocks, count, threads);
    s.memory = alloc_aligned(s.at[SLOTS]);
    if (!s.memory)
        return -1;
    for (int64_t row = 0; row < rows_of_x(&s); row++) {
        float *own = (float *)slot(&s, ANGLES) + row * 2 * n->head_dim;
        spread_angles(cos + row * n->head_dim / 2, sin + row * n->head_dim / 2, n->head_dim, n->interleaved, 0, own,
                      own + n->head_dim);
    }
#pragma omp parallel num_threads(threads)
    {
        for (int64_t i = 0; i < count; i++)
            block(&s, blocks + i, i ? slot(&s, H) : x, i ? slot(&s, ADDED) : NULL, (char *)k + i * layer,
                  (char *)v + i * layer);
        norm(&s, count ? slot(&s, H) : x, count ? slot(&s, ADDED) : NULL, norm_weight, slot(&s, H), y);
    }
    free(s.memory);
    return 0;
}

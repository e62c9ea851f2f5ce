/* All blocks of Llama for a few tokens a row, by one team of threads, which meets at barriers instead of going home.

   Every step but the rotation is what the threads of its own entry do (threads.h), on the same numbers rounded in the
   same places: the result is the same to the byte. Tokens of one row are to the linears, norms and activations what
   rows of a batch are; only the angles, the place in the cache and what attention sees tell them apart. */

#include <math.h>
#include <string.h>

#include "threads.h"

/* Rows of x, `tokens` for each of the batch, in the dtype of x, then float32: angles [rows][2][head_dim], scores of
   each thread, and what linears work in. */
enum { H, NORMED, Q, K, V, ROTATED, ATTENDED, GATE, UP, GATED, ADDED, ANGLES, SCORES, LINEARS_SCRATCH, SLOTS };

typedef struct {
    const llama_block *blocks;
    int64_t count;
    const llama_sizes *n;
    enum dtype dtype;
    const cached_row *rows;
    const adapter_rows *spans;
    int64_t span_count;
    int64_t scores_bytes; /* of a thread */
    char *memory;
    int64_t at[SLOTS + 1];
} step;

#define MOST_PARTS 3 /* linears that have one input */

static int64_t rows_of_x(const step *s) { return s->n->batch * s->n->tokens; }

static char *slot(const step *s, int place) { return s->memory + s->at[place]; }

/* The linears [first, end) of block i, without their y; adapters: memory for those of their spans. */
static void describe(const step *s, int64_t i, int first, int end, linear_part *parts, lora_span *adapters)
{
    for (int j = first; j < end; j++, parts++, adapters += s->span_count) {
        *parts = s->blocks[i].linears[j];
        for (int64_t of = 0; of < s->span_count; of++) {
            const adapter_rows *span = s->spans + of;
            const linear_part *own = span->blocks[i].linears + j;
            adapters[of] = (lora_span){span->first * s->n->tokens,
                                       span->end * s->n->tokens,
                                       own->lora_a,
                                       own->lora_b,
                                       own->rank,
                                       own->scaling};
        }
        if (s->span_count) {
            parts->spans = adapters;
            parts->span_count = s->span_count;
        }
    }
}

/* The largest scratch memory of linears that have one input, over a block. */
static int64_t linears_scratch_bytes(const step *s, int64_t i, int threads)
{
    static const int first[] = {WQ, WO, W1, W2, LINEARS};
    int64_t bytes = 0;
    for (int j = 0; j < 4; j++) {
        linear_part parts[MOST_PARTS];
        lora_span adapters[MOST_PARTS * MOST_SPANS];
        describe(s, i, first[j], first[j + 1], parts, adapters);
        bytes = max_i64(bytes, linears_bytes(parts, first[j + 1] - first[j], rows_of_x(s), s->dtype, threads));
    }
    return bytes;
}

static void plan_memory(step *s, int64_t count, int threads)
{
    const llama_sizes *n = s->n;
    const int64_t row = rows_of_x(s) * size_of(s->dtype), q = row * n->heads * n->head_dim,
                  kv = row * n->kv_heads * n->head_dim;
    int64_t linears = 0, longest = 0;
    for (int64_t i = 0; i < count; i++)
        linears = max_i64(linears, linears_scratch_bytes(s, i, threads));
    for (int64_t b = 0; b < n->batch; b++)
        longest = max_i64(longest, s->rows[b].position + n->tokens);
    s->scores_bytes = DECODE_ATTENTION_FLOATS(longest, n->head_dim) * (int64_t)sizeof(float);
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
        [SCORES] = threads * s->scores_bytes,
        [LINEARS_SCRATCH] = linears,
    };
    for (int i = 0; i < SLOTS; i++)
        s->at[i + 1] = s->at[i] + round_up(bytes[i], 64);
}

/* The linears [first, end) of block i from x to `y`, one place after another. */
static void linears(const step *s, int64_t i, int first, int end, int x, int y)
{
    linear_part parts[MOST_PARTS];
    lora_span adapters[MOST_PARTS * MOST_SPANS];
    describe(s, i, first, end, parts, adapters);
    for (int j = first; j < end; j++)
        parts[j - first].y = slot(s, y + j - first);
    const int64_t of_next = i + end / LINEARS; /* the block of the linear that comes after these */
    linear_part next;
    lora_span next_adapters[MOST_SPANS];
    if (of_next < s->count)
        describe(s, of_next, end % LINEARS, end % LINEARS + 1, &next, next_adapters);
    team_linears(parts, end - first, slot(s, x), rows_of_x(s), s->dtype, slot(s, LINEARS_SCRATCH),
                 of_next < s->count ? &next : NULL);
}

/* h = x + added, or x where nothing is added; y = rms_norm(h). */
static void norm(const step *s, const void *x, const void *added, const void *weight, void *h, void *y)
{
    team_rms_norm(x, added, weight, s->dtype, rows_of_x(s), s->n->dim, s->n->eps, h, NULL, y);
#pragma omp barrier
}

/* Bytes from the beginning of a row's keys, or values, to those of a head of block i at a position. */
static int64_t place(const step *s, const cached_row *row, int64_t i, int64_t head, int64_t position)
{ return (i * row->layer + (head * row->capacity + position) * s->n->head_dim) * (int64_t)size_of(s->dtype); }

/* Queries are turned, and keys on their way to those of block i; values go as they are. */
static void rotate(const step *s, int64_t i)
{
    const llama_sizes *n = s->n;
    const int64_t head_bytes = n->head_dim * size_of(s->dtype);
    const range heads = thread_range(rows_of_x(s) * n->heads, 1);
    for (int64_t j = heads.first; j < heads.end; j++) {
        const int64_t token = j / n->heads, head = j % n->heads, kv = token * n->kv_heads + head;
        const float *own = (const float *)slot(s, ANGLES) + token * 2 * n->head_dim, *other = own + n->head_dim;
        chosen_set()->rotate(slot(s, Q) + j * head_bytes, s->dtype, n->head_dim, n->interleaved, own, other,
                             slot(s, ROTATED) + j * head_bytes);
        if (head < n->kv_heads) {
            const cached_row *row = s->rows + token / n->tokens;
            const int64_t at = place(s, row, i, head, row->position + token % n->tokens);
            chosen_set()->rotate(slot(s, K) + kv * head_bytes, s->dtype, n->head_dim, n->interleaved, own, other,
                                 (char *)row->k + at);
            memcpy((char *)row->v + at, slot(s, V) + kv * head_bytes, head_bytes);
        }
    }
#pragma omp barrier
}

/* Each head of each token over the past of its own row. */
static void attention(const step *s, int64_t i)
{
    const llama_sizes *n = s->n;
    const int64_t head_bytes = n->head_dim * size_of(s->dtype), group = n->heads / n->kv_heads;
    const range heads = thread_range(rows_of_x(s) * n->heads, 1);
    float *scores = (float *)(slot(s, SCORES) + thread_id() * s->scores_bytes);
    for (int64_t j = heads.first; j < heads.end; j++) {
        const int64_t token = j / n->heads;
        const cached_row *row = s->rows + token / n->tokens;
        const int64_t at = place(s, row, i, j % n->heads / group, 0);
        chosen_set()->decode_attention(slot(s, ROTATED) + j * head_bytes, (const char *)row->k + at,
                                       (const char *)row->v + at, n->head_dim, row->mask, s->dtype,
                                       row->position + token % n->tokens + 1, n->head_dim,
                                       1 / sqrtf((float)n->head_dim), scores, slot(s, ATTENDED) + j * head_bytes);
    }
#pragma omp barrier
}

static void swiglu(const step *s)
{
    team_swiglu(slot(s, GATE), slot(s, UP), s->dtype, rows_of_x(s) * s->n->hidden_dim, slot(s, GATED));
#pragma omp barrier
}

/* H is what the block begins with, without what the block before it adds: that is in ADDED. */
static void block(const step *s, int64_t i, const void *x, const void *added)
{
    const llama_block *b = s->blocks + i;
    norm(s, x, added, b->attention_norm, slot(s, H), slot(s, NORMED));
    linears(s, i, WQ, WO, NORMED, Q);
    rotate(s, i);
    attention(s, i);
    linears(s, i, WO, W1, ATTENDED, ADDED);
    norm(s, added ? slot(s, H) : x, slot(s, ADDED), b->ffn_norm, slot(s, H), slot(s, NORMED));
    linears(s, i, W1, W2, NORMED, GATE);
    swiglu(s);
    linears(s, i, W2, LINEARS, GATED, ADDED);
}

int lowrank_llama_step(const llama_block *blocks, int64_t count, const llama_sizes *n, enum dtype dtype,
                       const cached_row *rows, const adapter_rows *spans, int64_t span_count, const float *cos,
                       const float *sin, const void *norm_weight, const void *x, void *y, int threads)
{
    step s = {.blocks = blocks,
              .count = count,
              .n = n,
              .dtype = dtype,
              .rows = rows,
              .spans = spans,
              .span_count = span_count};
    int64_t weights = 0;
    for (int64_t i = 0; i < count; i++)
        weights += weights_of(blocks[i].linears, LINEARS);
    threads = useful_threads(threads, weights);
    plan_memory(&s, count, threads);
    s.memory = alloc_aligned(s.at[SLOTS]);
    if (!s.memory)
        return -1;
    for (int64_t token = 0; token < rows_of_x(&s); token++) {
        float *own = (float *)slot(&s, ANGLES) + token * 2 * n->head_dim;
        spread_angles(cos + token * n->head_dim / 2, sin + token * n->head_dim / 2, n->head_dim, n->interleaved, 0, own,
                      own + n->head_dim);
    }
#pragma omp parallel num_threads(threads)
    {
        for (int64_t i = 0; i < count; i++)
            block(&s, i, i ? slot(&s, H) : x, i ? slot(&s, ADDED) : NULL);
        norm(&s, count ? slot(&s, H) : x, count ? slot(&s, ADDED) : NULL, norm_weight, slot(&s, H), y);
    }
    free(s.memory);
    return 0;
}

/* All blocks of Llama for one token a row, by one team of threads, which meets at barriers instead of going home.

   Every step but the rotation is what the threads of its own entry do (team.h), on the same numbers rounded in the same
   places: the result is the same to the byte. */

#include <string.h>

#include "parallel.h"
#include "team.h"

/* Rows of the batch in the dtype of x, then float32: angles [batch][2][head_dim], scores of each thread, and what linears
   work in. */
enum { H, NORMED, Q, K, V, TURNED, ATTENDED, GATE, UP, GATED, ADDED, ANGLES, SCORES, OF_LINEARS, PLACES };

typedef struct {
    const llama_sizes *n;
    enum dtype dtype;
    const uint8_t *seen;
    char *memory;
    int64_t at[PLACES + 1];
} step;

static char *in(const step *s, int place) { return s->memory + s->at[place]; }

/* Of all linears of a block that have one input. */
static int64_t bytes_of_linears(const llama_block *b, const step *s, int threads)
{
    static const int first[] = {WQ, WO, W1, W2, LINEARS};
    int64_t bytes = 0;
    for (int i = 0; i < 4; i++)
        bytes = most(bytes, linears_bytes(b->linears + first[i], first[i + 1] - first[i], s->n->batch, s->dtype, threads));
    return bytes;
}

static void lay_out(step *s, const llama_block *blocks, int64_t count, int threads)
{
    const llama_sizes *n = s->n;
    const int64_t row = n->batch * size_of(s->dtype), q = row * n->heads * n->head_dim, kv = row * n->kv_heads * n->head_dim;
    int64_t linears = 0;
    for (int64_t i = 0; i < count; i++)
        linears = most(linears, bytes_of_linears(blocks + i, s, threads));
    const int64_t bytes[PLACES] = {
        [H] = row * n->dim, [NORMED] = row * n->dim, [Q] = q, [K] = kv, [V] = kv, [TURNED] = q, [ATTENDED] = q,
        [GATE] = row * n->hidden_dim, [UP] = row * n->hidden_dim, [GATED] = row * n->hidden_dim, [ADDED] = row * n->dim,
        [ANGLES] = n->batch * 2 * n->head_dim * sizeof(float),
        [SCORES] = threads * ATTEND_MEMORY(n->position + 1, n->head_dim) * sizeof(float),
        [OF_LINEARS] = linears,
    };
    for (int i = 0; i < PLACES; i++)
        s->at[i + 1] = s->at[i] + up_to(bytes[i], 64);
}

/* The linears [first, end) of a block from x to `y`, one place after another. */
static void linears(const step *s, const llama_block *b, int first, int end, int x, int y)
{
    linear_part parts[LINEARS];
    for (int i = first; i < end; i++) {
        parts[i] = b->linears[i];
        parts[i].y = in(s, y + i - first);
    }
    team_linears(parts + first, end - first, in(s, x), s->n->batch, s->dtype, in(s, OF_LINEARS));
}

/* h = x + added, or x where nothing is added; y = rms_norm(h). */
static void norm(const step *s, const void *x, const void *added, const void *weight, void *h, void *y)
{
    team_rms_norm(x, added, weight, s->dtype, s->n->batch, s->n->dim, s->n->eps, h, NULL, y);
#pragma omp barrier
}

/* Queries are turned, and keys on their way into the cache of a layer; values go as they are. */
static void turn(const step *s, char *k, char *v)
{
    const llama_sizes *n = s->n;
    const int64_t head_bytes = n->head_dim * size_of(s->dtype);
    const range heads = share(n->batch * n->heads, 1);
    for (int64_t i = heads.first; i < heads.end; i++) {
        const int64_t row = i / n->heads, head = i % n->heads, kv = row * n->kv_heads + head;
        const float *own = (const float *)in(s, ANGLES) + row * 2 * n->head_dim, *other = own + n->head_dim;
        chosen_set()->turn(in(s, Q) + i * head_bytes, s->dtype, n->head_dim, n->interleaved, own, other,
                           in(s, TURNED) + i * head_bytes);
        if (head < n->kv_heads) {
            const int64_t place = (kv * n->capacity + n->position) * head_bytes;
            chosen_set()->turn(in(s, K) + kv * head_bytes, s->dtype, n->head_dim, n->interleaved, own, other, k + place);
            memcpy(v + place, in(s, V) + kv * head_bytes, head_bytes);
        }
    }
#pragma omp barrier
}

static void attention(const step *s, const char *k, const char *v)
{
    const llama_sizes *n = s->n;
    const int64_t head = n->capacity * n->head_dim;
    const decode_sizes sizes = {
        .batch = n->batch, .heads = n->heads, .kv_heads = n->kv_heads, .length = n->position + 1,
        .channels = n->head_dim, .batch_stride = n->kv_heads * head, .head_stride = head, .key_stride = n->head_dim,
        .mask_stride = n->position + 1,
    };
    team_decode_attention(&sizes, s->dtype, in(s, TURNED), k, v, s->seen, (float *)in(s, SCORES), in(s, ATTENDED));
#pragma omp barrier
}

static void swiglu(const step *s)
{
    team_swiglu(in(s, GATE), in(s, UP), s->dtype, s->n->batch * s->n->hidden_dim, in(s, GATED));
#pragma omp barrier
}

/* H is what the block begins with, without what the block before it adds: that is in ADDED. */
static void block(const step *s, const llama_block *b, const void *x, const void *added, char *k, char *v)
{
    norm(s, x, added, b->attention_norm, in(s, H), in(s, NORMED));
    linears(s, b, WQ, WO, NORMED, Q);
    turn(s, k, v);
    attention(s, k, v);
    linears(s, b, WO, W1, ATTENDED, ADDED);
    norm(s, added ? in(s, H) : x, in(s, ADDED), b->ffn_norm, in(s, H), in(s, NORMED));
    linears(s, b, W1, W2, NORMED, GATE);
    swiglu(s);
    linears(s, b, W2, LINEARS, GATED, ADDED);
}

int lowrank_blocks(const llama_block *blocks, int64_t count, const llama_sizes *n, enum dtype dtype, const float *cos,
                   const float *sin, const uint8_t *seen, const void *norm_weight, void *k, void *v, const void *x,
                   void *y, int threads)
{
    const int64_t layer = n->batch * n->kv_heads * n->capacity * n->head_dim * size_of(dtype);
    step s = {.n = n, .dtype = dtype, .seen = seen};
    int64_t weights = 0;
    for (int64_t i = 0; i < count; i++)
        weights += weights_of(blocks[i].linears, LINEARS);
    threads = useful_threads(threads, weights);
    lay_out(&s, blocks, count, threads);
    s.memory = buffer(s.at[PLACES]);
    if (!s.memory)
        return -1;
    for (int64_t row = 0; row < n->batch; row++) {
        float *own = (float *)in(&s, ANGLES) + row * 2 * n->head_dim;
        spread_angles(cos + row * n->head_dim / 2, sin + row * n->head_dim / 2, n->head_dim, n->interleaved, 0, own,
                      own + n->head_dim);
    }
#pragma omp parallel num_threads(threads)
    {
        for (int64_t i = 0; i < count; i++)
            block(&s, blocks + i, i ? in(&s, H) : x, i ? in(&s, ADDED) : NULL, (char *)k + i * layer,
                  (char *)v + i * layer);
        norm(&s, count ? in(&s, H) : x, count ? in(&s, ADDED) : NULL, norm_weight, in(&s, H), y);
    }
    free(s.memory);
    return 0;
}

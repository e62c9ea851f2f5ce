/* Attention of a few queries a row: whole heads of a query a thread, which reads keys and values once each. */

#include <math.h>

#include "threads.h"

void team_decode_attention(const decode_sizes *n, enum dtype dtype, const void *q, const void *k, const void *v,
                           const uint8_t *mask, float *scores, void *y)
{
    const int64_t size = (int64_t)size_of(dtype), group = n->heads / n->kv_heads;
    const range mine = thread_range(n->batch * n->queries * n->heads, 1);
    scores += thread_id() * DECODE_ATTENTION_FLOATS(n->length, n->channels);
    for (int64_t head = mine.first; head < mine.end; head++) {
        const int64_t query = head / n->heads, row = query / n->queries, kv_head = head % n->heads / group;
        const int64_t unseen = n->queries - 1 - query % n->queries;
        const int64_t own = size * head * n->channels, at = size * (row * n->batch_stride + kv_head * n->head_stride);
        chosen_set()->decode_attention((const char *)q + own, (const char *)k + at, (const char *)v + at, n->key_stride,
                                       mask ? mask + row * n->mask_stride : NULL, dtype, n->length - unseen,
                                       n->channels, 1 / sqrtf((float)n->channels), scores, (char *)y + own);
    }
}

int lowrank_decode_attention(const decode_sizes *n, enum dtype dtype, const void *q, const void *k, const void *v,
                             const uint8_t *mask, void *y, int threads)
{
    threads = useful_threads(threads, 2 * n->batch * n->queries * n->heads * n->length * n->channels);
    float *scores = alloc_aligned(threads * DECODE_ATTENTION_FLOATS(n->length, n->channels) * (int64_t)sizeof(float));
    if (!scores)
        return -1;
#pragma omp parallel num_threads(threads)
    team_decode_attention(n, dtype, q, k, v, mask, scores, y);
    free(scores);
    return 0;
}

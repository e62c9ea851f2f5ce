/* Attention of one query a row: whole heads a thread, which reads keys and values once each. And all that happens to a
   token between its projections: rope, its place in the cache, attention. */

#include <math.h>
#include <string.h>

#include "isa.h"
#include "parallel.h"

int lowrank_decode_attention(const decode_sizes *n, enum dtype dtype, const void *q, const void *k, const void *v,
                             const uint8_t *seen, void *y, int threads)
{
    const int64_t size = (int64_t)size_of(dtype), heads = n->batch * n->heads, group = n->heads / n->kv_heads;
    const int64_t floats = ATTEND_MEMORY(n->length, n->channels);
    threads = useful_threads(threads, 2 * heads * n->length * n->channels);
    float *memory = buffer(threads * floats * (int64_t)sizeof(float));
    if (memory)
#pragma omp parallel num_threads(threads)
    {
        const range mine = share(heads, 1);
        for (int64_t head = mine.first; head < mine.end; head++) {
            const int64_t row = head / n->heads, kv_head = head % n->heads / group;
            const int64_t own = size * head * n->channels, at = size * (row * n->batch_stride + kv_head * n->head_stride);
            chosen_set()->attend((const char *)q + own, (const char *)k + at, (const char *)v + at, n->key_stride,
                                 seen ? seen + row * n->mask_stride : NULL, dtype, n->length, n->channels,
                                 1 / sqrtf((float)n->channels), memory + member() * floats, (char *)y + own);
        }
    }
    const int status = memory ? 0 : -1;
    free(memory);
    return status;
}

int lowrank_decode_step(const decode_sizes *n, enum dtype dtype, const void *q, const void *k, const void *v,
                        const float *cos, const float *sin, int interleaved, void *keys, void *values,
                        const uint8_t *seen, void *y, int threads)
{
    const int64_t head = n->channels * (int64_t)size_of(dtype);
    char *turned = buffer(n->batch * (n->heads + n->kv_heads) * head), *turned_k = turned + n->batch * n->heads * head;
    int status = -1;
    if (turned && !lowrank_rope(q, dtype, n->batch, n->heads, n->channels, interleaved, 0, cos, sin, turned, threads) &&
        !lowrank_rope(k, dtype, n->batch, n->kv_heads, n->channels, interleaved, 0, cos, sin, turned_k, threads)) {
        for (int64_t row = 0; row < n->batch; row++)
            for (int64_t i = 0; i < n->kv_heads; i++) {
                const int64_t from = (row * n->kv_heads + i) * head;
                const int64_t last = row * n->batch_stride + i * n->head_stride + (n->length - 1) * n->key_stride;
                memcpy((char *)keys + last * (int64_t)size_of(dtype), turned_k + from, head);
                memcpy((char *)values + last * (int64_t)size_of(dtype), (const char *)v + from, head);
            }
        status = lowrank_decode_attention(n, dtype, turned, keys, values, seen, y, threads);
    }
    free(turned);
    return status;
}

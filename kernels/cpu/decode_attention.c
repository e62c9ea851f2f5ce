/* Attention of one query a row: whole heads a thread, which reads keys and values once each. */

#include <math.h>

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

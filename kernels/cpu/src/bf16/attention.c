/* Causal attention by dot products, forward: see attention.h. A block of queries has all its scores at once, so the
   softmax is the plain one: the largest score, the exponentials, their sum. */

#include "bf16/attention.h"

#ifdef HAS_DOTS
#include <math.h>

BEGIN_DOTS

/* P = exp(S - max) of a query over the keys that it sees, zero over the others; the sum of the exponentials, and log2
   of that of all of S. */
static float softmax(float *scores, int64_t seen, int64_t keys, float scale, uint16_t *p, float *logarithm)
{
    const __m512 scales = _mm512_set1_ps(scale * LOG2_E);
    _mm512_mask_store_ps(scores + (seen - 1) / 16 * 16, (__mmask16)~lanes_below((seen - 1) % 16 + 1),
                         _mm512_set1_ps(UNSEEN));
    __m512 most = _mm512_set1_ps(UNSEEN), sum = _mm512_setzero_ps();
    for (int64_t key = 0; key < seen; key += 16)
        most = _mm512_max_ps(most, _mm512_load_ps(scores + key));
    most = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(most)), scales);
    for (int64_t key = 0; key < keys; key += 32) {
        __m512 power[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int64_t i = 0; i < 2 && key + 16 * i < seen; i++) {
            power[i] = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(scores + key + 16 * i), scales, most));
            sum = _mm512_add_ps(sum, power[i]);
        }
        _mm512_store_si512(p + key, (__m512i)_mm512_cvtne2ps_pbh(power[1], power[0]));
    }
    const float all = _mm512_reduce_add_ps(sum);
    *logarithm = _mm512_cvtss_f32(most) + log2f(all);
    return all;
}

int lowrank_attention_bf16(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                           const head_tensor *v, const head_tensor *y, float *logarithms, int threads)
{
    const int64_t length = sizes->length, h = sizes->channels, whole = round_up(length, BLOCK), next = whole + APART;
    const int64_t bytes = 2 * whole * h * 2 + BLOCK * (h * 2 + next * 4 + (whole + 2 * APART) * 2 + h * 4);
    const int64_t group = sizes->heads / sizes->kv_heads, tasks = sizes->batch * sizes->kv_heads;
    threads = (int)min_i64(useful_threads(threads, tasks * group * length * length), tasks);
    char *memory = alloc_aligned(threads * bytes);
    if (memory)
#pragma omp parallel num_threads(threads)
    {
        uint32_t *const keys = (uint32_t *)(memory + thread_id() * bytes), *const values = keys + whole * h / 2;
        float *const scores = (float *)(values + whole * h / 2), *const sums = scores + BLOCK * next;
        uint16_t *const queries = (uint16_t *)(sums + BLOCK * h), *const p = queries + BLOCK * h;
        const int64_t p_next = whole + 2 * APART;
        const range mine = thread_range(tasks, 1);
        for (int64_t task = mine.first; task < mine.end; task++) {
            const int64_t batch = task / sizes->kv_heads, kv_head = task % sizes->kv_heads;
            pack_channels(rows_of(k, batch, kv_head, 0), k->time, length, h, keys);
            pack_rows(rows_of(v, batch, kv_head, 0), v->time, length, h, values);
            for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
                for (int64_t first = 0; first < length; first += BLOCK) {
                    const int64_t count = min_i64(BLOCK, length - first), seen = first + BLOCK;
                    float all[BLOCK], logs[BLOCK];
                    copy_block(rows_of(q, batch, head, first), q->time, count, h, queries);
                    for (int64_t key = 0; key < seen; key += BLOCK)
                        multiply_channels(queries, h, keys + key * h / 2, scores + key, next);
                    for (int64_t i = 0; i < BLOCK; i++)
                        all[i] =
                            softmax(scores + i * next, first + i + 1, seen, sizes->scale, p + i * p_next, logs + i);
                    if (logarithms)
                        memcpy(logarithms + (batch * sizes->heads + head) * length + first, logs, count * sizeof *logs);
                    multiply(BLOCK, h, 0, p, p_next, values, h, seen / 2, sums, h);
                    for (int64_t i = 0; i < count; i++)
                        store_row(sums + i * h, h, 1 / all[i], (uint16_t *)rows_of(y, batch, head, first + i));
                }
        }
    }
    const int status = memory ? 0 : -1;
    free(memory);
    return status;
}

END_DOTS

#else

int lowrank_attention_bf16(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                           const head_tensor *v, const head_tensor *y, float *logarithms, int threads)
{
    (void)sizes, (void)q, (void)k, (void)v, (void)y, (void)logarithms, (void)threads;
    return -1;
}

#endif

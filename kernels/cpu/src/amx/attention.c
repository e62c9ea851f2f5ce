/* Causal attention, forward: see attention.h. A block of queries has all its scores at once, so the softmax is the
   plain one: the largest score, the exponentials, their sum. */

#include "attention.h"

#ifdef HAS_TILES
#include <math.h>

/* The last block of keys is that of the queries: what comes after a query is not seen by it. */
static void hide_later(float *scores, int64_t row_tile)
{
    for (int64_t query = 0; query < BLOCK; query++)
        for (int64_t key = 0; key < BLOCK; key += SIDE) {
            float *row = scores + query / SIDE * row_tile + key / SIDE * FLOATS + query % SIDE * SIDE;
            _mm512_mask_store_ps(row, (__mmask16)~seen(query, key), _mm512_set1_ps(UNSEEN));
        }
}

/* P = exp(S - max) of 16 queries as A; one over the sums of its rows, and log2 of that of the exponentials of all of S.
 */
static void softmax(const float *scores, int64_t tiles, float scale, char *p, float *shares, float *logarithms)
{
    __m512 most[SIDE], sum[SIDE];
    for (int i = 0; i < SIDE; i++) {
        most[i] = _mm512_set1_ps(UNSEEN);
        sum[i] = _mm512_setzero_ps();
    }
    for (int64_t tile = 0; tile < tiles; tile++)
        for (int i = 0; i < SIDE; i++)
            most[i] = _mm512_max_ps(most[i], _mm512_load_ps(scores + tile * FLOATS + i * SIDE));
    const __m512 scales = _mm512_set1_ps(scale * LOG2_E);
    for (int i = 0; i < SIDE; i++)
        most[i] = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(most[i])), scales);
    for (int64_t tile = 0; tile < tiles; tile += 2, p += TILE)
        for (int i = 0; i < SIDE; i++) {
            __m512 power[2];
            for (int j = 0; j < 2; j++) {
                const __m512 score = _mm512_load_ps(scores + (tile + j) * FLOATS + i * SIDE);
                power[j] = exp2_of(_mm512_fmsub_ps(score, scales, most[i]));
                sum[i] = _mm512_add_ps(sum[i], power[j]);
            }
            _mm512_store_si512(p + i * 64, (__m512i)_mm512_cvtne2ps_pbh(power[1], power[0]));
        }
    for (int i = 0; i < SIDE; i++) {
        const float all = _mm512_reduce_add_ps(sum[i]);
        shares[i] = 1 / all;
        logarithms[i] = _mm512_cvtss_f32(most[i]) + log2f(all);
    }
}

int lowrank_attention_amx(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                          const head_tensor *v, const head_tensor *y, float *logarithms, int threads)
{
    const int64_t length = sizes->length, h = sizes->channels, blocks = round_up(length, BLOCK) / BLOCK;
    const int64_t packed = blocks * BLOCK * h * 2, a_head = 2 * h / 32 * TILE, row_tile = 2 * blocks * FLOATS;
    const int64_t bytes = 2 * packed + a_head + 2 * row_tile * 4 + 2 * blocks * TILE + 4 * TILE;
    const int64_t group = sizes->heads / sizes->kv_heads, tasks = sizes->batch * sizes->kv_heads;
    threads = (int)min_i64(useful_threads(threads, tasks * group * length * length), tasks);
    char *memory = alloc_aligned(threads * bytes);
    if (memory)
#pragma omp parallel num_threads(threads)
    {
        char *keys = memory + thread_id() * bytes, *values = keys + packed, *queries = values + packed;
        float *scores = (float *)(queries + a_head), *c = scores + 2 * row_tile;
        char *p = (char *)(c + 4 * FLOATS);
        const range mine = thread_range(tasks, 1);
        configure_tiles();
        for (int64_t task = mine.first; task < mine.end; task++) {
            const int64_t batch = task / sizes->kv_heads, kv_head = task % sizes->kv_heads;
            pack_transposed(rows_of(k, batch, kv_head, 0), k->time, length, h, keys);
            pack_paired(rows_of(v, batch, kv_head, 0), v->time, length, h, values);
            for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
                for (int64_t block = 0; block < blocks; block++) {
                    const int64_t first = block * BLOCK, count = min_i64(BLOCK, length - first),
                                  seen_blocks = block + 1;
                    float shares[BLOCK], logs[BLOCK];
                    pack_rows(rows_of(q, batch, head, first), q->time, count, h, queries);
                    for (int64_t i = 0; i < seen_blocks; i++)
                        product(queries, h / 32 * TILE, keys + i * a_head, h / 32 * TILE, h / 32,
                                scores + 2 * i * FLOATS, row_tile, FLOATS);
                    hide_later(scores + 2 * block * FLOATS, row_tile);
                    for (int i = 0; i < 2; i++)
                        softmax(scores + i * row_tile, 2 * seen_blocks, sizes->scale, p + i * blocks * TILE,
                                shares + i * SIDE, logs + i * SIDE);
                    if (logarithms)
                        memcpy(logarithms + (batch * sizes->heads + head) * length + first, logs, count * sizeof *logs);
                    uint16_t *out = (uint16_t *)rows_of(y, batch, head, first);
                    for (int64_t channel = 0; channel < h; channel += 32) {
                        product(p, blocks * TILE, values + channel / SIDE * blocks * TILE, blocks * TILE, seen_blocks,
                                c, 2 * FLOATS, FLOATS);
                        store_rows(c, count, shares, out + channel, y->time);
                    }
                }
        }
        _tile_release();
    }
    const int status = memory ? 0 : -1;
    free(memory);
    return status;
}

#ifdef __clang__
#pragma clang attribute pop
#endif

#else

int lowrank_attention_amx(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                          const head_tensor *v, const head_tensor *y, float *logarithms, int threads)
{
    (void)sizes, (void)q, (void)k, (void)v, (void)y, (void)logarithms, (void)threads;
    return -1;
}

#endif

/* Causal attention by dot products, backward: see attention.h.    (FlashAttention-2, arXiv 2307.08691, algorithm 2)

       P = exp2(log2(e) S - L)      D[i] = sum_c dO[i, c] O[i, c]      dP = dO V^T      dS = P (dP - D)
       dV = P^T dO                  dK = scale dS^T Q                  dQ^T = scale K^T dS^T

   A block of 64 keys meets the blocks of queries that see it, with the scores transposed: keys are the rows. dK and dV
   of the block are then sums in the first-level cache; dQ is summed transposed, because two rows of dS^T are a row of
   pairs of keys as they are. dK and dV are summed over the query heads of a key/value head in order. */

#include "bf16/attention.h"

#ifdef HAS_DOTS

BEGIN_DOTS

#define NEVER 1e30f /* L of a query that is not there: 2^(S - L) is zero */

/* A head [T, h] transposed, as A: [h][T / 2] words, from its pairs of rows. */
static void transpose_pairs(const uint32_t *pairs, int64_t whole, int64_t h, uint32_t *to)
{
    for (int64_t pair = 0; pair < whole / 2; pair += 16)
        for (int64_t c = 0; c < h; c += 16) {
            __m512i words[16];
            for (int64_t i = 0; i < 16; i++)
                words[i] = _mm512_load_si512(pairs + (pair + i) * h + c);
            transpose_words(words);
            for (int64_t i = 0; i < 16; i++)
                _mm512_store_si512(to + (c + i) * whole / 2 + pair, words[i]);
        }
}

/* P^T and dS^T as A [64 keys][64 queries], and dS^T as B [pair of keys][64 queries], from S^T and dP^T, for the queries
   from `ahead` keys behind the first key on. */
static void probabilities(const float *s, const float *dp, float scale, const float *logarithms, const float *d,
                          int64_t ahead, uint16_t *p, uint16_t *ds, uint32_t *ds_pairs)
{
    const __m512 scales = _mm512_set1_ps(scale * LOG2_E);
    for (int64_t key = 0; key < BLOCK; key += 2)
        for (int64_t query = 0; query < BLOCK; query += 16) {
            const __m512 log = _mm512_loadu_ps(logarithms + query), mean = _mm512_loadu_ps(d + query);
            __m256i gradient[2];
            for (int64_t i = 0; i < 2; i++) {
                const int64_t at = (key + i) * BLOCK + query;
                const __mmask16 seen = (__mmask16)~lanes_below(key + i - ahead - query);
                const __m512 power =
                    _mm512_maskz_mov_ps(seen, exp2_of(_mm512_fmsub_ps(_mm512_load_ps(s + at), scales, log)));
                const __m512 slope = _mm512_maskz_mul_ps(seen, power, _mm512_sub_ps(_mm512_load_ps(dp + at), mean));
                gradient[i] = f32_to_bf16(slope);
                _mm256_store_si256((__m256i *)(p + at), f32_to_bf16(power));
                _mm256_store_si256((__m256i *)(ds + at), gradient[i]);
            }
            _mm512_store_si512(ds_pairs + key / 2 * BLOCK + query, interleave(gradient[0], gradient[1]));
        }
}

/* X^T [h][T], `next` floats from one row to the next, to the rows of X, times a factor. */
static void store_transposed(const float *x, int64_t next, int64_t length, int64_t h, float factor, uint16_t *to,
                             int64_t stride)
{
    for (int64_t first = 0; first < length; first += 16)
        for (int64_t c = 0; c < h; c += 16) {
            __m512i words[16];
            for (int64_t i = 0; i < 16; i++)
                words[i] = _mm512_load_si512(x + (c + i) * next + first);
            transpose_words(words);
            for (int64_t i = 0; i < 16 && first + i < length; i++)
                _mm256_storeu_si256((__m256i *)(to + (first + i) * stride + c),
                                    f32_to_bf16(_mm512_mul_ps((__m512)words[i], _mm512_set1_ps(factor))));
        }
}

int lowrank_attention_bf16_backward(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                                    const head_tensor *v, const head_tensor *y, const float *logarithms,
                                    const head_tensor *dy, const head_tensor *dq, const head_tensor *dk,
                                    const head_tensor *dv, int threads)
{
    const int64_t length = sizes->length, h = sizes->channels, whole = round_up(length, BLOCK), next = whole + APART;
    const int64_t packed = whole * h / 2, square = BLOCK * BLOCK, block = BLOCK * h;
    const int64_t bytes =
        4 * (6 * packed + 2 * whole * h + h * next + 2 * whole + 2 * square + square / 2 + square + block);
    const int64_t group = sizes->heads / sizes->kv_heads, tasks = sizes->batch * sizes->kv_heads;
    threads = (int)min_i64(useful_threads(threads, tasks * group * length * length), tasks);
    char *memory = alloc_aligned(threads * bytes);
    if (memory)
#pragma omp parallel num_threads(threads)
    {
        uint32_t *const query_channels = (uint32_t *)(memory + thread_id() * bytes);
        uint32_t *const dy_channels = query_channels + packed, *const query_rows = dy_channels + packed;
        uint32_t *const dy_rows = query_rows + packed, *const key_rows = dy_rows + packed;
        uint32_t *const key_columns = key_rows + packed, *const ds_pairs = key_columns + packed;
        float *const dk_sums = (float *)(ds_pairs + square / 2), *const dv_sums = dk_sums + whole * h;
        float *const dq_sums = dv_sums + whole * h, *const d = dq_sums + h * next, *const logs = d + whole;
        float *const s = logs + whole, *const dp = s + square;
        uint16_t *const p = (uint16_t *)(dp + square), *const ds = p + square;
        uint16_t *const keys = ds + square, *const values = keys + block;
        const range mine = thread_range(tasks, 1);
        for (int64_t task = mine.first; task < mine.end; task++) {
            const int64_t batch = task / sizes->kv_heads, kv_head = task % sizes->kv_heads;
            const uint16_t *const k_rows = rows_of(k, batch, kv_head, 0), *const v_rows = rows_of(v, batch, kv_head, 0);
            pack_rows(k_rows, k->time, length, h, key_rows);
            transpose_pairs(key_rows, whole, h, key_columns);
            for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
                const uint16_t *const q_rows = rows_of(q, batch, head, 0), *const dys = rows_of(dy, batch, head, 0);
                pack_channels(q_rows, q->time, length, h, query_channels);
                pack_rows(q_rows, q->time, length, h, query_rows);
                pack_channels(dys, dy->time, length, h, dy_channels);
                pack_rows(dys, dy->time, length, h, dy_rows);
                for (int64_t i = 0; i < whole; i++) {
                    d[i] = i < length ? dot_rows(dys + i * dy->time, rows_of(y, batch, head, i), h) : 0;
                    logs[i] = i < length ? logarithms[(batch * sizes->heads + head) * length + i] : NEVER;
                }
                for (int64_t key = 0; key < length; key += BLOCK) {
                    float *const dk_block = dk_sums + key * h, *const dv_block = dv_sums + key * h;
                    copy_block(k_rows + key * k->time, k->time, length - key, h, keys);
                    copy_block(v_rows + key * v->time, v->time, length - key, h, values);
                    for (int64_t query = key; query < length; query += BLOCK) {
                        const int onto = query > key || head > kv_head * group;
                        multiply_channels(keys, h, query_channels + query * h / 2, s, BLOCK);
                        multiply_channels(values, h, dy_channels + query * h / 2, dp, BLOCK);
                        probabilities(s, dp, sizes->scale, logs + query, d + query, query - key, p, ds, ds_pairs);
                        multiply(BLOCK, h, onto, p, BLOCK, dy_rows + query / 2 * h, h, PAIRS, dv_block, h);
                        multiply(BLOCK, h, onto, ds, BLOCK, query_rows + query / 2 * h, h, PAIRS, dk_block, h);
                        multiply(h, BLOCK, key > 0, (uint16_t *)key_columns + key, whole, ds_pairs, BLOCK, PAIRS,
                                 dq_sums + query, next);
                    }
                }
                store_transposed(dq_sums, next, length, h, sizes->scale, (uint16_t *)rows_of(dq, batch, head, 0),
                                 dq->time);
            }
            for (int64_t i = 0; i < length; i++) {
                store_row(dk_sums + i * h, h, sizes->scale, (uint16_t *)rows_of(dk, batch, kv_head, i));
                store_row(dv_sums + i * h, h, 1, (uint16_t *)rows_of(dv, batch, kv_head, i));
            }
        }
    }
    const int status = memory ? 0 : -1;
    free(memory);
    return status;
}

END_DOTS

#else

int lowrank_attention_bf16_backward(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                                    const head_tensor *v, const head_tensor *y, const float *logarithms,
                                    const head_tensor *dy, const head_tensor *dq, const head_tensor *dk,
                                    const head_tensor *dv, int threads)
{
    (void)sizes, (void)q, (void)k, (void)v, (void)y, (void)logarithms, (void)dy, (void)dq, (void)dk, (void)dv,
        (void)threads;
    return -1;
}

#endif

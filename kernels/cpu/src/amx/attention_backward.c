/* Causal attention, backward: see attention.h.    (FlashAttention-2, arXiv 2307.08691, algorithm 2)

       P = exp2(log2(e) S - L)      D[i] = sum_c dO[i, c] O[i, c]      dP = dO V^T      dS = P (dP - D)
       dQ = scale dS K              dK^T = scale Q^T dS                dV^T = dO^T P

   dK and dV are summed over all queries of all heads of the group, as they are used, transposed: then P and dS are B,
   which two rows of C are when they are put together. */

#include "attention.h"

#ifdef HAS_TILES

/* 32 rows [32, h] as A of their transpose: [tile of 16 of h]. */
static void pack_columns(const uint16_t *rows, int64_t stride, int64_t count, int64_t h, char *to)
{
    char pairs[WIDEST / SIDE * TILE] __attribute__((aligned(64)));
    pack_pairs(rows, stride, count, h, pairs, TILE);
    transpose_tiles(pairs, h / SIDE, to);
}

/* D of up to 32 rows; zero behind them. */
static void row_sums(const uint16_t *dy, int64_t dy_stride, const uint16_t *y, int64_t y_stride, int64_t count,
                     int64_t h, float *d)
{
    for (int64_t i = 0; i < BLOCK; i++)
        d[i] = i < count ? dot_rows(dy + i * dy_stride, y + i * y_stride, h) : 0;
}

/* P as B, and dS as B and as A, of 32 queries and 32 keys, from [tile of queries][tile of keys] of S and dP. */
static void probabilities(const float *s, const float *dp, float scale, const float *logarithms, const float *d,
                          int diagonal, char *p, char *ds, char *ds_rows, int64_t ds_next)
{
    const __m512 scales = _mm512_set1_ps(scale * LOG2_E);
    for (int64_t query = 0; query < BLOCK; query += 2) {
        __m512 power[2][2], gradient[2][2];
        for (int j = 0; j < 2; j++)
            for (int tile = 0; tile < 2; tile++) {
                const int64_t at = (query / SIDE * 2 + tile) * FLOATS + (query % SIDE + j) * SIDE;
                const __mmask16 here = diagonal ? seen(query + j, tile * SIDE) : 0xffff;
                const __m512 exponent =
                    _mm512_fmsub_ps(_mm512_load_ps(s + at), scales, _mm512_set1_ps(logarithms[query + j]));
                power[j][tile] = _mm512_maskz_mov_ps(here, exp2_of(exponent));
                gradient[j][tile] = _mm512_maskz_mul_ps(
                    here, power[j][tile], _mm512_sub_ps(_mm512_load_ps(dp + at), _mm512_set1_ps(d[query + j])));
            }
        for (int tile = 0; tile < 2; tile++) {
            _mm512_store_si512(p + tile * TILE + query / 2 * 64, pairs_of(power[0][tile], power[1][tile]));
            _mm512_store_si512(ds + tile * TILE + query / 2 * 64, pairs_of(gradient[0][tile], gradient[1][tile]));
        }
        for (int j = 0; j < 2; j++)
            _mm512_store_si512(ds_rows + query / SIDE * ds_next + (query % SIDE + j) * 64,
                               (__m512i)_mm512_cvtne2ps_pbh(gradient[j][1], gradient[j][0]));
    }
}

/* C = X^T [tile of 16 of h][tile of 16 rows] to the rows of X, times a factor. */
static void store_transposed(const float *c, int64_t h, int64_t row_tiles, int64_t length, float factor, uint16_t *x,
                             int64_t stride)
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i down = _mm512_slli_epi32(lane, 4);
    for (int64_t i = 0; i < length; i++)
        for (int64_t channel = 0; channel < h; channel += SIDE) {
            const float *from = c + (channel / SIDE * row_tiles + i / SIDE) * FLOATS + i % SIDE;
            const __m512 column = _mm512_mul_ps(_mm512_i32gather_ps(down, from, 4), _mm512_set1_ps(factor));
            _mm256_storeu_si256((__m256i *)(x + i * stride + channel), (__m256i)_mm512_cvtneps_pbh(column));
        }
}

int lowrank_attention_amx_backward(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                                   const head_tensor *v, const head_tensor *y, const float *logarithms,
                                   const head_tensor *dy, const head_tensor *dq, const head_tensor *dk,
                                   const head_tensor *dv, int threads)
{
    const int64_t length = sizes->length, h = sizes->channels, blocks = round_up(length, BLOCK) / BLOCK;
    const int64_t packed = blocks * BLOCK * h * 2, a_head = 2 * h / 32 * TILE, tiles = 2 * blocks, step = h / 32 * TILE;
    const int64_t bytes = 7 * packed + 4 * a_head + 2 * blocks * TILE + 12 * TILE;
    const int64_t group = sizes->heads / sizes->kv_heads, tasks = sizes->batch * sizes->kv_heads;
    threads = (int)min_i64(useful_threads(threads, tasks * group * length * length), tasks);
    char *memory = alloc_aligned(threads * bytes);
    if (memory)
#pragma omp parallel num_threads(threads)
    {
        char *keys = memory + thread_id() * bytes, *values = keys + packed, *paired_keys = values + packed;
        float *dk_sums = (float *)(paired_keys + packed), *dv_sums = (float *)((char *)dk_sums + 2 * packed);
        char *queries = (char *)dv_sums + 2 * packed, *query_columns = queries + a_head;
        char *dys = query_columns + a_head, *dy_columns = dys + a_head;
        float *s = (float *)(dy_columns + a_head), *dp = s + 4 * FLOATS;
        char *p = (char *)(dp + 4 * FLOATS), *ds = p + 2 * TILE, *ds_rows = ds + 2 * TILE;
        const range mine = thread_range(tasks, 1);
        float scales[BLOCK];
        for (int i = 0; i < BLOCK; i++)
            scales[i] = sizes->scale;
        configure_tiles();
        for (int64_t task = mine.first; task < mine.end; task++) {
            const int64_t batch = task / sizes->kv_heads, kv_head = task % sizes->kv_heads;
            const uint16_t *k_rows = rows_of(k, batch, kv_head, 0);
            pack_transposed(k_rows, k->time, length, h, keys);
            pack_paired(k_rows, k->time, length, h, paired_keys);
            pack_transposed(rows_of(v, batch, kv_head, 0), v->time, length, h, values);
            memset(dk_sums, 0, 4 * packed);
            for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
                for (int64_t block = 0; block < blocks; block++) {
                    const int64_t first = block * BLOCK, count = min_i64(BLOCK, length - first);
                    const uint16_t *q_rows = rows_of(q, batch, head, first), *dy_rows = rows_of(dy, batch, head, first);
                    float logs[BLOCK] = {0}, d[BLOCK];
                    pack_rows(q_rows, q->time, count, h, queries);
                    pack_columns(q_rows, q->time, count, h, query_columns);
                    pack_rows(dy_rows, dy->time, count, h, dys);
                    pack_columns(dy_rows, dy->time, count, h, dy_columns);
                    row_sums(dy_rows, dy->time, rows_of(y, batch, head, first), y->time, count, h, d);
                    memcpy(logs, logarithms + (batch * sizes->heads + head) * length + first, count * sizeof *logs);
                    for (int64_t i = 0; i <= block; i++) {
                        product(queries, step, keys + i * a_head, step, h / 32, s, 2 * FLOATS, FLOATS);
                        product(dys, step, values + i * a_head, step, h / 32, dp, 2 * FLOATS, FLOATS);
                        probabilities(s, dp, sizes->scale, logs, d, i == block, p, ds, ds_rows + i * TILE,
                                      blocks * TILE);
                        for (int64_t c = 0; c < h / SIDE; c += 2) {
                            const int64_t at = (c * tiles + 2 * i) * FLOATS;
                            multiply(2, dy_columns + c * TILE, TILE, p, TILE, 1, dv_sums + at, tiles * FLOATS, FLOATS);
                            multiply(2, query_columns + c * TILE, TILE, ds, TILE, 1, dk_sums + at, tiles * FLOATS,
                                     FLOATS);
                        }
                    }
                    uint16_t *out = (uint16_t *)rows_of(dq, batch, head, first);
                    for (int64_t channel = 0; channel < h; channel += 32) {
                        product(ds_rows, blocks * TILE, paired_keys + channel / SIDE * blocks * TILE, blocks * TILE,
                                block + 1, s, 2 * FLOATS, FLOATS);
                        store_rows(s, count, scales, out + channel, dq->time);
                    }
                }
            store_transposed(dk_sums, h, tiles, length, sizes->scale, (uint16_t *)rows_of(dk, batch, kv_head, 0),
                             dk->time);
            store_transposed(dv_sums, h, tiles, length, 1, (uint16_t *)rows_of(dv, batch, kv_head, 0), dv->time);
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

int lowrank_attention_amx_backward(const attention_sizes *sizes, const head_tensor *q, const head_tensor *k,
                                   const head_tensor *v, const head_tensor *y, const float *logarithms,
                                   const head_tensor *dy, const head_tensor *dq, const head_tensor *dk,
                                   const head_tensor *dv, int threads)
{
    (void)sizes, (void)q, (void)k, (void)v, (void)y, (void)logarithms, (void)dy, (void)dq, (void)dk, (void)dv,
        (void)threads;
    return -1;
}

#endif

/* The functions of api.h: each shares its outputs out among threads. */

#include <string.h>

#include "../threads.h"
#include "exact.h"

static const exact_set *exact(void)
{
#if defined(__x86_64__)
    if (chosen_set() == &avx512_set)
        return &avx512_exact;
    if (chosen_set() == &avx2_set)
        return &avx2_exact;
#endif
    return &portable_exact;
}

/* What a number costs that is computed by a series, in multiply-adds. */
#define SERIES 16

int lowrank_exact_product(const exact_matrix *a, const exact_matrix *b, int64_t m, int64_t n, int64_t terms, float *c,
                          int64_t c_stride, int onto, int threads)
{
    threads = useful_threads(threads, m * n * terms / SERIES);
    float *memory = alloc_aligned(threads * PACKED_FLOATS * (int64_t)sizeof *memory);
    if (!memory)
        return -1;
#pragma omp parallel num_threads(threads)
    {
        const int by_rows = m > n;
        const range mine = thread_range(by_rows ? m : n, PACKED_ROWS / 2);
        const exact_matrix left = {a->at + (by_rows ? mine.first * a->row : 0), a->row, a->column};
        const exact_matrix right = {b->at + (by_rows ? 0 : mine.first * b->column), b->row, b->column};
        const int64_t count = mine.end - mine.first;
        exact()->multiply(left, right, by_rows ? count : m, by_rows ? n : count, terms,
                          c + mine.first * (by_rows ? c_stride : 1), c_stride, onto,
                          memory + thread_id() * PACKED_FLOATS);
    }
    free(memory);
    return 0;
}

int lowrank_exact_function(enum exact_function which, const float *x, int64_t count, float *y, int threads)
{
    threads = useful_threads(threads, count * SERIES);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(count, 16);
        exact()->function(which, x + mine.first, mine.end - mine.first, y + mine.first);
    }
    return 0;
}

int lowrank_exact_sum(const float *x, const float *y, int64_t count, double *to, int threads)
{
    (void)threads;
    *to = y ? exact()->dot(x, y, count) : exact()->sum(x, count);
    return 0;
}

int lowrank_exact_rms_norm(const float *x, const float *weight, int64_t rows, int64_t channels, float eps, float *rstd,
                           float *y, int threads)
{
    threads = useful_threads(threads, rows * channels);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(rows, 1);
        for (int64_t i = mine.first; i < mine.end; i++)
            rstd[i] = exact()->norm(x + i * channels, weight, channels, eps, y + i * channels);
    }
    return 0;
}

int lowrank_exact_rms_norm_backward(const float *dy, const float *x, const float *rstd, const float *weight,
                                    int64_t rows, int64_t channels, float *dx, int threads)
{
    threads = useful_threads(threads, rows * channels);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(rows, 1);
        for (int64_t i = mine.first; i < mine.end; i++)
            exact()->norm_backward(dy + i * channels, x + i * channels, rstd[i], weight, channels, dx + i * channels);
    }
    return 0;
}

int lowrank_exact_rope(const float *x, int64_t positions, int64_t heads, int64_t channels, int interleaved, int inverse,
                       const float *cos, const float *sin, float *y, int threads)
{
    threads = useful_threads(threads, positions * heads * channels);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(positions, 1);
        for (int64_t i = mine.first; i < mine.end; i++) {
            const int64_t at = i * heads * channels, angle = i * (channels / 2);
            exact()->rotate(x + at, heads, channels, interleaved, inverse, cos + angle, sin + angle, y + at);
        }
    }
    return 0;
}

int lowrank_exact_swiglu(const float *gate, const float *up, int64_t count, float *y, int threads)
{
    threads = useful_threads(threads, count * SERIES);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(count, 16);
        exact()->swiglu(gate + mine.first, up + mine.first, mine.end - mine.first, y + mine.first);
    }
    return 0;
}

int lowrank_exact_swiglu_backward(const float *dy, const float *gate, const float *up, int64_t count, float *dgate,
                                  float *dup, int threads)
{
    threads = useful_threads(threads, count * SERIES);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(count, 16);
        const int64_t at = mine.first;
        exact()->swiglu_backward(dy + at, gate + at, up + at, mine.end - at, dgate + at, dup + at);
    }
    return 0;
}

int lowrank_exact_cross_entropy(float *logits, int64_t rows, int64_t vocabulary, const int64_t *targets, float *losses,
                                int threads)
{
    threads = useful_threads(threads, rows * vocabulary * SERIES);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(rows, 1);
        for (int64_t i = mine.first; i < mine.end; i++)
            losses[i] = exact()->cross_entropy(logits + i * vocabulary, vocabulary, targets[i]);
    }
    return 0;
}

int lowrank_exact_attention(const exact_heads *s, const float *q, const float *k, const float *v, const int64_t *starts,
                            float *y, int threads)
{
    const int64_t head = s->length * s->channels, group = s->heads / s->kv_heads,
                  floats = EXACT_ATTENTION_FLOATS(s->length);
    threads = useful_threads(threads, s->batch * s->heads * head * SERIES);
    float *memory = alloc_aligned(threads * floats * (int64_t)sizeof *memory);
    if (!memory)
        return -1;
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(s->batch * s->heads, 1);
        for (int64_t i = mine.first; i < mine.end; i++) {
            const int64_t *own = starts ? starts + i / s->heads * s->length : NULL;
            const int64_t shared = i / group * head;
            exact()->attention(q + i * head, k + shared, v + shared, own, s->length, s->channels,
                               memory + thread_id() * floats, y + i * head);
        }
    }
    free(memory);
    return 0;
}

/* A thread takes all query heads of a key and value head: their gradients are one sum. */
int lowrank_exact_attention_backward(const exact_heads *s, const float *dy, const float *q, const float *k,
                                     const float *v, const int64_t *starts, float *dq, float *dk, float *dv,
                                     int threads)
{
    const int64_t head = s->length * s->channels, group = s->heads / s->kv_heads,
                  floats = EXACT_ATTENTION_FLOATS(s->length);
    threads = useful_threads(threads, s->batch * s->heads * head * SERIES);
    float *memory = alloc_aligned(threads * floats * (int64_t)sizeof *memory);
    if (!memory)
        return -1;
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(s->batch * s->kv_heads, 1);
        for (int64_t shared = mine.first; shared < mine.end; shared++) {
            const int64_t *own = starts ? starts + shared / s->kv_heads * s->length : NULL;
            memset(dk + shared * head, 0, sizeof *dk * head);
            memset(dv + shared * head, 0, sizeof *dv * head);
            for (int64_t at = shared * group * head; at < (shared + 1) * group * head; at += head)
                exact()->attention_backward(dy + at, q + at, k + shared * head, v + shared * head, own, s->length,
                                            s->channels, memory + thread_id() * floats, dq + at, dk + shared * head,
                                            dv + shared * head);
        }
    }
    free(memory);
    return 0;
}

int lowrank_exact_adamw(const exact_adamw *constants, const float *gradient, int64_t count, float *parameter, float *m,
                        float *v, int threads)
{
    threads = useful_threads(threads, count * SERIES);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(count, 16);
        const int64_t at = mine.first;
        exact()->adamw(constants, gradient + at, mine.end - at, parameter + at, m + at, v + at);
    }
    return 0;
}

/* Rotary positions: pairs of channels turned by the angles of their position. */

#include "threads.h"

void spread_angles(const float *cos, const float *sin, int64_t channels, int interleaved, int inverse, float *own,
                   float *other)
{
    for (int64_t i = 0; i < channels / 2; i++) {
        const int64_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + channels / 2;
        own[a] = own[b] = cos[i];
        other[a] = inverse ? sin[i] : -sin[i];
        other[b] = -other[a];
    }
}

int lowrank_rope(const void *x, enum dtype dtype, int64_t positions, int64_t heads, int64_t channels, int interleaved,
                 int inverse, const float *cos, const float *sin, void *y, int threads)
{
    threads = useful_threads(threads, positions * heads * channels);
    float *angles = alloc_aligned(threads * 2 * channels * (int64_t)sizeof(float));
    if (angles)
#pragma omp parallel num_threads(threads)
    {
        float *own = angles + thread_id() * 2 * channels, *other = own + channels;
        const range mine = thread_range(positions, 1);
        for (int64_t position = mine.first; position < mine.end; position++) {
            const int64_t first = position * (channels / 2);
            spread_angles(cos + first, sin + first, channels, interleaved, inverse, own, other);
            for (int64_t head = position * heads; head < (position + 1) * heads; head++) {
                const int64_t at = head * channels * (int64_t)size_of(dtype);
                chosen_set()->rotate((const char *)x + at, dtype, channels, interleaved, own, other, (char *)y + at);
            }
        }
    }
    const int status = angles ? 0 : -1;
    free(angles);
    return status;
}

/* Quantizing and dequantizing: to the byte what kernels/reference/weights.py does. */

#include <math.h>
#include <string.h>

#include "threads.h"

#define MAX_BLOCKSIZE 4096 /* in a block */
#define SEARCHES 16        /* at a time */

int lowrank_quantize(const void *w, enum dtype dtype, int64_t count, int blocksize, const float *boundaries,
                     const uint8_t *order, uint8_t zero_code, uint8_t *codes, float *absmax, int threads)
{
    const instruction_set *set = chosen_set();
    int bad = 0;
    threads = useful_threads(threads, count);
#pragma omp parallel num_threads(threads) reduction(| : bad)
    {
        float block[MAX_BLOCKSIZE];
        uint8_t encoded[MAX_BLOCKSIZE / 2];
        const range mine = thread_range(count, blocksize);
        for (int64_t first = mine.first; first < mine.end && !bad; first += blocksize) {
            const int64_t here = min_i64(blocksize, count - first), bytes = (here + 1) / 2;
            set->to_f32((const char *)w + first * size_of(dtype), dtype, here, block);
            memset(block + here, 0, sizeof(float) * (round_up(here, 32) - here));
            const uint32_t bits = set->max_bits(block, here);
            float maximum;
            memcpy(&maximum, &bits, sizeof maximum);
            absmax[first / blocksize] = maximum;
            if (bits >= 0x7f800000)
                bad = 1;
            else if (maximum == 0)
                memset(encoded, zero_code << 4 | zero_code, bytes);
            else {
                const float reciprocal = 1 / maximum; /* infinite for a denormal: then the block is divided */
                const int divide = isinf(reciprocal);
                set->encode(block, (int)round_up(here, 32), divide ? maximum : reciprocal, divide, boundaries, order,
                            encoded);
            }
            if (here % 2)
                encoded[bytes - 1] = (encoded[bytes - 1] & 0xf0) | zero_code;
            memcpy(codes + first / 2, encoded, bytes);
        }
    }
    return bad;
}

/* How many of the 255 boundaries are below each x: searches that do not wait for each other's steps. */
static void ranks(const float *boundaries, const float *x, uint8_t *below)
{
    int found[SEARCHES] = {0};
    for (int step = 128; step; step /= 2)
        for (int i = 0; i < SEARCHES; i++)
            found[i] += x[i] > boundaries[found[i] + step - 1] ? step : 0;
    for (int i = 0; i < SEARCHES; i++)
        below[i] = (uint8_t)found[i];
}

void lowrank_quantize_absmax(const float *absmax, int64_t count, float offset, int nested_blocksize,
                             const float *boundaries, uint8_t *codes, float *nested_absmax, int threads)
{
    threads = useful_threads(threads, count * 32); /* a search is as long as some 32 weights */
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(count, nested_blocksize);
        for (int64_t first = mine.first; first < mine.end; first += nested_blocksize) {
            const int64_t end = min_i64(first + nested_blocksize, count);
            float max_bits = 0;
            for (int64_t i = first; i < end; i++)
                max_bits = fmaxf(max_bits, fabsf(absmax[i] - offset));
            nested_absmax[first / nested_blocksize] = max_bits;
            const float reciprocal = 1 / max_bits;
            for (int64_t i = first; i < end; i += SEARCHES) {
                float scaled[SEARCHES] = {0};
                uint8_t below[SEARCHES];
                const int64_t here = min_i64(SEARCHES, end - i);
                for (int64_t j = 0; j < here && max_bits != 0; j++)
                    scaled[j] =
                        isinf(reciprocal) ? (absmax[i + j] - offset) / max_bits : (absmax[i + j] - offset) * reciprocal;
                ranks(boundaries, scaled, below);
                memcpy(codes + i, below, here);
            }
        }
    }
}

/* Where blocks or bytes are cut, weights are looked up one by one. */
static void decode_one_by_one(const instruction_set *set, const blockwise_4bit *w, int64_t begin, int64_t end,
                              float maximum, enum dtype dtype, char *to)
{
    for (int64_t i = begin; i < end; i++) {
        const int byte = w->codes[i / 2];
        const float weight = w->levels[i % 2 ? byte & 15 : byte >> 4] * maximum;
        set->from_f32(&weight, 1, dtype, to + (i - begin) * size_of(dtype));
    }
}

void decode_weights(const blockwise_4bit *w, int64_t begin, int64_t count, enum dtype dtype, void *out)
{
    const instruction_set *set = chosen_set();
    const int64_t end = begin + count, blocksize = w->blocksize;
    char *to = out;
    float maxima[64];
    for (int64_t i = begin; i < end;) {
        const int64_t block = i / blocksize;
        int64_t until = min_i64((block + 1) * blocksize, end);
        if (i == block * blocksize && until - i == blocksize) {
            const int64_t blocks = min_i64((end - i) / blocksize, 64);
            set->maxima(w, block, blocks, maxima);
            set->decode(w->codes + i / 2, blocks * blocksize, w->levels, maxima, w->blocksize, dtype, to);
            until = i + blocks * blocksize;
        } else {
            set->maxima(w, block, 1, maxima);
            decode_one_by_one(set, w, i, until, maxima[0], dtype, to);
        }
        to += (until - i) * size_of(dtype);
        i = until;
    }
}

void lowrank_dequantize(const blockwise_4bit *w, const submatrix *part, enum dtype dtype, void *out, int64_t stride,
                        int threads)
{
    threads = useful_threads(threads, part->rows * part->columns);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(part->rows, 1);
        const int64_t k = w->columns, first = part->row + mine.first;
        char *to = (char *)out + mine.first * stride * size_of(dtype);
        if (stride == k && part->columns == k) /* one stretch: blocks that span rows stay whole */
            decode_weights(w, first * k, (mine.end - mine.first) * k, dtype, to);
        else
            for (int64_t r = 0; r < mine.end - mine.first; r++)
                decode_weights(w, (first + r) * k + part->column, part->columns, dtype,
                               to + r * stride * size_of(dtype));
    }
}

void lowrank_dequantize_int8(const rowwise_int8 *w, const submatrix *part, enum dtype dtype, void *out, int64_t stride,
                             int threads)
{
    threads = useful_threads(threads, part->rows * part->columns);
#pragma omp parallel num_threads(threads)
    {
        const range mine = thread_range(part->rows, 1);
        for (int64_t r = mine.first; r < mine.end; r++) {
            const int64_t row = part->row + r;
            chosen_set()->decode_int8(w->codes + row * w->columns + part->column, part->columns, w->scale[row] / 127,
                                      dtype, (char *)out + r * stride * size_of(dtype));
        }
    }
}

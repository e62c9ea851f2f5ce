/* Compares every instruction set of this processor with the portable one, function by function, on random data.

   cc -I kernels/cpu/src tests/kernels/cpu/compare_sets.c and all .c of kernels/cpu/src; prints the sets that it
   compared, or fails. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "threads.h"

#define MOST 4096
#define FLOAT_EPSILON 0x1p-23

static const char *comparing;

static void require(int rule, const char *what, int64_t at)
{
    if (!rule) {
        printf("%s: %s differs at %lld\n", comparing, what, (long long)at);
        exit(1);
    }
}

static uint32_t seed = 1;
static uint32_t bits(void) { return seed = seed * 1664525u + 1013904223u, seed ^ seed >> 15; }
static float uniform(void) { return (float)(int32_t)bits() * 0x1p-31f; }

static int same_floats(float a, float b) { return (isnan(a) && isnan(b)) || !memcmp(&a, &b, sizeof a); }

static float to_f32_one(uint16_t half, enum dtype dtype)
{
    float wide;
    portable_set.to_f32(&half, dtype, 1, &wide);
    return wide;
}

static void compare_conversions(const instruction_set *set)
{
    static uint16_t half[65536], other[65536];
    static float wide[65536], wide_other[65536];
    for (int i = 0; i < 65536; i++)
        half[i] = (uint16_t)i;
    for (enum dtype dtype = BFLOAT16; dtype <= FLOAT16; dtype++) {
        set->to_f32(half, dtype, 65535, wide); /* an odd count: the rest goes another way */
        portable_set.to_f32(half, dtype, 65535, wide_other);
        for (int i = 0; i < 65535; i++)
            require(same_floats(wide[i], wide_other[i]), "to_f32", i);
        for (int round = 0; round < 32; round++) {
            for (int i = 0; i < 65536;
                 i++) { /* random patterns, and numbers around those of 16 bits and their middles */
                uint32_t pattern = bits();
                if (round % 2) {
                    memcpy(&pattern, wide_other + (i < 65535 ? i : 0), 4);
                    pattern += (dtype == FLOAT16 ? 1u << 12 : 1u << 15) * (round / 2 % 3) + round / 6 % 3 - 1;
                }
                memcpy(wide + i, &pattern, 4);
            }
            set->from_f32(wide, 65535, dtype, half);
            portable_set.from_f32(wide, 65535, dtype, other);
            for (int i = 0; i < 65535; i++)
                require(half[i] == other[i] || (isnan(wide[i]) && isnan(to_f32_one(half[i], dtype))), "from_f32", i);
        }
        for (int i = 0; i < 65536; i++)
            half[i] = (uint16_t)i;
    }
}

static uint8_t codes[2 * MOST + CODES_PADDING];
static float levels[16], table[256], x[MAX_ROWS * MOST], packed[MAX_ROWS * MOST], one[MOST], other[MOST];
static float maxima[2][MOST / 32 + ABSMAX_PADDING];

static double weight(int row, int64_t columns, int64_t k, int blocksize)
{
    const uint8_t byte = codes[(row * columns + k) / 2];
    return (double)levels[k % 2 ? byte & 15 : byte >> 4] * maxima[row][k / blocksize];
}

/* Against double: an error of a few roundings of the sum of the magnitudes. */
static void close_to_double(float y, int row, int64_t columns, int blocksize, const float *xs, const char *what)
{
    double sum = 0, magnitude = 0;
    for (int64_t k = 0; k < columns; k++) {
        const double product = weight(row, columns, k, blocksize) * xs[k];
        sum += product;
        magnitude += fabs(product);
    }
    require(fabs(y - sum) <= 4 * FLOAT_EPSILON * magnitude, what, columns);
}

static void compare_products(const instruction_set *set, int64_t columns, int blocksize)
{
    const int64_t stride = (columns + set->chunk - 1) / set->chunk * set->chunk;
    float y[MAX_ROWS];
    for (int m = 1; m <= MAX_ROWS; m++) {
        for (int i = 0; i < m; i++)
            set->pack_x(x + i * columns, columns, packed + i * stride);
        set->dot(codes, columns, levels, maxima[0], blocksize, packed, stride, m, y);
        for (int i = 0; i < m; i++)
            close_to_double(y[i], 0, columns, blocksize, x + i * columns, "dot");
    }
    const uint8_t *const rows[] = {codes, codes + columns / 2};
    for (int m = 1; m <= DOT_ROWS; m++) {
        set->dot_two(rows, columns, levels, maxima[0], maxima[1] - maxima[0], blocksize, packed, stride, m, y);
        for (int i = 0; i < 2 * m; i++)
            close_to_double(y[i], i % 2, columns, blocksize, x + i / 2 * columns, "dot_two");
    }

    for (enum dtype dtype = FLOAT32; dtype <= FLOAT16; dtype++) {
        set->decode(codes, columns, levels, maxima[0], blocksize, dtype, one);
        portable_set.decode(codes, columns, levels, maxima[0], blocksize, dtype, other);
        require(!memcmp(one, other, columns * size_of(dtype)), "decode", columns);
    }
    set->decode(codes, columns, levels, maxima[0], blocksize, FLOAT32, one);
    set->dot_plain(one, FLOAT32, columns, x, columns, MAX_ROWS, y);
    for (int i = 0; i < MAX_ROWS; i++)
        close_to_double(y[i], 0, columns, blocksize, x + i * columns, "dot_plain");
}

/* Panels: weights in the order of pack_x, to the bit; then sums of them against double. */
static void compare_panels(const instruction_set *set, int64_t columns, int blocksize)
{
    static float panel[PANEL_ROWS * PANEL_STRIDE], rows_of_x[7 * PANEL_COLUMNS], sums[7 * STRIPE];
    const int64_t count =
        columns / set->chunk * set->chunk < PANEL_COLUMNS ? columns / set->chunk * set->chunk : PANEL_COLUMNS;
    const panel_source from = {
        .codes = codes,
        .next = codes,
        .codes_stride = columns / 2,
        .maxima = maxima[0],
        .maxima_stride = maxima[1] - maxima[0],
        .levels = levels,
        .blocksize = blocksize,
    };
    set->decode_panel(&from, 2, count, panel, PANEL_STRIDE);
    for (int row = 0; row < 2; row++) {
        portable_set.decode(codes + row * columns / 2, columns, levels, maxima[row], blocksize, FLOAT32, one);
        set->pack_x(one, count, other);
        require(!memcmp(panel + row * PANEL_STRIDE, other, count * sizeof *other), "decode_panel", columns);
        set->unpack_dx(other, count, packed);
        require(!memcmp(one, packed, count * sizeof *one), "unpack_dx", columns);
    }
    for (int i = 0; i < 7; i++)
        memcpy(rows_of_x + i * PANEL_COLUMNS, x + i * MOST, count * sizeof *x);
    for (int m = 1; m <= 7; m++)
        for (int onto = 0; onto < 2; onto++) {
            for (int i = 0; i < 7 * STRIPE; i++)
                sums[i] = 1;
            set->multiply_panel(panel, count, rows_of_x, m, sums, STRIPE, onto);
            for (int i = 0; i < m; i++)
                for (int row = 0; row < 2; row++) {
                    double sum = onto, magnitude = onto;
                    for (int64_t k = 0; k < count; k++) {
                        sum += (double)panel[row * PANEL_STRIDE + k] * rows_of_x[i * PANEL_COLUMNS + k];
                        magnitude += fabs((double)panel[row * PANEL_STRIDE + k] * rows_of_x[i * PANEL_COLUMNS + k]);
                    }
                    require(fabs(sums[i * STRIPE + row] - sum) <= 4 * FLOAT_EPSILON * magnitude, "multiply_panel", m);
                }
        }
    const int64_t stride = PANEL_FLOATS / set->chunk, rows = stride - 3;
    const float *dy = x + 2 * MOST, *w = x;
    for (int m = 1; m <= 7; m++)
        for (int onto = 0; onto < 2; onto++) {
            for (int i = 0; i < 7 * STRIPE; i++)
                sums[i] = 1;
            set->multiply_panel_backward(w, rows, dy, m, sums, onto);
            for (int i = 0; i < m; i++)
                for (int64_t k = 0; k < set->chunk; k++) {
                    double sum = onto, magnitude = onto;
                    for (int64_t r = 0; r < rows; r++) {
                        sum += (double)dy[i * stride + r] * w[r * set->chunk + k];
                        magnitude += fabs((double)dy[i * stride + r] * w[r * set->chunk + k]);
                    }
                    require(fabs(sums[i * STRIPE + k] - sum) <= 4 * FLOAT_EPSILON * magnitude,
                            "multiply_panel_backward", m);
                }
        }
}

static void compare_rows(const instruction_set *set, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        one[i] = other[i] = x[count + i];
    set->add(x, count, 0.3f, one);
    for (int64_t i = 0; i < count; i++)
        require(fabs(one[i] - (0.3f * (double)x[i] + other[i])) <= FLOAT_EPSILON * (fabs(x[i]) + fabs(other[i])), "add",
                i);

    for (enum dtype dtype = FLOAT32; dtype <= FLOAT16; dtype++) {
        set->decode_int8((const int8_t *)codes, count, 0.37f, dtype, one);
        portable_set.decode_int8((const int8_t *)codes, count, 0.37f, dtype, other);
        require(!memcmp(one, other, count * size_of(dtype)), "decode_int8", count);
    }
    require(set->max_bits(x, count) == portable_set.max_bits(x, count), "largest", count);
    const float kept = x[count / 2];
    for (int i = 0; i < 2; i++) {
        x[count / 2] = i ? INFINITY : NAN;
        require(set->max_bits(x, count) == portable_set.max_bits(x, count), "largest of what is not finite", count);
    }
    x[count / 2] = kept;
}

/* Rows of W in each dtype with two of x, or one; then y of another row added to, by a rank of as many. */
static void compare_plain_products(const instruction_set *set, int64_t count)
{
    for (enum dtype dtype = FLOAT32; dtype <= FLOAT16; dtype++)
        for (int m = 1; m <= 2; m++) {
            float y[2];
            portable_set.from_f32(x, count, dtype, one);
            portable_set.to_f32(one, dtype, count, other);
            set->dot_plain(one, dtype, count, x + MOST, MOST, m, y);
            for (int i = 0; i < m; i++) {
                double sum = 0, magnitude = 0;
                for (int64_t k = 0; k < count; k++) {
                    sum += (double)other[k] * x[(i + 1) * MOST + k];
                    magnitude += fabs((double)other[k] * x[(i + 1) * MOST + k]);
                }
                require(fabs(y[i] - sum) <= 4 * FLOAT_EPSILON * magnitude, "dot_plain", count);
            }
        }
    const double before[] = {1, -1, 0};
    float sums[] = {1, -1, 0};
    set->add_inner(x, 3, count, 0.7f, x + MOST, sums);
    for (int n = 0; n < 3; n++) {
        double sum = 0, magnitude = 1;
        for (int64_t j = 0; j < count; j++) {
            sum += 0.7 * x[n * count + j] * x[MOST + j];
            magnitude += fabs((double)x[n * count + j] * x[MOST + j]);
        }
        require(fabs(sums[n] - sum - before[n]) <= 4 * FLOAT_EPSILON * magnitude, "add_inner", count);
    }
}

static void compare_statistics(const instruction_set *set, int64_t count, int64_t first)
{
    const float nested[] = {0.3f, 7, 1e-3f, 0.9f}, offset = 0.123f;
    const blockwise_4bit w = {
        .absmax_codes = codes, .nested_absmax = nested, .offset = &offset, .dynamic8 = table, .nested_blocksize = 256};
    set->maxima(&w, first, count, one);
    portable_set.maxima(&w, first, count, other);
    require(!memcmp(one, other, count * sizeof *one), "maxima", count);
}

static void compare_codes(const instruction_set *set)
{
    uint8_t order[16], mine[MOST / 2], theirs[MOST / 2];
    float boundaries[15];
    for (int i = 0; i < 16; i++)
        order[i] = (uint8_t)(i * 5 % 16);
    for (int i = 0; i < 15; i++)
        boundaries[i] = -0.9f + 0.123f * (float)i;
    for (int i = 0; i < 15; i++)
        x[i] = boundaries[i]; /* ties */
    for (int divide = 0; divide < 2; divide++) {
        set->encode(x, MOST, 1, divide, boundaries, order, mine);
        portable_set.encode(x, MOST, 1, divide, boundaries, order, theirs);
        require(!memcmp(mine, theirs, sizeof mine), "encode", divide);
        set->encode(x, 32, 0.77f, divide, boundaries, order, mine);
        portable_set.encode(x, 32, 0.77f, divide, boundaries, order, theirs);
        require(!memcmp(mine, theirs, 16), "encode", divide);
    }
}

/* Against double: two products and their sum, rounded once or twice. */
static void compare_turns(const instruction_set *set, int64_t channels, int interleaved)
{
    const int64_t half = channels / 2;
    const float *cos = x + MOST, *sin = x + 2 * MOST;
    set->rotate(x, FLOAT32, channels, interleaved, cos, sin, one);
    for (int64_t i = 0; i < channels; i++) {
        const int64_t j = interleaved ? i ^ 1 : i < half ? i + half : i - half;
        const double a = (double)x[i] * cos[i], b = (double)x[j] * sin[i];
        require(fabs(one[i] - (a + b)) <= FLOAT_EPSILON * (fabs(a) + fabs(b)), "rotate", i);
    }
}

/* Against double. The argument of an exponential that is rounded is wrong by as much as it is large. */
static void compare_swiglu(const instruction_set *set, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        other[i] = 20 * x[i];
    set->swiglu(other, x + MOST, FLOAT32, count, one);
    for (int64_t i = 0; i < count; i++) {
        const double gate = other[i], y = gate / (1 + exp(-gate)) * x[MOST + i];
        require(fabs(one[i] - y) <= 8 * FLOAT_EPSILON * fabs(y), "swiglu", i);
    }
    set->swiglu_backward(x + 2 * MOST, other, x + MOST, FLOAT32, count, one, packed);
    for (int64_t i = 0; i < count; i++) {
        const double gate = other[i], s = 1 / (1 + exp(-gate)), dy = x[2 * MOST + i];
        const double dgate = dy * x[MOST + i] * s, rest = 1 + gate * (1 - s);
        require(fabs(one[i] - dgate * rest) <= 8 * FLOAT_EPSILON * fabs(dgate) * (1 + fabs(gate)), "swiglu_backward",
                i);
        require(fabs(packed[i] - dy * gate * s) <= 8 * FLOAT_EPSILON * fabs(dy * gate * s), "swiglu_backward", i);
    }
}

/* Against double: a sum of squares, or of products, and some roundings. */
static void compare_cross_entropy(const instruction_set *set, int64_t count)
{
    const int64_t target = count / 3;
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        one[i] = 20 * x[i];
        most = one[i] > most ? one[i] : most;
    }
    for (int64_t i = 0; i < count; i++)
        sum += exp(one[i] - most);
    memcpy(other, one, count * sizeof *one);
    const double loss = log(sum) + most - one[target];
    for (int with_gradient = 0; with_gradient < 2; with_gradient++)
        require(fabs(set->cross_entropy(other, FLOAT32, count, target, with_gradient) - loss) <=
                    8 * FLOAT_EPSILON * (1 + fabs(loss)),
                "cross_entropy", count);
    for (int64_t i = 0; i < count; i++) {
        const double share = exp(one[i] - most) / sum;
        const double rounding = FLOAT_EPSILON * (16 + fabs(one[i] - most)); /* of the difference, too */
        require(fabs(other[i] - (share - (i == target))) <= rounding * (share + (i == target)),
                "cross_entropy: gradient", i);
    }
}

static void compare_norms(const instruction_set *set, int64_t count, int summed)
{
    const float *added = x + MOST, *scale = x + 2 * MOST, *dy = x + 3 * MOST, *dh = x + 4 * MOST;
    const float rstd = set->norm(x, summed ? added : NULL, scale, FLOAT32, count, 1e-3f, summed ? other : NULL, one);
    double squares = 0, products = 0, magnitude = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!summed)
            other[i] = x[i];
        require(other[i] == (summed ? x[i] + added[i] : x[i]), "norm: h", i);
        squares += (double)other[i] * other[i];
    }
    const double exact = 1 / sqrt(squares / count + (double)1e-3f);
    require(fabs(rstd - exact) <= 8 * FLOAT_EPSILON * exact, "norm: rstd", count);
    for (int64_t i = 0; i < count; i++) {
        const double y = other[i] * exact * scale[i], product = (double)scale[i] * dy[i] * other[i] * exact / count;
        require(fabs(one[i] - y) <= 8 * FLOAT_EPSILON * fabs(y), "norm", i);
        products += product;
        magnitude += fabs(product);
        packed[i] = 1;
    }
    set->norm_backward(dy, summed ? dh : NULL, other, rstd, scale, FLOAT32, count, one, packed);
    for (int64_t i = 0; i < count; i++) {
        const double n = other[i] * exact, d = (double)scale[i] * dy[i], last = summed ? dh[i] : 0;
        const double most = exact * (fabs(d) + fabs(n) * magnitude) + fabs(last);
        require(fabs(one[i] - (exact * (d - n * products) + last)) <= 16 * FLOAT_EPSILON * most, "norm_backward", i);
        require(fabs(packed[i] - 1 - dy[i] * n) <= 16 * FLOAT_EPSILON * (1 + fabs(dy[i] * n)), "norm_backward: dweight",
                i);
    }
}

/* Against double. An exponential is wrong by what the rounding of its argument, a sum of products, makes of it. */
static void compare_attention(const instruction_set *set, int64_t length, int64_t channels, int holes)
{
    static double weights[MOST];
    const int64_t stride = channels + 3;
    const float *v = x + MAX_ROWS * MOST - (length - 1) * stride - channels; /* up to the last number of x */
    const float *q = x, *k = v - length * stride, scale = 0.7f;
    float *memory = alloc_aligned(DECODE_ATTENTION_FLOATS(length, channels) * sizeof *memory);
    double largest = -INFINITY, most = 0, sum = 0;
    uint8_t mask[MOST];
    for (int64_t s = 0; s < length; s++) {
        double score = 0, magnitude = 0;
        for (int64_t c = 0; c < channels; c++) {
            score += (double)scale * q[c] * k[s * stride + c];
            magnitude += fabs((double)scale * q[c] * k[s * stride + c]);
        }
        mask[s] = !holes || s % 3 == length % 3 || s == length - 1;
        weights[s] = score;
        if (mask[s]) {
            largest = fmax(largest, score);
            most = fmax(most, magnitude);
        }
    }
    for (int64_t s = 0; s < length; s++)
        sum += weights[s] = mask[s] ? exp(weights[s] - largest) : 0;
    set->decode_attention(q, k, v, stride, holes ? mask : NULL, FLOAT32, length, channels, scale, memory, one);
    for (int64_t c = 0; c < channels; c++) {
        double y = 0, magnitude = 0;
        for (int64_t s = 0; s < length; s++) {
            y += weights[s] / sum * v[s * stride + c];
            magnitude += weights[s] / sum * fabs(v[s * stride + c]);
        }
        require(fabs(one[c] - y) <= 8 * FLOAT_EPSILON * (1 + most) * magnitude, "decode_attention", c);
    }
    free(memory);
}

int main(void)
{
    static const char *const names[] = {"neon", "avx2", "avx512", "portable"};
    for (size_t i = 0; i < sizeof codes; i++)
        codes[i] = (uint8_t)(bits() >> 7);
    for (int i = 0; i < 256; i++)
        table[i] = uniform();
    for (int i = 0; i < 16; i++)
        levels[i] = uniform();
    for (int i = 0; i < MAX_ROWS * MOST; i++)
        x[i] = uniform();
    for (int row = 0; row < 2; row++)
        for (int i = 0; i < MOST / 32; i++)
            maxima[row][i] = 1 + uniform();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (lowrank_choose(names[i]))
            continue;
        comparing = names[i];
        const instruction_set *set = chosen_set();
        compare_conversions(set);
        for (int blocksize = 32; blocksize <= MOST; blocksize *= 2)
            for (int64_t blocks = 1; blocks <= 5 && blocks * blocksize <= MOST / 2; blocks++)
                compare_products(set, blocks * blocksize, blocksize);
        for (int blocksize = 32; blocksize <= MOST / 2; blocksize *= 2)
            for (int64_t blocks = 1; blocks <= 5 && blocks * blocksize <= MOST / 2; blocks++)
                if (blocks * blocksize >= set->chunk)
                    compare_panels(set, blocks * blocksize, blocksize);
        for (int64_t count = 1; count < 140; count++) {
            compare_rows(set, count);
            compare_plain_products(set, count);
            compare_statistics(set, count, 3 * count);
        }
        for (int64_t channels = 2; channels < 140; channels += 2)
            for (int interleaved = 0; interleaved < 2; interleaved++)
                compare_turns(set, channels, interleaved);
        for (int64_t count = 1; count < 140; count++) {
            compare_swiglu(set, count);
            compare_cross_entropy(set, count);
        }
        for (int64_t count = 1; count < 140; count++)
            for (int summed = 0; summed < 2; summed++)
                compare_norms(set, count, summed);
        for (int64_t length = 1; length < 70; length++)
            for (int64_t channels = 1; channels < 140; channels += length % 8 + 3)
                for (int holes = 0; holes < 2; holes++)
                    compare_attention(set, length, channels, holes);
        compare_codes(set);
        printf("%s\n", comparing);
    }
    return 0;
}

// y [ROWS, N] = silu(gate) up, gate and up being rstd (x W^T + its adapter): `decode_step.py`
//
// A tile is eight rows of gate and the same rows of up.

#include "step.cuh"

constexpr int HEIGHT = TILE / 2;

// 1 / (1 + exp(-x)) to an ulp or two: exp(-x) = 2^n exp(rest), as in `triton/swiglu.py`; ln 2 is in two parts
__device__ __forceinline__ float sigmoid(float x)
{
    const float n = floorf(-x * 1.4426950408889634f + 0.5f), rest = (-x - n * 0.693359375f) - n * -2.12194440e-4f;
    return __fdiv_rn(1.0f, 1 + exp2f(n) * __expf(rest));
}

extern "C" __global__ void __launch_bounds__(THREADS, PROGRAMS)
    gate_up_pairs_kernel(unsigned short *__restrict__ out, const unsigned short *__restrict__ x,
                         const float *__restrict__ squares, const float *__restrict__ inner, int parts, double eps,
                         const unsigned *__restrict__ pairs, const float *__restrict__ levels8, int N, int groups,
                         const uint4 *__restrict__ codes0, const void *__restrict__ maxima0,
                         const float *__restrict__ nested0, const float *__restrict__ offset0,
                         const float *__restrict__ b0, int rank0, double scaling0, const uint4 *__restrict__ codes1,
                         const void *__restrict__ maxima1, const float *__restrict__ nested1,
                         const float *__restrict__ offset1, const float *__restrict__ b1, int rank1, double scaling1,
                         float *__restrict__ next_inner, const float *__restrict__ next_a, int next_rank)
{
    extern __shared__ __align__(1024) char shared[];
    const Room own = room(shared, groups, sizeof(StepRest) + 2 * 4 * ROWS * RANK);
    StepRest &rest = *(StepRest *)own.behind_x;
    const NextInner next = {next_inner, next_a, next_a, next_a, next_rank, 0, 0, 1, N};
    multiply_tiles<HEIGHT>(
        {{codes0, maxima0, nested0, offset0}, {codes1, maxima1, nested1, offset1}}, own, blockIdx.x, gridDim.x,
        N / HEIGHT, N, groups,
        [&] {
            fill(own, pairs, levels8, x, groups);
            root_mean_squares(rest, squares, parts, 256 * groups, eps);
            sum_inner<2>(rest, {inner, parts, 2}, 0, scaling0, scaling1);
        },
        [&](int tile, float (&sums)[2][ROWS]) {
            ask_for_inner(next, tile * HEIGHT);
            const int row = tile * HEIGHT + (threadIdx.x & 31) / 4;
            add_adapter(sums[0], rest, 0, b0, rank0, row);
            add_adapter(sums[1], rest, 1, b1, rank1, row);
        },
        [&](int tile, int m, int n, float y) {
            y *= rest.rstd[min(m, ROWS - 1)];
            const float up = __shfl_down_sync(0xFFFFFFFF, y, HEIGHT, TILE); // to the lane that has gate
            const unsigned short bits = rounded(y * sigmoid(y) * up);
            if (m < ROWS && n < HEIGHT)
                out[m * N + tile * HEIGHT + n] = bits;
            add_inner<HEIGHT>(next, widened(bits), m, n, tile * HEIGHT, tile == blockIdx.x);
        });
}

// h [ROWS, N] = residual + x W^T + its adapter, and what the next linears take: `decode_step.py`
//
// `out` may be `residual`. linears: how many read h behind a norm; 0: none does, and nothing but h is written.

#include "step.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, PROGRAMS)
    residual_pairs_kernel(unsigned short *out, const unsigned short *residual, const unsigned short *__restrict__ x,
                          const float *__restrict__ inner, int parts, const unsigned *__restrict__ pairs,
                          const float *__restrict__ levels8, int N, int groups, const uint4 *__restrict__ codes,
                          const void *__restrict__ maxima, const float *__restrict__ nested,
                          const float *__restrict__ offset, const float *__restrict__ b, int rank, double scaling,
                          const unsigned short *__restrict__ norm, unsigned short *__restrict__ next_x,
                          float *__restrict__ squares, float *__restrict__ next_inner, int linears,
                          const float *__restrict__ a0, int rank0, const float *__restrict__ a1, int rank1,
                          const float *__restrict__ a2, int rank2)
{
    extern __shared__ __align__(1024) char shared[];
    const Room own = room(shared, groups, sizeof(StepRest) + 4 * ROWS * RANK);
    StepRest &rest = *(StepRest *)own.behind_x;
    const Weight weight = {codes, maxima, nested, offset};
    const NextInner next = {next_inner, a0, a1, a2, rank0, rank1, rank2, linears, N};
    multiply_tiles<TILE>(
        {weight, weight}, own, blockIdx.x, gridDim.x, N / TILE, N, groups,
        [&] {
            fill(own, pairs, levels8, x, groups);
            sum_inner<1>(rest, {inner, parts, 1}, 0, scaling, 0);
        },
        [&](int tile, float (&sums)[2][ROWS]) {
            ask_for_inner(next, tile * TILE);
            const int row = tile * TILE + (threadIdx.x & 31) / 4;
            add_adapter(sums[0], rest, 0, b, rank, row);
            add_adapter(sums[1], rest, 0, b, rank, row + 8);
        },
        [&](int tile, int m, int n, float y) {
            const bool is_row = m < ROWS, is_first = tile == blockIdx.x;
            const int column = tile * TILE + n, at = m * N + column;
            const unsigned short bits = is_row ? rounded(y + widened(residual[at])) : 0;
            if (is_row)
                out[at] = bits;
            if (!linears)
                return;
            const float h = widened(bits);
            const unsigned short normed = rounded(h * widened(norm[column]));
            float square = h * h;
            for (int apart = TILE / 2; apart; apart /= 2)
                square += __shfl_xor_sync(0xFFFFFFFF, square, apart);
            if (is_row)
                next_x[at] = normed;
            if (is_row && n == 0) {
                float *to = squares + m * gridDim.x + blockIdx.x;
                *to = is_first ? square : *to + square;
            }
            add_inner<TILE>(next, widened(normed), m, n, tile * TILE, is_first);
        });
}

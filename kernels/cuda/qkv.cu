// y [ROWS, N0 + 2 N1] = rstd (x W^T + its adapter), of W = q, k and v one behind another: `decode_step.py`
//
// The first programs0 programs are q's, the next programs1 k's, the others v's.

#include "step.cuh"

struct Linear {
    Weight weight;
    const float *__restrict__ b; // of its adapter, [N, rank]
    int rank;                    // 0: none
    float scaling;
};

extern "C" __global__ void __launch_bounds__(THREADS, PROGRAMS)
    qkv_pairs_kernel(unsigned short *__restrict__ out, const unsigned short *__restrict__ x,
                     const float *__restrict__ squares, const float *__restrict__ inner, int parts, double eps,
                     const unsigned *__restrict__ pairs, const float *__restrict__ levels8, int N0, int N1, int groups,
                     int programs0, int programs1, const uint4 *__restrict__ codes0, const void *__restrict__ maxima0,
                     const float *__restrict__ nested0, const float *__restrict__ offset0, const float *__restrict__ b0,
                     int rank0, double scaling0, const uint4 *__restrict__ codes1, const void *__restrict__ maxima1,
                     const float *__restrict__ nested1, const float *__restrict__ offset1, const float *__restrict__ b1,
                     int rank1, double scaling1, const uint4 *__restrict__ codes2, const void *__restrict__ maxima2,
                     const float *__restrict__ nested2, const float *__restrict__ offset2, const float *__restrict__ b2,
                     int rank2, double scaling2)
{
    extern __shared__ __align__(1024) char shared[];
    int which = 0, first = blockIdx.x, step = programs0, N = N0, column = 0;
    Linear linear = {{codes0, maxima0, nested0, offset0}, b0, rank0, (float)scaling0};
    if (first >= programs0 + programs1) {
        which = 2, first -= programs0 + programs1, step = programs1, N = N1, column = N0 + N1;
        linear = {{codes2, maxima2, nested2, offset2}, b2, rank2, (float)scaling2};
    } else if (first >= programs0) {
        which = 1, first -= programs0, step = programs1, N = N1, column = N0;
        linear = {{codes1, maxima1, nested1, offset1}, b1, rank1, (float)scaling1};
    }
    const Room own = room(shared, groups, sizeof(StepRest) + 4 * ROWS * RANK);
    StepRest &rest = *(StepRest *)own.behind_x;
    multiply_tiles<TILE>(
        {linear.weight, linear.weight}, own, first, step, N / TILE, N, groups,
        [&] {
            fill(own, pairs, levels8, x, groups);
            root_mean_squares(rest, squares, parts, 256 * groups, eps);
            sum_inner<1>(rest, {inner, parts, 3}, which, linear.scaling, 0);
        },
        [&](int tile, float (&sums)[2][ROWS]) {
            const int row = tile * TILE + (threadIdx.x & 31) / 4;
            add_adapter(sums[0], rest, 0, linear.b, linear.rank, row);
            add_adapter(sums[1], rest, 0, linear.b, linear.rank, row + 8);
        },
        [&](int tile, int m, int n, float y) {
            if (m < ROWS)
                out[m * (N0 + 2 * N1) + column + tile * TILE + n] = rounded(y * rest.rstd[m]);
        });
}

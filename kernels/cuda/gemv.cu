// y = x W^T for one to four rows of x, from repacked 4-bit weights: `gemv.py` has the equation, `pairs.cuh` the loop
// and the constants of the compiler. N is a multiple of 16.

#include "pairs.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 3)
    decode_pairs_kernel(unsigned short *__restrict__ out, const unsigned short *__restrict__ x,
                        const uint4 *__restrict__ codes, const void *__restrict__ maxima,
                        const unsigned *__restrict__ pairs, const float *__restrict__ levels8,
                        const float *__restrict__ nested, const float *__restrict__ offset, int N, int groups)
{
    extern __shared__ __align__(1024) char shared[];
    const Room own = room(shared, groups, 0);
    const Weight weight = {codes, maxima, nested, offset};
    multiply_tiles<TILE>(
        {weight, weight}, own, blockIdx.x, gridDim.x, N / TILE, N, groups,
        [&] { fill(own, pairs, levels8, x, groups); }, [](int tile, float (&sums)[2][ROWS]) {},
        [&](int tile, int m, int n, float y) {
            if (m < ROWS)
                out[m * N + tile * TILE + n] = rounded(y);
        });
}

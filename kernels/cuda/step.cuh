// Begin and end of a tile in the kernels of a decode step: `decode_step.py` has the equations.
//
// A program has whole sums of its outputs. What the next kernel wants beside them, the sum of h^2 and x A^T, it has a
// part of: that of all of its tiles. The next kernel adds the parts in the order of their programs.
//
// Constants of the compiler: those of `pairs.cuh`, and RANK, the numbers that a row of x A^T has room for: a power of
// two from 4 on, or 0 where no linear has an adapter. x is bfloat16.

#include "pairs.cuh"

constexpr int PROGRAMS = ROWS < 3 ? 3 : 2;  // at once in a multiprocessor: registers for so many
constexpr int PER_LINEAR = RANK ? RANK : 4; // to divide by
constexpr int ADDERS = THREADS / 2;         // threads that add parts of x A^T: their sums take 2 KB of shared memory

struct Inner { // parts of x A^T, float32 [count, ROWS, linears, RANK]
    const float *__restrict__ parts;
    int count, linears;
};

struct NextInner { // the same of the linears that read this kernel's output, which is K wide: a part a program
    float *__restrict__ parts;
    const float *__restrict__ a0, *__restrict__ a1, *__restrict__ a2; // [rank, K]
    int rank0, rank1, rank2, linears, K;

    __device__ __forceinline__ int rank(int linear) const { return linear == 0 ? rank0 : linear == 1 ? rank1 : rank2; }

    __device__ __forceinline__ const float *row(int linear, int r) const
    { return (linear == 0 ? a0 : linear == 1 ? a1 : a2) + (long long)r * K; }
};

struct __align__(16) StepRest { // of shared memory, behind x; and behind it the sums of x A^T, [linears][ROWS][RANK]
    float4 sums[ADDERS];
    float rstd[4]; // of each row
};

__device__ __forceinline__ float widened(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

__device__ __forceinline__ float4 operator+(float4 a, float4 b)
{ return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// 1 / rms(h) of each row of D numbers, from its sums of squares: a warp a row, before a barrier
__device__ __forceinline__ void root_mean_squares(StepRest &rest, const float *squares, int parts, int D, float eps)
{
    const int lane = threadIdx.x & 31, m = threadIdx.x >> 5;
    if (m >= ROWS)
        return;
    float sum = 0;
    for (int part = lane; part < parts; part += 32)
        sum += squares[m * parts + part];
    for (int apart = 16; apart; apart /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, apart);
    if (lane == 0)
        rest.rstd[m] = __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(sum, D) + eps));
}

// s x A^T of two linears, or of `first` alone: threads share the parts, then one adds what they have, in their order.
template <int LINEARS>
__device__ __forceinline__ void sum_inner(StepRest &rest, const Inner &inner, int first, float scaling0, float scaling1)
{
    constexpr int QUADS = PER_LINEAR / 4, COLUMNS = LINEARS * ROWS * QUADS;
    static_assert(COLUMNS <= ADDERS, "a thread adds four numbers");
    if (RANK == 0)
        return;
    const int shares = min(ADDERS / COLUMNS, (inner.count + 7) / 8), share = threadIdx.x / COLUMNS;
    const int column = threadIdx.x % COLUMNS, linear = column / (ROWS * QUADS), m = column / QUADS % ROWS;
    float4 sum = {};
    if (share < shares) {
        for (int part = share; part < inner.count; part += shares) {
            const int row = (part * ROWS + m) * inner.linears + first + linear;
            sum = sum + ((const float4 *)inner.parts)[row * QUADS + column % QUADS];
        }
        rest.sums[threadIdx.x] = sum;
    }
    __syncthreads();
    if (share == 0) {
        for (int other = 1; other < shares; other++)
            sum = sum + rest.sums[other * COLUMNS + threadIdx.x];
        const float s = linear ? scaling1 : scaling0;
        ((float4 *)(&rest + 1))[column] = make_float4(s * sum.x, s * sum.y, s * sum.z, s * sum.w);
    }
}

// Adds s (x A^T) B^T to a lane's sums of one row of W: the warps, and the four lanes of a row, share the ranks.
__device__ __forceinline__ void add_adapter(float (&sums)[ROWS], const StepRest &rest, int linear, const float *b,
                                            int rank, int row)
{
    const float *inner = (const float *)(&rest + 1) + linear * ROWS * RANK;
    for (int r = threadIdx.x / 32 * 4 + threadIdx.x % 4; r < RANK && r < rank; r += 4 * WARPS) {
        const float from = b[(long long)row * rank + r];
        for (int m = 0; m < ROWS; m++)
            sums[m] += from * inner[m * RANK + r];
    }
}

// What HEIGHT columns of x from `column` on, one a lane n of 16, add to the next x A^T. By whole warps.
template <int HEIGHT>
__device__ __forceinline__ void add_inner(const NextInner &next, float x, int m, int n, int column, bool is_first)
{
    for (int begin = 0; begin < next.linears * RANK; begin += TILE) {
        const int linear = (begin + n) / PER_LINEAR, r = (begin + n) % PER_LINEAR;
        const float *a = next.row(linear, r) + column;
        const bool is_real = linear < next.linears && r < next.rank(linear);
        float sum = 0;
#pragma unroll
        for (int c = 0; c < HEIGHT; c++) {
            const float from = __shfl_sync(0xFFFFFFFF, x, c, TILE);
            sum += is_real ? a[c] * from : 0;
        }
        if (m < ROWS && linear < next.linears) {
            float *to = next.parts + ((blockIdx.x * ROWS + m) * next.linears + linear) * RANK + r;
            *to = is_first ? sum : *to + sum;
        }
    }
}

// Asks for what `add_inner` reads, so that the end of a tile waits less: the last warp, before the products.
__device__ __forceinline__ void ask_for_inner(const NextInner &next, int column)
{
    if (threadIdx.x < THREADS - 32)
        return;
    for (int i = threadIdx.x & 31; i < next.linears * RANK; i += 32)
        if (i % PER_LINEAR < next.rank(i / PER_LINEAR))
            asm volatile("prefetch.global.L2 [%0];" ::"l"(next.row(i / PER_LINEAR, i % PER_LINEAR) + column));
}

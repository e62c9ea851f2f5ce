// x W^T of one to four rows of x, from repacked 4-bit weights, by a table of all pairs of levels: what the kernels of
// `gemv.cu` and `decode_step.cu` share. `gemv.py` has the equation and the reasons.
//
// Constants of the compiler: ROWS of x; BLOCKSIZE weights that share a maximum; NESTED_BLOCKSIZE maxima that share one
// of their own, 0 where they are float32; IS_BFLOAT16, else float16. K is a multiple of 256, pointers are of 16 bytes.
//
// Lane 4 g + t of a warp. A tile is 16 rows, of one weight or 8 each of two, a group 256 weights of a row: 128 bytes,
// whose codes are of weights k and k + BLOCKSIZE / 2. Warp w takes groups w, w + 8, w + 16 ... of a tile; the warps'
// sums are added at its end.

constexpr int WARPS = 8, THREADS = 32 * WARPS, TILE = 16; // a thread for each byte
constexpr int BLOCKS = 256 / BLOCKSIZE;                   // of a group
constexpr int PASSES = (ROWS + 1) / 2;                    // rows of x are multiplied two at a time
constexpr unsigned TABLE_BYTES = 256 * 128; // a pair of levels for each byte, in a copy for each of the 32 banks
constexpr unsigned ZERO_WORDS = 64;         // what a lane reads of x for blocks of another column

struct Weight { // maxima are 8-bit codes, nested their maxima; or float32, and nested and offset are not read
    const uint4 *__restrict__ codes;
    const void *__restrict__ maxima;
    const float *__restrict__ nested;
    const float *__restrict__ offset;
};

struct __align__(16) Rest { // of shared memory, beside the table and x
    unsigned zeros[ZERO_WORDS];
    float levels8[256];
    float sums[2][WARPS][ROWS][TILE];
};

struct Room { // shared memory; x is uint4 [ROWS][K / 256][32], pairs as pairs of weights lie
    uint4 *table;
    Rest *rest;
    uint4 *x;
    char *behind_x;
};

// Shared memory may begin anywhere: the rest and x lie before the table where there is room, else behind it.
__device__ __forceinline__ Room room(char *shared, int groups, unsigned more)
{
    const unsigned start = (unsigned)__cvta_generic_to_shared(shared), lead = -start % TABLE_BYTES;
    const unsigned x_bytes = ROWS * groups * 512, needed = sizeof(Rest) + x_bytes + more;
    char *rest = shared + (needed <= lead ? 0 : lead + TABLE_BYTES);
    return {(uint4 *)(shared + lead), (Rest *)rest, (uint4 *)(rest + sizeof(Rest)), rest + sizeof(Rest) + x_bytes};
}

// 16 bytes of W, which are read once, if they are wanted
__device__ __forceinline__ void load_codes(uint4 &to, const uint4 *from, bool is_wanted)
{
    asm volatile("{ .reg .pred wanted; setp.ne.u32 wanted, %5, 0;\n"
                 "@wanted ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4]; }"
                 : "+r"(to.x), "+r"(to.y), "+r"(to.z), "+r"(to.w)
                 : "l"(from), "r"((unsigned)is_wanted));
}

// The two levels of a byte of `word`. The table lies at a multiple of its size, so one LOP3 puts the address together:
// 128 times the byte, and `bank`, the address of this lane's copy of the first pair.
__device__ __forceinline__ unsigned look_up(unsigned word, int byte, unsigned bank)
{
    const unsigned shifted = byte == 0 ? word << 7 : word >> (8 * byte - 7);
    unsigned pair;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(pair) : "r"((shifted & (TABLE_BYTES - 128)) | bank));
    return pair;
}

#if IS_BFLOAT16
#define TYPE "bf16"
#else
#define TYPE "f16"
#endif

// d [16, 8] += a [16, 16] b [16, 8], in float32
__device__ __forceinline__ void multiply(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                         unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ unsigned short rounded(float y)
{
    unsigned short bits;
    asm("cvt.rn." TYPE ".f32 %0, %1;" : "=h"(bits) : "f"(y));
    return bits;
}

// What a lane has of one group: codes of rows g and g + 8 of a tile, and the maxima of their block.
struct Turn {
    uint4 codes[2][2]; // [half of the group][row]
    unsigned code8[2];
    float scale[2]; // of code8, or the maximum itself
};

// The codes of half a group. A place is of a group and row g; row g + 8 is `apart` rows on in its own weight.
__device__ __forceinline__ void load_half(Turn &turn, int half, const Weight (&weights)[2], unsigned place,
                                          unsigned apart, int t, bool is_wanted)
{
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const uint4 *from = weights[row].codes + 8ull * place + 4 * half + t;
        load_codes(turn.codes[half][row], from + 8 * (row ? apart : 0), is_wanted);
    }
}

__device__ __forceinline__ void load_maxima(Turn &turn, const Weight (&weights)[2], unsigned place, unsigned flat,
                                            unsigned apart, int groups, int block, bool is_wanted)
{
    if (!is_wanted)
        return;
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const unsigned on = row ? apart : 0;
        const unsigned long long at = (unsigned long long)place * BLOCKS + block;
#if NESTED_BLOCKSIZE
        constexpr unsigned SHARE = NESTED_BLOCKSIZE / BLOCKS; // groups that a maximum of maxima is of
        turn.code8[row] = ((const unsigned char *)weights[row].maxima + at)[on * BLOCKS];
        turn.scale[row] = weights[row].nested[(flat + on * groups) / SHARE];
#else
        turn.scale[row] = ((const float *)weights[row].maxima + at)[on * BLOCKS];
#endif
    }
}

// The table, the levels of 8-bit codes, zeros, and x.
__device__ __forceinline__ void fill(const Room &room, const unsigned *pairs, const float *levels8,
                                     const unsigned short *x, int groups)
{
    const unsigned pair = pairs[threadIdx.x]; // of a byte a thread, whose copies begin elsewhere than its neighbours'
#pragma unroll
    for (int i = 0; i < 8; i++)
        room.table[8 * threadIdx.x + (i + threadIdx.x) % 8] = make_uint4(pair, pair, pair, pair);
    if (NESTED_BLOCKSIZE)
        room.rest->levels8[threadIdx.x] = levels8[threadIdx.x];
    if (threadIdx.x < ZERO_WORDS)
        room.rest->zeros[threadIdx.x] = 0;
    for (int i = threadIdx.x; i < ROWS * groups * 32; i += THREADS) {
        // chunk i of 4 bytes: half, four bytes of 16, lane's t
        const int byte = (i >> 4 & 1) * 64 + (i & 3) * 16 + (i >> 2 & 3) * 4, apart = BLOCKSIZE / 2;
        const unsigned short *from = x + (i >> 5) * 256 + byte / apart * BLOCKSIZE + byte % apart;
        const uint2 low = *(const uint2 *)from, high = *(const uint2 *)(from + apart);
        room.x[i] = make_uint4(__byte_perm(low.x, high.x, 0x5410), __byte_perm(low.x, high.x, 0x7632),
                               __byte_perm(low.y, high.y, 0x5410), __byte_perm(low.y, high.y, 0x7632));
    }
}

// Goes through tiles `first`, first + step, ... of `tiles`, which have HEIGHT rows of a weight: 16, both weights being
// the same, or 8. `meanwhile()` fills shared memory while the first weights are on their way; `begin(tile, sums)` is
// what a lane adds to rows g and g + 8 beside the products, sums [2][ROWS]; `finish(tile, m, n, y)` is called by whole
// warps, thread 16 m + n with y[m, n] of a tile; of an odd number of rows the last is followed by one of zeros.
template <int HEIGHT, class Meanwhile, class Begin, class Finish>
__device__ __forceinline__ void multiply_tiles(const Weight (&weights)[2], const Room &room, int first, int step,
                                               int tiles, int N, int groups, Meanwhile meanwhile, Begin begin,
                                               Finish finish)
{
    constexpr unsigned APART = HEIGHT == TILE ? 8 : 0;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3, block = min(t, BLOCKS - 1);

    // The first weights are on their way before anything is waited for.
    int tile = first;
    unsigned place = warp * N + tile * HEIGHT + g, flat = (tile * HEIGHT + g) * groups + warp;
    Turn turn = {};
    load_half(turn, 0, weights, place, APART, t, warp < groups);
    load_half(turn, 1, weights, place, APART, t, warp < groups);
    load_maxima(turn, weights, place, flat, APART, groups, block, warp < groups);
    const float plus[2] = {NESTED_BLOCKSIZE ? *weights[0].offset : 0.0f, NESTED_BLOCKSIZE ? *weights[1].offset : 0.0f};
    meanwhile();
    __syncthreads();

    // Column 2 b + m of a product is of block b of row m: lanes g = 2 b + m have x where the bytes of lane t are of b.
    const unsigned bank = (unsigned)__cvta_generic_to_shared(room.table) + 4 * lane;
    Rest &rest = *room.rest;
    const char *x_from[PASSES][2];
    int x_step[PASSES][2];
    for (int pass = 0; pass < PASSES; pass++)
        for (int half = 0; half < 2; half++) {
            const int m = 2 * pass + g % 2, b = BLOCKS == 4 ? 2 * half + t / 2 : half;
            const bool is_own = g / 2 == b && m < ROWS;
            x_from[pass][half] = is_own ? (char *)(room.x + m * groups * 32 + 16 * half + t) : (char *)rest.zeros;
            x_step[pass][half] = is_own ? 512 : 0;
        }

    for (int parity = 0; tile < tiles; parity ^= 1, tile += step) {
        float total[2][ROWS] = {};
        begin(tile, total);
        const int next = tile + step;
#pragma unroll 1
        for (int group = warp; group < groups; group += WARPS) {
            const bool is_last = group + WARPS >= groups, is_next = !is_last || next < tiles;
            place = is_last ? warp * N + next * HEIGHT + g : place + WARPS * N;
            flat = is_last ? (next * HEIGHT + g) * groups + warp : flat + WARPS;
            float d[PASSES][4] = {};
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    unsigned a[2][4];
#pragma unroll
                    for (int row = 0; row < 2; row++) {
                        const uint4 c = turn.codes[half][row];
                        const unsigned word = i == 0 ? c.x : i == 1 ? c.y : i == 2 ? c.z : c.w;
#pragma unroll
                        for (int byte = 0; byte < 4; byte++)
                            a[row][byte] = look_up(word, byte, bank);
                    }
#pragma unroll
                    for (int pass = 0; pass < PASSES; pass++) {
                        const uint4 b = *(const uint4 *)(x_from[pass][half] + group * x_step[pass][half] + 64 * i);
                        multiply(d[pass], a[0][0], a[1][0], a[0][1], a[1][1], b.x, b.y);
                        multiply(d[pass], a[0][2], a[1][2], a[0][3], a[1][3], b.z, b.w);
                    }
                }
                load_half(turn, half, weights, place, APART, t, is_next);
            }
#pragma unroll
            for (int row = 0; row < 2; row++) {
                const float absmax =
                    NESTED_BLOCKSIZE ? rest.levels8[turn.code8[row]] * turn.scale[row] + plus[row] : turn.scale[row];
#pragma unroll
                for (int m = 0; m < ROWS; m++)
                    total[row][m] += d[m / 2][2 * row + m % 2] * absmax;
            }
            load_maxima(turn, weights, place, flat, APART, groups, block, is_next);
        }
#pragma unroll
        for (int row = 0; row < 2; row++)
#pragma unroll
            for (int m = 0; m < ROWS; m++) {
                float sum = total[row][m];
                sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1);
                sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2);
                rest.sums[parity][warp][m][8 * row + g] = sum;
            }
        __syncthreads();
        if (threadIdx.x < 2 * PASSES * TILE) {
            const int m = threadIdx.x / TILE, n = threadIdx.x % TILE;
            float y = 0;
            for (int w = 0; w < WARPS && m < ROWS; w++)
                y += rest.sums[parity][w][m][n];
            finish(tile, m, n, y);
        }
    }
}

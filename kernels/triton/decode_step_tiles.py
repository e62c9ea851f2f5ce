"""Begin and end of a tile in the products of `decode_step`: parts of sums, norms, adapters; and the first norm.

M rows (tokens), D model dim, K in_features, r rank, RANK the power of two that holds it; a tile is the outputs that a
program computes, and what the next product reads as a tile of x.
"""

import triton
import triton.language as tl


@triton.jit
def sum_parts(parts_ptr, m, M, tile, tiles, i, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Outputs i of a tile, for row m: the parts of SPLITS programs, added in a fixed order, read past stale caches"""
    split = tl.arange(0, SPLITS).to(tl.int64)
    at = (((split * M + m) * tiles + tile) * BLOCK_N)[:, None] + i[None, :]
    return tl.sum(tl.load(parts_ptr + at, cache_modifier=".cg"), axis=0)


@triton.jit
def store_part(parts_ptr, total, split, M, tile, tiles, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr):
    """Stores the sums [BLOCK_N, BLOCK_M] of one program."""
    m, i = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    at = ((split.to(tl.int64) * M + m) * tiles + tile)[None, :] * BLOCK_N + i[:, None]
    tl.store(parts_ptr + at, total, mask=(m < M)[None, :])


@triton.jit
def root_mean_square(squares_ptr, m, tiles, D, eps, TILES: tl.constexpr):
    """1 / sqrt(mean(h^2) + eps) of row m, from the sums of squares of its tiles"""
    tile = tl.arange(0, TILES)
    squares = tl.load(squares_ptr + m * tiles + tile, mask=tile < tiles, other=0.0)
    return tl.div_rn(1.0, tl.sqrt_rn(tl.sum(squares) / D + eps))


@triton.jit
def adapter_sum(
    u_ptr, tiles, which, m, M, n, b_ptr, rank, scaling, COUNT: tl.constexpr, RANK: tl.constexpr, CHUNK: tl.constexpr
):
    """scaling (x A^T) B^T at outputs n, where x A^T [r] of linear `which` is the sum of the parts of all tiles of x"""
    r = tl.arange(0, RANK)
    u = tl.zeros([RANK], tl.float32)
    for start in range(0, tiles, CHUNK):
        tile = start + tl.arange(0, CHUNK)
        at = ((tile * M + m) * COUNT + which)[:, None] * RANK + r[None, :]
        u += tl.sum(tl.load(u_ptr + at, mask=(tile < tiles)[:, None], other=0.0), axis=0)
    wanted = (r < rank)[None, :]
    b = tl.load(b_ptr + n.to(tl.int64)[:, None] * rank + r[None, :], mask=wanted, other=0.0).to(tl.float32)
    return scaling * tl.sum(b * u[None, :], axis=1)


@triton.jit
def store_inner(u_ptr, tile, which, m, M, x, column, K, a_ptr, rank, COUNT: tl.constexpr, RANK: tl.constexpr):
    """Stores what the columns of one tile of x add to x A^T [r] of linear `which`; zeros above its rank"""
    r = tl.arange(0, RANK)
    wanted = (r < rank)[:, None]
    a = tl.load(a_ptr + r.to(tl.int64)[:, None] * K + column[None, :], mask=wanted, other=0.0).to(tl.float32)
    tl.store(u_ptr + ((tile * M + m) * COUNT + which) * RANK + r, tl.sum(a * x[None, :], axis=1))


@triton.jit
def store_normed(
    h,
    x_ptr,
    squares_ptr,
    weight_ptr,
    m,
    M,
    tile,
    tiles,
    column,
    D,
    u_ptr,
    a0_ptr,
    rank0,
    a1_ptr,
    rank1,
    a2_ptr,
    rank2,
    COUNT: tl.constexpr,
    RANK: tl.constexpr,
):
    """A tile of h, as the linears behind a norm take it: x = h * weight, without the 1 / rms that comes after them

    h float32 [BLOCK], which is of the dtype of x. Stores x, the sum of h^2, and the parts of x A^T of COUNT linears.
    """
    x = (h * tl.load(weight_ptr + column).to(tl.float32)).to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + m * D + column, x)
    tl.store(squares_ptr + m * tiles + tile, tl.sum(h * h))
    if RANK:
        wide = x.to(tl.float32)
        store_inner(u_ptr, tile, 0, m, M, wide, column, D, a0_ptr, rank0, COUNT, RANK)
        store_inner(u_ptr, tile, 1, m, M, wide, column, D, a1_ptr, rank1, COUNT, RANK)
        if COUNT == 3:
            store_inner(u_ptr, tile, 2, m, M, wide, column, D, a2_ptr, rank2, COUNT, RANK)


@triton.jit
def first_norm_kernel(
    x_ptr,
    squares_ptr,
    h_ptr,
    weight_ptr,
    M,
    D,
    u_ptr,
    a0_ptr,
    rank0,
    a1_ptr,
    rank1,
    a2_ptr,
    rank2,
    RANK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (tile, m): what the first block's q, k and v take, of the embedded tokens h [M, D]"""
    tile, m = tl.program_id(0), tl.program_id(1)
    column = tile * BLOCK + tl.arange(0, BLOCK)
    h = tl.load(h_ptr + m * D + column).to(tl.float32)
    tiles = tl.num_programs(0)
    store_normed(
        h,
        x_ptr,
        squares_ptr,
        weight_ptr,
        m,
        M,
        tile,
        tiles,
        column,
        D,
        u_ptr,
        a0_ptr,
        rank0,
        a1_ptr,
        rank1,
        a2_ptr,
        rank2,
        3,
        RANK,
    )

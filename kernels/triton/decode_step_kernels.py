"""The Triton kernels of the products of `decode_step`, whose docstring has the equations.

Parts of a sum lie in float32 in memory; the program that arrives last adds them in the order of their numbers, so that
the same input gives the same bits. Every kernel is compiled without fusing multiplications and additions that are not
written as one: where several lanes hold the same sum, each must have the same bits, whichever stores last.

M rows (tokens), D model dim, N out_features, K in_features, r rank, RANK the power of two that holds it; a tile is the
outputs that a program computes.
"""

import triton
import triton.language as tl

from .decode_step_tiles import adapter_sum, root_mean_square, store_inner, store_normed, store_part, sum_parts
from .partial_sums import arrives_last, sum_groups
from .swiglu import sigmoid


@triton.jit
def qkv_kernel(
    y_ptr,
    parts_ptr,
    arrived_ptr,
    x_ptr,
    squares_ptr,
    codes0_ptr,
    absmax0_ptr,
    nested0_ptr,
    offset0_ptr,
    codes1_ptr,
    absmax1_ptr,
    nested1_ptr,
    offset1_ptr,
    codes2_ptr,
    absmax2_ptr,
    nested2_ptr,
    offset2_ptr,
    levels_ptr,
    table_ptr,
    dynamic8_ptr,
    M,
    N0,
    N1,
    K,
    groups,
    eps,
    u_ptr,
    b0_ptr,
    rank0,
    scaling0,
    b1_ptr,
    rank1,
    scaling1,
    b2_ptr,
    rank2,
    scaling2,
    RANK: tl.constexpr,
    CHUNK: tl.constexpr,
    TILES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    STAGES: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """Program (tile, split): y [M, N0 + 2 N1] = rstd (x W^T + its adapter), of W = q, k and v one behind another"""
    tile, split, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    tiles0, tiles1 = N0 // BLOCK_N, N1 // BLOCK_N
    codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes0_ptr, absmax0_ptr, nested0_ptr, offset0_ptr
    own, rows = tile, N0
    if tile >= tiles0 + tiles1:
        codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes2_ptr, absmax2_ptr, nested2_ptr, offset2_ptr
        own, rows = tile - tiles0 - tiles1, N1
    elif tile >= tiles0:
        codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes1_ptr, absmax1_ptr, nested1_ptr, offset1_ptr
        own, rows = tile - tiles0, N1
    i = tl.arange(0, BLOCK_N)
    row = own * BLOCK_N + i
    m = tl.minimum(tl.arange(0, BLOCK_M), M - 1)
    total = sum_groups(
        codes_ptr,
        absmax_ptr,
        nested_ptr,
        offset_ptr,
        levels_ptr,
        table_ptr,
        dynamic8_ptr,
        (x_ptr + m * K)[None, :],
        row,
        rows,
        groups,
        split,
        SPLITS,
        1,
        BLOCK_M,
        BLOCK_N,
        BLOCKSIZE,
        GROUP,
        NESTED_BLOCKSIZE,
        STAGES,
        ASSEMBLY,
    )
    store_part(parts_ptr, total, split, M, tile, tiles, BLOCK_N, BLOCK_M)
    if arrives_last(arrived_ptr + tile, SPLITS):
        for token in range(M):
            y = sum_parts(parts_ptr, token, M, tile, tiles, i, SPLITS, BLOCK_N)
            if RANK:
                which, b_ptr, rank, scaling = 0, b0_ptr, rank0, scaling0
                if tile >= tiles0 + tiles1:
                    which, b_ptr, rank, scaling = 2, b2_ptr, rank2, scaling2
                elif tile >= tiles0:
                    which, b_ptr, rank, scaling = 1, b1_ptr, rank1, scaling1
                y += adapter_sum(u_ptr, K // BLOCK_N, which, token, M, row, b_ptr, rank, scaling, 3, RANK, CHUNK)
            y *= root_mean_square(squares_ptr, token, K // BLOCK_N, K, eps, TILES)
            tl.store(y_ptr + (token * tiles + tile) * BLOCK_N + i, y.to(y_ptr.dtype.element_ty))


@triton.jit
def gate_up_kernel(
    y_ptr,
    parts_ptr,
    arrived_ptr,
    x_ptr,
    squares_ptr,
    codes0_ptr,
    absmax0_ptr,
    nested0_ptr,
    offset0_ptr,
    codes1_ptr,
    absmax1_ptr,
    nested1_ptr,
    offset1_ptr,
    levels_ptr,
    table_ptr,
    dynamic8_ptr,
    M,
    N,
    K,
    groups,
    eps,
    u_ptr,
    b0_ptr,
    rank0,
    scaling0,
    b1_ptr,
    rank1,
    scaling1,
    u_next_ptr,
    a_next_ptr,
    rank_next,
    RANK: tl.constexpr,
    CHUNK: tl.constexpr,
    RANK_NEXT: tl.constexpr,
    TILES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    STAGES: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """Program (tile, split): y [M, N] = silu(gate) up, and its part of y A^T of the next linear

    Tiles of gate and up take turns, and are finished together: a pair of tiles is one of y.
    """
    tile, split, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    pair, is_up = tile // 2, tile % 2 == 1
    codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes0_ptr, absmax0_ptr, nested0_ptr, offset0_ptr
    if is_up:
        codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes1_ptr, absmax1_ptr, nested1_ptr, offset1_ptr
    i = tl.arange(0, BLOCK_N)
    row = pair * BLOCK_N + i
    m = tl.minimum(tl.arange(0, BLOCK_M), M - 1)
    total = sum_groups(
        codes_ptr,
        absmax_ptr,
        nested_ptr,
        offset_ptr,
        levels_ptr,
        table_ptr,
        dynamic8_ptr,
        (x_ptr + m * K)[None, :],
        row,
        N,
        groups,
        split,
        SPLITS,
        1,
        BLOCK_M,
        BLOCK_N,
        BLOCKSIZE,
        GROUP,
        NESTED_BLOCKSIZE,
        STAGES,
        ASSEMBLY,
    )
    store_part(parts_ptr, total, split, M, tile, tiles, BLOCK_N, BLOCK_M)
    if arrives_last(arrived_ptr + pair, 2 * SPLITS):
        for token in range(M):
            gate = sum_parts(parts_ptr, token, M, 2 * pair, tiles, i, SPLITS, BLOCK_N)
            up = sum_parts(parts_ptr, token, M, 2 * pair + 1, tiles, i, SPLITS, BLOCK_N)
            if RANK:
                before = K // BLOCK_N
                gate += adapter_sum(u_ptr, before, 0, token, M, row, b0_ptr, rank0, scaling0, 2, RANK, CHUNK)
                up += adapter_sum(u_ptr, before, 1, token, M, row, b1_ptr, rank1, scaling1, 2, RANK, CHUNK)
            rstd = root_mean_square(squares_ptr, token, K // BLOCK_N, K, eps, TILES)
            gate *= rstd
            y = (gate * sigmoid(gate) * (up * rstd)).to(y_ptr.dtype.element_ty)
            tl.store(y_ptr + token * N + row, y)
            if RANK_NEXT:
                wide = y.to(tl.float32)
                store_inner(u_next_ptr, pair, 0, token, M, wide, row, N, a_next_ptr, rank_next, 1, RANK_NEXT)


@triton.jit
def residual_kernel(
    h_ptr,
    x_next_ptr,
    squares_ptr,
    parts_ptr,
    arrived_ptr,
    x_ptr,
    residual_ptr,
    weight_ptr,
    codes_ptr,
    absmax_ptr,
    nested_ptr,
    offset_ptr,
    levels_ptr,
    table_ptr,
    dynamic8_ptr,
    M,
    N,
    K,
    groups,
    u_ptr,
    u_tiles,
    b_ptr,
    rank,
    scaling,
    u_next_ptr,
    a0_ptr,
    rank0,
    a1_ptr,
    rank1,
    a2_ptr,
    rank2,
    RANK: tl.constexpr,
    CHUNK: tl.constexpr,
    COUNT_NEXT: tl.constexpr,
    RANK_NEXT: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    STAGES: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """Program (tile, split): h [M, N] = residual + x W^T + its adapter, and what the next linears take"""
    tile, split, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    i = tl.arange(0, BLOCK_N)
    row = tile * BLOCK_N + i
    m = tl.minimum(tl.arange(0, BLOCK_M), M - 1)
    total = sum_groups(
        codes_ptr,
        absmax_ptr,
        nested_ptr,
        offset_ptr,
        levels_ptr,
        table_ptr,
        dynamic8_ptr,
        (x_ptr + m * K)[None, :],
        row,
        N,
        groups,
        split,
        SPLITS,
        1,
        BLOCK_M,
        BLOCK_N,
        BLOCKSIZE,
        GROUP,
        NESTED_BLOCKSIZE,
        STAGES,
        ASSEMBLY,
    )
    store_part(parts_ptr, total, split, M, tile, tiles, BLOCK_N, BLOCK_M)
    if arrives_last(arrived_ptr + tile, SPLITS):
        for token in range(M):
            y = sum_parts(parts_ptr, token, M, tile, tiles, i, SPLITS, BLOCK_N)
            if RANK:
                y += adapter_sum(u_ptr, u_tiles, 0, token, M, row, b_ptr, rank, scaling, 1, RANK, CHUNK)
            y += tl.load(residual_ptr + token * N + row).to(tl.float32)
            rounded = y.to(h_ptr.dtype.element_ty)
            tl.store(h_ptr + token * N + row, rounded)
            if COUNT_NEXT:
                store_normed(
                    rounded.to(tl.float32),
                    x_next_ptr,
                    squares_ptr,
                    weight_ptr,
                    token,
                    M,
                    tile,
                    tiles,
                    row,
                    N,
                    u_next_ptr,
                    a0_ptr,
                    rank0,
                    a1_ptr,
                    rank1,
                    a2_ptr,
                    rank2,
                    COUNT_NEXT,
                    RANK_NEXT,
                )

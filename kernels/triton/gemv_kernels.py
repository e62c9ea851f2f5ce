"""The Triton kernels of `decode`, whose docstring has the equations.

M rows of x, N out_features, K in_features; a block is BLOCKSIZE weights of a row, a group GROUP blocks (`repack`).
Indices of blocks fit in 32 bits up to 1.4e11 weights; whatever is multiplied by a stride or by N is 64 bits wide.
"""

import triton
import triton.language as tl

from .lookup import load_table, look_up
from .partial_sums import sum_groups


@triton.jit
def decode_linear_kernel(
    out_ptr,
    x_ptr,
    codes_ptr,
    absmax_ptr,
    levels_ptr,
    table_ptr,
    dynamic8_ptr,
    nested_absmax_ptr,
    offset_ptr,
    M,
    N,
    groups,
    stride_xm,
    stride_xk,
    splits,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    STAGES: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """Program (i, s, j) writes out[s, tile j of M, tile i of N], the sum over part s of all groups of K.

    absmax_ptr: float32, or with NESTED_BLOCKSIZE integers of GROUP bytes, the 8-bit codes of a group.
    """
    split = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.minimum(n, N - 1)  # rows past the end repeat the last one and are not stored
    total = sum_groups(
        codes_ptr,
        absmax_ptr,
        nested_absmax_ptr,
        offset_ptr,
        levels_ptr,
        table_ptr,
        dynamic8_ptr,
        x_ptr + tl.minimum(m, M - 1).to(tl.int64)[None, :] * stride_xm,
        row,
        N,
        groups,
        split,
        splits,
        tl.cast(stride_xk, tl.int64),
        BLOCK_M,
        BLOCK_N,
        BLOCKSIZE,
        GROUP,
        NESTED_BLOCKSIZE,
        STAGES,
        ASSEMBLY,
    )
    out = out_ptr + (split.to(tl.int64) * M + m)[None, :] * N + n[:, None]
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=(n < N)[:, None] & (m < M)[None, :])


@triton.jit
def decode_linear_backward_kernel(
    out_ptr,
    dy_ptr,
    codes_ptr,
    absmax_ptr,
    levels_ptr,
    table_ptr,
    dynamic8_ptr,
    nested_absmax_ptr,
    offset_ptr,
    M,
    N,
    groups,
    stride_dym,
    stride_dyn,
    splits,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    WHOLE_TILES: tl.constexpr,
    STAGES: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """Program (b, s, j) writes out[s, tile j of M, block b of K], the sum over part s of the tiles of N.

    absmax_ptr: float32, or with NESTED_BLOCKSIZE uint8. WHOLE_TILES: N is a multiple of BLOCK_N, so no row is masked.
    The tile of codes is read transposed, byte by byte out of shared memory: a byte is two weights, and to transpose the
    levels instead would move four times as much.
    """
    half: tl.constexpr = BLOCKSIZE // 2
    block = tl.program_id(0)
    split = tl.program_id(1)
    m = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    k = tl.arange(0, half)
    share = tl.cdiv(tl.cdiv(N, BLOCK_N), splits)
    first = split * share * BLOCK_N
    n_first = first + tl.arange(0, BLOCK_N)
    # In units of blocks: row n of this block's group is N * (block // GROUP) + n groups into the weight.
    place = ((block // GROUP).to(tl.int64) * N + n_first) * GROUP + block % GROUP
    codes_ptrs = codes_ptr + (place * half)[None, :] + k[:, None]
    absmax_ptrs = absmax_ptr + place
    step = tl.cast(stride_dyn, tl.int64)
    dy_ptrs = dy_ptr + tl.minimum(m, M - 1).to(tl.int64)[None, :] * stride_dym + n_first[:, None] * step
    if NESTED_BLOCKSIZE:
        offset = tl.load(offset_ptr)
    table = load_table(table_ptr, ASSEMBLY)
    total_low = tl.zeros((half, BLOCK_M), tl.float32)
    total_high = tl.zeros((half, BLOCK_M), tl.float32)
    for start in tl.range(first, tl.minimum(first + share * BLOCK_N, N), BLOCK_N, num_stages=STAGES):
        n = start + tl.arange(0, BLOCK_N)
        inside = (n < N) | WHOLE_TILES
        dy = tl.load(dy_ptrs, mask=inside[:, None], other=0.0)
        codes = tl.load(codes_ptrs, mask=inside[None, :], other=0)
        low, high = look_up(codes, table, levels_ptr, ASSEMBLY)
        if NESTED_BLOCKSIZE:
            code8 = tl.load(absmax_ptrs, mask=inside, other=0).to(tl.int32)
            scale = tl.load(
                nested_absmax_ptr + (n * (groups * GROUP) + block) // NESTED_BLOCKSIZE, mask=inside, other=0.0
            )
            absmax = tl.load(dynamic8_ptr + code8) * scale + offset
        else:
            absmax = tl.load(absmax_ptrs, mask=inside, other=0.0)
        scaled = (dy.to(tl.float32) * absmax[:, None]).to(dy_ptr.dtype.element_ty)
        total_low = tl.dot(low, scaled, total_low, input_precision="ieee")
        total_high = tl.dot(high, scaled, total_high, input_precision="ieee")
        codes_ptrs += BLOCK_N * GROUP * half
        absmax_ptrs += BLOCK_N * GROUP
        dy_ptrs += BLOCK_N * step
    out = (
        out_ptr
        + (split.to(tl.int64) * M + m)[None, :] * (groups * GROUP * BLOCKSIZE)
        + (block * BLOCKSIZE + k)[:, None]
    )
    inside_m = (m < M)[None, :]
    tl.store(out, total_low.to(out_ptr.dtype.element_ty), mask=inside_m)
    tl.store(out + half, total_high.to(out_ptr.dtype.element_ty), mask=inside_m)


@triton.jit
def add_parts_kernel(out_ptr, parts_ptr, count, SPLITS: tl.constexpr, TILE: tl.constexpr):
    """out[i] = parts[0, i] + parts[1, i] + ..., in this order, so that the same input gives the same bits."""
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    total = tl.load(parts_ptr + i, mask=i < count, other=0.0)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(parts_ptr + split * tl.cast(count, tl.int64) + i, mask=i < count, other=0.0)
    tl.store(out_ptr + i, total.to(out_ptr.dtype.element_ty), mask=i < count)

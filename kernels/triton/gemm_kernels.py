"""The Triton kernels of `fused_linear`, whose docstring has the equations.

M rows of x, N out_features, K in_features; a block is BLOCKSIZE weights of a row, a group GROUP blocks (`repack`).
Indices of blocks fit in 32 bits up to 1.4e11 weights; whatever is multiplied by a stride or by N is 64 bits wide.
"""

import triton
import triton.language as tl

from .lookup import load_table, look_up


@triton.jit
def scaled_by(levels, absmax):
    """levels * absmax in float32, rounded once to the dtype of the levels"""
    return (levels.to(tl.float32) * absmax).to(levels.dtype)


@triton.jit
def fused_linear_kernel(
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
    """Program (i, s, j) writes out[s, tile j of M, tile i of N], the sum over part s of all blocks of K.

    absmax_ptr: float32, or with NESTED_BLOCKSIZE uint8. A turn is one block: with the four of a group as in `decode`,
    Triton 3.6 would give each of their products an accumulator of its own, which Blackwell has no room for.
    """
    half: tl.constexpr = BLOCKSIZE // 2
    split = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.minimum(n, N - 1)  # rows past the end repeat the last one and are not stored
    k = tl.arange(0, half)
    share = tl.cdiv(groups, splits) * GROUP
    first = split * share
    step = tl.cast(stride_xk, tl.int64)
    x_rows = x_ptr + tl.minimum(m, M - 1).to(tl.int64)[None, :] * stride_xm
    x_ptrs = x_rows + (tl.cast(first, tl.int64) * BLOCKSIZE + k)[:, None] * step
    if NESTED_BLOCKSIZE:
        offset = tl.load(offset_ptr)
    table = load_table(table_ptr, ASSEMBLY)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for block in tl.range(first, tl.minimum(first + share, groups * GROUP), num_stages=STAGES):
        # In units of blocks: row n of the group of this block is N * (block // GROUP) + n groups into the weight.
        place = (tl.cast(block // GROUP, tl.int64) * N + row) * GROUP + block % GROUP
        codes = tl.load(codes_ptr + (place * half)[:, None] + k)
        if NESTED_BLOCKSIZE:
            scale = tl.load(nested_absmax_ptr + (row * (groups * GROUP) + block) // NESTED_BLOCKSIZE)
            absmax = tl.load(dynamic8_ptr + tl.load(absmax_ptr + place).to(tl.int32)) * scale + offset
        else:
            absmax = tl.load(absmax_ptr + place)
        low, high = look_up(codes, table, levels_ptr, ASSEMBLY)
        total = tl.dot(scaled_by(low, absmax[:, None]), tl.load(x_ptrs), total)
        total = tl.dot(scaled_by(high, absmax[:, None]), tl.load(x_ptrs + half * step), total)
        x_ptrs += BLOCKSIZE * step
    out = out_ptr + (split.to(tl.int64) * M + m)[None, :] * N + n[:, None]
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=(n < N)[:, None] & (m < M)[None, :])


@triton.jit
def fused_linear_backward_kernel(
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
    """Program (g, s, j) writes out[s, tile j of M, group g of K], the sum over part s of the tiles of N.

    absmax_ptr: float32, or with NESTED_BLOCKSIZE uint8. WHOLE_TILES: N is a multiple of BLOCK_N. All blocks of a group
    are one tile, whose columns are rows of the product: the matrix units of Hopper want 64 at least.
    """
    half: tl.constexpr = BLOCKSIZE // 2
    width: tl.constexpr = GROUP * half
    group = tl.program_id(0)
    split = tl.program_id(1)
    m = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.arange(0, width)
    share = tl.cdiv(tl.cdiv(N, BLOCK_N), splits) * BLOCK_N
    first = split * share
    n_first = first + tl.arange(0, BLOCK_N)
    place = group.to(tl.int64) * N + n_first
    codes_ptrs = codes_ptr + (place * width)[:, None] + column
    absmax_ptrs = absmax_ptr + (place * GROUP)[:, None] + tl.arange(0, GROUP)
    step = tl.cast(stride_dyn, tl.int64)
    dy_ptrs = dy_ptr + tl.minimum(m, M - 1).to(tl.int64)[None, :] * stride_dym + n_first[:, None] * step
    if NESTED_BLOCKSIZE:
        offset = tl.load(offset_ptr)
    table = load_table(table_ptr, ASSEMBLY)
    total_low = tl.zeros((width, BLOCK_M), tl.float32)
    total_high = tl.zeros((width, BLOCK_M), tl.float32)
    for start in tl.range(first, tl.minimum(first + share, N), BLOCK_N, num_stages=STAGES):
        n = start + tl.arange(0, BLOCK_N)
        inside = (n < N) | WHOLE_TILES
        low, high = look_up(tl.load(codes_ptrs, mask=inside[:, None], other=0), table, levels_ptr, ASSEMBLY)
        dy = tl.load(dy_ptrs, mask=inside[:, None], other=0.0)
        if NESTED_BLOCKSIZE:
            code8 = tl.load(absmax_ptrs, mask=inside[:, None], other=0).to(tl.int32)
            scale = tl.load(
                nested_absmax_ptr + (n * groups + group) // (NESTED_BLOCKSIZE // GROUP), mask=inside, other=0.0
            )
            absmax = tl.load(dynamic8_ptr + code8) * scale[:, None] + offset
        else:
            absmax = tl.load(absmax_ptrs, mask=inside[:, None], other=0.0)
        of_column = tl.broadcast_to(absmax[:, :, None], (BLOCK_N, GROUP, half)).reshape(BLOCK_N, width)
        total_low = tl.dot(tl.trans(scaled_by(low, of_column)), dy, total_low)
        total_high = tl.dot(tl.trans(scaled_by(high, of_column)), dy, total_high)
        codes_ptrs += BLOCK_N * width
        absmax_ptrs += BLOCK_N * GROUP
        dy_ptrs += BLOCK_N * step
    k = (group * GROUP + column // half) * BLOCKSIZE + column % half
    out = out_ptr + (split.to(tl.int64) * M + m)[None, :] * (groups * GROUP * BLOCKSIZE) + k[:, None]
    inside_m = (m < M)[None, :]
    tl.store(out, total_low.to(out_ptr.dtype.element_ty), mask=inside_m)
    tl.store(out + half, total_high.to(out_ptr.dtype.element_ty), mask=inside_m)

"""The Triton kernels of `riding_adapters`, whose truth is `reference.riding_adapters`.

M rows of x, K in_features, N_i out_features and r_i rank of linear i; R ranks of all, filled up. Of fewer than three
linears the others have N_i = r_i = 0, and pointers that are not read.
"""

import triton
import triton.language as tl

from .dequantize import store_repacked_tile


@triton.jit
def rank_rows(a_ptr, j, k, K, before, rank):
    """A_i in rows `before` to `before + rank` of [J, BLOCK_K], zero elsewhere; float32"""
    inside = ((j >= before) & (j < before + rank))[:, None] & (k < K)[None, :]
    return tl.load(a_ptr + (j - before).to(tl.int64)[:, None] * K + k[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def block_matrix_kernel(
    z_ptr,
    levels_ptr,
    dynamic8_ptr,
    codes0_ptr,
    absmax0_ptr,
    nested0_ptr,
    offset0_ptr,
    a0_ptr,
    b0_ptr,
    N0,
    rank0,
    scaling0,
    codes1_ptr,
    absmax1_ptr,
    nested1_ptr,
    offset1_ptr,
    a1_ptr,
    b1_ptr,
    N1,
    rank1,
    scaling1,
    codes2_ptr,
    absmax2_ptr,
    nested2_ptr,
    offset2_ptr,
    a2_ptr,
    b2_ptr,
    N2,
    rank2,
    scaling2,
    groups,
    row_stride,
    R,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Program (i, g) writes the blocks of group g of a tile of rows: of W_0, W_1, W_2, then of A

    The programs of group 0 write s B of their rows too, with the zeros beside it.
    """
    tile, group = tl.program_id(0), tl.program_id(1)
    tiles0, tiles1 = tl.cdiv(N0, BLOCK_N), tl.cdiv(N1, BLOCK_N)
    tiles = tiles0 + tiles1 + tl.cdiv(N2, BLOCK_N)
    K = groups * (GROUP * BLOCKSIZE)
    if tile < tiles:
        codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes0_ptr, absmax0_ptr, nested0_ptr, offset0_ptr
        own, N, first = tile, N0, 0
        b_ptr, rank, before, scaling = b0_ptr, rank0, 0, scaling0
        if tile >= tiles0 + tiles1:
            codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes2_ptr, absmax2_ptr, nested2_ptr, offset2_ptr
            own, N, first = tile - tiles0 - tiles1, N2, N0 + N1
            b_ptr, rank, before, scaling = b2_ptr, rank2, rank0 + rank1, scaling2
        elif tile >= tiles0:
            codes_ptr, absmax_ptr, nested_ptr, offset_ptr = codes1_ptr, absmax1_ptr, nested1_ptr, offset1_ptr
            own, N, first = tile - tiles0, N1, N0
            b_ptr, rank, before, scaling = b1_ptr, rank1, rank0, scaling1
        rows_ptr = z_ptr + tl.cast(first, tl.int64) * row_stride
        store_repacked_tile(
            rows_ptr,
            codes_ptr,
            levels_ptr,
            absmax_ptr,
            dynamic8_ptr,
            nested_ptr,
            offset_ptr,
            own,
            group,
            N,
            groups,
            row_stride,
            BLOCKSIZE,
            GROUP,
            NESTED_BLOCKSIZE,
            BLOCK_N,
        )
        if group == 0:
            n = own * BLOCK_N + tl.arange(0, BLOCK_N)
            j = tl.arange(0, BLOCK_R)
            inside = (n < N)[:, None] & ((j >= before) & (j < before + rank))[None, :]
            b = tl.load(b_ptr + n.to(tl.int64)[:, None] * rank + (j - before)[None, :], mask=inside, other=0.0)
            scaled = b.to(tl.float32) * scaling
            place = rows_ptr + n.to(tl.int64)[:, None] * row_stride + K + j[None, :]
            tl.store(place, scaled.to(z_ptr.dtype.element_ty), mask=(n < N)[:, None] & (j < R)[None, :])
    else:
        j = (tile - tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
        k = group * (GROUP * BLOCKSIZE) + tl.arange(0, GROUP * BLOCKSIZE)
        a = rank_rows(a0_ptr, j, k, K, 0, rank0) + rank_rows(a1_ptr, j, k, K, rank0, rank1)
        a += rank_rows(a2_ptr, j, k, K, rank0 + rank1, rank2)
        place = z_ptr + (tl.cast(N0 + N1 + N2, tl.int64) + j)[:, None] * row_stride + k[None, :]
        tl.store(place, a.to(z_ptr.dtype.element_ty), mask=(j < R)[:, None])


@triton.jit
def copy_and_multiply(
    total,
    left_ptr,
    x_ptr,
    narrow_ptr,
    m,
    inside_m,
    j,
    R,
    width,
    stride_m,
    left_stride,
    stride_c,
    stride_j,
    copied,
    BLOCK_C: tl.constexpr,
    STAGES: tl.constexpr,
):
    """total + X narrow, of the rows m of X [M, width], of which the first `copied` columns are written on the way"""
    for start in tl.range(0, width, BLOCK_C, num_stages=STAGES):
        c = start + tl.arange(0, BLOCK_C)
        inside = inside_m[:, None] & (c < width)[None, :]
        x = tl.load(x_ptr + m[:, None] * stride_m + c[None, :], mask=inside, other=0.0)
        tl.store(left_ptr + m[:, None] * left_stride + c[None, :], x, mask=inside_m[:, None] & (c < copied)[None, :])
        place = c.to(tl.int64)[:, None] * stride_c + j.to(tl.int64)[None, :] * stride_j
        narrow = tl.load(narrow_ptr + place, mask=(c < width)[:, None] & (j < R)[None, :], other=0.0)
        total = tl.dot(x, narrow, total, input_precision="ieee")
    return total


@triton.jit
def beside_kernel(
    left_ptr,
    inner_ptr,
    x0_ptr,
    x1_ptr,
    x2_ptr,
    narrow_ptr,
    mask_ptr,
    M,
    R,
    width0,
    width1,
    width2,
    stride0,
    stride1,
    stride2,
    left_stride,
    stride_c,
    stride_j,
    masked,
    rows_a_mask,
    COUNT: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Program (i, c) computes X narrow of a tile of rows, columns c BLOCK_R and on; those of c = 0 copy X as well

    HAS_MASK: mask [B, masked], of `rows_a_mask` rows each, which says where X narrow is not zero.
    """
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside_m = m < M
    j = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    share = tl.where(tl.program_id(1) == 0, 1, 0)
    total = tl.zeros([BLOCK_M, BLOCK_R], tl.float32)
    total = copy_and_multiply(
        total,
        left_ptr,
        x0_ptr,
        narrow_ptr,
        m,
        inside_m,
        j,
        R,
        width0,
        stride0,
        left_stride,
        stride_c,
        stride_j,
        share * width0,
        BLOCK_C,
        STAGES,
    )
    if COUNT > 1:
        total = copy_and_multiply(
            total,
            left_ptr + width0,
            x1_ptr,
            narrow_ptr + tl.cast(width0, tl.int64) * stride_c,
            m,
            inside_m,
            j,
            R,
            width1,
            stride1,
            left_stride,
            stride_c,
            stride_j,
            share * width1,
            BLOCK_C,
            STAGES,
        )
    if COUNT > 2:
        total = copy_and_multiply(
            total,
            left_ptr + width0 + width1,
            x2_ptr,
            narrow_ptr + tl.cast(width0 + width1, tl.int64) * stride_c,
            m,
            inside_m,
            j,
            R,
            width2,
            stride2,
            left_stride,
            stride_c,
            stride_j,
            share * width2,
            BLOCK_C,
            STAGES,
        )
    if HAS_MASK:
        used = tl.load(
            mask_ptr + (m // rows_a_mask)[:, None] * masked + j[None, :],
            mask=inside_m[:, None] & (j < masked)[None, :],
            other=1,
        )
        total = tl.where(used != 0, total, 0.0)
    inner = total.to(left_ptr.dtype.element_ty)
    inside = inside_m[:, None] & (j < R)[None, :]
    tl.store(left_ptr + m[:, None] * left_stride + width0 + width1 + width2 + j[None, :], inner, mask=inside)
    tl.store(inner_ptr + m[:, None] * R + j[None, :], inner, mask=inside)


@triton.jit
def store_rank_rows(da_ptr, total, j, k, K, before, rank):
    """Rows `before` to `before + rank` of [J, BLOCK_K] into dA_i"""
    inside = ((j >= before) & (j < before + rank))[:, None] & (k < K)[None, :]
    place = da_ptr + (j - before).to(tl.int64)[:, None] * K + k[None, :]
    tl.store(place, total.to(da_ptr.dtype.element_ty), mask=inside)


@triton.jit
def matrix_gradients_kernel(
    x_ptr,
    dy0_ptr,
    dy1_ptr,
    dy2_ptr,
    u_ptr,
    v_ptr,
    da0_ptr,
    da1_ptr,
    da2_ptr,
    db0_ptr,
    db1_ptr,
    db2_ptr,
    M,
    K,
    N0,
    N1,
    N2,
    rank0,
    rank1,
    rank2,
    R,
    scaling0,
    scaling1,
    scaling2,
    stride_x,
    stride0,
    stride1,
    stride2,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Program (i, c) sums over all rows: dA = V^T x of a tile of K, or dB_i = s dY_i^T U_i of a tile of N_i

    Of the ranks it takes c BLOCK_R and on: of all linears for dA, of its own for dB.
    """
    tile, chunk = tl.program_id(0), tl.program_id(1) * BLOCK_R
    tiles = tl.cdiv(K, BLOCK_C)
    row = tl.arange(0, BLOCK_M)
    i = tl.arange(0, BLOCK_C)
    j = chunk + tl.arange(0, BLOCK_R)
    if tile < tiles:
        k = tile * BLOCK_C + i
        total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
        for start in tl.range(0, M, BLOCK_M, num_stages=STAGES):
            m = (start + row).to(tl.int64)[:, None]
            x = tl.load(x_ptr + m * stride_x + k[None, :], mask=(m < M) & (k < K)[None, :], other=0.0)
            v = tl.load(v_ptr + m * R + j[None, :], mask=(m < M) & (j < R)[None, :], other=0.0)
            total = tl.dot(tl.trans(v), x, total, input_precision="ieee")
        store_rank_rows(da0_ptr, total, j, k, K, 0, rank0)
        store_rank_rows(da1_ptr, total, j, k, K, rank0, rank1)
        store_rank_rows(da2_ptr, total, j, k, K, rank0 + rank1, rank2)
    else:
        own = tile - tiles
        tiles0, tiles1 = tl.cdiv(N0, BLOCK_C), tl.cdiv(N1, BLOCK_C)
        dy_ptr, db_ptr, N, stride, rank, before, scaling = dy0_ptr, db0_ptr, N0, stride0, rank0, 0, scaling0
        if own >= tiles0 + tiles1:
            dy_ptr, db_ptr, N, stride = dy2_ptr, db2_ptr, N2, stride2
            own, rank, before, scaling = own - tiles0 - tiles1, rank2, rank0 + rank1, scaling2
        elif own >= tiles0:
            dy_ptr, db_ptr, N, stride = dy1_ptr, db1_ptr, N1, stride1
            own, rank, before, scaling = own - tiles0, rank1, rank0, scaling1
        if chunk < rank:
            n = own * BLOCK_C + i
            sums = tl.zeros([BLOCK_C, BLOCK_R], tl.float32)
            for start in tl.range(0, M, BLOCK_M, num_stages=STAGES):
                m = (start + row).to(tl.int64)[:, None]
                dy = tl.load(dy_ptr + m * stride + n[None, :], mask=(m < M) & (n < N)[None, :], other=0.0)
                u = tl.load(u_ptr + m * R + before + j[None, :], mask=(m < M) & (j < rank)[None, :], other=0.0)
                sums = tl.dot(tl.trans(dy), u, sums, input_precision="ieee")
            place = db_ptr + n.to(tl.int64)[:, None] * rank + j[None, :]
            inside = (n < N)[:, None] & (j < rank)[None, :]
            tl.store(place, (scaling * sums).to(db_ptr.dtype.element_ty), mask=inside)

"""Shared by the kernels of few rows: the sum over a part of K, and who adds the parts.

M rows of x, N out_features, K in_features; a block is BLOCKSIZE weights of a row, a group GROUP blocks (`repack`).
"""

import triton
import triton.language as tl

from .lookup import load_table, look_up


@triton.jit
def sum_groups(
    codes_ptr,
    absmax_ptr,
    nested_ptr,
    offset_ptr,
    levels_ptr,
    table_ptr,
    dynamic8_ptr,
    x_rows,
    row,
    N,
    groups,
    split,
    splits,
    step,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    STAGES: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """[BLOCK_N, BLOCK_M] float32: x W^T of the rows `row` of W [N, K], over part `split` of the groups of K

    x_rows  pointers [1, BLOCK_M] to each row of x;  step: between its channels, int64
    splits  the parts of a sum: each has as many groups, the last may have fewer
    absmax_ptr: float32, or with NESTED_BLOCKSIZE integers of GROUP bytes, the 8-bit codes of a group.
    """
    half: tl.constexpr = BLOCKSIZE // 2
    k = tl.arange(0, half)
    share = tl.cdiv(groups, splits)
    first = split * share
    place = first.to(tl.int64) * N + row  # 64-bit addresses; inside the loop they only advance
    codes_ptrs = (codes_ptr + place * (GROUP * half))[:, None] + k
    absmax_ptrs = absmax_ptr + place * (1 if NESTED_BLOCKSIZE else GROUP)
    x_ptrs = x_rows + (first * (GROUP * BLOCKSIZE) + k)[:, None] * step
    if NESTED_BLOCKSIZE:
        offset = tl.load(offset_ptr)
    table = load_table(table_ptr, ASSEMBLY)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for group in tl.range(first, tl.minimum(first + share, groups), num_stages=STAGES):
        if NESTED_BLOCKSIZE:
            codes8 = tl.load(absmax_ptrs).to(tl.int32)
            scale = tl.load(nested_ptr + (row * groups + group) // (NESTED_BLOCKSIZE // GROUP))
        for block in tl.static_range(GROUP):
            codes = tl.load(codes_ptrs + block * half)
            x_low = tl.load(x_ptrs + block * BLOCKSIZE * step)
            x_high = tl.load(x_ptrs + (block * BLOCKSIZE + half) * step)
            low, high = look_up(codes, table, levels_ptr, ASSEMBLY)
            part = tl.dot(low, x_low, input_precision="ieee")
            part = tl.dot(high, x_high, part, input_precision="ieee")
            if NESTED_BLOCKSIZE:
                absmax = tl.load(dynamic8_ptr + ((codes8 >> (8 * block)) & 255)) * scale + offset
            else:
                absmax = tl.load(absmax_ptrs + block)
            total = tl.fma(part, tl.broadcast_to(absmax[:, None], (BLOCK_N, BLOCK_M)), total)
        codes_ptrs += tl.cast(N, tl.int64) * (GROUP * half)
        x_ptrs += GROUP * BLOCKSIZE * step
        absmax_ptrs += N if NESTED_BLOCKSIZE else N * GROUP
    return total


@triton.jit
def arrives_last(arrived_ptr, PROGRAMS: tl.constexpr):
    """True for the last of PROGRAMS programs that have stored their part, after which it may load those of all.

    Which one is last is a matter of timing; what it then adds, and in which order, is not. The count goes back to zero
    for the next kernel. The barrier puts the stores of all threads before the one atomic addition, whose release and
    acquire order them before the loads of the last program.
    """
    tl.debug_barrier()
    if PROGRAMS == 1:
        last = True
    else:
        last = tl.atomic_add(arrived_ptr, 1, sem="acq_rel", scope="gpu") == PROGRAMS - 1
        if last:
            tl.store(arrived_ptr, 0)
    return last

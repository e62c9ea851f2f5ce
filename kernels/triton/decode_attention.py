"""Attention of one query a row in Triton: the keys are shared out among programs, and their parts put together.

    y = sum_s softmax(q k^T / sqrt(h))[s] v[s]  over the s that the mask lets through

One query leaves a head little to do, so a GPU is filled by cutting the S positions into splits (arXiv 2311.01282): a
program sums the positions of its split under their own maximum, and a second kernel weighs the parts against one
another. What the mask hides is not read, so a cache costs what is filled of it and not what it could hold; a head of
grouped queries reads the keys of its group where they are.

B batch, H query heads, G key/value heads, S positions, h head dim.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_S, WARPS = 64, 8  # positions a tile: 64 registers a thread, and a quarter of the turns of 16 positions
PROGRAMS = 264  # to be reached by splitting: two for each multiprocessor of an H200
LOWEST = tl.constexpr(-3.0e38)  # a maximum before any score; finite, for -inf - -inf is NaN


@triton.jit
def decode_attention_kernel(
    sum_ptr,
    total_ptr,
    largest_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    scale,
    S,
    heads,
    group,
    stride_batch,
    stride_head,
    stride_mask,
    tiles,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Program (b * heads + head, split): exp(scores - largest) v summed over `tiles` tiles, its total, and largest."""
    row, split = tl.program_id(0), tl.program_id(1)
    batch = (row // heads).to(tl.int64)
    channel = tl.arange(0, BLOCK_D)
    inside = channel < HEAD_DIM
    q = tl.load(q_ptr + row * HEAD_DIM + channel, mask=inside, other=0.0).to(tl.float32) * scale
    keys = batch * stride_batch + ((row % heads) // group).to(tl.int64) * stride_head
    largest = LOWEST
    total = 0.0
    summed = tl.zeros([BLOCK_D], dtype=tl.float32)
    for tile in range(tiles):
        place = (split * tiles + tile) * BLOCK_S + tl.arange(0, BLOCK_S)
        seen = tl.load(mask_ptr + batch * stride_mask + place, mask=place < S, other=0) != 0
        at = keys + place[:, None] * HEAD_DIM + channel[None, :]
        wanted = seen[:, None] & inside[None, :]
        # Both loads before the sums, which wait at a barrier: one wait for memory a tile, not two.
        k = tl.load(k_ptr + at, mask=wanted, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + at, mask=wanted, other=0.0).to(tl.float32)
        score = tl.where(seen, tl.sum(k * q[None, :], axis=1), -float("inf"))
        larger = tl.maximum(largest, tl.max(score))
        weight = tl.exp(score - larger)
        fade = tl.exp(largest - larger)
        summed = summed * fade + tl.sum(weight[:, None] * v, axis=0)
        total = total * fade + tl.sum(weight)
        largest = larger
    part = row * tl.num_programs(1) + split
    tl.store(sum_ptr + part * HEAD_DIM + channel, summed, mask=inside)
    tl.store(total_ptr + part, total)
    tl.store(largest_ptr + part, largest)


@triton.jit
def combine_kernel(
    y_ptr,
    sum_ptr,
    total_ptr,
    largest_ptr,
    splits,
    HEAD_DIM: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program b * heads + head puts its parts together."""
    row = tl.program_id(0)
    split = tl.arange(0, BLOCK_SPLITS)
    channel = tl.arange(0, BLOCK_D)
    inside = channel < HEAD_DIM
    part = row * splits + split
    largest = tl.load(largest_ptr + part, mask=split < splits, other=LOWEST)
    weight = tl.exp(largest - tl.max(largest))
    total = tl.sum(weight * tl.load(total_ptr + part, mask=split < splits, other=0.0))
    wanted = (split < splits)[:, None] & inside[None, :]
    parts = tl.load(sum_ptr + part[:, None] * HEAD_DIM + channel[None, :], mask=wanted, other=0.0)
    y = tl.sum(weight[:, None] * parts, axis=0) / total
    tl.store(y_ptr + row * HEAD_DIM + channel, y.to(y_ptr.dtype.element_ty), mask=inside)


def decode_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(h)) v, each G head serving H / G query heads

    q     [B, H, 1, h]
    k, v  [B, G, S, h], the positions of a head one behind another: a window of a cache, as it lies
    mask  bool [B or 1, 1, 1, S], true where a query may look
    Returns [B, H, 1, h] in the dtype of q. A row that may look nowhere gives NaN.
    """
    (batch, heads, _, head_dim), (kv_heads, positions) = q.shape, k.shape[1:3]
    assert k.stride() == v.stride() and k.stride()[2:] == (head_dim, 1), (k.stride(), v.stride())
    assert mask.is_contiguous(), mask.stride()
    y = torch.empty_like(q)
    if not y.numel():
        return y
    tiles = triton.cdiv(positions, BLOCK_S)
    tiles_per_split = triton.cdiv(tiles, triton.cdiv(PROGRAMS, batch * heads))
    splits = triton.cdiv(tiles, tiles_per_split)
    sums = torch.empty(batch * heads, splits, head_dim, dtype=torch.float32, device=q.device)
    totals, largest = (torch.empty(batch * heads, splits, dtype=torch.float32, device=q.device) for _ in range(2))
    blocks = {"HEAD_DIM": head_dim, "BLOCK_D": triton.next_power_of_2(head_dim)}
    with torch.cuda.device_of(q):  # Triton launches on the current device
        decode_attention_kernel[(batch * heads, splits)](
            sums,
            totals,
            largest,
            q,
            k,
            v,
            mask,
            1 / math.sqrt(head_dim),
            positions,
            heads,
            heads // kv_heads,
            k.stride(0),
            k.stride(1),
            positions if len(mask) > 1 else 0,
            tiles_per_split,
            BLOCK_S=BLOCK_S,
            num_warps=WARPS,
            # Every lane that adds up holds the sum, and one of them stores it. With multiplication and addition fused a
            # lane would add its own product unrounded and another's rounded: the bits would depend on who stores last.
            enable_fp_fusion=False,
            **blocks,
        )
        combine_kernel[(batch * heads,)](
            y,
            sums,
            totals,
            largest,
            splits,
            BLOCK_SPLITS=triton.next_power_of_2(splits),
            enable_fp_fusion=False,
            **blocks,
        )
    return y

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

BLOCK_S = 16  # positions a tile: 64 to 79 registers a thread; tiles of 32 and 64 spill under Triton 3.9 or 3.6
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
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    TILES: tl.constexpr,
):
    """Program (b * heads + head, split): exp(scores - largest) v summed over TILES tiles, its total, and largest."""
    row, split = tl.program_id(0), tl.program_id(1)
    batch = (row // heads).to(tl.int64)
    channel = tl.arange(0, BLOCK_D)
    inside = channel < HEAD_DIM
    q = tl.load(q_ptr + row * HEAD_DIM + channel, mask=inside, other=0.0).to(tl.float32) * scale
    keys = batch * stride_batch + ((row % heads) // group).to(tl.int64) * stride_head
    largest = LOWEST
    total = 0.0
    summed = tl.zeros([BLOCK_D], dtype=tl.float32)
    for tile in range(TILES):
        place = (split * TILES + tile) * BLOCK_S + tl.arange(0, BLOCK_S)
        seen = tl.load(mask_ptr + batch * stride_mask + place, mask=place < S, other=0) != 0
        at = keys + place[:, None] * HEAD_DIM + channel[None, :]
        wanted = seen[:, None] & inside[None, :]
        k = tl.load(k_ptr + at, mask=wanted, other=0.0).to(tl.float32)
        score = tl.where(seen, tl.sum(k * q[None, :], axis=1), -float("inf"))
        larger = tl.maximum(largest, tl.max(score))
        weight = tl.exp(score - larger)
        fade = tl.exp(largest - larger)
        v = tl.load(v_ptr + at, mask=wanted, other=0.0).to(tl.float32)
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
    SPLITS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program b * heads + head puts its parts together."""
    row = tl.program_id(0)
    split = tl.arange(0, BLOCK_SPLITS)
    channel = tl.arange(0, BLOCK_D)
    inside = channel < HEAD_DIM
    part = row * SPLITS + split
    largest = tl.load(largest_ptr + part, mask=split < SPLITS, other=LOWEST)
    weight = tl.exp(largest - tl.max(largest))
    total = tl.sum(weight * tl.load(total_ptr + part, mask=split < SPLITS, other=0.0))
    wanted = (split < SPLITS)[:, None] & inside[None, :]
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
            BLOCK_S=BLOCK_S,
            TILES=tiles_per_split,
            enable_fp_fusion=True,
            **blocks,
        )
        combine_kernel[(batch * heads,)](
            y,
            sums,
            totals,
            largest,
            SPLITS=splits,
            BLOCK_SPLITS=triton.next_power_of_2(splits),
            enable_fp_fusion=True,
            **blocks,
        )
    return y

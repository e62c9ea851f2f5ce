"""The Triton kernel of the attention of `decode_step`: rotation, cache, softmax and the sum of all parts in one.

    y = sum_s softmax(q k^T / sqrt(h))[s] v[s]

The filled positions are shared out among programs (arXiv 2311.01282). A program sums those of its split under their own
maximum; the one that arrives last weighs the parts against one another, in the order of their numbers.

H query heads, G key/value heads, S positions, h head dim, r rank.
"""

import triton
import triton.language as tl

from .decode_attention import LOWEST
from .partial_sums import arrives_last


@triton.jit
def turned(x_ptr, channel, inside, cos_ptr, sin_ptr, HEAD_DIM: tl.constexpr, INTERLEAVED: tl.constexpr):
    """A head with its pairs turned, float32 rounded to the dtype of x: each channel reads its partner too (`rope`)"""
    half: tl.constexpr = HEAD_DIM // 2
    if INTERLEAVED:
        pair, partner, is_first = channel // 2, channel ^ 1, channel % 2 == 0
    else:
        is_first = channel < half
        pair, partner = channel % half, tl.where(is_first, channel + half, channel - half)
    own = tl.load(x_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(x_ptr + partner, mask=inside, other=0.0).to(tl.float32)
    cos = tl.load(cos_ptr + pair, mask=inside, other=0.0)
    sin = tl.load(sin_ptr + pair, mask=inside, other=0.0)
    turn = other * sin
    return (own * cos + tl.where(is_first, -turn, turn)).to(x_ptr.dtype.element_ty)


@triton.jit
def step_attention_kernel(
    y_ptr,
    sum_ptr,
    total_ptr,
    largest_ptr,
    arrived_ptr,
    qkv_ptr,
    k_ptr,
    v_ptr,
    cos_ptr,
    sin_ptr,
    position_ptr,
    padding_ptr,
    scale,
    heads,
    kv_heads,
    stride_batch,
    stride_head,
    u_ptr,
    a_ptr,
    rank,
    RANK: tl.constexpr,
    SPLITS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    INTERLEAVED: tl.constexpr,
):
    """Program (b * heads + head, split): attention of one token, which is turned, its key and value put into the cache

    The split of a program is of the filled positions, which the device knows: what is not filled costs nothing. The
    token's own key and value are not read from the cache but from where q, k and v lie, by the first split.
    """
    each, split = tl.program_id(0), tl.program_id(1)
    batch, head = (each // heads).to(tl.int64), each % heads
    M = tl.num_programs(0) // heads
    group = heads // kv_heads
    kv_head = head // group
    channel = tl.arange(0, BLOCK_D)
    inside = channel < HEAD_DIM
    position, padding = tl.load(position_ptr).to(tl.int32), tl.load(padding_ptr + batch).to(tl.int32)
    token_ptr = qkv_ptr + batch * ((heads + 2 * kv_heads) * HEAD_DIM)
    cos_row, sin_row = cos_ptr + batch * (HEAD_DIM // 2), sin_ptr + batch * (HEAD_DIM // 2)
    q = turned(token_ptr + head * HEAD_DIM, channel, inside, cos_row, sin_row, HEAD_DIM, INTERLEAVED)
    q = q.to(tl.float32) * scale
    keys = batch * stride_batch + kv_head.to(tl.int64) * stride_head
    largest, total = tl.full([], LOWEST, tl.float32), tl.full([], 0.0, tl.float32)
    summed = tl.zeros([BLOCK_D], tl.float32)
    if split == 0:
        own = token_ptr + (heads + kv_head) * HEAD_DIM
        k = turned(own, channel, inside, cos_row, sin_row, HEAD_DIM, INTERLEAVED)
        v = tl.load(own + kv_heads * HEAD_DIM + channel, mask=inside, other=0.0)
        if head % group == 0:
            tl.store(k_ptr + keys + position * HEAD_DIM + channel, k, mask=inside)
            tl.store(v_ptr + keys + position * HEAD_DIM + channel, v, mask=inside)
        largest, total, summed = tl.sum(q * k.to(tl.float32)), total + 1.0, v.to(tl.float32)
    tiles = tl.cdiv(tl.cdiv(position, BLOCK_S), SPLITS)
    start = split * tiles * BLOCK_S
    end = tl.minimum(start + tiles * BLOCK_S, position)
    place = start + tl.arange(0, BLOCK_S)
    wanted = ((place >= padding) & (place < end))[:, None] & inside[None, :]
    at = keys + place[:, None] * HEAD_DIM + channel[None, :]
    k = tl.load(k_ptr + at, mask=wanted, other=0.0)
    v = tl.load(v_ptr + at, mask=wanted, other=0.0)
    for next in range(start + BLOCK_S, end + BLOCK_S, BLOCK_S):
        # The next tile is asked for before this one's sums, which wait at barriers.
        at += BLOCK_S * HEAD_DIM
        next_place = next + tl.arange(0, BLOCK_S)
        wanted = ((next_place >= padding) & (next_place < end))[:, None] & inside[None, :]
        next_k = tl.load(k_ptr + at, mask=wanted, other=0.0)
        next_v = tl.load(v_ptr + at, mask=wanted, other=0.0)
        seen = (place >= padding) & (place < end)
        score = tl.where(seen, tl.sum(k.to(tl.float32) * q[None, :], axis=1), -float("inf"))
        larger = tl.maximum(largest, tl.max(score))
        weight = tl.exp(score - larger)
        fade = tl.exp(largest - larger)
        summed = summed * fade + tl.sum(weight[:, None] * v.to(tl.float32), axis=0)
        total = total * fade + tl.sum(weight)
        largest, k, v, place = larger, next_k, next_v, next_place
    part = each * SPLITS + split
    tl.store(sum_ptr + part * HEAD_DIM + channel, summed, mask=inside)
    tl.store(total_ptr + part, total)
    tl.store(largest_ptr + part, largest)
    if arrives_last(arrived_ptr + each, SPLITS):
        every = each * SPLITS + tl.arange(0, SPLITS)
        maxima = tl.load(largest_ptr + every, cache_modifier=".cg")
        share = tl.exp(maxima - tl.max(maxima))
        whole = tl.sum(share * tl.load(total_ptr + every, cache_modifier=".cg"))
        sums_ptr = sum_ptr + every[:, None] * HEAD_DIM + channel[None, :]
        sums = tl.load(sums_ptr, mask=inside[None, :], other=0.0, cache_modifier=".cg")
        y = (tl.sum(share[:, None] * sums, axis=0) / whole).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + each * HEAD_DIM + channel, y, mask=inside)
        if RANK:
            r = tl.arange(0, RANK)
            is_real = (r < rank)[:, None] & inside[None, :]
            column = head * HEAD_DIM + channel
            a = tl.load(a_ptr + r[:, None] * (heads * HEAD_DIM) + column[None, :], mask=is_real, other=0.0)
            u = tl.sum(a.to(tl.float32) * y.to(tl.float32)[None, :], axis=1)
            tl.store(u_ptr + (head * M + batch) * RANK + r, u)

"""Rotary position embedding in Triton: each pair of channels is turned by the angle of its token's position.

    (a, b) -> (a cos - b sin, a sin + b cos)                                                  (arXiv 2104.09864)

The pairs are channels (2i, 2i+1), as Meta trains and stores, or (i, i + h/2), as Hugging Face stores. The gradient is
the rotation back: the same kernel with -sin. Positions enter through cos and sin alone, so they may be any. Queries and
keys of a token have the same angles, and are turned in one launch.

T tokens, H heads, h head dim.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # pairs a program, about


@triton.jit
def rope_kernel(
    out0_ptr,
    out1_ptr,
    x0_ptr,
    x1_ptr,
    cos_ptr,
    sin_ptr,
    heads0,
    heads1,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INVERSE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """Program (t, j) turns BLOCK_HEADS heads of token t, x0 first: its angles are read once for all of them"""
    token, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    tiles0 = tl.cdiv(heads0, BLOCK_HEADS)
    out_ptr, x_ptr, heads = out0_ptr, x0_ptr, heads0
    if tile >= tiles0:
        out_ptr, x_ptr, heads, tile = out1_ptr, x1_ptr, heads1, tile - tiles0
    head = tile * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)[:, None]
    pair = tl.arange(0, BLOCK_PAIRS)[None, :]
    cos = tl.load(cos_ptr + token * PAIRS + pair, mask=pair < PAIRS, other=0.0)
    sin = tl.load(sin_ptr + token * PAIRS + pair, mask=pair < PAIRS, other=0.0)
    if INVERSE:
        sin = -sin
    start = (token * heads + head) * (2 * PAIRS)
    if INTERLEAVED:  # both channels of a pair in one wide load, taken apart in registers
        channel = tl.arange(0, 2 * BLOCK_PAIRS)[None, :]
        inside = (head < heads) & (channel < 2 * PAIRS)
        both = tl.load(x_ptr + start + channel, mask=inside, other=0.0).to(tl.float32)
        a, b = tl.split(tl.reshape(both, [BLOCK_HEADS, BLOCK_PAIRS, 2]))
        turned = tl.interleave(a * cos - b * sin, a * sin + b * cos)
        tl.store(out_ptr + start + channel, turned.to(out_ptr.dtype.element_ty), mask=inside)
    else:
        inside = (head < heads) & (pair < PAIRS)
        a = tl.load(x_ptr + start + pair, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(x_ptr + start + PAIRS + pair, mask=inside, other=0.0).to(tl.float32)
        tl.store(out_ptr + start + pair, (a * cos - b * sin).to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(out_ptr + start + PAIRS + pair, (a * sin + b * cos).to(out_ptr.dtype.element_ty), mask=inside)


def rope(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool) -> Tensor:
    """x turned, or turned back: [*, H, h] -> [*, H, h] in its dtype;  cos, sin float32 [*, 1, h/2]"""
    return _turn(x, None, cos, sin, interleaved, inverse)[0]


def rope_pair(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool
) -> tuple[Tensor, Tensor]:
    """q [*, H, h] and k [*, G, h] turned, or turned back, in one launch;  arguments as in `rope`"""
    turned_q, turned_k = _turn(q, k, cos, sin, interleaved, inverse)
    return turned_q, turned_k


def _turn(
    x: Tensor, other: Tensor | None, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool
) -> tuple[Tensor, ...]:
    heads, pairs = x.shape[-2], x.shape[-1] // 2
    xs = (x,) if other is None else (x, other)
    outs = tuple([torch.empty_like(one) for one in xs])
    block_pairs = triton.next_power_of_2(pairs)
    block_heads = min(triton.next_power_of_2(heads), max(1, TILE // block_pairs))
    if x.numel():
        with torch.cuda.device_of(x):  # Triton launches on the current device
            tiles = sum(triton.cdiv(one.shape[-2], block_heads) for one in xs)
            rope_kernel[(cos.numel() // pairs, tiles)](
                outs[0],
                outs[-1],
                x,
                xs[-1],
                cos,
                sin,
                heads,
                xs[-1].shape[-2],
                PAIRS=pairs,
                INTERLEAVED=interleaved,
                INVERSE=inverse,
                BLOCK_HEADS=block_heads,
                BLOCK_PAIRS=block_pairs,
                enable_fp_fusion=True,
            )
    return outs

"""Rotary position embedding in Triton: each pair of channels is turned by the angle of its token's position.

    (a, b) -> (a cos - b sin, a sin + b cos)                                                  (arXiv 2104.09864)

The pairs are channels (2i, 2i+1), as Meta trains and stores, or (i, i + h/2), as Hugging Face stores. The gradient is
the rotation back: the same kernel with -sin. Positions enter through cos and sin alone, so they may be any.

T tokens, H heads, h head dim.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # pairs a program, about


@triton.jit
def rope_kernel(
    out_ptr,
    x_ptr,
    cos_ptr,
    sin_ptr,
    heads,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INVERSE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """Program (t, j) turns BLOCK_HEADS heads of token t: its angles are read once for all of them."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)[:, None]
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
    heads, pairs = x.shape[-2], x.shape[-1] // 2
    out = torch.empty_like(x)
    block_pairs = triton.next_power_of_2(pairs)
    block_heads = min(triton.next_power_of_2(heads), max(1, TILE // block_pairs))
    if x.numel():
        with torch.cuda.device_of(x):  # Triton launches on the current device
            rope_kernel[(cos.numel() // pairs, triton.cdiv(heads, block_heads))](
                out,
                x,
                cos,
                sin,
                heads,
                PAIRS=pairs,
                INTERLEAVED=interleaved,
                INVERSE=inverse,
                BLOCK_HEADS=block_heads,
                BLOCK_PAIRS=block_pairs,
                enable_fp_fusion=True,
            )
    return out

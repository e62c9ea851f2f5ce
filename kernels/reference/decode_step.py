"""The plain-torch truth of a step of decoding: one token a row through all blocks of Llama. Never imports Triton.

    x = x + Wo attention(rope(Wq n), rope(Wk n), Wv n),   n = rms_norm(x)
    x = x + W2 (silu(W1 n) * W3 n),                       n = rms_norm(x)        each W with its adapter

The keys and values of the token go into the cache. Computed in the dtype of x: in float64 for what is to be exact.
B rows, D model dim, L blocks, G key/value heads, S positions of the cache, h head dim.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from . import llama_ops, weights


class StepSizes(NamedTuple):
    """Sizes that weights do not tell: heads, the norms' eps, the pairs of the rotation, (2i, 2i+1) if interleaved"""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    interleaved: bool


class CacheWindow(NamedTuple):
    """k, v [L, B, G, S, h], of which the first `window` positions may be filled, and where this token goes

    position  int64 [1];  padding int64 [B], the filler positions at the left of each row
    """

    k: Tensor
    v: Tensor
    window: int
    position: Tensor
    padding: Tensor


class NormedInput(NamedTuple):
    """The input of linears behind a norm of h [M, D] that is no kernel of its own: they add parts of sums up.

    x        h * weight of the norm, [M, D]
    squares  float32 [M, parts], of each row the sum of h^2 of some of its channels
    inner    float32 [parts, M, linears, RANK], of each linear what these channels of x add to x A^T;
             RANK holds all ranks
    """

    x: Tensor
    squares: Tensor
    inner: Tensor


def decode_blocks(
    x: Tensor, blocks: Sequence[BlockWeights], cache: CacheWindow, cos: Tensor, sin: Tensor, sizes: StepSizes
) -> Tensor:
    """h [B, 1, D] behind all blocks, of x [B, 1, D], both before a norm;  cos, sin float32 [B, 1, 1, h/2]"""
    place = torch.arange(cache.window, device=x.device)
    seen = ((place <= cache.position) & (place >= cache.padding[:, None]))[:, None, None]
    for layer, block in enumerate(blocks):
        normed = llama_ops.rms_norm(x, None, block.attention_norm.to(x.dtype), sizes.eps)[0]
        q, k, v = (_product(normed, part).unflatten(-1, (-1, sizes.head_dim)) for part in block.linears[:3])
        q, k = (llama_ops.rope(heads, cos, sin, sizes.interleaved, False) for heads in (q, k))
        for kept, new in ((cache.k[layer], k), (cache.v[layer], v)):
            kept.index_copy_(2, cache.position, new.transpose(1, 2).to(kept.dtype))
        all_k, all_v = (kept[layer][:, :, : cache.window].to(x.dtype) for kept in (cache.k, cache.v))
        y = llama_ops.decode_attention(q.transpose(1, 2), all_k, all_v, seen)
        x = x + _product(y.transpose(1, 2).flatten(-2), block.linears[3])
        normed = llama_ops.rms_norm(x, None, block.ffn_norm.to(x.dtype), sizes.eps)[0]
        gate, up = (_product(normed, part) for part in block.linears[4:6])
        x = x + _product(llama_ops.swiglu(gate, up), block.linears[6])
    return x


def _product(x: Tensor, part: LinearWithAdapter) -> Tensor:
    """x W^T + scaling (x A^T) B^T, the adapter's part in the wider dtype"""
    assert not isinstance(part.weight, Tensor)
    wide = llama_ops.wide_dtype(x)
    w = weights.dequantize(part.weight)
    y = x @ w.to(x.dtype).T
    if part.lora_A is None or part.lora_B is None:
        return y
    return y + (part.scaling * (x.to(wide) @ part.lora_A.to(wide).T) @ part.lora_B.to(wide).T).to(y.dtype)

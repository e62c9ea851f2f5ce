"""Attention of texts of different lengths, one behind another in a row, on a GPU: flash attention's, which torch has.

No mask is written, and no score of two texts is computed: the time is that of the texts, not of the square of the row.

B batch, T time, H query heads, G key/value heads, h head dim.
"""

from typing import Protocol

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16)
WIDEST = 256  # channels of a head


class Packed(Protocol):
    """The texts in a batch, as attention is told of them: see `model.packed_texts`."""

    @property
    def mask(self) -> Tensor: ...

    @property
    def bounds(self) -> Tensor: ...


def unsupported_reason(q: Tensor) -> str:
    """The rule that keeps q [B, H, T, h] from `packed_attention`; "" if there is none."""
    if not q.is_cuda:
        return "flash attention is for GPUs"
    if q.dtype not in DTYPES:
        return f"flash attention takes {' or '.join(map(str, DTYPES))}, got {q.dtype}"
    channels = q.shape[-1]
    return (
        "" if channels % 8 == 0 and channels <= WIDEST else f"a head must have 8 to {WIDEST} channels, got {channels}"
    )


def packed_attention(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(h)) v of each text by itself, causal, each G head serving H / G query heads

    q [B, H, T, h]; k, v [B, G, T, h]; bounds int32 [texts + 1] as `Packed` has them. Returns [B, H, T, h], which in
    memory is [B, T, H, h]. Gradients of q, k and v.
    """
    batch, length = q.shape[0], q.shape[2]
    tokens = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
    y = flash_attention(tokens[0], tokens[1], tokens[2], bounds, length)
    return y.view(batch, length, *y.shape[1:]).transpose(1, 2)


def flash_attention(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """The same of [B T, H or G, h];  longest: at least the tokens of the longest text"""
    of_texts = (bounds, bounds, longest, longest)
    outputs: tuple[Tensor, ...] = torch.ops.aten._flash_attention_forward(q, k, v, *of_texts, 0.0, True, False)
    return outputs[0]

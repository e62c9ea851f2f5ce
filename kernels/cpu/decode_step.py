"""All blocks of Llama for one token a row, or a few, in one call of the C library.

B rows, T tokens of each, D model dim, L blocks, G key/value heads, S positions of the cache, h head dim.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from ..weights.linear_with_adapter import BlockWeights
from .library import DTYPES, LinearPart, call
from .linear import describe_parts

SAME_BITS_UP_TO = 8  # rows of x: MAX_ROWS of isa.h


class Sizes(ctypes.Structure):
    """`llama_sizes` of api.h."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("tokens", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("hidden_dim", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("head_dim", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("position", ctypes.c_int64),
        ("eps", ctypes.c_float),
        ("interleaved", ctypes.c_int),
    )


class _Described(ctypes.Structure):
    """`llama_block` of api.h."""

    _fields_ = (
        ("attention_norm", ctypes.c_void_p),
        ("ffn_norm", ctypes.c_void_p),
        ("linears", LinearPart * 7),
    )


class Blocks:
    """Blocks, and the norm [D] behind them, as the library takes them.

    It points to the tensors that it is made of, and keeps them; `copied` says that some of them had to be copied first
    (matrices of an adapter that are not contiguous, or not float32).
    """

    def __init__(self, blocks: Sequence[BlockWeights], norm: Tensor) -> None:
        self.described = (_Described * len(blocks))()
        self.norm = norm
        self.blocks = blocks
        self._alive: list[object] = []
        for block, to in zip(blocks, self.described, strict=True):
            to.attention_norm, to.ffn_norm = block.attention_norm.data_ptr(), block.ffn_norm.data_ptr()
            self._alive += describe_parts(block.linears, to.linears)
        matrices = [
            m for block in blocks for part in block.linears for m in (part.lora_A, part.lora_B) if m is not None
        ]
        self.copied = any(m.dtype != torch.float32 or not m.is_contiguous() for m in matrices)

    def run(
        self, x: Tensor, k: Tensor, v: Tensor, sizes: Sizes, cos: Tensor, sin: Tensor, mask: Tensor | None
    ) -> Tensor:
        """x [B, T, D] -> norm(blocks(x)), of the same shape and dtype

        k, v [L, B, G, S, h] get the tokens' from `sizes.position` on. cos, sin float32 [B, T, 1, h/2]; mask bool
        [B, 1, 1, position + T]. All contiguous. Where B T is at most `SAME_BITS_UP_TO`, a token has the bits
        that it has in a call of its own.
        """
        y = torch.empty_like(x)
        seen = None if mask is None else mask.data_ptr()
        call(
            "llama_step",
            *(self.described, len(self.described), ctypes.byref(sizes), DTYPES[x.dtype]),
            *(cos.data_ptr(), sin.data_ptr(), seen, self.norm.data_ptr()),
            *(k.data_ptr(), v.data_ptr(), x.data_ptr(), y.data_ptr()),
        )
        return y

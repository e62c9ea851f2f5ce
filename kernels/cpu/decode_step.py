"""All blocks of Llama for one token a row, or a few, in one call of the C library.

B rows, T tokens of each, D model dim, L blocks, G key/value heads, S positions of a cache, h head dim.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from ..weights.linear_with_adapter import BlockWeights
from .library import DTYPES, LinearPart, call
from .linear import describe_parts

SAME_BITS_UP_TO = 8  # rows of x: MAX_ROWS of isa.h
MOST_SPANS = 64  # of api.h


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
        ("eps", ctypes.c_float),
        ("interleaved", ctypes.c_int),
    )


class CachedRow(ctypes.Structure):
    """`cached_row` of api.h."""

    _fields_ = (
        ("k", ctypes.c_void_p),
        ("v", ctypes.c_void_p),
        ("layer", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("position", ctypes.c_int64),
        ("mask", ctypes.c_void_p),
    )


def cached_rows(k: Tensor, v: Tensor, position: int, mask: Tensor | None = None) -> list[CachedRow]:
    """The rows of a batch whose next tokens stand at one position of their cache

    k, v  [L, B, G, S, h], contiguous
    mask  bool [B, 1, 1, T], contiguous: which of the first T positions count, the tokens' own among them; None for all
    """
    layer, capacity, row_bytes = k.stride(0), k.shape[3], k.stride(1) * k.itemsize
    rows = []
    for row in range(k.shape[1]):
        seen = None if mask is None else mask.data_ptr() + row * mask.shape[3]
        at = row * row_bytes
        rows.append(CachedRow(k.data_ptr() + at, v.data_ptr() + at, layer, capacity, position, seen))
    return rows


class _AdapterRows(ctypes.Structure):
    """`adapter_rows` of api.h."""

    _fields_ = (("first", ctypes.c_int64), ("end", ctypes.c_int64), ("blocks", ctypes.c_void_p))


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
        self,
        x: Tensor,
        rows: Sequence[CachedRow],
        sizes: Sizes,
        cos: Tensor,
        sin: Tensor,
        spans: Sequence[tuple[int, int, "Blocks"]] = (),
    ) -> Tensor:
        """x [B, T, D] -> norm(blocks(x)), of the same shape and dtype

        rows      the past of each row of x, whose tokens' keys and values are put behind it
        cos, sin  float32 [B, T, 1, h/2]
        spans     (first row, the one behind the last, the same blocks with the adapters of these rows), one behind
                  another, up to `MOST_SPANS`; none: all rows have the adapters of these blocks
        All contiguous. Where B T is at most `SAME_BITS_UP_TO`, and wherever there are spans, a token has the bits that
        it has in a call of its own.
        """
        y = torch.empty_like(x)
        past = (CachedRow * len(rows))(*rows)
        described = [_AdapterRows(first, end, ctypes.addressof(of.described)) for first, end, of in spans]
        of_rows = (_AdapterRows * len(spans))(*described) if spans else None
        call(
            "llama_step",
            *(self.described, len(self.described), ctypes.byref(sizes), DTYPES[x.dtype]),
            *(past, of_rows, len(spans)),
            *(cos.data_ptr(), sin.data_ptr(), self.norm.data_ptr(), x.data_ptr(), y.data_ptr()),
        )
        return y

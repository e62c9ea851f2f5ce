"""Attention in C: causal, in bfloat16, with its gradients; and of one query a row, without, as in decoding.

B batch, T time, H query heads, G key/value heads, S positions that are seen, h head dim.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from .library import BF16_DOTS, DTYPES, MATRIX_UNIT, call, instruction_set, unavailable_reason

WIDEST = 128  # channels of a head
MOST_KEYS = 4  # to a query: beyond, the queries that are computed besides (see `attention`) cost more than is saved
KERNELS = {MATRIX_UNIT: "amx", BF16_DOTS: "bf16"}  # of an instruction set, as the library names them


class Heads(ctypes.Structure):
    """`head_tensor` of api.h."""

    _fields_ = (
        ("first", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("time", ctypes.c_int64),
    )


class Sizes(ctypes.Structure):
    """`attention_sizes` of api.h."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("scale", ctypes.c_float),
    )


class DecodeSizes(ctypes.Structure):
    """`decode_sizes` of api.h."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("batch", "queries", "heads", "kv_heads", "length", "channels"),
            *("batch_stride", "head_stride", "key_stride", "mask_stride"),
        )
    )


def unsupported_reason(q: Tensor, k: Tensor, mask: Tensor | None) -> str:
    """Why attention is not computed here; nothing if it is."""
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        return "it is called by hand, on a CPU"
    if reason := unavailable_reason():
        return reason
    if q.dtype != torch.bfloat16:
        return "it is for bfloat16"
    if (name := instruction_set()) not in KERNELS:
        return f"the instruction set in use, {name}, has no products of bfloat16"
    if mask is not None:
        return "it is causal, without another mask"
    if not q.numel():
        return "there is nothing to attend to"
    if k.shape[2] > MOST_KEYS * q.shape[2]:
        return f"it is for up to {MOST_KEYS} keys to a query"
    return "" if q.shape[3] % 32 == 0 and q.shape[3] <= WIDEST else f"a head must have 32, 64, 96 or {WIDEST} channels"


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(h)) v over the keys up to the query's own, each G head serving H / G query heads

    q [B, H, T, h], k, v [B, G, S, h], bfloat16, such that `unsupported_reason` has none; query t is at position
    S - T + t. The library has a query a key: queries of zeros stand for those that are not asked for, and each of the
    others has the bits that it has among all. Returns [B, H, T, h], which in memory is [B, S, H, h], as are the
    gradients.
    """
    batch, heads, queries, channels = q.shape
    before = k.shape[2] - queries
    if before:
        q = torch.cat([q.new_zeros(batch, heads, before, channels), q], dim=2)
    y: Tensor = _Attention.apply(q, k, v)  # type: ignore[no-untyped-call]
    return y[:, :, before:]


def decode_unsupported_reason(q: Tensor, k: Tensor, v: Tensor) -> str:
    """Why attention of one query a row is not computed here; nothing if it is."""
    if not q.is_cpu or torch.compiler.is_compiling():
        return "it is called by hand, on a CPU"
    if reason := unavailable_reason():
        return reason
    if q.dtype not in DTYPES or not q.dtype == k.dtype == v.dtype:
        return "it is for bfloat16, float16 and float32"
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return "it has no gradient"
    if not k.numel():
        return "there is nothing to attend to"
    return "" if q.shape[2] == 1 else "it is for one query a row"


def decode_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(h)) v over all S, or those that the mask shows, each G head serving H / G query heads

    q [B, H, 1, h]; k, v [B, G, S, h], such that `decode_unsupported_reason` has none: a cache, as it lies; mask bool
    [B or 1, 1, 1, S]. What it hides is not read, and a row that may look nowhere gives NaN. Returns [B, H, 1, h].
    """
    q = q.contiguous()
    strides = k.stride()
    if strides[3] != 1 or v.stride() != strides:
        k, v = k.contiguous(), v.contiguous()
        strides = k.stride()
    batch, heads, _, channels = q.shape
    _, kv_heads, length, _ = k.shape
    seen, mask_stride = None, 0
    if mask is not None:
        mask = mask.contiguous()
        seen, mask_stride = mask.data_ptr(), length if len(mask) > 1 else 0
    y = torch.empty_like(q)
    sizes = DecodeSizes(batch, 1, heads, kv_heads, length, channels, *strides[:3], mask_stride)
    pointers = q.data_ptr(), k.data_ptr(), v.data_ptr(), seen, y.data_ptr()
    call("decode_attention", ctypes.byref(sizes), DTYPES[q.dtype], *pointers)
    return y


class _Attention(torch.autograd.Function):
    """Kept: q, k, v, y, and a logarithm for each row of scores, from which backward computes them again."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (_with_whole_rows(x) for x in (q, k, v))
        y, logarithms = _like(q), torch.empty(q.shape[:3], dtype=torch.float32)
        call(
            f"attention_{KERNELS[instruction_set()]}",
            _sizes(q, k),
            _heads(q),
            _heads(k),
            _heads(v),
            _heads(y),
            logarithms.data_ptr(),
        )
        ctx.save_for_backward(q, k, v, y, logarithms)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, y, logarithms = ctx.saved_tensors
        dy, gradients = _with_whole_rows(dy), (_like(q), _like(k), _like(v))
        inputs = [_heads(x) for x in (q, k, v, y)]
        outputs = [_heads(x) for x in (dy, *gradients)]
        call(f"attention_{KERNELS[instruction_set()]}_backward", _sizes(q, k), *inputs, logarithms.data_ptr(), *outputs)
        return gradients


def _with_whole_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _like(x: Tensor) -> Tensor:
    """[B, H, T, h], laid out as [B, T, H, h]."""
    batch, heads, length, channels = x.shape
    return torch.empty(batch, length, heads, channels, dtype=x.dtype).transpose(1, 2)


def _heads(x: Tensor) -> Any:
    return ctypes.byref(Heads(x.data_ptr(), *x.stride()[:3]))


def _sizes(q: Tensor, k: Tensor) -> Any:
    batch, heads, length, channels = q.shape
    return ctypes.byref(Sizes(batch, heads, k.shape[1], length, channels, channels**-0.5))

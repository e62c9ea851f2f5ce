"""The C functions that have the same bits on every processor: `src/exact/exact.h` has their rules. No gradients here.

Every tensor is float32 on a CPU. M rows, N columns, K terms; D channels of a row, V vocabulary; B batch, T time,
H query heads, G key/value heads, h head dim.
"""

import ctypes
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .library import call

CHUNK = 64  # terms of a product that are summed from zero: EXACT_CHUNK of exact.h
FUNCTIONS = ("exp", "log", "cos", "sin")  # of enum exact_function
Function = Literal["exp", "log", "cos", "sin"]


class Matrix(ctypes.Structure):
    """`exact_matrix` of api.h."""

    _fields_ = (("at", ctypes.c_void_p), ("row", ctypes.c_int64), ("column", ctypes.c_int64))


class Heads(ctypes.Structure):
    """`exact_heads` of api.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("batch", "heads", "kv_heads", "length", "channels"))


class AdamW(ctypes.Structure):
    """`exact_adamw` of api.h."""

    _fields_ = tuple(
        (name, ctypes.c_float)
        for name in ("beta1", "one_less_beta1", "beta2", "one_less_beta2", "kept", "step", "root", "eps")
    )


def product(a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
    """C = A B, or with `add` C = C + A B, in `out` where that is given;  A [M, K], B [K, N] in any strides -> [M, N]

    K is summed in chunks of CHUNK terms, each added to C: the parts of a K that is cut at multiples of it, added one
    after another, have the bits of the whole.
    """
    (m, terms), n = a.shape, b.shape[1]
    assert out is not None or not add
    c = torch.empty(m, n) if out is None else out
    assert b.shape[0] == terms and c.shape == (m, n) and (n == 1 or c.stride(1) == 1)
    assert a.dtype == b.dtype == c.dtype == torch.float32 and a.is_cpu and b.is_cpu and c.is_cpu
    left, right = (ctypes.byref(Matrix(one.data_ptr(), *one.stride())) for one in (a, b))
    stride = c.stride(0) if m > 1 else n
    call("exact_product", left, right, m, n, terms, c.data_ptr(), stride, add)
    return c


def function(name: Function, x: Tensor) -> Tensor:
    """y = f(x), x of any shape; log of numbers above 0, cos and sin of numbers below 2^20 in magnitude"""
    x = _numbers(x)
    y = torch.empty_like(x)
    call("exact_function", FUNCTIONS.index(name), x.data_ptr(), x.numel(), y.data_ptr())
    return y


def total(x: Tensor, y: Tensor | None = None) -> float:
    """sum of x[i], or of x[i] y[i], in double"""
    x, y = _numbers(x), None if y is None else _numbers(y)
    assert y is None or y.numel() == x.numel()
    found = ctypes.c_double()
    call("exact_sum", x.data_ptr(), None if y is None else y.data_ptr(), x.numel(), ctypes.byref(found))
    return found.value


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """rstd = 1 / sqrt(mean(x^2) + eps), y = x rstd weight;  x [*, D], weight [D] -> y [*, D], rstd [M]"""
    x, weight = _numbers(x), _numbers(weight)
    y, rstd = torch.empty_like(x), torch.empty(x.numel() // x.shape[-1])
    pointers = rstd.data_ptr(), y.data_ptr()
    call("exact_rms_norm", x.data_ptr(), weight.data_ptr(), len(rstd), x.shape[-1], eps, *pointers)
    return y, rstd


def rms_norm_backward(dy: Tensor, x: Tensor, rstd: Tensor, weight: Tensor) -> Tensor:
    """dx = rstd (weight dy - n mean(weight dy n)), n = x rstd;  [*, D]"""
    dy, x, weight = _numbers(dy), _numbers(x), _numbers(weight)
    dx = torch.empty_like(x)
    pointers = dy.data_ptr(), x.data_ptr(), rstd.data_ptr(), weight.data_ptr()
    call("exact_rms_norm_backward", *pointers, len(rstd), x.shape[-1], dx.data_ptr())
    return dx


def rope(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool) -> Tensor:
    """(a, b) -> (a cos - b sin, a sin + b cos), or with `inverse` -sin, for each pair of channels

    x [B, T, H, h]; cos, sin [B, T, h/2].
    """
    x, cos, sin = _numbers(x), _numbers(cos), _numbers(sin)
    batch, time, heads, channels = x.shape
    assert cos.numel() == sin.numel() == batch * time * channels // 2
    y = torch.empty_like(x)
    sizes = batch * time, heads, channels, interleaved, inverse
    call("exact_rope", x.data_ptr(), *sizes, cos.data_ptr(), sin.data_ptr(), y.data_ptr())
    return y


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up"""
    gate, up = _numbers(gate), _numbers(up)
    y = torch.empty_like(gate)
    call("exact_swiglu", gate.data_ptr(), up.data_ptr(), gate.numel(), y.data_ptr())
    return y


def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """dgate = dy up silu'(gate), dup = dy silu(gate)"""
    dy, gate, up = _numbers(dy), _numbers(gate), _numbers(up)
    dgate, dup = torch.empty_like(gate), torch.empty_like(gate)
    pointers = dy.data_ptr(), gate.data_ptr(), up.data_ptr()
    call("exact_swiglu_backward", *pointers, gate.numel(), dgate.data_ptr(), dup.data_ptr())
    return dgate, dup


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """loss[m] = log sum_v exp(logits[m, v]) - logits[m, targets[m]];  logits become softmax(logits) - one_hot(target)

    logits [M, V] contiguous; targets int64 [M], each one of the vocabulary. Returns [M].
    """
    rows, vocabulary = logits.shape
    assert logits.is_contiguous() and logits.dtype == torch.float32 and targets.shape == (rows,)
    assert rows == 0 or (int(targets.min()) >= 0 and int(targets.max()) < vocabulary)
    losses, targets = torch.empty(rows), targets.contiguous()
    call("exact_cross_entropy", logits.data_ptr(), rows, vocabulary, targets.data_ptr(), losses.data_ptr())
    return losses


def attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(h)) v over keys starts[b, t] .. t of query t, each G head serving H / G query heads

    q [B, H, T, h]; k, v [B, G, T, h]; starts int64 [B, T], or None for 0. Returns [B, H, T, h].
    """
    q, k, v = _numbers(q), _numbers(k), _numbers(v)
    y, starts = torch.empty_like(q), None if starts is None else starts.contiguous()
    pointers = q.data_ptr(), k.data_ptr(), v.data_ptr(), None if starts is None else starts.data_ptr()
    call("exact_attention", _heads(q, k, starts), *pointers, y.data_ptr())
    return y


class AttentionGradients(NamedTuple):
    """The gradients of q [B, H, T, h], and of k and v [B, G, T, h]."""

    dq: Tensor
    dk: Tensor
    dv: Tensor


def attention_backward(dy: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> AttentionGradients:
    """The gradients of `attention`, of whose scores nothing is kept: they are computed again."""
    dy, q, k, v = _numbers(dy), _numbers(q), _numbers(k), _numbers(v)
    starts = None if starts is None else starts.contiguous()
    gradients = AttentionGradients(torch.empty_like(q), torch.empty_like(k), torch.empty_like(v))
    pointers = *(one.data_ptr() for one in (dy, q, k, v)), None if starts is None else starts.data_ptr()
    call("exact_attention_backward", _heads(q, k, starts), *pointers, *(one.data_ptr() for one in gradients))
    return gradients


def adamw(constants: AdamW, gradient: Tensor, parameter: Tensor, m: Tensor, v: Tensor) -> None:
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p = kept p - step m / (sqrt(v) / root + eps), in place"""
    gradient = _numbers(gradient)
    for one in (parameter, m, v):
        assert one.is_contiguous() and one.dtype == torch.float32 and one.shape == gradient.shape
    pointers = parameter.data_ptr(), m.data_ptr(), v.data_ptr()
    call("exact_adamw", ctypes.byref(constants), gradient.data_ptr(), gradient.numel(), *pointers)


def _heads(q: Tensor, k: Tensor, starts: Tensor | None) -> object:
    batch, heads, length, channels = q.shape
    assert k.shape == (batch, k.shape[1], length, channels) and heads % k.shape[1] == 0
    assert starts is None or (starts.shape == (batch, length) and starts.dtype == torch.int64)
    return ctypes.byref(Heads(batch, heads, k.shape[1], length, channels))


def _numbers(x: Tensor) -> Tensor:
    """x, contiguous."""
    assert x.dtype == torch.float32 and x.is_cpu
    return x.contiguous()

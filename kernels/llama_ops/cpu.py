"""The operations of Llama between its products, on a CPU: in C, or in pieces that fit the cache.

    kept       rms_norm: h and 1 / sqrt(mean(h^2) + eps)       rope: the angles       swiglu: gate and up

Each is `fused_reference`'s equation, computed in float32 (float64 for float64) and rounded once. It is one pass in C
where that was compiled and takes the dtype; else in torch, norms a piece of rows at a time, whose float32 copies never
leave the cache. torch.compile is shown the equation itself, which it fuses in its own way.
`CPU_OPS` holds them as `Llama(config, ops=...)` takes them; attention is `cpu.attention` where that has no objection,
and torch's own elsewhere.

Why it exists: norm, rotary positions, SwiGLU and the loss do few operations on each number, so they take as long as
memory does. The alternative is plain torch (`model.llama.TORCH_OPS`): the same equations in several passes, with
float32 copies of all activations, some of which autograd keeps. One pass reads and writes every number once, and keeps
only what the equations of the gradient need. The cost: for each operation an autograd function with a gradient written
by hand, two implementations (C and chunked torch) that must agree with the reference, and a C signature to keep in
step. Attention that is not causal, or has a mask, is left to torch.

M rows, D channels, V vocabulary, B batch, T time, H heads, h head dim.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cpu import attention as in_c
from ..cpu import library
from ..reference import llama_ops as fused_reference
from ..reference.llama_ops import IGNORED, wide_dtype
from . import cuda
from .packed_attention import Packed

PIECE = 1 << 17  # numbers of a piece: half a megabyte in float32
PIECE_OF_LOGITS = 1 << 19


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """y = x / sqrt(mean(x^2) + eps) * weight    (arXiv 1910.07467);  x [*, D], weight [D]"""
    return rms_norm_and_x(x, weight, eps)[0]


def rms_norm_and_x(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x), x)"""
    if torch.compiler.is_compiling():
        return fused_reference.rms_norm(x, None, weight, eps)[0], x
    if not torch.is_grad_enabled() or not _has_gradient(x, weight):
        return _rms_norm(x, None, weight, eps, with_rstd=False)[0], x
    y: Tensor = _RMSNorm.apply(x, None, weight, eps)  # type: ignore[no-untyped-call]
    return y, x


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """h = x + residual;  (rms_norm(h), h)"""
    if torch.compiler.is_compiling():
        return fused_reference.rms_norm(x, residual, weight, eps)[:2]
    if not torch.is_grad_enabled() or not _has_gradient(x, residual, weight):
        return _rms_norm(x, residual, weight, eps, with_rstd=False)[:2]
    y, h = _RMSNorm.apply(x, residual, weight, eps)  # type: ignore[no-untyped-call]
    return y, h


class _RMSNorm(torch.autograd.Function):
    """dx = rstd * (weight dy - n * mean(weight dy n)) + dh,  dweight = sum of dy n over rows,  n = h rstd"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Any:
        y, h, rstd = _rms_norm(x, residual, weight, eps, with_rstd=True)
        ctx.save_for_backward(h, rstd, weight)
        return y if residual is None else (y, h)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor | None = None) -> tuple[Tensor | None, ...]:
        h, rstd, weight = ctx.saved_tensors
        dx, dweight = _rms_norm_backward(dy, dh, h, rstd, weight, ctx.needs_input_grad[2])
        return dx, dx if ctx.needs_input_grad[1] else None, dweight, None


def _rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, with_rstd: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, h, and rstd [M, 1]: in C where that was compiled and takes the dtype; else in torch, rstd at any rate."""
    operands = (x, weight) if residual is None else (x, weight, residual)
    channels = x.shape[-1]
    rows = x.numel() // channels
    if _can_run_in_c(*operands) and (residual is None or residual.shape == x.shape):
        rstd = torch.empty(rows, 1, dtype=torch.float32) if with_rstd else None
        x, weight = x.contiguous(), weight.contiguous()
        y, h, added = torch.empty_like(x), x, None
        if residual is not None:
            residual, h = residual.contiguous(), torch.empty_like(x)
            added = residual.data_ptr()
        sizes = library.DTYPES[x.dtype], rows, channels, eps
        outputs = h.data_ptr(), None if rstd is None else rstd.data_ptr(), y.data_ptr()
        library.call("rms_norm", x.data_ptr(), added, weight.data_ptr(), *sizes, *outputs)
        return y, h, rstd
    wide = wide_dtype(x)
    rstd = torch.empty(rows, 1, dtype=wide, device=x.device)
    h = x if residual is None else x + residual
    y = torch.empty(h.shape, dtype=h.dtype, device=h.device)
    h_rows, y_rows, scale = h.reshape(-1, channels), y.view(-1, channels), weight.to(wide)
    for piece in _pieces(h_rows):
        wide_h = h_rows[piece].to(wide)
        torch.rsqrt(wide_h.square().mean(-1, keepdim=True).add_(eps), out=rstd[piece])
        y_rows[piece] = (wide_h * rstd[piece]).mul_(scale)
    return y, h, rstd


def _rms_norm_backward(
    dy: Tensor, dh: Tensor | None, h: Tensor, rstd: Tensor, weight: Tensor, with_dweight: bool
) -> tuple[Tensor, Tensor | None]:
    if _can_run_in_c(dy, h, weight):
        dy, h, weight = (tensor.contiguous() for tensor in (dy, h, weight))
        dh = None if dh is None else dh.contiguous()
        dx = torch.empty(h.shape, dtype=h.dtype)
        dweight = torch.empty(weight.shape, dtype=torch.float32) if with_dweight else None
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in (dy, dh, h, rstd, weight, dx, dweight)]
        sizes = library.DTYPES[h.dtype], len(rstd), h.shape[-1]
        library.call("rms_norm_backward", *pointers[:5], *sizes, *pointers[5:])
        return dx, None if dweight is None else dweight.to(weight.dtype)
    rows, dy_rows = h.reshape(-1, h.shape[-1]), dy.reshape(-1, h.shape[-1])
    dx, scale = torch.empty_like(rows), weight.to(rstd.dtype)
    dweight = torch.zeros_like(scale) if with_dweight else None
    for piece in _pieces(rows):
        normed, wide_dy = rows[piece].to(rstd.dtype) * rstd[piece], dy_rows[piece].to(rstd.dtype)
        if dweight is not None:
            dweight += (wide_dy * normed).sum(0)
        dnormed = wide_dy * scale
        shared = (dnormed * normed).mean(-1, keepdim=True)
        dx[piece] = dnormed.addcmul_(normed, shared, value=-1).mul_(rstd[piece])
    dx = dx.view(h.shape) if dh is None else dx.view(h.shape) + dh
    return dx, None if dweight is None else dweight.to(weight.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor, layout: Literal["interleaved", "half"]) -> Tensor:
    """(a, b) -> (a cos - b sin, a sin + b cos) for each pair of channels    (arXiv 2104.09864)

    x [B, T, H, h]; cos, sin float32 [B, T, 1, h/2]. A pair is a complex number a + ib, turned by cos + i sin.
    """
    if torch.compiler.is_compiling():
        return fused_reference.rope(x, cos, sin, layout == "interleaved", inverse=False)
    if not torch.is_grad_enabled() or not _has_gradient(x):
        return _turned(x, cos, sin, layout, inverse=False)
    y: Tensor = _Rope.apply(x, cos, sin, layout)  # type: ignore[no-untyped-call]
    return y


def rope_pair(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, layout: Literal["interleaved", "half"]
) -> tuple[Tensor, Tensor]:
    """(rope(q), rope(k));  q [B, T, H, h], k [B, T, G, h]"""
    is_plain = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if not (is_plain and cos.dtype == sin.dtype == torch.float32 and _can_run_in_c(q, k)):
        return rope(q, cos, sin, layout), rope(k, cos, sin, layout)
    return _turned_in_c(q, cos, sin, layout, inverse=False), _turned_in_c(k, cos, sin, layout, inverse=False)


class _Rope(torch.autograd.Function):
    """The gradient is turned back: by cos - i sin."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
        ctx.layout = layout
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, layout, inverse=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(dy, cos, sin, ctx.layout, inverse=True), None, None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, layout: str, inverse: bool) -> Tensor:
    """In C where that was compiled and takes the dtype; else in torch."""
    if _can_run_in_c(x) and cos.dtype == sin.dtype == torch.float32:
        return _turned_in_c(x, cos, sin, layout, inverse)
    wide, sin = wide_dtype(x), -sin if inverse else sin
    if layout == "interleaved":
        pairs = x.to(wide, copy=True, memory_format=torch.contiguous_format).unflatten(-1, (-1, 2))
        turn = torch.complex(cos.to(wide), sin.to(wide))
        return torch.view_as_real(torch.view_as_complex(pairs).mul_(turn)).flatten(-2).to(x.dtype)
    a, b = x.to(wide).chunk(2, dim=-1)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    y[..., : a.shape[-1]] = (a * cos).addcmul_(b, sin, value=-1)
    y[..., a.shape[-1] :] = (a * sin).addcmul_(b, cos)
    return y


def _turned_in_c(x: Tensor, cos: Tensor, sin: Tensor, layout: str, inverse: bool) -> Tensor:
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    y, (*positions, heads, channels) = torch.empty_like(x), x.shape
    sizes = math.prod(positions), heads, channels, layout == "interleaved", inverse
    pointers = cos.data_ptr(), sin.data_ptr(), y.data_ptr()
    library.call("rope", x.data_ptr(), library.DTYPES[x.dtype], *sizes, *pointers)
    return y


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up    (arXiv 2002.05202);  [*, F] each"""
    if torch.compiler.is_compiling():
        return fused_reference.swiglu(gate, up)
    if not torch.is_grad_enabled() or not _has_gradient(gate, up):
        return _gated(gate, up)
    y: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return y


class _SwiGLU(torch.autograd.Function):
    """dgate = dy up silu'(gate),  dup = dy silu(gate), which is computed again"""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _gated(gate, up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        if _can_run_in_c(dy, gate, up):
            dy, gate, up = (tensor.contiguous() for tensor in (dy, gate, up))
            dgate, dup = (torch.empty(gate.shape, dtype=gate.dtype) for _ in range(2))
            pointers, kind = (dy.data_ptr(), gate.data_ptr(), up.data_ptr()), library.DTYPES[gate.dtype]
            library.call("swiglu_backward", *pointers, kind, gate.numel(), dgate.data_ptr(), dup.data_ptr())
            return dgate, dup
        return torch.ops.aten.silu_backward(dy * up, gate), F.silu(gate).mul_(dy)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    if not _can_run_in_c(gate, up):
        return F.silu(gate).mul_(up)
    gate, up = gate.contiguous(), up.contiguous()
    y = torch.empty_like(gate)
    kind, count = library.DTYPES[gate.dtype], gate.numel()
    library.call("swiglu", gate.data_ptr(), up.data_ptr(), kind, count, y.data_ptr())
    return y


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Packed | None) -> Tensor:
    """softmax(q k^T / sqrt(h)) v, each G head serving H / G query heads; mask None is the causal one of the last T of S

    q [B, H, T, h]; k, v [B, G, S, h]; mask [B or 1, 1, T, S], true where a query may look. Returns [B, H, T, h].
    """
    mask = mask if mask is None or isinstance(mask, Tensor) else mask.mask
    if q.shape[2] == 1 and not in_c.decode_unsupported_reason(q, k, v):
        return in_c.decode_attention(q, k, v, mask)
    return cuda.attention(q, k, v, mask) if in_c.unsupported_reason(q, k, mask) else in_c.attention(q, k, v)


def cross_entropy_(logits: Tensor, targets: Tensor, with_gradient: bool) -> Tensor:
    """loss[m] = log sum_v exp(logits[m, v]) - logits[m, target[m]];  dlogits = softmax(logits) - one_hot(target)

    logits [M, V], which then hold dlogits; targets int64 [M], rows of -100 have loss and gradient 0. Returns [M].
    """
    if _can_run_in_c(logits) and logits.is_contiguous() and _is_known(targets, logits.shape[1]):
        losses, targets = torch.empty(len(logits), dtype=torch.float32), targets.contiguous()
        sizes = library.DTYPES[logits.dtype], *logits.shape
        rule = IGNORED, with_gradient, losses.data_ptr()
        library.call("cross_entropy", logits.data_ptr(), *sizes, targets.data_ptr(), *rule)
        return losses
    losses = torch.empty(len(logits), dtype=wide_dtype(logits))
    rows = max(1, PIECE_OF_LOGITS // logits.shape[1])
    buffer = torch.empty(min(rows, len(logits)), logits.shape[1], dtype=losses.dtype)
    for start in range(0, len(logits), rows):
        piece = slice(start, start + rows)
        z, target = buffer[: len(logits[piece])].copy_(logits[piece]), targets[piece, None]
        ignored = target == IGNORED
        column = target.masked_fill(ignored, 0)
        largest, chosen = z.amax(1, keepdim=True), z.gather(1, column)
        total = z.sub_(largest).exp_().sum(1, keepdim=True)
        losses[piece] = (total.log() + largest - chosen).masked_fill_(ignored, 0.0)[:, 0]
        if with_gradient:
            z.mul_(torch.where(ignored, 0.0, 1 / total))
            z.scatter_add_(1, column, ignored.to(z.dtype) - 1)
            logits[piece] = z
    return losses


class CpuOps:
    """The operations under the names that Llama calls."""

    rms_norm = staticmethod(rms_norm)
    rms_norm_and_x = staticmethod(rms_norm_and_x)
    add_rms_norm = staticmethod(add_rms_norm)
    rope = staticmethod(rope)
    rope_pair = staticmethod(rope_pair)
    swiglu = staticmethod(swiglu)
    attention = staticmethod(attention)


CPU_OPS = CpuOps()


def _has_gradient(*tensors: Tensor) -> bool:
    """True if one of them has a gradient: without one an operation is called without autograd."""
    return any(tensor.requires_grad for tensor in tensors)


def _is_known(targets: Tensor, vocabulary: int) -> bool:
    """True if every target is a token or ignored: torch refuses any other in its own words."""
    counted = targets[targets != IGNORED]
    return bool(((counted >= 0) & (counted < vocabulary)).all())


def _can_run_in_c(*tensors: Tensor) -> bool:
    """True if the C library was built and takes the dtype and device that the tensors share."""
    dtype = tensors[0].dtype
    if dtype not in library.DTYPES or library.unavailable_reason():
        return False
    for tensor in tensors:  # noqa: SIM110  (a generator would be a call for each, in every operation of every block)
        if tensor.dtype is not dtype or not tensor.is_cpu:
            return False
    return True


def _pieces(rows: Tensor) -> Iterator[slice]:
    step = max(1, PIECE // rows.shape[1])
    return (slice(start, start + step) for start in range(0, len(rows), step))

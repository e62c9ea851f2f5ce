"""Llama between its products, with the same bits on every processor, and the gradients.

The equations are those of `model.llama.TorchOps`; weights of norms and of the output head have no gradient.
M rows, D channels, V vocabulary; B batch, T time, H query heads, G key/value heads, h head dim.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from ..cpu import exact
from ..llama_ops.linear_cross_entropy import rows_of_a_chunk


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """y = x / sqrt(mean(x^2) + eps) * weight    (arXiv 1910.07467);  x [*, D], weight [D]"""
    y: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, rstd = exact.rms_norm(x, weight, eps)
        ctx.save_for_backward(x, rstd, weight)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return exact.rms_norm_backward(dy, *ctx.saved_tensors), None, None


def rope(x: Tensor, cos: Tensor, sin: Tensor, layout: Literal["interleaved", "half"]) -> Tensor:
    """(a, b) -> (a cos - b sin, a sin + b cos) for each pair of channels    (arXiv 2104.09864)

    x [B, T, H, h]; cos, sin [B, T, 1, h/2].
    """
    y: Tensor = _Rope.apply(x, cos, sin, layout == "interleaved")  # type: ignore[no-untyped-call]
    return y


class _Rope(torch.autograd.Function):
    """The gradient is turned back: by cos - i sin."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
        ctx.interleaved = interleaved
        ctx.save_for_backward(cos, sin)
        return exact.rope(x, cos, sin, interleaved, inverse=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return exact.rope(dy, cos, sin, ctx.interleaved, inverse=True), None, None, None


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up    (arXiv 2002.05202);  [*, F] each"""
    y: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return exact.swiglu(gate, up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        return exact.swiglu_backward(dy, *ctx.saved_tensors)


def attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(h)) v over keys starts[b, t] .. t of query t, each G head serving H / G query heads

    q [B, H, T, h]; k, v [B, G, T, h]; starts int64 [B, T], or None for 0. Returns [B, H, T, h].
    """
    y: Tensor = _Attention.apply(q, k, v, starts)  # type: ignore[no-untyped-call]
    return y


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v, starts)
        return exact.attention(q, k, v, starts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        return *exact.attention_backward(dy, *ctx.saved_tensors), None


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """sum over m of -log softmax(x W^T)[m, targets[m]], in nats, of some rows of logits at a time

    hidden [M, D], weight [V, D] without a gradient, targets int64 [M]: tokens. Returns float32 [].
    """
    nats: Tensor = _HeadLoss.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return nats


class _HeadLoss(torch.autograd.Function):
    """dx = dloss (softmax(z) - one_hot(target)) W, made beside the loss, in the memory of its logits"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dx, losses, step = torch.empty_like(x), torch.empty(len(x)), rows_of_a_chunk(len(weight))
        for first in range(0, len(x), step):
            chunk = slice(first, first + step)
            logits = exact.product(x[chunk], weight.T)
            losses[chunk] = exact.cross_entropy_(logits, targets[chunk])
            if ctx.needs_input_grad[0]:
                exact.product(logits, weight, dx[chunk])
        ctx.save_for_backward(dx)
        return torch.tensor(exact.total(losses), dtype=torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, None, None]:
        (dx,) = ctx.saved_tensors
        return dloss * dx, None, None

"""The plain-torch truth of the fused operations, forward and backward. Never imports Triton.

Everything is computed in float32, or in float64 for float64 inputs, and rounded once to the dtype of the input.
B batch, M rows, D channels, H query heads, G key/value heads, h head dim, S positions, V vocabulary.
"""

import torch
from torch import Tensor

IGNORED = -100  # the target of a row that is not learned from


def wide_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which operations on x are computed: float32, or float64 if x is float64."""
    return torch.promote_types(x.dtype, torch.float32)


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """h = x + residual,  y = h * rstd * weight,  rstd = 1 / sqrt(mean(h^2) + eps)    (arXiv 1910.07467)

    x, residual [*, D];  weight [D].  Returns y [*, D], h [*, D], rstd [*].
    Rounded once, after the product with weight, as every kernel does it. Meta's code, and with it the `TorchOps` of
    `model.llama`, rounds h * rstd first. Neither folder imports the other, so there are two; a test holds them equal
    in float64, where neither rounds to a narrower dtype.
    """
    h = x if residual is None else x + residual
    wide = h.to(wide_dtype(h))
    rstd = torch.rsqrt(wide.pow(2).mean(-1) + eps)
    return (wide * rstd[..., None] * weight.to(wide.dtype)).to(x.dtype), h, rstd


def rms_norm_backward(
    dy: Tensor, dh: Tensor | None, h: Tensor, rstd: Tensor, weight: Tensor, with_dweight: bool
) -> tuple[Tensor, Tensor]:
    """dx = rstd * (weight dy - n * mean(weight dy n)) + dh,  dweight = sum of dy n over rows,  n = h rstd

    dy, dh, h [*, D];  rstd [*];  weight [D].  Returns dx [*, D], dweight [D] or empty [0].
    """
    wide = rstd.dtype
    normed = h.to(wide) * rstd[..., None]
    dnormed = weight.to(wide) * dy.to(wide)
    dx = rstd[..., None] * (dnormed - normed * (dnormed * normed).mean(-1, keepdim=True))
    if dh is not None:
        dx = dx + dh.to(wide)
    if not with_dweight:
        return dx.to(h.dtype), weight.new_empty(0)
    return dx.to(h.dtype), (dy.to(wide) * normed).flatten(0, -2).sum(0).to(weight.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool) -> Tensor:
    """(a, b) -> (a cos - b sin, a sin + b cos); the inverse has -sin    (arXiv 2104.09864)

    x [*, H, h];  cos, sin [*, 1, h/2]. The pairs are channels (2i, 2i+1) if interleaved, else (i, i + h/2).
    """
    if inverse:
        sin = -sin
    pair = -1 if interleaved else -2
    a, b = x.to(wide_dtype(x)).unflatten(-1, (-1, 2) if interleaved else (2, -1)).unbind(pair)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=pair).flatten(-2).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """y = silu(gate) up,  silu(g) = g sigmoid(g)    (arXiv 2002.05202)"""
    wide = gate.to(wide_dtype(gate))
    return (wide * torch.sigmoid(wide) * up.to(wide.dtype)).to(gate.dtype)


def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """dgate = dy up sigmoid(gate) (1 + gate (1 - sigmoid(gate))),  dup = dy silu(gate)"""
    wide = gate.to(wide_dtype(gate))
    dy, sigmoid = dy.to(wide.dtype), torch.sigmoid(wide)
    dgate = dy * up.to(wide.dtype) * sigmoid * (1 + wide * (1 - sigmoid))
    return dgate.to(gate.dtype), (dy * wide * sigmoid).to(up.dtype)


def decode_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """y = softmax(q k^T / sqrt(h)) v over what the mask lets through, each G head serving H / G query heads

    q [B, H, 1, h];  k, v [B, G, S, h];  mask bool [B or 1, 1, 1, S].  Returns [B, H, 1, h].
    """
    wide, group = wide_dtype(q), q.shape[1] // k.shape[1]
    k, v = (x.to(wide).repeat_interleave(group, dim=1) for x in (k, v))
    scores = (q.to(wide) @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    y: Tensor = scores.softmax(-1) @ v
    return y.to(q.dtype)


def cross_entropy_(logits: Tensor, targets: Tensor, with_gradient: bool) -> Tensor:
    """loss[m] = log sum_v exp(logits[m, v]) - logits[m, target[m]];  dlogits = softmax(logits) - one_hot(target)

    logits [M, V], which then hold dlogits; targets int64 [M], rows of -100 have loss and gradient 0.
    Returns the loss of each row [M].
    """
    ignored = targets == IGNORED
    column = targets.masked_fill(ignored, 0)[:, None]
    log_softmax = logits.to(wide_dtype(logits)).log_softmax(-1)
    losses = -log_softmax.gather(1, column)[:, 0].masked_fill(ignored, 0.0)
    if with_gradient:
        gradient = log_softmax.exp_()
        gradient.scatter_add_(1, column, gradient.new_full(column.shape, -1.0))
        logits.copy_(gradient.masked_fill_(ignored[:, None], 0.0))
    return losses

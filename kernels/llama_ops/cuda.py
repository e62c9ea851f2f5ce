"""The operations of Llama between its matrix products, each as one operator of torch with its gradient.

    rms_norm, add_rms_norm, rope, rope_pair, swiglu     on a CUDA device Triton, elsewhere `reference.llama_ops`
    attention                                           torch's own scaled dot product; for one query Triton; for texts
                                                        of different lengths in a row torch's flash attention

`CUDA_OPS` holds them as `Llama(config, ops=...)` takes them. As operators with fakes they are single nodes to
torch.compile, and on a GPU one launch each, which CUDA graphs can hold.

B batch, T time, H query heads, G key/value heads, h head dim, D model dim, F ffn hidden, S positions that are seen.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operators import llama_ops
from ..reference.llama_ops import wide_dtype
from . import packed_attention
from .packed_attention import Packed

CUDA_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """y = x / sqrt(mean(x^2) + eps) * weight    (arXiv 1910.07467)

    x [*, D], weight [D], of one dtype.  Raises ValueError for another shape or dtype.
    """
    _check_norm(x, weight)
    y: Tensor = llama_ops.rms_norm(x, weight, eps)[0]
    return y


def rms_norm_and_x(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x), x): what reaches x by its other way is added in the norm's own gradient, not by autograd"""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and x.requires_grad):
        return rms_norm(x, weight, eps), x
    _check_norm(x, weight)
    y, same = _NormAndX.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return y, same


class _NormAndX(torch.autograd.Function):
    """dx = dx of the norm + what reaches x beside it"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        y, rstd = llama_ops.rms_norm(x, weight, eps)
        ctx.save_for_backward(x, rstd, weight)
        return y, x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dx: Tensor | None) -> tuple[Tensor | None, ...]:
        return *llama_ops.norm_gradients(dy, dx, ctx.saved_tensors, ctx.needs_input_grad[1]), None


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """h = x + residual;  (rms_norm(h), h), in one pass

    x, residual [*, D], weight [D], of one dtype.  Raises ValueError for another shape or dtype.
    """
    _check_norm(x, weight)
    _check_same(x, residual, "x", "residual")
    y, h, _ = llama_ops.add_rms_norm(x, residual, weight, eps)
    return y, h


def rope(x: Tensor, cos: Tensor, sin: Tensor, layout: Literal["interleaved", "half"]) -> Tensor:
    """(a, b) -> (a cos - b sin, a sin + b cos) for each pair of channels    (arXiv 2104.09864)

    x [B, T, H, h]; cos, sin float32 [B, T, 1, h/2]. The pairs are (2i, 2i+1), or (i, i + h/2).
    Raises ValueError for another shape or dtype.
    """
    _check_turned(x, cos, sin, layout)
    y: Tensor = llama_ops.rope(x, cos, sin, layout == "interleaved", False)
    return y


def rope_pair(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, layout: Literal["interleaved", "half"]
) -> tuple[Tensor, Tensor]:
    """(rope(q), rope(k)) in one launch;  q [B, T, H, h], k [B, T, G, h].  Raises ValueError as `rope` does."""
    for x in (q, k):
        _check_turned(x, cos, sin, layout)
    turned_q, turned_k = llama_ops.rope_pair(q, k, cos, sin, layout == "interleaved", False)
    return turned_q, turned_k


def _check_turned(x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> None:
    _check_dtype(x, "x")
    angles = (*x.shape[:-2], 1, x.shape[-1] // 2)
    if x.shape[-1] % 2 or cos.shape != angles or sin.shape != angles:
        raise ValueError(f"cos and sin must be [B, T, 1, h/2] for x {[*x.shape]}, got {[*cos.shape]}, {[*sin.shape]}")
    if layout not in ("interleaved", "half"):
        raise ValueError(f"layout must be interleaved or half, got {layout!r}")
    if not {cos.dtype, sin.dtype} <= {torch.float32, wide_dtype(x)}:
        raise ValueError(f"cos and sin must be float32 for x in {x.dtype}, got {cos.dtype}, {sin.dtype}")


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up    (arXiv 2002.05202);  [*, F] each, of one dtype.  Raises ValueError otherwise."""
    _check_dtype(gate, "gate")
    _check_same(gate, up, "gate", "up")
    y: Tensor = llama_ops.swiglu(gate, up)
    return y


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Packed | None) -> Tensor:
    """softmax(q k^T / sqrt(h)) v, each G head serving H / G query heads; mask None is the causal one of the last T of S

    q [B, H, T, h]; k, v [B, G, S, h]; mask [B or 1, 1, T, S], true where a query may look. Returns [B, H, T, h].
    One query without a gradient, which is a step of decoding, has a kernel of its own; so have texts of different
    lengths in a row (`packed_attention`), where the GPU's takes q.
    """
    if mask is not None and not isinstance(mask, Tensor):
        if not packed_attention.unsupported_reason(q):
            return packed_attention.packed_attention(q, k, v, mask.bounds)
        mask = mask.mask
    # From `groups` on as the `TorchOps` of `model.llama`: neither folder imports the other; a test holds both equal.
    if q.shape[2] == 1 and not torch.is_grad_enabled():
        if mask is None:
            mask = torch.ones(1, 1, 1, k.shape[2], dtype=torch.bool, device=q.device)
        y: Tensor = llama_ops.decode_attention(q, k, v, mask)
        return y
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    queries, keys = q.shape[2], k.shape[2]
    if mask is None and 1 < queries < keys:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    if mask is None and queries > 1:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class CudaOps:
    """The operations under the names that Llama calls."""

    rms_norm = staticmethod(rms_norm)
    rms_norm_and_x = staticmethod(rms_norm_and_x)
    add_rms_norm = staticmethod(add_rms_norm)
    rope = staticmethod(rope)
    rope_pair = staticmethod(rope_pair)
    swiglu = staticmethod(swiglu)
    attention = staticmethod(attention)


CUDA_OPS = CudaOps()


def _check_norm(x: Tensor, weight: Tensor) -> None:
    _check_dtype(x, "x")
    if weight.shape != x.shape[-1:] or weight.dtype != x.dtype:
        raise ValueError(
            f"weight must be {x.dtype} [{x.shape[-1]}], as the rows of x are, got {weight.dtype} {[*weight.shape]}"
        )


def _check_same(a: Tensor, b: Tensor, a_name: str, b_name: str) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"{b_name} must be as {a_name} is, {a.dtype} {[*a.shape]}, got {b.dtype} {[*b.shape]}")


def _check_dtype(x: Tensor, name: str) -> None:
    if (x.is_cuda and x.dtype not in CUDA_DTYPES) or not x.is_floating_point():
        raise ValueError(f"{name} must be bfloat16, float16 or float32 (on a CPU also float64), got {x.dtype}")

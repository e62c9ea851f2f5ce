"""The operators behind `llama_ops.cuda`: for each its body, its shapes (fake) and its gradient.

A body makes its inputs contiguous and takes the path by device: Triton on a CUDA device, elsewhere
`reference.llama_ops`. As operators they are single nodes to torch.compile, which asks the fakes for shapes.
Triton is imported where it is called: it exists on Linux only.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..reference import llama_ops as reference
from .register import operator


@operator("rms_norm", lambda x, *_: (_like(x), _row_statistic(x)))
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    y, _, rstd = _norm_path(x).rms_norm(x.contiguous(), None, weight.contiguous(), eps)
    return y, rstd


@operator("add_rms_norm", lambda x, *_: (_like(x), _like(x), _row_statistic(x)))
def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    normed: tuple[Tensor, Tensor, Tensor] = _norm_path(x).rms_norm(
        x.contiguous(), residual.contiguous(), weight.contiguous(), eps
    )
    return normed


@operator(
    "rms_norm_backward",
    lambda dy, dh, h, rstd, weight, with_dweight: (_like(h), _weight_gradient(weight, with_dweight)),
)
def rms_norm_backward(
    dy: Tensor, dh: Tensor | None, h: Tensor, rstd: Tensor, weight: Tensor, with_dweight: bool
) -> tuple[Tensor, Tensor]:
    dh = None if dh is None else dh.contiguous()
    gradients: tuple[Tensor, Tensor] = _norm_path(h).rms_norm_backward(
        dy.contiguous(), dh, h.contiguous(), rstd, weight.contiguous(), with_dweight
    )
    return gradients


def _keep_norm(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)  # zeros for the statistic, which nothing uses, would be a launch
    ctx.save_for_backward(inputs[0], output[1], inputs[1])


def _norm_gradient(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    dx, dweight = norm_gradients(dy, None, ctx.saved_tensors, ctx.needs_input_grad[1])
    return dx, dweight, None


def _keep_sum(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], output[2], inputs[2])


def _sum_gradient(ctx: Any, dy: Tensor | None, dh: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    dx, dweight = norm_gradients(dy, dh, ctx.saved_tensors, ctx.needs_input_grad[2])
    return dx, dx, dweight, None


def norm_gradients(
    dy: Tensor | None, dh: Tensor | None, kept: tuple[Tensor, Tensor, Tensor], with_dweight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """(dx, dweight) of a norm of h, whose output and whose h reach a loss or do not;  kept: h, rstd, weight"""
    if dy is None:
        return dh, torch.zeros_like(kept[2]) if with_dweight else None
    dx, dweight = rms_norm_backward(dy, dh, *kept, with_dweight)
    return dx, dweight if with_dweight else None


torch.library.register_autograd("lowrank::rms_norm", _norm_gradient, setup_context=_keep_norm)
torch.library.register_autograd("lowrank::add_rms_norm", _sum_gradient, setup_context=_keep_sum)


@operator("rope", lambda x, *_: _like(x))
def rope(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool) -> Tensor:
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    if x.is_cuda:
        from ..triton import rope as triton

        return triton.rope(x, cos, sin, interleaved, inverse)
    return reference.rope(x, cos, sin, interleaved, inverse)


def _keep_angles(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool, bool], output: Tensor) -> None:
    _, cos, sin, ctx.interleaved, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin)


def _turn_back(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return rope(dy, *ctx.saved_tensors, ctx.interleaved, not ctx.inverse), None, None, None, None


torch.library.register_autograd("lowrank::rope", _turn_back, setup_context=_keep_angles)


@operator("rope_pair", lambda q, k, *_: (_like(q), _like(k)))
def rope_pair(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool
) -> tuple[Tensor, Tensor]:
    q, k, cos, sin = q.contiguous(), k.contiguous(), cos.contiguous(), sin.contiguous()
    if q.is_cuda:
        from ..triton import rope as triton

        return triton.rope_pair(q, k, cos, sin, interleaved, inverse)
    return reference.rope(q, cos, sin, interleaved, inverse), reference.rope(k, cos, sin, interleaved, inverse)


def _keep_angles_of_pair(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos, sin, ctx.interleaved, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin)


def _turn_pair_back(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor | None, ...]:
    turned = rope_pair(dq, dk, *ctx.saved_tensors, ctx.interleaved, not ctx.inverse)
    return *turned, None, None, None, None


torch.library.register_autograd("lowrank::rope_pair", _turn_pair_back, setup_context=_keep_angles_of_pair)


@operator("swiglu", lambda gate, up: _like(gate))
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    if gate.is_cuda:
        from ..triton import swiglu as triton

        return triton.swiglu(gate, up)
    return reference.swiglu(gate, up)


@operator("swiglu_backward", lambda dy, gate, up: (_like(gate), _like(up)))
def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    dy, gate, up = dy.contiguous(), gate.contiguous(), up.contiguous()
    if gate.is_cuda:
        from ..triton import swiglu as triton

        return triton.swiglu_backward(dy, gate, up)
    return reference.swiglu_backward(dy, gate, up)


def _keep_factors(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _swiglu_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    dgate, dup = swiglu_backward(dy, *ctx.saved_tensors)
    return dgate, dup


torch.library.register_autograd("lowrank::swiglu", _swiglu_gradient, setup_context=_keep_factors)


@operator("decode_attention", lambda q, *_: _like(q))
def decode_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    q, mask = q.contiguous(), mask.contiguous()
    if not q.is_cuda:
        return reference.decode_attention(q, k, v, mask)
    from ..triton import decode_attention as triton

    if k.stride() != v.stride() or k.stride()[2:] != (k.shape[3], 1):
        k, v = (x.clone(memory_format=torch.contiguous_format) for x in (k, v))
    return triton.decode_attention(q, k, v, mask)


def _norm_path(x: Tensor) -> ModuleType:
    """`rms_norm` in Triton, or the reference: both have the same two functions."""
    if x.is_cuda:
        from ..triton import rms_norm as triton

        return triton
    return reference


def _like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _weight_gradient(weight: Tensor, wanted: bool) -> Tensor:
    return weight.new_empty(weight.shape if wanted else 0)


def _row_statistic(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=reference.wide_dtype(x))

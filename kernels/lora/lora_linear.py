"""Linears that share their input, each with an adapter: x is kept once for all, dX is summed where it is made.

    y_i = x W_i^T + s_i (d_i(x) A_i^T) B_i^T                 i = wq, wk, wv, or w1, w3, or one alone
    V_i = s_i dY_i B_i              U_i = d_i(x) A_i^T       d_i drops: x mask_i / (1 - p)
    dX  = sum over i of dY_i W_i + d_i(V_i A_i)
    dA_i = V_i^T d_i(x)             dB_i = s_i dY_i^T U_i

Kept for the backward pass are x, as the reference that its other users hold too, and U_i [M, r]. The masks are drawn
again. Without dropout the products of all A_i are one: x [A_1; A_2; ...]^T.

x [*, K], y_i [*, N_i], W_i [N_i, K] quantized or dense, A_i [r, K], B_i [N_i, r]; M rows of x flattened.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import run
from ..reference.llama_ops import wide_dtype
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import QuantizedWeight
from .dropout import apply_dropout


def linears(x: Tensor, parts: Sequence[LinearWithAdapter]) -> tuple[Tensor, ...]:
    """y_i of every part, in the dtype of x. Gradients of x, A_i and B_i, for which every part must have an adapter.

    The matrices may be float32 beside a shorter x: they are used in its dtype, and their gradients are in their own.
    Without a gradient a few rows meet them in float32.
    """
    if not torch.is_grad_enabled() and not any(part.drop for part in parts):
        if run.can_run_in_one_call(x, parts):
            return run.linears(x, parts)
        few = x.numel() <= run.FEW_ROWS * x.shape[-1]
        if few or any(part.lora_A is None for part in parts):
            return _linears_one_by_one(x, parts, wide_dtype(x) if few else x.dtype)
    matrices = [matrix for part in parts for matrix in (part.lora_A, part.lora_B)]
    y: tuple[Tensor, ...] = _Linears.apply(x, tuple(parts), *matrices)  # type: ignore[no-untyped-call]
    return y


def _linears_one_by_one(x: Tensor, parts: Sequence[LinearWithAdapter], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """y_i one after another, the adapters' products in `dtype`: those of torch in 16 bits are slow for one row"""
    ys, rows = [], x.to(dtype) if any(part.lora_A is not None for part in parts) else x
    for part in parts:
        y = _product(x, part.weight)
        if part.lora_A is not None and part.lora_B is not None:
            u = F.linear(rows, part.lora_A.to(dtype))
            y = y.add_(F.linear(u, part.lora_B.to(dtype)), alpha=part.scaling)
        ys.append(y)
    return tuple(ys)


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: tuple[LinearWithAdapter, ...], *matrices: Tensor) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        inner = _inner(rows, parts)
        ctx.parts = [(part.weight, part.scaling, part.drop) for part in parts]
        ctx.save_for_backward(rows, *inner, *matrices)
        ys = []
        for part, u in zip(parts, inner, strict=True):
            y = _product(rows, part.weight)
            assert part.lora_B is not None
            y.addmm_(u, part.lora_B.to(x.dtype).T, alpha=part.scaling)
            ys.append(y.view(*x.shape[:-1], -1))
        return tuple(ys)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.parts)
        rows, *kept = ctx.saved_tensors
        inner, matrices = kept[:count], kept[count:]
        dx: Tensor | None = None
        wanted = ctx.needs_input_grad[0]
        vs, gradients = [], []
        for index, (weight, scaling, _) in enumerate(ctx.parts):
            lora_B = matrices[2 * index + 1]
            dy = dys[index].reshape(len(rows), -1)
            vs.append(scaling * (dy @ lora_B.to(dy.dtype)))
            gradients.append((scaling * (dy.T @ inner[index])).to(lora_B.dtype))
            if wanted:
                part = _product_dx(dy, weight)
                dx = part if dx is None else dx.add_(part)
        d_as = _outer(rows, vs, [drop for *_, drop in ctx.parts])
        if dx is not None:
            _add_inner_dx(dx, vs, matrices[::2], [drop for *_, drop in ctx.parts])
        pairs = zip([d_a.to(a.dtype) for d_a, a in zip(d_as, matrices[::2], strict=True)], gradients, strict=True)
        shaped = None if dx is None else dx.view(*dys[0].shape[:-1], -1)
        return shaped, None, *(gradient for pair in pairs for gradient in pair)


def _inner(rows: Tensor, parts: Sequence[LinearWithAdapter]) -> list[Tensor]:
    """U_i = d_i(x) A_i^T;  [M, r] each"""
    matrices = [part.lora_A.to(rows.dtype) for part in parts if part.lora_A is not None]
    if any(part.drop for part in parts):
        inputs = [rows if part.drop is None else apply_dropout(rows, *part.drop) for part in parts]
        return [one @ matrix.T for one, matrix in zip(inputs, matrices, strict=True)]
    return list((rows @ torch.cat(matrices).T).split([len(matrix) for matrix in matrices], dim=1))


def _outer(rows: Tensor, vs: Sequence[Tensor], drops: Sequence[tuple[float, int] | None]) -> list[Tensor]:
    """dA_i = V_i^T d_i(x);  [r, K] each"""
    if any(drops):
        inputs = [rows if drop is None else apply_dropout(rows, *drop) for drop in drops]
        return [v.T @ one for v, one in zip(vs, inputs, strict=True)]
    return list((_side_by_side(vs).T @ rows).split([v.shape[1] for v in vs]))


def _add_inner_dx(
    dx: Tensor, vs: Sequence[Tensor], matrices: Sequence[Tensor], drops: Sequence[tuple[float, int] | None]
) -> None:
    """dX += d_i(V_i A_i)"""
    short = [matrix.to(dx.dtype) for matrix in matrices]
    if not any(drops):
        dx.addmm_(_side_by_side(vs), torch.cat(short))
        return
    for v, matrix, drop in zip(vs, short, drops, strict=True):
        added = v @ matrix
        dx.add_(added if drop is None else apply_dropout(added, *drop))


def _side_by_side(vs: Sequence[Tensor]) -> Tensor:
    return vs[0] if len(vs) == 1 else torch.cat(list(vs), dim=1)


def _product(x: Tensor, weight: QuantizedWeight | Tensor) -> Tensor:
    return F.linear(x, weight.to(x.dtype)) if isinstance(weight, Tensor) else run.linear(x, weight)


def _product_dx(dy: Tensor, weight: QuantizedWeight | Tensor) -> Tensor:
    return dy @ weight.to(dy.dtype) if isinstance(weight, Tensor) else run.linear_dx(dy, weight)

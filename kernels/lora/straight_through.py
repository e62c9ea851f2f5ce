"""Linears whose W already holds the adapter, rounded: Q(W + s (A B)^T), with the gradients that the sum would have.

    y_i = x Q_i^T,  Q_i = Q(W_i + s A_i B_i)        dX = sum over i of dY_i Q_i
    dB_i = s U_i^T dY_i,  U_i = x A_i               dA_i = x^T (s dY_i B_i^T)

Backward the rounding is taken for the identity (the straight-through estimator, arXiv 1308.3432). dW is never formed:
the gradients of A and B are those of `lora_linear`, with the dY of the rounded weights. Nothing of A and B is
multiplied forward, but U, which dB needs.

x [*, K], y_i [*, N_i], Q_i [N_i, K] quantized, lora_A [r, K], lora_B [N_i, r].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..weights.linear_with_adapter import LinearWithAdapter
from .lora_linear import inner_gradient, inner_products, matrix_gradients, product_with, product_with_backward


def straight_through_linears(x: Tensor, plan: Sequence[LinearWithAdapter]) -> tuple[Tensor, ...]:
    """y_i of every linear, in the dtype of x. Gradients of x, A_i and B_i.

    plan: `weight` is Q_i. Dropout, gain and rank mask are not taken.
    """
    assert all(part.drop is None and part.gain is None and part.rank_mask is None for part in plan)
    matrices = [matrix for part in plan for matrix in (part.lora_A, part.lora_B)]
    ys: tuple[Tensor, ...] = _StraightThrough.apply(x, tuple(plan), *matrices)  # type: ignore[no-untyped-call]
    return ys


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: tuple[LinearWithAdapter, ...], *matrices: Tensor) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        ctx.plan = [part._replace(lora_A=None, lora_B=None) for part in plan]
        ctx.save_for_backward(rows, *inner_products(rows, plan), *matrices)
        return tuple([product_with(rows, part.weight).view(*x.shape[:-1], -1) for part in plan])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        rows, *saved = ctx.saved_tensors
        count = len(ctx.plan)
        inner, lora_As, lora_Bs = saved[:count], saved[count::2], saved[count + 1 :: 2]
        x_wanted, _, *wanted = ctx.needs_input_grad
        d_rows = [dy.reshape(rows.shape[0], -1) for dy in dys]
        plan = [part._replace(lora_A=a, lora_B=b) for part, a, b in zip(ctx.plan, lora_As, lora_Bs, strict=True)]
        vs = [inner_gradient(dy, part) for dy, part in zip(d_rows, plan, strict=True)]
        gradients = matrix_gradients(rows, d_rows, inner, vs, plan, wanted)
        dx: Tensor | None = None
        if x_wanted:
            for dy, part in zip(d_rows, plan, strict=True):
                product = product_with_backward(dy, part.weight)
                dx = product if dx is None else dx.add_(product)
            assert dx is not None
            dx = dx.view(*dys[0].shape[:-1], -1)
        return dx, None, *gradients

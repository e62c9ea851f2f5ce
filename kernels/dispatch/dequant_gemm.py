"""Products with many rows: W is dequantized once into scratch, and the product is the vendor's.

    y  = x W^T                                     dX = dY W
    y  = [x | U] [W | lora_B]^T                    dX = [dY | V] [W ; lora_A]
    U  = scaling * x lora_A^T                      V  = scaling * dY lora_B

With one adapter its two products ride in the one with W: y and dX are written once, summed in float32, and not read
again to be added to. For that x and dY are copied once, to stand beside U and V. W is dequantized again backward.

x [*, K], y [*, N], W [N, K], lora_A [r, K], lora_B [N, r], U and V [M, r].
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..weights.quantized_weight import QuantizedWeight
from . import scratch
from .run import dequantize

RANK_STEP = 8  # the adapter's columns are filled up to 16 bytes with zeros: the matrix units want rows of whole ones


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T;  x [*, K] -> [*, N]"""
    with scratch.borrow(weight.shape, x.dtype, x.device) as w:
        return x @ dequantize(weight, x.dtype, out=w).T


def linear_dx(dy: Tensor, weight: QuantizedWeight) -> Tensor:
    """dX = dY W;  dy [*, N] -> [*, K]"""
    with scratch.borrow(weight.shape, dy.dtype, dy.device) as w:
        return dy @ dequantize(weight, dy.dtype, out=w)


class LoRAGemm(torch.autograd.Function):
    """y = x W^T + scaling * (x lora_A^T) lora_B^T, with gradients of x, lora_A and lora_B

        dX = dY W + V lora_A        dlora_A = V^T x        dlora_B = dY^T U

    The matrices may be float32 beside a shorter x: they are used in its dtype, and their gradients are in their own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight, lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
        ctx.weight, ctx.scaling = weight, scaling
        n, k = weight.shape
        x_rows = x.reshape(-1, k)
        u = scaling * (x_rows @ lora_A.to(x.dtype).T)
        ctx.save_for_backward(x_rows, u, lora_A, lora_B)
        left = _beside(x_rows, u)
        with scratch.borrow((n, left.shape[1]), x.dtype, x.device) as right:
            dequantize(weight, x.dtype, out=right[:, :k])
            _fill(right[:, k:], lora_B)
            y = left @ right.T
        return y.view(*x.shape[:-1], n)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_rows, u, lora_A, lora_B = ctx.saved_tensors
        n, k = ctx.weight.shape
        dy_rows = dy.reshape(-1, n)
        v = ctx.scaling * (dy_rows @ lora_B.to(dy.dtype))
        dx = dlora_A = dlora_B = None
        if ctx.needs_input_grad[0]:
            left = _beside(dy_rows, v)
            with scratch.borrow((left.shape[1], k), dy.dtype, dy.device) as right:
                dequantize(ctx.weight, dy.dtype, out=right[:n])
                _fill(right[n:].T, lora_A.T)
                dx = (left @ right).view(*dy.shape[:-1], k)
        if ctx.needs_input_grad[2]:
            dlora_A = (v.T @ x_rows).to(lora_A.dtype)
        if ctx.needs_input_grad[3]:
            dlora_B = (dy_rows.T @ u).to(lora_B.dtype)
        return dx, None, dlora_A, dlora_B, None


def _beside(wide: Tensor, narrow: Tensor) -> Tensor:
    """[wide | narrow | zeros], up to a multiple of RANK_STEP behind `wide`."""
    columns = math.ceil(narrow.shape[1] / RANK_STEP) * RANK_STEP
    both = wide.new_empty(len(wide), wide.shape[1] + columns)
    both[:, : wide.shape[1]] = wide
    _fill(both[:, wide.shape[1] :], narrow)
    return both


def _fill(place: Tensor, narrow: Tensor) -> None:
    """[narrow | zeros], in the dtype of `place`."""
    place[:, : narrow.shape[1]] = narrow
    place[:, narrow.shape[1] :] = 0

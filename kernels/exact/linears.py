"""The LoRA product of `kernels.lora.lora_linear`, with the same bits on every processor.

    y_i = x W_i^T + (s_i U_i) B_i^T,   U_i = x A_i^T
    V_i = s_i (dY_i B_i)      dX = sum over i of dY_i W_i + V_i A_i      dA_i = V_i^T x      dB_i = s_i (dY_i^T U_i)

Sums are in the order in which these lines have them, and the terms of each as `cpu.exact.product` has them. W is
dequantized a panel of rows at a time, forward and again backward.

x [*, K], y_i [*, N_i], W_i [N_i, K] quantized or dense, A_i [r, K], B_i [N_i, r]; M rows of x flattened.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..cpu.exact import CHUNK, product
from ..cpu.linear import dequantize_rows
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import Blockwise4bit, QuantizedWeight, RowwiseInt8

PANEL_NUMBERS = 1 << 20  # of W that are float32 at a time


def linears(x: Tensor, plan: Sequence[LinearWithAdapter]) -> tuple[Tensor, ...]:
    """y_i of every linear of the plan. Gradients of x, A_i and B_i. Dropout, gain and rank mask are not taken."""
    assert all(part.drop is None and part.gain is None and part.rank_mask is None for part in plan)
    matrices = [matrix for part in plan for matrix in (part.lora_A, part.lora_B)]
    ys: tuple[Tensor, ...] = _Linears.apply(x, tuple(plan), *matrices)  # type: ignore[no-untyped-call]
    return ys


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: tuple[LinearWithAdapter, ...], *matrices: Tensor | None) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        ys, inner = [], []
        for part in plan:
            y, u = product_with(rows, part.weight), None
            if part.lora_A is not None and part.lora_B is not None:
                u = product(rows, part.lora_A.T)
                product(u * part.scaling, part.lora_B.T, y, add=True)
            ys.append(y.view(*x.shape[:-1], -1))
            inner.append(u)
        ctx.plan = [part._replace(lora_A=None, lora_B=None) for part in plan]
        ctx.save_for_backward(rows, *inner, *matrices)
        return tuple(ys)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        rows, *saved = ctx.saved_tensors
        count, wants_dx = len(ctx.plan), ctx.needs_input_grad[0]
        dx = torch.empty_like(rows) if wants_dx else None
        gradients: list[Tensor | None] = []
        for number, (part, dy) in enumerate(zip(ctx.plan, dys, strict=True)):
            u, (lora_A, lora_B) = saved[number], saved[count + 2 * number : count + 2 * number + 2]
            d_rows = dy.reshape(len(rows), -1)
            if dx is not None:
                add_product_with_backward(d_rows, part.weight, dx, add=number > 0)
            if lora_A is None:
                gradients += [None, None]
                continue
            v = product(d_rows, lora_B).mul_(part.scaling)
            if dx is not None:
                product(v, lora_A, dx, add=True)
            gradients += [product(v.T, rows), product(d_rows.T, u).mul_(part.scaling)]
        return None if dx is None else dx.view(*dys[0].shape[:-1], -1), None, *gradients


def product_with(rows: Tensor, weight: QuantizedWeight | Tensor) -> Tensor:
    """y = x W^T;  [M, K] -> [M, N]"""
    y = torch.empty(len(rows), weight.shape[0])
    for part, panel in _panels(weight):
        product(rows, panel.T, y[:, part])
    return y


def add_product_with_backward(dy: Tensor, weight: QuantizedWeight | Tensor, dx: Tensor, add: bool) -> None:
    """dX = dY W, or with `add` dX = dX + dY W;  [M, N] -> [M, K]"""
    for part, panel in _panels(weight):
        product(dy[:, part], panel, dx, add=add or part.start > 0)


def _panels(weight: QuantizedWeight | Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of W in float32: whole chunks of them, so that dX is summed as it is by all rows at once."""
    n, k = weight.shape
    step = max(1, PANEL_NUMBERS // k // CHUNK) * CHUNK
    memory = torch.empty(min(step, n), k)
    for first in range(0, n, step):
        part = slice(first, min(first + step, n))
        panel = memory[: part.stop - first]
        if isinstance(weight, Tensor):
            panel = weight[part] if weight.dtype == torch.float32 else panel.copy_(weight[part])
        else:
            assert isinstance(weight, Blockwise4bit | RowwiseInt8)
            dequantize_rows(weight, first, panel)
        yield part, panel

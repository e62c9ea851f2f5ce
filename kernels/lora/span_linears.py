"""Linears that share x, whose rows wear different adapters: W is decoded once for all of them.

    y_i[rows] = x[rows] W_i^T + s (d(x[rows]) A_i^T) B_i^T        rows: a span of x, with matrices of its own
    dX[rows]  = sum over i of dY_i[rows] W_i + d(V_i A_i)

The products with W and dY with W are of all rows together; those with an adapter are of its own rows alone, and have
the shapes, and so the bits, of a batch that has no other rows. (`rank_mask` in `lora_linear`, for a batch whose rows
lie in any order, multiplies every row by every adapter instead: nine adapters make that a tenth of a product's time.)

x [*, K], y_i [*, N_i], W_i [N_i, K] quantized or dense, A_i [r, K], B_i [N_i, r].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import QuantizedWeight
from .dropout import apply_dropout
from .lora_linear import d_lora_As, inner_gradient, inner_products, product_dx, product_with, side_by_side


class Span(NamedTuple):
    """Rows begin .. end - 1 of x, flattened, and what each linear of the plan is to them."""

    begin: int
    end: int
    plan: tuple[LinearWithAdapter, ...]


def span_linears(x: Tensor, spans: Sequence[Span]) -> tuple[Tensor, ...]:
    """y_i of every linear, in the dtype of x. Gradients of x, A_i and B_i.

    spans: of rows that do not overlap; every plan has the same weights in the same order. Rows of no span wear nothing.
    A gain (DoRA) and a rank mask are not taken.
    """
    for span in spans:
        assert all(part.gain is None and part.rank_mask is None for part in span.plan)
    matrices = [matrix for span in spans for part in span.plan for matrix in (part.lora_A, part.lora_B)]
    ys: tuple[Tensor, ...] = _SpanLinears.apply(x, tuple(spans), *matrices)  # type: ignore[no-untyped-call]
    return ys


class _SpanLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, spans: tuple[Span, ...], *matrices: Tensor | None) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        ys = [product_with(rows, weight) for weight in _weights(spans)]
        kept: list[Tensor | None] = []
        for begin, end, plan in spans:
            inner = inner_products(rows[begin:end], plan)
            for y, part, u in zip(ys, plan, inner, strict=True):
                if u is not None and part.lora_B is not None:
                    y[begin:end].addmm_(u, part.lora_B.to(u.dtype).T, alpha=part.scaling)
            kept += inner
        ctx.spans = [span._replace(plan=tuple(map(_bare, span.plan))) for span in spans]
        ctx.save_for_backward(rows, *kept, *matrices)
        return tuple(y.view(*x.shape[:-1], -1) for y in ys)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        rows, *saved = ctx.saved_tensors
        count = sum(len(span.plan) for span in ctx.spans)
        inner, matrices = saved[:count], saved[count:]
        x_wanted, _, *wanted = ctx.needs_input_grad
        d_rows = [dy.reshape(rows.shape[0], -1) for dy in dys]
        dx: Tensor | None = None
        if x_wanted:
            for dy, weight in zip(d_rows, _weights(ctx.spans), strict=True):
                product = product_dx(dy, weight)
                dx = product if dx is None else dx.add_(product)
        gradients: list[Tensor | None] = []
        for number, (begin, end, bare) in enumerate(ctx.spans):
            own = slice(number * len(bare), (number + 1) * len(bare))
            pairs = slice(2 * own.start, 2 * own.stop)
            lora_As, lora_Bs = matrices[pairs][::2], matrices[pairs][1::2]
            plan = [part._replace(lora_A=a, lora_B=b) for part, a, b in zip(bare, lora_As, lora_Bs, strict=True)]
            seen, dy_spans = rows[begin:end], [dy[begin:end] for dy in d_rows]
            vs = [inner_gradient(dy, part) for dy, part in zip(dy_spans, plan, strict=True)]
            d_as = d_lora_As(seen, vs, plan, wanted[pairs][::2])
            for dy, part, u, d_a, b_wanted in zip(dy_spans, plan, inner[own], d_as, wanted[pairs][1::2], strict=True):
                d_b = part.scaling * (dy.T @ u) if b_wanted else None
                gradients += [d_a, d_b if d_b is None or part.lora_B is None else d_b.to(part.lora_B.dtype)]
            if dx is not None:
                _add_dx(dx[begin:end], vs, plan)
        return None if dx is None else dx.view(*dys[0].shape[:-1], -1), None, *gradients


def _weights(spans: Sequence[Span]) -> list[QuantizedWeight | Tensor]:
    return [part.weight for part in spans[0].plan]


def _bare(part: LinearWithAdapter) -> LinearWithAdapter:
    return part._replace(lora_A=None, lora_B=None)


def _add_dx(dx: Tensor, vs: Sequence[Tensor | None], plan: Sequence[LinearWithAdapter]) -> None:
    """dx += sum over i of d_i(V_i A_i)"""
    added: list[tuple[Tensor, Tensor]] = []
    for v, part in zip(vs, plan, strict=True):
        if v is None or part.lora_A is None:
            continue
        short = part.lora_A.to(dx.dtype)
        if part.drop is None:
            added.append((v, short))
        else:
            dx.add_(apply_dropout(v @ short, *part.drop))
    if added:
        dx.addmm_(side_by_side([v for v, _ in added]), torch.cat([short for _, short in added]))

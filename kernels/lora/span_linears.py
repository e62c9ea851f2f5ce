"""Linears that share x, whose rows wear different adapters: W is decoded once for all of them.

    y_i[rows] = x[rows] W_i^T + s (d(x[rows]) A_i^T) B_i^T        rows: a span of x, with matrices of its own
    dX[rows]  = sum over i of dY_i[rows] W_i + d(V_i A_i)

The products with W and dY with W are of all rows together; those with an adapter are of its own rows alone. Spans of
one shape that follow one another are multiplied by batched products: nine small ones take twice as long as one of nine.
Any other span is multiplied as `lora_linear` does. (`rank_mask` there, for a batch whose rows lie in any order,
multiplies every row by every adapter: nine adapters make that a tenth of a product's time.)

x [*, K], y_i [*, N_i], W_i [N_i, K] quantized or dense, A_i [r, K], B_i [N_i, r].
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import QuantizedWeight
from .dropout import apply_dropout
from .lora_linear import d_lora_As, inner_gradient, inner_products, product_with, product_with_backward, side_by_side


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
        ctx.groups = []
        for alike in _groups(spans):
            kept_of_group = _add_stacked(rows, ys, alike) if len(alike) > 1 else _add_one(rows, ys, alike[0])
            ctx.groups.append(([_bare(span) for span in alike], _active_adapters(alike[0]), len(kept_of_group)))
            kept += kept_of_group
        ctx.dtypes = [None if matrix is None else matrix.dtype for matrix in matrices]
        ctx.save_for_backward(rows, *kept)
        return tuple([y.view(*x.shape[:-1], -1) for y in ys])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        rows, *kept = ctx.saved_tensors
        d_rows = [dy.reshape(rows.shape[0], -1) for dy in dys]
        dx: Tensor | None = None
        if ctx.needs_input_grad[0]:
            for dy, weight in zip(d_rows, _weights(ctx.groups[0][0]), strict=True):
                product = product_with_backward(dy, weight)
                dx = product if dx is None else dx.add_(product)
        gradients: list[Tensor | None] = []
        for spans, active, count in ctx.groups:
            kept_of_group, kept = kept[:count], kept[count:]
            if len(spans) > 1:
                gradients += _stacked_gradients(rows, d_rows, dx, spans, active, kept_of_group)
            else:
                gradients += _gradients_of_one(rows, d_rows, dx, spans[0], kept_of_group)
        typed = [one if one is None else one.to(dtype) for one, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return None if dx is None else dx.view(*dys[0].shape[:-1], -1), None, *typed


def _weights(spans: Sequence[Span]) -> list[QuantizedWeight | Tensor]:
    return [part.weight for part in spans[0].plan]


def _bare(span: Span) -> Span:
    return span._replace(plan=tuple([part._replace(lora_A=None, lora_B=None) for part in span.plan]))


def _active_adapters(span: Span) -> list[int]:
    """The numbers of the linears to which the span adds something."""
    return [number for number, part in enumerate(span.plan) if part.lora_A is not None]


def _groups(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Spans that follow one another and have one shape, without dropout, together; any other alone."""
    group: list[Span] = []
    for span in spans:
        if group and not (group[-1].end == span.begin and _shape(group[-1]) == _shape(span) is not None):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _shape(span: Span) -> tuple[int, ...] | None:
    """Rows, and the rank of each linear; None where something is dropped."""
    if any(part.drop is not None for part in span.plan):
        return None
    return (span.end - span.begin, *(0 if part.lora_A is None else len(part.lora_A) for part in span.plan))


def _add_one(rows: Tensor, ys: Sequence[Tensor], span: Span) -> list[Tensor | None]:
    """Adds what one span's adapter adds; kept are U, A and B of each linear, in turn of the three."""
    begin, end, plan = span
    inner = inner_products(rows[begin:end], plan)
    for y, part, u in zip(ys, plan, inner, strict=True):
        if u is not None and part.lora_B is not None:
            y[begin:end].addmm_(u, part.lora_B.to(u.dtype).T, alpha=part.scaling)
    return [*inner, *(part.lora_A for part in plan), *(part.lora_B for part in plan)]


def _gradients_of_one(
    rows: Tensor, d_rows: Sequence[Tensor], dx: Tensor | None, span: Span, kept: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """dA and dB of each linear in turn; dX is added to."""
    begin, end, bare = span
    inner, lora_As, lora_Bs = (kept[number * len(bare) : (number + 1) * len(bare)] for number in range(3))
    plan = [part._replace(lora_A=a, lora_B=b) for part, a, b in zip(bare, lora_As, lora_Bs, strict=True)]
    dys = [dy[begin:end] for dy in d_rows]
    vs = [inner_gradient(dy, part) for dy, part in zip(dys, plan, strict=True)]
    d_as = d_lora_As(rows[begin:end], vs, plan, [True] * len(plan))
    d_bs = [None if u is None else part.scaling * (dy.T @ u) for dy, part, u in zip(dys, plan, inner, strict=True)]
    if dx is not None:
        _add_input_gradient(dx[begin:end], vs, plan)
    return [gradient for pair in zip(d_as, d_bs, strict=True) for gradient in pair]


def _add_input_gradient(dx: Tensor, vs: Sequence[Tensor | None], plan: Sequence[LinearWithAdapter]) -> None:
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


def _add_stacked(rows: Tensor, ys: Sequence[Tensor], spans: Sequence[Span]) -> list[Tensor | None]:
    """The same for H spans of one shape; kept are U [H, m, R] of all, A [H, R, K], and s B [H, N, r] of each linear."""
    begin, end, active = spans[0].begin, spans[-1].end, _active_adapters(spans[0])
    if not active:
        return []
    plans = [[span.plan[number] for number in active] for span in spans]
    lora_A = torch.cat([part.lora_A for plan in plans for part in plan if part.lora_A is not None]).to(rows.dtype)
    lora_A = lora_A.view(len(spans), -1, rows.shape[1])
    inner = torch.bmm(rows[begin:end].view(len(spans), -1, rows.shape[1]), lora_A.transpose(1, 2))
    ranks = [len(part.lora_A) for part in plans[0] if part.lora_A is not None]
    lora_Bs = []
    for place, (number, u) in enumerate(zip(active, inner.split(ranks, 2), strict=True)):
        stack = torch.stack([lora_B for plan in plans if (lora_B := plan[place].lora_B) is not None])
        scaled = (stack * _scalings(stack, plans, place)).to(rows.dtype)
        ys[number][begin:end].view(len(spans), -1, scaled.shape[1]).baddbmm_(u, scaled.transpose(1, 2))
        lora_Bs.append(scaled)
    return [inner, lora_A, *lora_Bs]


def _stacked_gradients(
    rows: Tensor,
    d_rows: Sequence[Tensor],
    dx: Tensor | None,
    spans: Sequence[Span],
    active: Sequence[int],
    kept: Sequence[Tensor],
) -> list[Tensor | None]:
    """dA and dB of each linear of each span in turn; dX is added to."""
    if not active:
        return [None] * (2 * len(spans) * len(spans[0].plan))
    inner, lora_A, *lora_Bs = kept
    begin, end, plans = spans[0].begin, spans[-1].end, [span.plan for span in spans]
    dys = [d_rows[number][begin:end].view(len(spans), -1, d_rows[number].shape[1]) for number in active]
    ranks = [lora_B.shape[2] for lora_B in lora_Bs]
    vs = torch.cat([torch.bmm(dy, lora_B) for dy, lora_B in zip(dys, lora_Bs, strict=True)], dim=2)
    d_as = torch.bmm(vs.transpose(1, 2), rows[begin:end].view(len(spans), -1, rows.shape[1])).split(ranks, 1)
    d_bs = [torch.bmm(dy.transpose(1, 2), u) for dy, u in zip(dys, inner.split(ranks, 2), strict=True)]
    d_bs = [d_b * _scalings(d_b, plans, number) for number, d_b in zip(active, d_bs, strict=True)]
    if dx is not None:
        dx[begin:end].view(len(spans), -1, dx.shape[1]).baddbmm_(vs, lora_A)
    gradients: list[Tensor | None] = []
    for span in range(len(spans)):
        pairs: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(plans[0])
        for number, d_a, d_b in zip(active, d_as, d_bs, strict=True):
            pairs[number] = d_a[span], d_b[span]
        gradients += [one for pair in pairs for one in pair]
    return gradients


def _scalings(like: Tensor, plans: Sequence[Sequence[LinearWithAdapter]], place: int) -> Tensor | float:
    """The scaling of one linear in each plan: a number where they are equal, else [H, 1, 1]."""
    found = [plan[place].scaling for plan in plans]
    return found[0] if len(set(found)) == 1 else like.new_tensor(found)[:, None, None]

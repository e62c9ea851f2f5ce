"""The LoRA product: linears that share their input, each with an adapter or none.

    y_i = x W_i^T + s_i (d_i(x) A_i^T) B_i^T                 i = wq, wk, wv, or w1, w3, or one alone
    V_i = s_i dY_i B_i              U_i = d_i(x) A_i^T       d_i drops: x mask_i / (1 - p)
    dX  = sum over i of dY_i W_i + d_i(V_i A_i)
    dA_i = V_i^T d_i(x)             dB_i = s_i dY_i^T U_i

A plan names the linears; it is chosen once a call, and the same plan gives the same bits, however an adapter was
selected. A mix of adapters is one adapter of all their ranks. An adapter for each row of a batch is one of the ranks
of all different mixes, in which U_i and V_i are zero where a row does not use a column (`rank_mask`).

What computes it follows from the path that `dispatch.table` has for the product with W:

    C                 without gradients: all linears of the plan in one call of the library, summed in float32
    scratch + GEMM    on a GPU: the adapters' products ride in those with W (`dispatch.dequant_gemm`), unless one drops
    any other         the adapter's products are added to the one with W

Kept for the backward pass are x, as the reference that its other users hold too, and U_i [M, r]. The masks are drawn
again. Without dropout the products of all A_i are one: x [A_1; A_2; ...]^T.

x [*, K], y_i [*, N_i], W_i [N_i, K] quantized or dense, A_i [r, K], B_i [N_i, r]; M rows of x flattened.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cpu.linear import linears as c_linears
from ..dispatch import dequant_gemm, run
from ..dispatch.table import SCRATCH
from ..reference.llama_ops import wide_dtype
from ..reference.riding_adapters import MOST_LINEARS
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import QuantizedWeight
from .dropout import apply_dropout, dropout


def lora_linears(x: Tensor, plan: Sequence[LinearWithAdapter]) -> tuple[Tensor, ...]:
    """y_i of every linear of the plan, in the dtype of x. Gradients of x, A_i and B_i.

    The matrices may be float32 beside a shorter x: they are used in its dtype, and their gradients are in their own.
    Without a gradient a few rows meet them in float32. Under torch.autocast x is cast first (`autocast_input`).
    """
    if not x.is_meta and torch.is_autocast_enabled(x.device.type):
        x = autocast_input(x)
        with torch.autocast(x.device.type, enabled=False):
            return lora_linears(x, plan)
    ys: tuple[Tensor, ...]
    if torch.is_grad_enabled():
        matrices = [matrix for part in plan for matrix in (part.lora_A, part.lora_B)]
        bare = tuple([part if part.gain is None else part._replace(gain=None) for part in plan])
        ys = _LoRALinears.apply(x, bare, *matrices)  # type: ignore[no-untyped-call]
    elif run.can_run_in_one_call(x, plan):
        ys = c_linears(x, plan)
    else:
        few = 0 < x.numel() <= run.FEW_ROWS * x.shape[-1]
        ys = _forward(x, plan, wide_dtype(x) if few else x.dtype)[0]
    for part in plan:  # looked for here, because few plans have a gain, and calls of Python are most of a small product
        if part.gain is not None:
            return _with_gains(ys, plan)
    return ys


def with_gain(y: Tensor, gain: Tensor) -> Tensor:
    """gain * y, computed in the wider of the two dtypes, in the dtype of y;  y [*, N], gain [N]"""
    return (y * gain).to(y.dtype)


def _with_gains(ys: Sequence[Tensor], plan: Sequence[LinearWithAdapter]) -> tuple[Tensor, ...]:
    return tuple([y if part.gain is None else with_gain(y, part.gain) for y, part in zip(ys, plan, strict=True)])


def autocast_input(x: Tensor) -> Tensor:
    """x as torch.autocast wants it of a linear: in the dtype of the region around this call, unless x is float64."""
    kind = x.device.type  # "meta" has no autocast; `x.is_meta` would be a node of its own in compiled code
    if kind == "meta" or not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


def lora_delta(
    x: Tensor,
    lora_A: Tensor,
    lora_B: Tensor,
    scaling: float,
    drop: tuple[float | Tensor, int | None] | None,
    rank_mask: Tensor | None,
) -> Tensor:
    """scaling (d(x) lora_A^T) lora_B^T alone, in the dtype of lora_A and then in that of x;  [*, K] -> [*, N]

    Arguments as in `LinearWithAdapter`; without a seed the mask is drawn from torch's own generator. In operations of
    torch's own: for torch.compile, which arranges them itself, and for a W that is not ours to read.
    """
    rows = x.reshape(-1, x.shape[-1]).to(lora_A.dtype)
    if drop is not None:
        rows = dropout(rows, *drop)
    delta: Tensor = scaling * _masked(rows @ lora_A.T, rank_mask) @ lora_B.T
    return delta.to(x.dtype).view(*x.shape[:-1], -1)


class _LoRALinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: tuple[LinearWithAdapter, ...], *matrices: Tensor | None) -> Any:
        ys, inner = _forward(x, plan, x.dtype)
        ctx.plan = [part._replace(lora_A=None, lora_B=None) for part in plan]
        ctx.rides = isinstance(inner, Tensor)
        ctx.save_for_backward(x.reshape(-1, x.shape[-1]), *([inner] if isinstance(inner, Tensor) else inner), *matrices)
        return ys

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(dys[0].device.type, enabled=False):
            return _LoRALinears.gradients(ctx, *dys)

    @staticmethod
    def gradients(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        """In the dtypes of x and of the matrices, in a region of torch.autocast too."""
        rows, *saved = ctx.saved_tensors
        count = 1 if ctx.rides else len(ctx.plan)
        inner, lora_As, lora_Bs = saved[:count], saved[count::2], saved[count + 1 :: 2]
        x_wanted, _, *wanted = ctx.needs_input_grad
        d_rows = [dy.reshape(rows.shape[0], -1) for dy in dys]
        parts = [part._replace(lora_A=a, lora_B=b) for part, a, b in zip(ctx.plan, lora_As, lora_Bs, strict=True)]
        dx: Tensor | None = None
        if ctx.rides and x_wanted:
            dx, v = dequant_gemm.linears_with_adapters_backward(d_rows, parts)
            gradients = _ridden_gradients(rows, d_rows, inner[0], v, parts, wanted)
        else:  # where dX is not wanted no W is, and the matrices are multiplied without it
            inner = _split_ranks(inner[0], parts) if ctx.rides else inner
            vs = [inner_gradient(dy, part) for dy, part in zip(d_rows, parts, strict=True)]
            gradients = matrix_gradients(rows, d_rows, inner, vs, parts, wanted)
            dx = _input_gradient(d_rows, vs, parts) if x_wanted else None
        return None if dx is None else dx.view(*dys[0].shape[:-1], -1), None, *gradients


def _forward(
    x: Tensor, plan: Sequence[LinearWithAdapter], dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], Tensor | list[Tensor | None]]:
    """y_i [*, N_i], and U_i [M, r], the adapters' products in `dtype`: torch's in 16 bits are slow for one row.

    U is one tensor of all linears where they ride in the product with W (`reference.riding_adapters`).
    """
    rows = x.reshape(-1, x.shape[-1])
    if _rides(rows, plan):
        products, u = dequant_gemm.linears_with_adapters(rows, plan)
        return tuple([y.view(*x.shape[:-1], -1) for y in products]), u
    inner = inner_products(rows.to(dtype), plan)
    ys = []
    for part, u_of_it in zip(plan, inner, strict=True):
        if u_of_it is None or part.lora_B is None:
            y = product_with(rows, part.weight)
        else:
            y = _product_with_adapter(rows, part, u_of_it, part.lora_B)
        ys.append(y.view(*x.shape[:-1], -1))
    return tuple(ys), inner


def _rides(rows: Tensor, plan: Sequence[LinearWithAdapter]) -> bool:
    """True if the products with W of a plan take its adapters along.

    With dropout they do not: dX of an adapter is masked, that of W is not.
    """
    if len(plan) > MOST_LINEARS or all(part.lora_A is None for part in plan):
        return False
    for part in plan:
        if part.drop is not None or isinstance(part.weight, Tensor) or run.path(rows, part.weight).name != SCRATCH:
            return False
    return True


def _split_ranks(inner: Tensor, plan: Sequence[LinearWithAdapter]) -> list[Tensor | None]:
    """[M, R] of a plan whose adapters ride, as [M, r] of each linear, None without an adapter"""
    ranks = [0 if part.lora_A is None else len(part.lora_A) for part in plan]
    parts = inner.split([*ranks, inner.shape[1] - sum(ranks)], dim=1)
    return [part if rank else None for part, rank in zip(parts, ranks, strict=False)]


def _ridden_gradients(
    rows: Tensor,
    d_rows: Sequence[Tensor],
    u: Tensor,
    v: Tensor,
    parts: Sequence[LinearWithAdapter],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """dA_i and dB_i of each linear in turn, in their dtypes; None for one that is not wanted;  u, v [M, R]"""
    if not any(wanted):
        return [None] * len(wanted)
    gradients = dequant_gemm.matrix_gradients(rows, d_rows, u, v, parts)
    return [gradient if is_wanted else None for gradient, is_wanted in zip(gradients, wanted, strict=True)]


def inner_products(rows: Tensor, plan: Sequence[LinearWithAdapter]) -> list[Tensor | None]:
    """U_i = d_i(x) A_i^T;  [M, r] each, or None without an adapter"""
    matrices = [part.lora_A.to(rows.dtype) for part in plan if part.lora_A is not None]
    if not matrices:
        return [None] * len(plan)
    if any(part.drop for part in plan):
        inputs = [_dropped(rows, part) for part in plan if part.lora_A is not None]
        products = iter([one @ matrix.T for one, matrix in zip(inputs, matrices, strict=True)])
    else:
        together = matrices[0] if len(matrices) == 1 else torch.cat(matrices)
        products = iter((rows @ together.T).split([matrix.shape[0] for matrix in matrices], dim=1))
    return [None if part.lora_A is None else _masked(next(products), part.rank_mask) for part in plan]


def _masked(inner: Tensor, rank_mask: Tensor | None) -> Tensor:
    """inner [M, r] with zeros where a row of the batch does not use a column."""
    if rank_mask is None:
        return inner
    rows: Tensor = inner.unflatten(0, (rank_mask.shape[0], -1))
    return rows.masked_fill(~rank_mask[:, None], 0.0).flatten(0, 1)


def inner_gradient(dy: Tensor, part: LinearWithAdapter) -> Tensor | None:
    """V = s dY B;  [M, r]"""
    if part.lora_B is None:
        return None
    return _masked(part.scaling * (dy @ part.lora_B.to(dy.dtype)), part.rank_mask)


def d_lora_As(
    rows: Tensor, vs: Sequence[Tensor | None], parts: Sequence[LinearWithAdapter], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """dA_i = V_i^T d_i(x);  [r, K] each, in the dtype of A_i"""
    taken = [v for v, is_wanted in zip(vs, wanted, strict=True) if v is not None and is_wanted]
    if not taken:
        return [None] * len(parts)
    if any(part.drop for part in parts):
        products = iter(
            [
                v.T @ _dropped(rows, part)
                for v, part, is_wanted in zip(vs, parts, wanted, strict=True)
                if v is not None and is_wanted
            ]
        )
    else:
        products = iter((side_by_side(taken).T @ rows).split([v.shape[1] for v in taken]))
    return [
        next(products).to(part.lora_A.dtype) if is_wanted and part.lora_A is not None else None
        for part, is_wanted in zip(parts, wanted, strict=True)
    ]


def matrix_gradients(
    rows: Tensor,
    d_rows: Sequence[Tensor],
    inner: Sequence[Tensor | None],
    vs: Sequence[Tensor | None],
    parts: Sequence[LinearWithAdapter],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """dA_i, and dB_i = s dY_i^T U_i, of each linear in turn, in their dtypes; None for one that is not wanted"""
    gradients: list[Tensor | None] = []
    d_as = d_lora_As(rows, vs, parts, wanted[::2])
    for dy, part, u, d_a, b_wanted in zip(d_rows, parts, inner, d_as, wanted[1::2], strict=True):
        gradients.append(d_a)
        d_b = part.scaling * (dy.T @ u) if b_wanted and u is not None else None
        gradients.append(d_b if d_b is None or part.lora_B is None else d_b.to(part.lora_B.dtype))
    return gradients


def _input_gradient(
    d_rows: Sequence[Tensor], vs: Sequence[Tensor | None], parts: Sequence[LinearWithAdapter]
) -> Tensor:
    """dX = sum over i of dY_i W_i + d_i(V_i A_i);  [M, K]"""
    dx: Tensor | None = None
    added: list[tuple[Tensor, Tensor]] = []  # V_i and A_i without dropout, whose products are one
    for dy, v, part in zip(d_rows, vs, parts, strict=True):
        product = product_with_backward(dy, part.weight)
        if v is not None and part.lora_A is not None:
            short = part.lora_A.to(dy.dtype)
            if part.drop is not None:
                product.add_(apply_dropout(v @ short, *part.drop))
            else:
                added.append((v, short))
        dx = product if dx is None else dx.add_(product)
    assert dx is not None
    if added:
        dx.addmm_(side_by_side([v for v, _ in added]), torch.cat([short for _, short in added]))
    return dx


def _dropped(rows: Tensor, part: LinearWithAdapter) -> Tensor:
    return rows if part.drop is None else apply_dropout(rows, *part.drop)


def side_by_side(vs: Sequence[Tensor]) -> Tensor:
    return vs[0] if len(vs) == 1 else torch.cat(list(vs), dim=1)


def _product_with_adapter(rows: Tensor, part: LinearWithAdapter, u: Tensor, lora_B: Tensor) -> Tensor:
    """x W^T + s U B^T, B in the dtype of U;  [M, N]"""
    y, lora_B = product_with(rows, part.weight), lora_B.to(u.dtype)
    if u.dtype == y.dtype:
        return y.addmm_(u, lora_B.T, alpha=part.scaling)
    return y.add_(F.linear(u, lora_B), alpha=part.scaling)


def product_with(x: Tensor, weight: QuantizedWeight | Tensor) -> Tensor:
    return F.linear(x, weight.to(x.dtype)) if isinstance(weight, Tensor) else run.linear(x, weight)


def product_with_backward(dy: Tensor, weight: QuantizedWeight | Tensor) -> Tensor:
    return dy @ weight.to(dy.dtype) if isinstance(weight, Tensor) else run.linear_backward(dy, weight)

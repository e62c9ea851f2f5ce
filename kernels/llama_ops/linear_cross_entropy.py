"""The output head and its loss together, in chunks of rows: all logits are never held.

    loss = sum_m log sum_v exp(z[m, v]) - z[m, target[m]],   z = x W^T
    dz = softmax(z) - one_hot(target),   dx = dz W,   dW = dz^T x

The loss is a sum, so dz needs nothing that comes later: it is made beside the loss, in the memory of its logits, and
turned into dx at once. Held are [M, D] for dx and one chunk of logits, instead of [M, V] three times over (logits,
their log-softmax, dz); the products are the same three.

M rows, D model dim, V vocabulary. On a CUDA device a chunk goes through `cross_entropy`, Triton, elsewhere through
`lean`.
"""

from typing import Any

import torch
from torch import Tensor

from ..operators.register import operator
from ..reference import llama_ops as reference

CHUNK = 1 << 24  # logits that are held at a time


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """sum over m of -log softmax(x W^T)[m, targets[m]], in nats

    x        [M, D], floating
    weight   [V, D], in the dtype of x
    targets  int64 [M], -100 where nothing is to be learned
    Returns a number in float32 (float64 for float64); x and weight get gradients where they require them.
    Raises ValueError for shapes or dtypes that do not fit.
    """
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1] or x.shape[:1] != targets.shape:
        raise ValueError(
            f"must be x [M, D], weight [V, D], targets [M], got {[*x.shape]}, {[*weight.shape]}, {[*targets.shape]}"
        )
    if not (x.dtype == weight.dtype and x.is_floating_point() and targets.dtype == torch.int64):
        raise ValueError(
            f"x and weight must be of one floating dtype and targets int64, got {x.dtype}, {weight.dtype}, "
            f"{targets.dtype}"
        )
    learning = torch.is_grad_enabled()
    loss: Tensor = _linear_cross_entropy(
        x, weight, targets, learning and x.requires_grad, learning and weight.requires_grad
    )[0]
    return loss


def linear_cross_entropy_of_rows(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(x W^T)[m, targets[m]] of every row, float32 [M]; arguments as in `linear_cross_entropy`

    x alone has a gradient, which may be of any weighting of the rows: dx[m] = dloss[m] dz[m] W.
    """
    assert not weight.requires_grad
    losses: Tensor = _OfRows.apply(x, weight, targets)  # type: ignore[no-untyped-call]
    return losses


class _OfRows(torch.autograd.Function):
    """dx[m] = dloss[m] dz[m] W, multiplied in float32 and rounded once, as by a loss that is one number"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        losses, dx, _ = _chunk_losses(x, weight, targets, ctx.needs_input_grad[0], False)
        ctx.save_for_backward(dx)
        return torch.cat(losses) if losses else x.new_empty(0, dtype=reference.wide_dtype(x))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dlosses: Tensor) -> tuple[Tensor, None, None]:
        (dx,) = ctx.saved_tensors
        return (dlosses[:, None] * dx).to(dx.dtype), None, None


def rows_of_a_chunk(vocabulary: int) -> int:
    """As many rows as `CHUNK` logits are, in whole tiles of 128 for the matrix product."""
    return max(1, CHUNK // vocabulary // 128) * 128


def in_chunks(
    x: Tensor, weight: Tensor, targets: Tensor, with_dx: bool, with_dweight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, dx, dweight); a gradient that is not asked for is empty [0]."""
    losses, dx, dweight = _chunk_losses(x, weight, targets, with_dx, with_dweight)
    if x.is_cuda and losses:
        return torch.cat(losses).sum(), dx, dweight
    loss = torch.zeros((), dtype=reference.wide_dtype(x), device=x.device)
    for chunk in losses:
        loss += chunk.sum()
    return loss, dx, dweight


def _chunk_losses(
    x: Tensor, weight: Tensor, targets: Tensor, with_dx: bool, with_dweight: bool
) -> tuple[list[Tensor], Tensor, Tensor]:
    """The losses of the rows of each chunk, dx and dweight."""
    if x.is_cuda:
        from ..triton.cross_entropy import cross_entropy_
    else:
        from .cpu import cross_entropy_
    targets, wide = targets.contiguous(), reference.wide_dtype(x)
    losses = []
    dx = x.new_empty(x.shape if with_dx else 0)
    dweight = torch.zeros(weight.shape if with_dweight else 0, dtype=wide, device=x.device)
    rows = rows_of_a_chunk(len(weight))
    memory = x.new_empty(min(rows, len(x)), len(weight))
    for start in range(0, len(x), rows):
        chunk = slice(start, start + rows)
        logits = torch.matmul(x[chunk], weight.T, out=memory[: len(x[chunk])])
        losses.append(cross_entropy_(logits, targets[chunk], with_dx or with_dweight))
        if with_dx:
            torch.matmul(logits, weight, out=dx[chunk])
        if with_dweight:
            dweight += logits.T @ x[chunk]
    return losses, dx, dweight.to(weight.dtype)


def _like_in_chunks(
    x: Tensor, weight: Tensor, targets: Tensor, with_dx: bool, with_dweight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    loss = x.new_empty((), dtype=reference.wide_dtype(x))
    return loss, x.new_empty(x.shape if with_dx else 0), weight.new_empty(weight.shape if with_dweight else 0)


_linear_cross_entropy = operator("linear_cross_entropy", _like_in_chunks)(in_chunks)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)  # those of dx and dweight, which nothing uses, would be as large as they are
    ctx.save_for_backward(*output[1:])


def _scale_gradients(ctx: Any, dloss: Tensor | None, _ddx: None, _ddweight: None) -> tuple[Tensor | None, ...]:
    wanted = [needed and dloss is not None for needed in ctx.needs_input_grad[:2]]
    dx, dweight = (dloss * kept if want else None for kept, want in zip(ctx.saved_tensors, wanted, strict=True))
    return dx, dweight, None, None, None


torch.library.register_autograd("lowrank::linear_cross_entropy", _scale_gradients, setup_context=_keep_gradients)

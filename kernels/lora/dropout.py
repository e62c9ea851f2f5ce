"""Dropout whose mask is drawn from a seed, forward and again backward: it is never kept."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, p: float | Tensor, seed: int | None) -> Tensor:
    """y = x mask / (1 - p), mask[i] = 1 with probability 1 - p;  x [M, K], p and seed as in `apply_dropout`

    Without a seed the mask is drawn from torch's own generator, and kept.
    """
    if seed is not None:
        y: Tensor = _Dropout.apply(x, p, seed)  # type: ignore[no-untyped-call]
        return y
    if not isinstance(p, Tensor):
        return F.dropout(x, p)
    share = _share_of_rows(p, x)
    return x * (torch.rand_like(x) >= share) / (1 - share)


class _Dropout(torch.autograd.Function):
    """dx = dy mask / (1 - p)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float | Tensor, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return apply_dropout(x, p, seed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return apply_dropout(dy, ctx.p, ctx.seed), None, None


def apply_dropout(x: Tensor, p: float | Tensor, seed: int) -> Tensor:
    """x mask / (1 - p), with the mask of that seed for the shape of x, from a generator of its own

    p  a number, or float32 [B]: row m of x [M, K] is of row m // (M / B) of the batch
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    if isinstance(p, Tensor):
        share = _share_of_rows(p, x)
        mask = torch.bernoulli((1 - share).expand(x.shape), generator=generator).to(x.dtype)
        return mask.mul_(x).div_(1 - share)
    mask = torch.empty(x.shape, dtype=x.dtype, device=x.device).bernoulli_(1 - p, generator=generator)
    return mask.mul_(x).div_(1 - p)


def _share_of_rows(p: Tensor, x: Tensor) -> Tensor:
    """[B] -> [M, 1], in the dtype of x"""
    return p.to(x.dtype).repeat_interleave(x.shape[0] // p.shape[0])[:, None]

"""Dropout whose mask is drawn from a seed, forward and again backward: it is never kept."""

from typing import Any

import torch
from torch import Tensor


def dropout(x: Tensor, p: float, seed: int) -> Tensor:
    """y = x mask / (1 - share), mask[i] = 1 with probability 1 - share"""
    y: Tensor = _Dropout.apply(x, p, seed)  # type: ignore[no-untyped-call]
    return y


class _Dropout(torch.autograd.Function):
    """dx = dy mask / (1 - share)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return apply_dropout(x, p, seed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return apply_dropout(dy, ctx.p, ctx.seed), None, None


def apply_dropout(x: Tensor, p: float, seed: int) -> Tensor:
    """x mask / (1 - share), with the mask of that seed for the shape of x, from a generator of its own."""
    generator = torch.Generator(x.device).manual_seed(seed)
    mask = torch.empty(x.shape, dtype=x.dtype, device=x.device).bernoulli_(1 - p, generator=generator)
    return mask.mul_(x).div_(1 - p)

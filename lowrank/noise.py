"""Dropout whose noise is a function of (seed, batch, layer) and of nothing else.

A run that goes on from a checkpoint draws what it would have drawn, a block that is computed again draws what it drew
before, and nothing that draws from torch's own generator in between changes either.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Clock:
    """Which batch of the run it is, counted from 0 over all steps and processes; the training step moves it on."""

    seed: int
    batch: int = 0


@dataclass(frozen=True)
class Noise:
    """The noise of one layer."""

    clock: Clock
    layer: int

    @property
    def seed(self) -> int:
        """A 63-bit mix of seed, batch and layer (the finalizer of splitmix64), so that neighbours share nothing."""
        mixed = 0
        for part in (self.clock.seed, self.clock.batch, self.layer):
            mixed = (mixed + part + 1) * 0x9E3779B97F4A7C15 % 2**64
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
            mixed ^= mixed >> 31
        return mixed >> 1


def dropout(x: Tensor, share: float, seed: int) -> Tensor:
    """y = x mask / (1 - share), mask[i] = 1 with probability 1 - share; the mask is drawn again backward, never kept"""
    y: Tensor = _Dropout.apply(x, share, seed)  # type: ignore[no-untyped-call]
    return y


class _Dropout(torch.autograd.Function):
    """dx = dy mask / (1 - share)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float, seed: int) -> Tensor:
        ctx.share, ctx.seed = share, seed
        return dropped(x, share, seed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return dropped(dy, ctx.share, ctx.seed), None, None


def dropped(x: Tensor, share: float, seed: int) -> Tensor:
    """x mask / (1 - share), with the mask of that seed for the shape of x."""
    generator = torch.Generator(x.device).manual_seed(seed)
    mask = torch.empty(x.shape, dtype=x.dtype, device=x.device).bernoulli_(1 - share, generator=generator)
    return mask.mul_(x).div_(1 - share)

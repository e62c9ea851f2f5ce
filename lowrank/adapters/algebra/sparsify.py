"""Several matrices of one shape as one, after most of their numbers have been set to zero.

    magnitude_prune   sum_i w_i trim(t_i)                      trim keeps the floor(density n) largest of n numbers
    ties              elect, then average: see `ties`                                  (arXiv 2306.01708, algorithm 1)
    dare_linear       sum_i w_i drop(t_i)                      drop keeps a number with probability density, and divides
                                                               it by density           (arXiv 2311.03099, section 3.1)
    dare_ties         ties of drop(t_i) in place of trim(t_i)

In the order of operations of peft 0.21, so that float32 comes to the same bits.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Majority = Literal["total", "frequency"]


def weighted_sum(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
    """sum_i w_i t_i;  weights [n]"""
    return (torch.stack(list(tensors)) * _along_first(weights, tensors[0])).sum(dim=0)


def trim(tensor: Tensor, density: float) -> Tensor:
    """The floor(density n) numbers of largest size, zero for the others."""
    kept = torch.topk(tensor.abs().flatten(), k=int(density * tensor.numel())).indices
    mask = torch.zeros(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    mask[kept] = 1
    return tensor * mask.view(tensor.shape)


def drop(tensor: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each number with probability `density`, divided by it, so that the mean over masks is the tensor."""
    kept = torch.bernoulli(torch.full_like(tensor, density), generator=generator)
    return tensor * kept / density


def ties(tensors: Sequence[Tensor], weights: Tensor, majority: Majority) -> Tensor:
    """sum_i w_i t_i [sgn t_i = g] / max(1, sum_i [sgn t_i = g]), element by element

    g = +1 where the sum over i of t_i ("total") or of sgn t_i ("frequency") is at least 0, else -1. A zero agrees with
    nothing.
    """
    stacked = torch.stack(list(tensors))
    votes = stacked if majority == "total" else stacked.sign()
    agrees = stacked.sign() == torch.where(votes.sum(dim=0) >= 0, 1, -1)
    weighted = stacked * _along_first(weights, tensors[0])
    return (weighted * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1.0)


def _along_first(weights: Tensor, tensor: Tensor) -> Tensor:
    return weights.view(-1, *(1,) * tensor.dim())

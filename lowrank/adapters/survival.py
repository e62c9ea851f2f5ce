"""The part of a hat that is left when it has been added to weights and the sum has been rounded.

F(W) is W as the output stores it: rounded to 16 bits, or quantized.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Survival:
    """The part of delta W = scaling * (A B)^T that one linear keeps: kept = F(W + delta W) - F(W)

    cosine of kept and delta W, ratio |kept| / |delta W|; both 1 if nothing is lost, 0 if all of it is.
    """

    path: str
    cosine: float
    ratio: float


def survival_of(path: str, kept: Tensor, delta: Tensor) -> Survival:
    """From F(W + delta W) - F(W) and delta W, [N, K] each."""
    return survival_from(path, *products(kept, delta).tolist())


def products(kept: Tensor, delta: Tensor) -> Tensor:
    """sums of kept * delta, kept^2 and delta^2, in float64, a few rows at a time; [3]"""
    sums = torch.zeros(3, dtype=torch.float64)
    for k, d in zip(kept.split(256), delta.split(256), strict=True):
        k, d = k.double().flatten(), d.double().flatten()
        sums += torch.stack([k @ d, k @ k, d @ d])
    return sums


def survival_from(path: str, product: float, kept: float, delta: float) -> Survival:
    """From sums of kept * delta, kept^2 and delta^2."""
    if kept == 0 or delta == 0:
        return Survival(path, 0.0, 0.0)
    return Survival(path, product / (kept * delta) ** 0.5, (kept / delta) ** 0.5)

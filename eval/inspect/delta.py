"""Measures of the update delta W of a hat for one linear, and the angles between two of them.

N out_features, K in_features, r rank.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank.adapters.algebra.factored import Factored


@dataclass(frozen=True)
class Spectrum:
    """Measures of the singular values s of delta W; all zero for an untrained hat.

    norm            sqrt(sum s^2), Frobenius
    spectral        s_1
    stable_rank     sum s^2 / s_1^2
    effective_rank  exp(- sum p ln p), p = s / sum s    (Roy and Vetterli, EUSIPCO 2007)
    directions_99   how many directions carry 99 % of sum s^2
    """

    singular_values: tuple[float, ...]
    norm: float
    spectral: float
    stable_rank: float
    effective_rank: float
    directions_99: int


def spectrum(delta: Factored) -> Spectrum:
    """The figures of one linear."""
    sigma = delta.sigma
    energy = float(sigma.square().sum())
    if energy == 0:
        return Spectrum(tuple(sigma.tolist()), 0.0, 0.0, 0.0, 0.0, 0)
    share = sigma[sigma > 0] / sigma.sum()
    carried = sigma.square().cumsum(0) / energy
    return Spectrum(
        tuple(sigma.tolist()),
        norm=math.sqrt(energy),
        spectral=float(sigma[0]),
        stable_rank=energy / float(sigma[0]) ** 2,
        effective_rank=float(torch.exp(-(share * share.log()).sum())),
        directions_99=int((carried < 0.99).sum()) + 1,
    )


@dataclass(frozen=True)
class Angles:
    """Two hats on one linear.

    cosine           <delta 1, delta 2> / (|delta 1| |delta 2|)
    out_degrees      the principal angles between the spaces into which they write (columns of B), ascending
    in_degrees       between those from which they read (rows of A)
    out_overlap      sum cos^2 / min(rank 1, rank 2): 1 if one space holds the other, 0 if they are orthogonal
                     (phi of LoRA, arXiv 2106.09685, section 7.2)
    chance_out       the overlap of two random spaces of these ranks: max(rank 1, rank 2) / N
    """

    cosine: float
    out_degrees: tuple[float, ...]
    in_degrees: tuple[float, ...]
    out_overlap: float
    in_overlap: float
    chance_out: float
    chance_in: float


def angles(one: Factored, other: Factored) -> Angles:
    """From the factors: nothing larger than [N, r] is formed; angles below 0.05 degrees are float32's rounding."""
    ranks = one.rank, other.rank
    left = one.left.T @ other.left
    right = one.right.T @ other.right
    product = float(one.sigma @ (left * right) @ other.sigma)
    size = float(one.sigma.norm() * other.sigma.norm())
    (out_degrees, out_overlap), (in_degrees, in_overlap) = (
        _principal(between[: ranks[0], : ranks[1]]) for between in (left, right)
    )
    return Angles(
        product / size if size else 0.0,
        out_degrees,
        in_degrees,
        out_overlap,
        in_overlap,
        chance_out=max(ranks) / len(one.left),
        chance_in=max(ranks) / len(one.right),
    )


def _principal(between: Tensor) -> tuple[tuple[float, ...], float]:
    """(angles in degrees, overlap) of two spaces, from the products of their orthonormal bases"""
    cosines = torch.linalg.svdvals(between).clamp(max=1)
    overlap = float(cosines.square().sum()) / len(cosines) if len(cosines) else 0.0
    return tuple(torch.rad2deg(torch.arccos(cosines)).tolist()), overlap

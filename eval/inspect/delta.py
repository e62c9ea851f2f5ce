"""The update delta W of a hat for one linear, from its two small matrices alone: no d x d matrix is ever formed.

N out_features, K in_features, r rank, m = min(r, N, K).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank.adapters.files import Pair


@dataclass(frozen=True)
class Factored:
    """delta W = left diag(sigma) right^T;  left [N, m], sigma [m] descending, right [K, m], float64"""

    left: Tensor
    sigma: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """Number of singular values above the rounding error of float32 matrices."""
        if not len(self.sigma) or self.sigma[0] == 0:
            return 0
        floor = self.sigma[0] * max(len(self.left), len(self.right)) * torch.finfo(torch.float32).eps
        return int((self.sigma > floor).sum())

    def dense(self) -> Tensor:
        """delta W [N, K], for what needs all of it."""
        return (self.left * self.sigma) @ self.right.T


def factor(pair: Pair, weight: Tensor | None = None) -> Factored:
    """delta W of a pair as its singular values and vectors; of a DoRA, whose W' - W has any rank, from all of W [N, K]

    Raises ValueError for a DoRA without W.
    """
    if pair.magnitude is None:
        return _factor_low_rank(pair)
    left, sigma, right = torch.linalg.svd(pair.delta(weight).double(), full_matrices=False)
    return Factored(left, sigma, right.T)


def _factor_low_rank(pair: Pair) -> Factored:
    """The SVD of scaling * lora_B lora_A:  B = Q_B R_B, A^T = Q_A R_A, the SVD U S V^T of scaling * R_B R_A^T [r, r],
    and with it left = Q_B U, right = Q_A V

    The work is (N + K) r^2, in float64.
    """
    q_b, r_b = torch.linalg.qr(pair.lora_B.double())
    q_a, r_a = torch.linalg.qr(pair.lora_A.double().T)
    u, sigma, vh = torch.linalg.svd(pair.config.scaling * r_b @ r_a.T, full_matrices=False)
    return Factored(q_b @ u, sigma, q_a @ vh.T)


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

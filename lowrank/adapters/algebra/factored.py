"""The update delta W of a hat for one linear, from its two small matrices alone: no d x d matrix is ever formed.

N out_features, K in_features, r rank, m = min(r, N, K).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...layers.lora import AdapterConfig
from ..stored import Pair


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

    def cut(self, rank: int) -> "Factored":
        """The best matrix of this rank, by Eckart and Young: the leading singular vectors."""
        return Factored(self.left[:, :rank], self.sigma[:rank], self.right[:, :rank])

    def pair(self, config: AdapterConfig) -> Pair:
        """The matrices of a hat, float32, scaling 1: lora_A = right^T, lora_B = left diag(sigma), as PEFT's svd."""
        rank = len(self.sigma)
        options = AdapterConfig(rank, float(rank), config.targets, config.dropout)
        return Pair(options, self.right.T.float().contiguous(), (self.left * self.sigma).float().contiguous())


def factor(pair: Pair, weight: Tensor | None = None) -> Factored:
    """delta W of a pair as its singular values and vectors; of a DoRA, whose W' - W has any rank, from all of W [N, K]

    Raises ValueError for a DoRA without W.
    """
    if pair.magnitude is None:
        return factor_sum([(1.0, pair)])
    return factor_dense(pair.delta(weight))


def factor_dense(matrix: Tensor) -> Factored:
    """The SVD of a whole matrix [N, K], in float64."""
    left, sigma, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return Factored(left, sigma, right.T)


class Products(NamedTuple):
    """A sum of products as one product b a, float64: a [R, K], b [N, R], R all their ranks"""

    a: Tensor
    b: Tensor


def stack(terms: Sequence[tuple[float, Pair]]) -> Products:
    """sum_i w_i delta W_i = b a: the lora_A one below another, the lora_B, times weight and scaling, side by side."""
    a = torch.cat([pair.lora_A.double() for _, pair in terms])
    return Products(
        a, torch.cat([weight * pair.config.scaling * pair.lora_B.double() for weight, pair in terms], dim=1)
    )


def factor_sum(terms: Sequence[tuple[float, Pair]]) -> Factored:
    """The SVD of sum_i w_i delta W_i = b a:  b = Q_b R_b, a^T = Q_a R_a, the SVD U S V^T of R_b R_a^T [R, R],
    and with it left = Q_b U, right = Q_a V

    The work is (N + K) R^2, in float64.
    """
    a, b = stack(terms)
    q_b, r_b = torch.linalg.qr(b)
    q_a, r_a = torch.linalg.qr(a.T)
    u, sigma, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return Factored(q_b @ u, sigma, q_a @ vh.T)


def norm_of_sum(terms: Sequence[tuple[float, Pair]]) -> float:
    """|sum_i w_i delta W_i|, Frobenius, from the triangles of its factors alone."""
    a, b = stack(terms)
    r_b, r_a = torch.linalg.qr(b, mode="r")[1], torch.linalg.qr(a.T, mode="r")[1]
    return float(torch.linalg.matrix_norm(r_b @ r_a.T))


def rank_for(sigma: Tensor, energy: float) -> int:
    """The least rank that keeps a share of sum s^2: the k with s_1^2 + ... + s_k^2 >= energy sum s^2"""
    carried = sigma.square().cumsum(0)
    return min(int(torch.searchsorted(carried, energy * carried[-1])) + 1, len(sigma))

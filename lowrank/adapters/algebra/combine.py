"""Several hats of one linear as one; w_i their weights, s_i their scalings, delta W_i = s_i B_i A_i (lora_B lora_A).

    cat          A = [w_1 s_1 A_1; w_2 s_2 A_2 ...], B = [B_1 B_2 ...]       exact; the ranks add up
    svd          the best product of a rank for sum_i w_i delta W_i
    linear       A = sum_i sgn(w_i s_i) |w_i s_i|^1/2 A_i,  B = sum_i |w_i s_i|^1/2 B_i     with the products of all
                 pairs in it, A_i of one and B_j of another
    magnitude_prune, ties, dare_linear, dare_ties    the same with `sparsify` in the place of the two sums
    ..._svd      `sparsify` on the delta W_i themselves, then the best product of a rank

They are those of PEFT's `add_weighted_adapter` (0.21), under its names.  N out_features, K in_features, r rank.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layers.lora import AdapterConfig
from ..stored import Pair
from .factored import factor_sum, norm_of_sum
from .sparsify import Majority, drop, ties, trim, weighted_sum

PRUNED = ("magnitude_prune", "ties", "dare_linear", "dare_ties")
ON_PAIRS = ("linear", *PRUNED)
ON_DELTAS = ("svd", *(f"{name}_svd" for name in PRUNED))
METHODS = ("cat", *ON_PAIRS, *ON_DELTAS)
Terms = Sequence[tuple[float, Pair]]


@dataclass(frozen=True)
class Combination:
    """A method and what it takes.

    rank      of those that end in svd: None for the largest of the hats'
    density   of those that prune: the share of the numbers that stays, above 0 and below 1
    majority  of ties: whether numbers or signs are added up for the sign
    clamp     of those that end in svd: numbers beyond this quantile of those of both factors are cut down to it
    seed      of what dare drops
    """

    method: str = "svd"
    rank: int | None = None
    density: float | None = None
    majority: Majority = "total"
    clamp: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.is_pruning != (self.density is not None):
            rule = "given for" if self.is_pruning else "left out for"
            raise ValueError(f"density must be {rule} method {self.method!r}, got {self.density}")
        if self.density is not None and not 0 < self.density < 1:
            raise ValueError(f"density must be above 0 and below 1, got {self.density}")
        for option in ("rank", "clamp"):
            if getattr(self, option) is not None and self.method not in ON_DELTAS:
                raise ValueError(f"{option} is of the methods {', '.join(ON_DELTAS)}, got method {self.method!r}")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.clamp is not None and not 0.5 < self.clamp <= 1:
            raise ValueError(f"clamp must be a quantile above 0.5 and at most 1, got {self.clamp}")
        if self.majority not in ("total", "frequency"):
            raise ValueError(f"majority must be 'total' or 'frequency', got {self.majority!r}")

    @staticmethod
    def is_pruned(method: str) -> bool:
        """True for a method that sets numbers to zero."""
        return method.removesuffix("_svd") in PRUNED

    @property
    def is_pruning(self) -> bool:
        """True if this one does."""
        return self.is_pruned(self.method)

    def generator(self) -> torch.Generator:
        """Draws what dare drops, for one linear after another."""
        return torch.Generator().manual_seed(self.seed)


def combine(terms: Terms, how: Combination, generator: torch.Generator, targets: tuple[str, ...], where: str) -> Pair:
    """The hats of one linear, each with its weight, as one.

    targets  of the new hat's config; where: the linear, for messages
    Raises ValueError for hats of different ranks where pairs are added, and of different shapes.
    """
    first = terms[0][1]
    for _, pair in terms:
        shapes = [(len(one.lora_B), one.lora_A.shape[1]) for one in (first, pair)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{where}: the hats are of linears of {list(shapes[0])} and {list(shapes[1])}")
    dropout = first.config.dropout
    if how.method == "cat":
        lora_A = torch.cat([pair.lora_A * weight * pair.config.scaling for weight, pair in terms])
        return _pair(lora_A, torch.cat([pair.lora_B for _, pair in terms], dim=1), targets, dropout)
    ranks = [pair.config.rank for _, pair in terms]
    if how.method in ON_PAIRS:
        if len(set(ranks)) > 1:
            raise ValueError(
                f"{where}: method {how.method!r} adds matrices of one rank, the hats have {ranks}: take cat or svd"
            )
        return _pair(*_sum_of_pairs(terms, how, generator), targets, dropout)
    rank = min(how.rank or max(ranks), *(len(first.lora_B), first.lora_A.shape[1]))
    config = AdapterConfig(rank, float(rank), targets, dropout)
    if how.method == "svd" and how.clamp is None:
        return factor_sum(terms).cut(rank).pair(config)
    deltas = [pair.delta() for _, pair in terms]
    merged = _reduce(how, generator, how.method.removesuffix("_svd"))(deltas, torch.tensor([w for w, _ in terms]))
    left, sigma, right = torch.linalg.svd(merged, full_matrices=False)
    b, a = left[:, :rank] * sigma[:rank], right[:rank]
    if how.clamp is not None:
        limit = float(torch.quantile(torch.cat([b.flatten(), a.flatten()]), how.clamp))
        b, a = b.clamp(-limit, limit), a.clamp(-limit, limit)
    return _pair(a.contiguous(), b.contiguous(), targets, dropout)


def error_of(pair: Pair, terms: Terms) -> tuple[float, float]:
    """(|delta W - sum_i w_i delta W_i|, |sum_i w_i delta W_i|), Frobenius"""
    return norm_of_sum([(1.0, pair), *((-weight, term) for weight, term in terms)]), norm_of_sum(terms)


def _sum_of_pairs(terms: Terms, how: Combination, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """lora_A and lora_B, each summed by itself: the root of |w s| goes into both, its sign into one."""
    shares = [weight * pair.config.scaling for weight, pair in terms]
    roots = [math.sqrt(abs(share)) for share in shares]
    signed = [root if share >= 0 else -root for root, share in zip(roots, shares, strict=True)]
    reduce = _reduce(how, generator, how.method)
    lora_A = reduce([pair.lora_A for _, pair in terms], torch.tensor(signed))
    return lora_A, reduce([pair.lora_B for _, pair in terms], torch.tensor(roots))


def _reduce(how: Combination, generator: torch.Generator, name: str) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
    """Matrices of one shape and their weights [n] -> one matrix."""

    def reduce(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
        if how.density is not None:
            if name.startswith("dare"):
                tensors = [drop(tensor, how.density, generator) for tensor in tensors]
            else:
                tensors = [trim(tensor, how.density) for tensor in tensors]
        return ties(tensors, weights, how.majority) if name.endswith("ties") else weighted_sum(tensors, weights)

    return reduce


def _pair(lora_A: Tensor, lora_B: Tensor, targets: tuple[str, ...], dropout: float) -> Pair:
    """Matrices whose product is delta W: alpha = rank, scaling 1."""
    rank = len(lora_A)
    return Pair(AdapterConfig(rank, float(rank), targets, dropout), lora_A, lora_B)

"""Intruder dimensions (Shuttleworth et al., arXiv 2410.21228): leading singular vectors of W + delta W that W has not.

With singular vectors x_i of W and y_j of W + delta W, y_j intrudes where max_i |<x_i, y_j>| < threshold. They are the
left ones where N <= K and the right ones else: on the smaller side those of W are a basis of the whole space.

That asks for every singular vector of W, and the SVD of one linear of Llama 2 7B takes half a minute or more on two
cores: hours for all. Here W and W^T are only multiplied with, a few thousand times for a linear, in blocks:

    y_j     the leading singular vectors of W + delta W, by block Krylov iteration; delta W is applied as factors
    c_i^2   = <x_i, y_j>^2 is the mass that the spectral measure of W W^T in y_j has at sigma_i^2. m steps of Lanczos
            from y_j give that measure's first orthonormal polynomials p_0 ... p_m-1, and no mass at lambda exceeds
            1 / sum_k p_k(lambda)^2, the Christoffel function: its maximum bounds every |<x_i, y_j>| from above.

The bound is widened by how far a y_j may be from the true vector, which takes it that no singular value hides between
those that were found. What is neither bounded below the threshold nor found above it is undecided.

N out_features, K in_features; n = min(N, K), k leading vectors looked at, m steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank.adapters.algebra.factored import Factored

Apply = Callable[[Tensor], Tensor]

KRYLOV_STEPS, BLOCK_SPARE = 16, 6
LANCZOS_STEPS = 100
GRID = 8  # places between two Ritz values where the Christoffel function is looked at
BROKEN = 1e-5  # of the largest Ritz value: Lanczos has found an invariant subspace, float32 being what W is applied in


@dataclass(frozen=True)
class Intruders:
    """For each of the leading singular vectors of W + delta W, how near it comes to one of W.

    cosines   max_i |<x_i, y_j>|; from Lanczos it is the cosine with the part of y_j that belongs to one singular value
              of W, or to several that m steps cannot tell apart
    at_most   no |<x_i, y_j>| is larger
    sigma     the singular values of W + delta W that belong to the y_j
    """

    threshold: float
    exact: bool
    sigma: tuple[float, ...]
    cosines: tuple[float, ...]
    at_most: tuple[float, ...]

    @property
    def found(self) -> int:
        """Number of certain intruders."""
        return sum(bound < self.threshold for bound in self.at_most)

    @property
    def undecided(self) -> int:
        """Number of possible intruders: the bound is above the threshold, the computed cosine below it."""
        pairs = zip(self.cosines, self.at_most, strict=True)
        return sum(cosine < self.threshold <= bound for cosine, bound in pairs)


@dataclass(frozen=True)
class Directions:
    """The leading singular vectors of W + delta W that were looked at: left [N, k], right [K, k], float64."""

    intruders: Intruders
    left: Tensor
    right: Tensor


def find_intruders(w: Tensor, delta: Factored, count: int, threshold: float, exact: bool = False) -> Intruders:
    """The `count` leading singular vectors of W + delta W against those of W

    w      float32 [N, K]
    exact  takes both SVDs instead
    """
    return find_directions(w, delta, count, threshold, exact).intruders


def find_directions(w: Tensor, delta: Factored, count: int, threshold: float, exact: bool = False) -> Directions:
    """The same, with the vectors."""
    if w.shape[0] > w.shape[1]:
        found = find_directions(w.T, Factored(delta.right, delta.sigma, delta.left), count, threshold, exact)
        return Directions(found.intruders, found.right, found.left)
    count = min(count, *w.shape)
    if exact:
        x = torch.linalg.svd(w, full_matrices=False)[0]
        y, sigma, vh = torch.linalg.svd(w + delta.dense().to(w), full_matrices=False)
        cosines = (x.T @ y[:, :count]).abs().amax(dim=0).clamp(max=1.0).double()
        intruders = _intruders(threshold, True, sigma[:count], cosines, cosines)
        return Directions(intruders, y[:, :count].double(), vh[:count].T.double())
    left, right = (delta.left * delta.sigma).to(w), delta.right.to(w)

    def apply_t(u: Tensor) -> Tensor:
        return w.T @ u + right @ (left.T @ u)

    y, sigma, off = leading_left(lambda v: w @ v + left @ (right.T @ v), apply_t, w.shape[0], count)
    cosines, at_most = cosine_bounds(lambda u: w @ (w.T @ u), y)
    intruders = _intruders(threshold, False, sigma, cosines, (at_most + off).clamp(max=1.0))
    images = apply_t(y).double()
    return Directions(intruders, y.double(), images / images.norm(dim=0).clamp(min=torch.finfo(torch.float32).tiny))


def _intruders(threshold: float, exact: bool, sigma: Tensor, cosines: Tensor, at_most: Tensor) -> Intruders:
    return Intruders(threshold, exact, *(tuple(values.tolist()) for values in (sigma.double(), cosines, at_most)))


def leading_left(apply: Apply, apply_t: Apply, n: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading left singular vectors of M [n, *], by block Krylov iteration with M M^T

    Returns y [n, count], their singular values [count], and how far from the true vector each may be, as a length:
    sqrt(2) * residual / gap to the neighbouring values (Davis and Kahan).
    """
    width = min(count + BLOCK_SPARE, n)
    block = torch.linalg.qr(torch.randn(n, width, generator=torch.Generator().manual_seed(0)))[0]
    basis, images = [block], [apply_t(block)]
    for _ in range(KRYLOV_STEPS):
        if width * (len(basis) + 1) > n:
            break
        block = apply(images[-1])
        known = torch.cat(basis, dim=1)
        for _ in range(2):  # once leaves what float32 rounds away
            block = torch.linalg.qr(block - known @ (known.T @ block))[0]
        basis.append(block)
        images.append(apply_t(block))
    image = torch.cat(images, dim=1).double()
    values, vectors = torch.linalg.eigh(image.T @ image)
    values, vectors = values.flip(0), vectors.flip(1)
    y = (torch.cat(basis, dim=1).double() @ vectors[:, :count]).to(block.dtype)
    residual = (apply(apply_t(y)).double() - y.double() * values[:count]).norm(dim=0)
    return y, values[:count].clamp(min=0).sqrt(), math.sqrt(2) * residual / _gaps(values)[:count]


def cosine_bounds(gram: Apply, y: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt of the largest mass of the spectral measure of W W^T in each column of y [n, k]: as found, and at most

    gram  u -> W W^T u.
    With T = S diag(theta) S^T the tridiagonal matrix of Lanczos: the mass at theta_i is S[0, i]^2 (Golub and Welsch),
    and elsewhere p(lambda) is a multiple of q = (T - lambda)^-1 e_m, so that the Christoffel function is q_0^2 / |q|^2.
    A Krylov space that is exhausted holds all of the measure: there is no mass elsewhere.
    """
    found, bounds = [], []
    for alpha, beta in _lanczos(gram, y):
        theta, s = torch.linalg.eigh(torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1))
        masses = s[0].square()
        found.append(masses.max().sqrt())
        if len(theta) == LANCZOS_STEPS:
            q = s[-1] / (theta - _between(theta)[:, None])
            masses = torch.cat([masses, (q @ s[0]).square() / q.square().sum(dim=1)])
        bounds.append(masses.max().sqrt())
    return torch.stack(found), torch.stack(bounds).clamp(max=1.0)


def _lanczos(gram: Apply, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Lanczos with full reorthogonalisation from each column of y at once: (alpha [m], beta [m - 1]) of each, float64

    A column ends early where its Krylov space is exhausted.
    """
    n, count = y.shape
    steps = min(LANCZOS_STEPS, n)
    basis = y.new_zeros(count, steps, n)
    basis[:, 0] = (y / y.norm(dim=0)).T
    alpha, beta = (torch.zeros(count, steps, dtype=torch.float64) for _ in range(2))
    for step in range(steps):
        image = gram(basis[:, step].T).T
        alpha[:, step] = (basis[:, step].double() * image.double()).sum(dim=1)
        known = basis[:, : step + 1]
        for _ in range(2):
            image = image - ((known @ image[:, :, None]).transpose(1, 2) @ known)[:, 0]
        beta[:, step] = image.double().norm(dim=1)
        if step + 1 < steps:
            basis[:, step + 1] = image / image.norm(dim=1, keepdim=True).clamp(min=torch.finfo(image.dtype).tiny)
    broken = beta <= BROKEN * alpha.abs().amax(dim=1, keepdim=True)
    ends = [int(row.nonzero()[0]) + 1 if row.any() else steps for row in broken]
    return [(alpha[column, :end], beta[column, : end - 1]) for column, end in enumerate(ends)]


def _between(theta: Tensor) -> Tensor:
    """Places between neighbouring Ritz values."""
    inner = torch.arange(1, GRID + 1, dtype=theta.dtype) / (GRID + 1)
    return (theta[:-1, None] + (theta[1:] - theta[:-1])[:, None] * inner).flatten()


def _gaps(values: Tensor) -> Tensor:
    """The distance of each value to its nearest neighbour; of one alone, itself."""
    if len(values) == 1:
        return values.abs()
    steps = (values[:-1] - values[1:]).abs()
    end = torch.full((1,), math.inf, dtype=values.dtype)
    return torch.minimum(torch.cat([end, steps]), torch.cat([steps, end]))

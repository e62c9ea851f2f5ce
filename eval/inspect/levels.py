"""Why the levels of a 4-bit format are where they are: the distribution of w / absmax, and the best levels for it.

NF4's levels are quantiles of a normal distribution that is cut off at 1.85 deviations
(`kernels/weights/codebooks.py`): each would be equally likely if w / absmax were such a normal. It is not: the largest
of 64 normal weights stands at some 2.4 deviations, so that the rest lies closer to zero, and the largest itself is
exactly 1. (Yoshida, arXiv 2306.06965.)

u = w / absmax of its block, in [-1, 1].  A histogram has its bins around PLACES; the first and the last hold -1 and 1.
Within a bin the mass is taken to be spread evenly.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank.kernels.reference.codes import entropy_bits
from lowrank.kernels.weights import codebooks

BINS = 8192
PLACES = torch.linspace(-1, 1, BINS + 1, dtype=torch.float64)
EDGES = torch.cat([PLACES[:1], (PLACES[:-1] + PLACES[1:]) / 2, PLACES[-1:]])
CHUNK_BLOCKS = 1 << 14
ROUNDS, STILL = 20_000, 1e-9


@dataclass
class Distribution:
    """Histogram of u = w / absmax, and the same with each weight counted absmax^2 times

    The second is what an error in u costs in w: sum (w - Q(w))^2 = sum absmax^2 (u - q(u))^2.
    """

    counts: Tensor
    energy: Tensor

    @classmethod
    def empty(cls) -> "Distribution":
        """The histogram of no weights."""
        return cls(torch.zeros_like(PLACES), torch.zeros_like(PLACES))

    def add(self, w: Tensor, absmax: Tensor, blocksize: int) -> None:
        """Takes in W, flattened into blocks with their maxima float32 [blocks]; a block of zeros says nothing."""
        flat = w.flatten()
        for start in range(0, len(absmax), CHUNK_BLOCKS):
            maxima = absmax[start : start + CHUNK_BLOCKS]
            part = flat[start * blocksize : (start + len(maxima)) * blocksize]
            each = maxima.repeat_interleave(blocksize)[: len(part)]
            occupied = each > 0
            if not occupied.all():
                part, each = part[occupied], each[occupied]
            place = ((part / each + 1) * (BINS / 2)).round().long()
            self.counts += torch.bincount(place, minlength=BINS + 1)
            self.energy += torch.bincount(place, each.double().square(), minlength=BINS + 1)


def normal_distribution(blocksize: int) -> Distribution:
    """Distribution of u for independent normal weights

    With M the largest |z| of a block, P(M < m) = erf(m / sqrt 2)^blocksize: one weight in `blocksize` is M itself, the
    others are normal cut off at M. Integrated over m from 0 to 9 by the midpoint rule.
    """
    step = 0.01
    m = torch.arange(step / 2, 9, step, dtype=torch.float64)
    inside = torch.erf(m / math.sqrt(2))
    density = blocksize * 2 * torch.exp(-(m**2) / 2) / math.sqrt(2 * math.pi) * inside ** (blocksize - 1) * step
    masses = torch.diff(torch.erf(EDGES[:, None] * m / math.sqrt(2)) / 2, dim=0) / inside
    found = []
    for factor in (density, density * m**2):
        mass = (1 - 1 / blocksize) * (masses @ factor)
        mass[[0, -1]] += factor.sum() / blocksize / 2
        found.append(mass)
    return Distribution(*found)


def lloyd_max(mass: Tensor, start: Tensor) -> Tensor:
    """The levels nearest to which, in the mean square, the mass lies: each the centroid of what is nearest to it

    (Lloyd, IEEE Trans. Inf. Theory 28, 1982; Max, IRE Trans. Inf. Theory 6, 1960.) `start`, ascending, has as many.
    A level that nothing is nearest to stays where it is.
    """
    levels, spread = start.double(), _Spread(mass)
    for _ in range(ROUNDS):
        weight, moment = spread.cells(levels)
        moved = torch.where(weight > 0, moment / weight.clamp(min=1e-300), levels)
        if (moved - levels).abs().max() < STILL:
            return moved
        levels = moved
    return levels


def equal_shares(mass: Tensor, count: int) -> Tensor:
    """`count` levels, each the median of an equally likely part: what a code of full entropy would have"""
    wanted = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return PLACES[torch.searchsorted(mass.cumsum(0) / mass.sum(), wanted).clamp(max=BINS)]


def shares(mass: Tensor, levels: Tensor) -> Tensor:
    """The share of the mass that is nearest to each level; levels ascending"""
    return _Spread(mass).cells(levels.double())[0] / mass.sum()


def relative_error(mass: Tensor, levels: Tensor) -> float:
    """sum mass (u - nearest level)^2 / sum mass u^2:  of `energy` this is sum (w - Q(w))^2 / sum w^2"""
    levels = levels.double()
    nearest = levels[torch.bucketize(PLACES, (levels[:-1] + levels[1:]) / 2)]
    return float((mass * (PLACES - nearest).square()).sum() / (mass * PLACES.square()).sum())


class _Spread:
    """A mass, spread evenly within each bin: how much there is from -1 up to anywhere, and its first moment."""

    def __init__(self, mass: Tensor) -> None:
        nothing = torch.zeros(1, dtype=torch.float64)
        self._mass = mass.double()
        self._totals = torch.cat([nothing, self._mass.cumsum(0)])
        self._moments = torch.cat([nothing, (self._mass * (EDGES[:-1] + EDGES[1:]) / 2).cumsum(0)])

    def cells(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """(mass, first moment) of what is nearest to each level; levels ascending"""
        inner = ((levels[:-1] + levels[1:]) / 2).clamp(-1, 1)
        bins = (torch.searchsorted(EDGES, inner, right=True) - 1).clamp(max=BINS)
        low, width = EDGES[bins], EDGES[bins + 1] - EDGES[bins]
        share = (inner - low) / width
        totals = self._totals[bins] + share * self._mass[bins]
        moments = self._moments[bins] + share * self._mass[bins] * (low + share * width / 2)
        return _steps(self._totals, totals), _steps(self._moments, moments)


def _steps(whole: Tensor, inner: Tensor) -> Tensor:
    """Between the first of `whole`, those inside, and the last of `whole`."""
    return torch.diff(torch.cat([whole[:1], inner, whole[-1:]]))


@dataclass(frozen=True)
class Levels:
    """16 levels on [-1, 1] for u = w / absmax

    share     of the weights that are nearest to each, observed
    expected  the same if the weights were independent normals
    error     sum (w - Q(w))^2 / sum w^2 with these levels and exact maxima
    """

    levels: tuple[float, ...]
    share: tuple[float, ...]
    expected: tuple[float, ...]
    entropy_bits: float
    error: float


@dataclass(frozen=True)
class LevelStudy:
    """u over all weights that were looked at, and what different levels make of it. density: of u, 64 bins over [-1, 1]

    levels   "nf4" and "fp4", and the best for the observed u: "lloyd-max" in the mean square, "equal shares" in
             entropy; "lloyd-max, normal" is the best for normal weights
    """

    density: tuple[float, ...]
    normal_density: tuple[float, ...]
    share_at_ends: float
    levels: dict[str, Levels]


def study(u: Distribution, blocksize: int) -> LevelStudy:
    """The levels of both formats beside the best ones; u is of blocks of `blocksize`"""
    normal = normal_distribution(blocksize)
    nf4 = codebooks.nf4().double()
    candidates = {
        "nf4": nf4,
        "fp4": codebooks.fp4().unique().double(),  # fifteen: zero has two codes
        "lloyd-max": lloyd_max(u.energy, nf4),
        "lloyd-max, normal": lloyd_max(normal.energy, nf4),
        "equal shares": equal_shares(u.counts, 16),
    }
    studied = {}
    for name, levels in candidates.items():
        share = shares(u.counts, levels)
        studied[name] = Levels(
            tuple(levels.tolist()),
            tuple(share.tolist()),
            tuple(shares(normal.counts, levels).tolist()),
            entropy_bits(share),
            relative_error(u.energy, levels),
        )
    return LevelStudy(
        _density(u.counts),
        _density(normal.counts),
        float((u.counts[0] + u.counts[-1]) / u.counts.sum()),
        studied,
    )


def _density(counts: Tensor) -> tuple[float, ...]:
    """Density of u in 64 bins over [-1, 1] without the two ends, which would hide the rest."""
    inner = counts.clone()
    inner[[0, -1]] = 0
    bins = inner[:-1].view(64, -1).sum(dim=1)
    return tuple((bins / counts.sum() * 32).tolist())

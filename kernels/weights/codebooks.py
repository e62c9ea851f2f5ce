"""The levels of the 4-bit formats, and of the 8-bit code in which double quantization stores block maxima.

A codebook is a sorted-by-code float32 vector; a weight w of a block with maximum `absmax` is stored as the index of
the level nearest to w / absmax.
"""

from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

# The published levels (QLoRA, arXiv 2305.14314, appendix E; also bitsandbytes). They were computed once, in single
# precision, from normal quantiles: `nf4_from_quantiles` shows how. A checkpoint depends on these exact values.
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)

# The eight magnitudes of FP4 (sign, two exponent bits, one mantissa bit) in the order of their bit patterns, in
# twelfths: bitsandbytes scales the largest, 12, to 1.
FP4_TWELFTHS = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)


def nf4_from_quantiles() -> list[float]:
    """level = Phi^-1(p) / Phi^-1(p_max): 16 quantiles of N(0, 1), scaled to [-1, 1]    (QLoRA, section 3)

    p runs evenly from 1/2 to p_max = ((1 - 1/30) + (1 - 1/32)) / 2, in 8 steps for the positive half and 7 for the
    negative one, so that both halves share an exact zero and the ends are exactly -1 and 1.
    """
    p_max = ((1 - 1 / 30) + (1 - 1 / 32)) / 2
    quantile = NormalDist().inv_cdf

    def half(levels: int) -> list[float]:
        step = (p_max - 0.5) / levels
        return [quantile(0.5 + i * step) / quantile(p_max) for i in range(1, levels + 1)]

    return [-level for level in reversed(half(7))] + [0.0] + half(8)


@cache
def nf4() -> Tensor:
    """The 16 levels of NF4, float32, ascending: the code of a level is its index."""
    return torch.tensor(NF4_LEVELS, dtype=torch.float32)


@cache
def fp4() -> Tensor:
    """The 16 levels of FP4, float32, by bit pattern: bit 3 is the sign, so codes are not in ascending order."""
    magnitudes = torch.tensor(FP4_TWELFTHS, dtype=torch.float32) / 12
    return torch.cat([magnitudes, 0 - magnitudes])  # 0 - 0 is +0: the code 8 stands for zero as well


@cache
def dynamic8() -> Tensor:
    """The 256 levels of the signed dynamic 8-bit code, float32, ascending    (Dettmers, arXiv 2110.02861, section 1.3)

    Seven decades, 10^-6 to 1: the decade 10^(i - 6) is cut into 2^i equal cells of [0.1, 1], whose midpoints, with
    both signs, are levels. That makes 2 (2^7 - 1) = 254; zero and 1 complete them (so -1 itself is not a level).
    """
    magnitudes = torch.cat([decade * _midpoints(2**i) for i, decade in enumerate(_decades())])
    return torch.cat([torch.tensor([0.0, 1.0]), magnitudes, -magnitudes]).sort().values


@cache
def dynamic8_unsigned() -> Tensor:
    """The 256 levels of the unsigned dynamic 8-bit code, float32, ascending, for numbers that are never negative

    The bit that the sign would take cuts every decade twice as fine: the decade 10^(i - 6) into 2^(i + 1) cells.
    """
    magnitudes = torch.cat([decade * _midpoints(2 ** (i + 1)) for i, decade in enumerate(_decades())])
    return torch.cat([torch.tensor([0.0, 1.0]), magnitudes]).sort().values


def _decades() -> Tensor:
    """10^-6 to 1, float32 [7]: as literals, since libraries round powers differently."""
    return torch.tensor([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], dtype=torch.float32)


def _midpoints(cells: int) -> Tensor:
    """The midpoints of `cells` equal cells of [0.1, 1], float32, with the last bits that files have

    bitsandbytes takes the edges from `torch.linspace`, whose last bit depends on the processor. Files come from those
    with a fused multiply-add: edge i is 0.1 + i step, rounded once; in the upper half 1 - (cells - i) step. Here both
    are taken in float64, where i step is exact, and one operation at a time, which rounds alike everywhere.
    """
    first = torch.tensor(0.1, dtype=torch.float32)
    step = ((1 - first) / cells).double()
    i = torch.arange(cells + 1, dtype=torch.float64)
    edges = torch.where(i < (cells + 1) // 2, first + i * step, 1 - (cells - i) * step).float()
    return (edges[:-1] + edges[1:]) / 2


Levels = Callable[[], Tensor]
CODEBOOKS: dict[str, Levels] = {"nf4": nf4, "fp4": fp4}
ZERO_CODES = {"nf4": 7, "fp4": 0}  # the code of 0.0: fills the last byte of an odd count, and an all-zero block

"""4-bit formats as functions W -> Q(W) in float32, with the bits a weight that they take when stored.

    levels    w = level[code] * absmax, blocks of B, absmax float32                     4 + 32 / B
    -dq       the same, maxima in 8 bits as in double quantization                      4 + 8 / B + 32 / (256 B)
    int4      affine: w = code * step + least, both float16, a block                    4 + 32 / B
    iq4_nl    ggml's levels, a float16 scale for 32 weights                             4.5
    mxfp4     E2M1 times a power of two for 32 weights   (OCP Microscaling Formats 1.0)     4.25
    nvfp4     E2M1 times an E4M3 scale for 16 weights, and one float32 for W                4.5

A block is of consecutive weights of W taken row by row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights import codebooks
from lowrank.kernels.weights.quantized_weight import NESTED_BLOCKSIZE

from ..conformance.implementations import IQ4_NL
from ..inspect.levels import EDGES, PLACES, lloyd_max, normal_distribution

BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
ROUNDS = 500


@dataclass(frozen=True)
class SimulatedFormat:
    """A format by its name; bits a weight, statistics included; apply: W [N, K] float32 -> Q(W), the same shape."""

    name: str
    bits: float
    apply: Callable[[Tensor], Tensor]


def by_levels(name: str, levels: Callable[[], Tensor], blocksize: int, nested: bool = False) -> SimulatedFormat:
    """w = the nearest level to w / absmax, times absmax

    levels    gives them, float32, in any order; asked at each use, for some take a second to be found
    """

    def apply(w: Tensor) -> Tensor:
        blocks = _blocks(w, blocksize)
        absmax = blocks.abs().amax(dim=1)
        ordered = levels().sort().values
        midpoints = (ordered[:-1] + ordered[1:]) / 2
        scaled = torch.where(absmax[:, None] > 0, blocks / absmax[:, None], 0.0)
        if nested:
            absmax = reference.dequantize_absmax(reference.quantize_absmax(absmax))
        return _whole(ordered[torch.bucketize(scaled, midpoints)] * absmax[:, None], w)

    statistics = (8 + 32 / NESTED_BLOCKSIZE) if nested else 32
    return SimulatedFormat(name, 4 + statistics / blocksize, apply)


def affine_int4(blocksize: int) -> SimulatedFormat:
    """w = code * step + least:  step = (max - min) / 15, least = min, both float16"""

    def apply(w: Tensor) -> Tensor:
        blocks = _blocks(w, blocksize)
        least, most = blocks.amin(dim=1, keepdim=True), blocks.amax(dim=1, keepdim=True)
        step, least = ((most - least) / 15).half().float(), least.half().float()
        codes = torch.where(step > 0, (blocks - least) / step, 0.0).round().clamp(0, 15)
        return _whole(codes * step + least, w)

    return SimulatedFormat(f"int4 b{blocksize}", 4 + 32 / blocksize, apply)


def iq4_nl() -> SimulatedFormat:
    """w = scale * level, the scale in float16 such that the largest weight of the 32 has the level -127."""
    levels = torch.tensor(IQ4_NL, dtype=torch.float32)

    def apply(w: Tensor) -> Tensor:
        blocks = _blocks(w, 32)
        largest = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
        scale = (largest / levels[0]).half().float()
        scaled = torch.where(scale != 0, blocks / scale, 0.0)
        return _whole(levels[torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2)] * scale, w)

    return SimulatedFormat("iq4_nl b32", 4 + 16 / 32, apply)


def mxfp4() -> SimulatedFormat:
    """The scale is 2^(floor(log2 absmax) - 2), so that the largest weight is below 8; beyond 6 it is 6."""

    def apply(w: Tensor) -> Tensor:
        blocks = _blocks(w, 32)
        absmax = blocks.abs().amax(dim=1, keepdim=True)
        scale = torch.exp2(torch.frexp(absmax).exponent.float() - 3)
        return _whole(torch.where(absmax > 0, _e2m1(blocks / scale) * scale, 0.0), w)

    return SimulatedFormat("mxfp4 b32", 4 + 8 / 32, apply)


def nvfp4() -> SimulatedFormat:
    """The scale of 16 weights is absmax / 6 in E4M3, relative to one float32 that puts the largest of W at 448 * 6."""

    def apply(w: Tensor) -> Tensor:
        blocks = _blocks(w, 16)
        absmax = blocks.abs().amax(dim=1, keepdim=True)
        scale_of_all = absmax.max() / (448 * 6)
        if scale_of_all == 0:
            return w.clone()
        scale = (absmax / 6 / scale_of_all).to(torch.float8_e4m3fn).float() * scale_of_all
        return _whole(torch.where(scale > 0, _e2m1(blocks / scale) * scale, 0.0), w)

    return SimulatedFormat("nvfp4 b16", 4 + 8 / 16, apply)


@cache
def af4_levels(blocksize: int) -> Tensor:
    """16 levels with the least mean |u - q(u)| for normal weights, u = w / absmax of `blocksize`; -1, 0 and 1 are fixed

    In the manner of AF4 (Yoshida, arXiv 2306.06965): each other level is the median of what is nearest to it.
    """
    mass = normal_distribution(blocksize).counts
    spread = torch.cat([torch.zeros(1, dtype=torch.float64), mass.cumsum(0)])
    levels = codebooks.nf4().double()
    free = torch.tensor([value not in (-1.0, 0.0, 1.0) for value in levels.tolist()])
    for _ in range(ROUNDS):
        inner = (levels[:-1] + levels[1:]) / 2
        ends = torch.cat([PLACES[:1], inner, PLACES[-1:]])
        below = _interpolate(spread, ends)
        moved = _inverse(spread, (below[:-1] + below[1:]) / 2)
        levels = torch.where(free, moved, levels)
    return levels.float()


@cache
def least_squares_levels(blocksize: int) -> Tensor:
    """16 levels with the least mean square error of w for normal weights in blocks of `blocksize` (Lloyd-Max)."""
    return lloyd_max(normal_distribution(blocksize).energy, codebooks.nf4().double()).float()


def formats() -> dict[str, SimulatedFormat]:
    """Every format that is compared, by its name."""
    found = []
    for size in BLOCKSIZES:
        found.append(by_levels(f"nf4 b{size}", codebooks.nf4, size))
        found.append(by_levels(f"nf4-dq b{size}", codebooks.nf4, size, nested=True))
    for size in (32, 64, 256, 1024, 4096):
        found.append(by_levels(f"af4 b{size}", partial(af4_levels, size), size))
    found.append(by_levels("least squares b64", partial(least_squares_levels, 64), 64))
    found += [affine_int4(size) for size in (32, 64, 128)]
    found.append(by_levels("fp4 b64", codebooks.fp4, 64))
    e2m1 = torch.tensor([sign * value / 6 for value in E2M1 for sign in (1, -1)])
    found.append(by_levels("e2m1 b64", lambda: e2m1, 64))
    found += [iq4_nl(), mxfp4(), nvfp4()]
    return {format.name: format for format in found}


def _e2m1(x: Tensor) -> Tensor:
    """The nearest number of E2M1, a tie to the even code; beyond 6 it is 6."""
    levels = torch.tensor(E2M1)
    middle = (levels[:-1] + levels[1:]) / 2
    low, high = (torch.bucketize(x.abs(), middle, right=right) for right in (False, True))
    code = torch.where((low != high) & (low % 2 == 1), high, low)
    return levels[code].copysign(x)


def _blocks(w: Tensor, blocksize: int) -> Tensor:
    flat = w.float().flatten()
    return torch.nn.functional.pad(flat, (0, -len(flat) % blocksize)).view(-1, blocksize)


def _whole(blocks: Tensor, w: Tensor) -> Tensor:
    return blocks.flatten()[: w.numel()].view(w.shape)


def _interpolate(spread: Tensor, at: Tensor) -> Tensor:
    """Mass from -1 up to each place, evenly spread within a bin."""
    bins = (torch.searchsorted(EDGES, at, right=True) - 1).clamp(0, len(EDGES) - 2)
    share = (at - EDGES[bins]) / (EDGES[bins + 1] - EDGES[bins])
    return spread[bins] + share * (spread[bins + 1] - spread[bins])


def _inverse(spread: Tensor, mass: Tensor) -> Tensor:
    """The place up to which there is so much mass."""
    bins = (torch.searchsorted(spread, mass, right=True) - 1).clamp(0, len(EDGES) - 2)
    width = (spread[bins + 1] - spread[bins]).clamp(min=1e-300)
    return EDGES[bins] + (mass - spread[bins]) / width * (EDGES[bins + 1] - EDGES[bins])

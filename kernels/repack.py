"""A 4-bit weight in the order in which the decode kernels read it: the same codes and statistics, the same bytes.

N out_features, K in_features; a block is `blocksize` weights of one row that share a maximum. A group is up to four
blocks in a row. Groups come first and rows second, so that the tile of a program is one stretch of memory; a byte
holds weight k in its low nibble and weight k + blocksize / 2 in its high one, so that the low nibbles of a tile are one
matrix and the high nibbles another, each with K-adjacent pairs in a register. Codes are renumbered for the look-up
(`register_table`), and the maxima lie in the order of the blocks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .formats import Blockwise4bit, FourBit, NestedAbsmax
from .register_table import code_order

BLOCKSIZES = (64, 128)
LARGEST_GROUP = 4  # a power of two up to 256, the blocks of a nested maximum


@dataclass(frozen=True)
class Repacked4bit:
    """W[n, k] = codebook[code_order[nibble of (n, k)]] * absmax[n, k // blocksize]

    codes   uint8 [K / blocksize / group, N, group, blocksize / 2]
    absmax  float32 [K / blocksize / group, N, group], or 8-bit codes of that shape in a NestedAbsmax, whose own maxima
            stay one to 256 blocks, counted row by row
    """

    codes: Tensor
    absmax: Tensor | NestedAbsmax
    format: FourBit
    blocksize: int
    shape: tuple[int, int]

    @property
    def group(self) -> int:
        """Blocks of a row that lie together. It divides K / blocksize, so a group is within one nested block."""
        return self.codes.shape[2]


def repackable(weight: Blockwise4bit) -> bool:
    """Whether `repack` takes the weight: a matrix whose rows are whole blocks of 64 or 128."""
    return _obstacle(weight) is None


def repack(weight: Blockwise4bit) -> Repacked4bit:
    """The weight in the order of the decode kernels, on its own device; `unpack` is the inverse.

    Raises ValueError for a weight of other than two dimensions, another blocksize, or K that is no multiple of it.
    """
    obstacle = _obstacle(weight)
    if obstacle is not None:
        raise ValueError(f"repack: {obstacle}")
    rows, columns = weight.shape
    group = math.gcd(columns // weight.blocksize, LARGEST_GROUP)
    codes = weight.codes.view(rows, columns // 2)
    nibbles = torch.stack([codes >> 4, codes & 15], dim=2)  # [N, K / 2, 2]: the first is in the high nibble
    order = torch.tensor(code_order(weight.format), device=codes.device)
    halves = order.argsort().to(torch.uint8)[nibbles.int()].view(rows, -1, group, 2, weight.blocksize // 2)
    repacked = (halves[:, :, :, 0] | halves[:, :, :, 1] << 4).transpose(0, 1).contiguous()
    absmax = _rearranged(weight.absmax, lambda maxima: maxima.view(rows, -1, group).transpose(0, 1).contiguous())
    return Repacked4bit(repacked, absmax, weight.format, weight.blocksize, (rows, columns))


def unpack(weight: Repacked4bit) -> Blockwise4bit:
    """The weight as it was before `repack`, byte for byte."""
    by_row = weight.codes.transpose(0, 1)
    halves = torch.stack([by_row & 15, by_row >> 4], dim=3)  # [N, K / blocksize / group, group, 2, blocksize / 2]
    order = torch.tensor(code_order(weight.format), dtype=torch.uint8, device=by_row.device)
    pairs = order[halves.int()].view(-1, 2)
    absmax = _rearranged(weight.absmax, lambda maxima: maxima.transpose(0, 1).flatten())
    return Blockwise4bit(pairs[:, 0] << 4 | pairs[:, 1], absmax, weight.format, weight.blocksize, weight.shape)


def _obstacle(weight: Blockwise4bit) -> str | None:
    """The rule that keeps a weight from being repacked, with the value that breaks it."""
    if len(weight.shape) != 2:
        return f"a weight must be [N, K], got shape {weight.shape}"
    if weight.blocksize not in BLOCKSIZES:
        return f"blocksize must be 64 or 128, got {weight.blocksize}"
    if weight.shape[1] % weight.blocksize:
        return f"K must be a multiple of blocksize {weight.blocksize}, got K {weight.shape[1]}"
    return None


def _rearranged(absmax: Tensor | NestedAbsmax, rearrange: Callable[[Tensor], Tensor]) -> Tensor | NestedAbsmax:
    if isinstance(absmax, NestedAbsmax):
        return replace(absmax, codes=rearrange(absmax.codes))
    return rearrange(absmax)

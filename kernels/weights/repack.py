"""A 4-bit weight in the order in which the decode kernels read it: the same codes and statistics, the same bytes.

N out_features, K in_features; a block is `blocksize` weights of one row that share a maximum. A group is up to 256
weights in a row. Groups come first and rows second, so that the tile of a program is one stretch of memory; a byte
holds weight k in its low nibble and weight k + blocksize / 2 in its high one, so that the low nibbles of a tile are one
matrix and the high nibbles another, each with K-adjacent pairs in a register. Codes are renumbered for the look-up
(`prmt_table`), and the maxima are in the order of the blocks.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .prmt_table import code_order
from .quantized_weight import Blockwise4bit, NestedAbsmax, QuantizedWeight, Repacked4bit, RowwiseInt8

BLOCKSIZES = (64, 128)
GROUP_WEIGHTS = 256  # largest group: a tile takes as many weights of a row, and more would not fit the registers


def not_repackable_reason(shape: tuple[int, ...], blocksize: int) -> str:
    """The rule that keeps a weight from being repacked, with the value that breaks it; "" if it can be repacked."""
    if len(shape) != 2:
        return f"a weight must be [N, K], got shape {tuple(shape)}"
    if blocksize not in BLOCKSIZES:
        return f"blocksize must be {' or '.join(map(str, BLOCKSIZES))}, got {blocksize}"
    if 0 in shape:
        return f"a weight must hold something, got shape {tuple(shape)}"
    if shape[1] % blocksize:
        return f"K must be a multiple of blocksize {blocksize}, got K {shape[1]}"
    return ""


def launch_kind(weight: object) -> tuple[object, ...] | None:
    """Format, blocksize, and that of nested maxima or None: repacked weights that one launch reads share them

    None for a weight that such a launch does not read: not repacked, or with levels of its own for its maxima.
    """
    if not isinstance(weight, Repacked4bit):
        return None
    nested = weight.absmax if isinstance(weight.absmax, NestedAbsmax) else None
    if nested is not None and nested.levels is not None:
        return None
    return weight.format, weight.blocksize, nested and nested.nested_blocksize


def repack(weight: Blockwise4bit) -> Repacked4bit:
    """The weight in the order of the decode kernels, on its own device; `unpack` is the inverse.

    Raises ValueError for a weight of other than two dimensions, another blocksize, K that is no multiple of it, or 16
    levels of its own: the kernels have those of the format as constants.
    """
    if rule := not_repackable_reason(weight.shape, weight.blocksize):
        raise ValueError(f"repack: {rule}")
    if weight.levels is not None:
        raise ValueError(
            f"repack: a weight must have the levels of {weight.format}, got its own, other in the last bit"
        )
    rows, columns = weight.shape
    group = math.gcd(columns // weight.blocksize, GROUP_WEIGHTS // weight.blocksize)
    codes = _renumbered(weight.codes, code_order(weight.format), inverse=True).view(rows, columns // 2)
    nibbles = torch.stack([codes >> 4, codes & 15], dim=2)  # [N, K / 2, 2]: the first is in the high nibble
    halves = nibbles.view(rows, -1, group, 2, weight.blocksize // 2)
    repacked = (halves[:, :, :, 0] | halves[:, :, :, 1] << 4).transpose(0, 1).contiguous()
    absmax = _rearranged(weight.absmax, lambda maxima: maxima.view(rows, -1, group).transpose(0, 1).contiguous())
    return Repacked4bit(repacked, absmax, weight.format, weight.blocksize, (rows, columns))


def unpack(weight: Repacked4bit) -> Blockwise4bit:
    """The weight as it was before `repack`, byte for byte."""
    by_row = _renumbered(weight.codes, code_order(weight.format)).transpose(0, 1)
    halves = torch.stack([by_row & 15, by_row >> 4], dim=3)  # [N, K / blocksize / group, group, 2, blocksize / 2]
    pairs = halves.view(-1, 2)
    absmax = _rearranged(weight.absmax, lambda maxima: maxima.transpose(0, 1).flatten())
    return Blockwise4bit(pairs[:, 0] << 4 | pairs[:, 1], absmax, weight.format, weight.blocksize, weight.shape)


def to_file_layout(weight: QuantizedWeight) -> Blockwise4bit | RowwiseInt8:
    """The weight in the layout of files, whichever layout it has."""
    return unpack(weight) if isinstance(weight, Repacked4bit) else weight


def _renumbered(codes: Tensor, order: tuple[int, ...], inverse: bool = False) -> Tensor:
    """order[code] of both codes of every byte, or the code whose order it is: one look-up a byte."""
    of_nibble = torch.tensor(order).argsort() if inverse else torch.tensor(order)
    of_byte = (of_nibble[:, None] << 4 | of_nibble[None, :]).flatten().to(torch.uint8)
    return of_byte.to(codes.device)[codes.int()]


def _rearranged(absmax: Tensor | NestedAbsmax, rearrange: Callable[[Tensor], Tensor]) -> Tensor | NestedAbsmax:
    if isinstance(absmax, NestedAbsmax):
        return replace(absmax, codes=rearrange(absmax.codes))
    return rearrange(absmax)

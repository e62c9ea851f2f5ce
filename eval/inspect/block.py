"""One block of a quantized weight, as it is stored: codes, levels, and the maximum that they share.

N out_features, K in_features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.codes import unpacked
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, NestedAbsmax, QuantizedWeight
from lowrank.kernels.weights.repack import to_file_layout
from lowrank.model.config import ModelConfig

BLOCK = 64


@dataclass(frozen=True)
class Weight:
    """One weight of the block: where it stands, what was stored (None in a quantized folder), and what became of it

    level is the codebook's, in [-1, 1]; value = level * absmax, or level * scale for int8, where it is code / 127.
    """

    row: int
    column: int
    original: float | None
    code: int
    level: float
    value: float


@dataclass(frozen=True)
class Nested:
    """absmax = level * nested_absmax + offset, level being that of the 8-bit `code`: float32, as it is computed"""

    code: int
    level: float
    nested_absmax: float
    offset: float
    exact: float | None


@dataclass(frozen=True)
class Block:
    """The weights that share one maximum; of int8 they are 64 of a row, which shares one scale.

    index  of the block in its tensor; exact in `nested`: the maximum before it was stored in 8 bits
    """

    format: str
    index: int
    absmax: float
    nested: Nested | None
    weights: tuple[Weight, ...]


def read_block(weight: QuantizedWeight, row: int, block: int, original: Tensor | None) -> Block:
    """The block that holds W[row, 64 block], weight by weight; `original` [N, K] is W as it was

    A row that is no multiple of 64 has blocks that begin in the row before, and end in the row behind.
    """
    n, k = weight.shape
    weight = to_file_layout(weight)
    if not isinstance(weight, Blockwise4bit):
        start, scale = row * k + BLOCK * block, float(weight.scale[row])
        end = min(start + BLOCK, (row + 1) * k)
        codes = weight.codes.flatten()[start:end]
        levels, index = codes.double() / 127, block
        values = reference.dequantize_int8(weight).flatten()[start:end]
        nested, absmax = None, scale
    else:
        index = (row * k + BLOCK * block) // weight.blocksize
        start, end = index * weight.blocksize, min((index + 1) * weight.blocksize, n * k)
        codes = unpacked(weight.codes, start, end)
        levels = weight.codebook[codes.long()].double()
        nested, absmax = _maximum(weight, index, None if original is None else original.flatten()[start:end])
        values = (levels.float() * torch.tensor(absmax)).double()
    originals = [None] * (end - start) if original is None else original.flatten()[start:end].tolist()
    weights = tuple(
        Weight(place // k, place % k, before, int(code), float(level), float(value))
        for place, before, code, level, value in zip(range(start, end), originals, codes, levels, values, strict=True)
    )
    return Block(weight.name, index, absmax, nested, weights)


def row_name(path: str, row: int, config: ModelConfig) -> str:
    """Which head and channel a row of wq, wk or wv is, and what RoPE turns it with."""
    if not path.endswith(("attention.wq", "attention.wk", "attention.wv")):
        return f"output channel {row}"
    head, channel = divmod(row, config.head_dim)
    location = f"head {head}, channel {channel}"
    if path.endswith("wv"):
        return location
    half = config.head_dim // 2
    partner = channel ^ 1 if config.rope_layout == "interleaved" else (channel + half) % config.head_dim
    return f"{location}; RoPE turns it together with channel {partner} ({config.rope_layout} layout)"


def _maximum(weight: Blockwise4bit, index: int, original: Tensor | None) -> tuple[Nested | None, float]:
    """(how the maximum of a block is stored, if in 8 bits; the maximum)"""
    if not isinstance(weight.absmax, NestedAbsmax):
        return None, float(weight.absmax[index])
    nested = weight.absmax
    code = int(nested.codes[index])
    level, outer = nested.codebook[code], nested.nested_absmax[index // nested.nested_blocksize]
    absmax = float(reference.dequantize_absmax(nested)[index])
    exact = None if original is None else float(original.abs().max())
    return Nested(code, float(level), float(outer), float(nested.offset), exact), absmax

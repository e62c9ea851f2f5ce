"""Plain-torch reference of every number format: slow and readable. Every faster kernel is compared with this one.

N out_features, K in_features. Weights are flattened row by row and cut into blocks of `blocksize` weights; the last
block may be short.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from ..weights.codebooks import CODEBOOKS, ZERO_CODES, dynamic8
from ..weights.quantized_weight import (
    BLOCKSIZES,
    NESTED_BLOCKSIZE,
    Blockwise4bit,
    FourBit,
    NestedAbsmax,
    QuantizedWeight,
    RowwiseInt8,
)
from ..weights.repack import to_file_layout

# Elements that are quantized at a time: bounds the temporaries (eight bytes a weight) whatever the size of W.
# A multiple of every blocksize.
CHUNK = 1 << 22


def quantize(
    w: Tensor, format: FourBit | Literal["int8"], blocksize: int = 64, double_quant: bool = False, name: str = "w"
) -> QuantizedWeight:
    """W [N, K] in `format`; blocksize and double_quant apply to 4-bit formats only."""
    return quantize_int8(w, name) if format == "int8" else quantize_4bit(w, format, blocksize, double_quant, name)


def dequantize(weight: QuantizedWeight, dtype: torch.dtype = torch.float32, out: Tensor | None = None) -> Tensor:
    """W [N, K] in `dtype`, written into `out` where that is given."""
    weight = to_file_layout(weight)
    if isinstance(weight, RowwiseInt8):
        return dequantize_int8(weight, dtype, out)
    w = dequantize_4bit(weight, dtype)
    return w if out is None else out.copy_(w)


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T, with W dequantized to the dtype of x;  x [*, K] -> [*, N]"""
    return x @ dequantize(weight, x.dtype).T


def linear_backward(dy: Tensor, weight: QuantizedWeight) -> Tensor:
    """dX = dY W, with W dequantized to the dtype of dY;  dy [*, N] -> [*, K]"""
    return dy @ dequantize(weight, dy.dtype)


def quantize_4bit(
    w: Tensor, format: FourBit = "nf4", blocksize: int = 64, double_quant: bool = False, name: str = "w"
) -> Blockwise4bit:
    """code[i] = argmin_c |codebook[c] - w[i] / absmax[i // blocksize]|    (QLoRA, arXiv 2305.14314, equation 4)

    w           [N, K] of any floating dtype; `name` stands for it in errors
    absmax      float32, max |w| of each block; w is scaled by its float32 reciprocal, as bitsandbytes does
    Ties go to the lower level. An all-zero block gets the codes of zero.  Raises ValueError for NaN or infinity.
    """
    check_blocksize(blocksize)
    flat = finite(w, name).flatten()
    codes, absmax = [], []
    for chunk in flat.split(CHUNK):
        blocks = _blocks(chunk, blocksize)
        chunk_absmax = blocks.abs().amax(dim=1)
        indices = nearest_code(_scaled(blocks, chunk_absmax[:, None]), CODEBOOKS[format]().to(w.device))
        codes.append(_pack(indices.flatten()[: chunk.numel()], ZERO_CODES[format]))
        absmax.append(chunk_absmax)
    maxima = torch.cat(absmax)
    statistics = quantize_absmax(maxima) if double_quant else maxima
    return Blockwise4bit(torch.cat(codes), statistics, format, blocksize, tuple(w.shape))


def dequantize_4bit(weight: Blockwise4bit, dtype: torch.dtype = torch.float32) -> Tensor:
    """W.flatten()[i] = codebook[code i] * absmax[i // blocksize], the product in float32, then rounded to `dtype`

    Returns [N, K] in `dtype`.
    """
    count = torch.Size(weight.shape).numel()
    absmax = weight.absmax if isinstance(weight.absmax, Tensor) else dequantize_absmax(weight.absmax)
    pairs = _byte_to_pair(weight.format) if weight.levels is None else _pairs(weight.levels)
    pairs = pairs.to(weight.codes.device)
    levels = pairs.index_select(0, weight.codes.flatten().int()).view(torch.float32)[:count]
    blocks = _blocks(levels, weight.blocksize)
    return blocks.mul_(absmax[:, None]).flatten()[:count].view(weight.shape).to(dtype)


def quantize_absmax(absmax: Tensor, nested_blocksize: int = NESTED_BLOCKSIZE) -> NestedAbsmax:
    """codes[i] = nearest level of dynamic8 to (absmax[i] - offset) / nested_absmax[i // nested_blocksize]

    offset = mean(absmax), nested_absmax = max |absmax - offset| of each block of `nested_blocksize` maxima.
    absmax float32 [blocks].    (QLoRA, arXiv 2305.14314, section 3, double quantization)
    """
    offset = mean_absmax(absmax)
    blocks = _blocks(absmax - offset, nested_blocksize)
    nested_absmax = blocks.abs().amax(dim=1)
    codes = nearest_code(_scaled(blocks, nested_absmax[:, None]), dynamic8().to(absmax.device))
    return NestedAbsmax(codes.flatten()[: absmax.numel()], nested_absmax, offset, nested_blocksize)


def mean_absmax(absmax: Tensor) -> Tensor:
    """The mean of absmax float32 [blocks], float32 [], with the same bits on every processor and number of threads

    A library chooses the order in which it sums, and with it the last bits. So there is no rounding in the sum: every
    maximum is first rounded to a multiple of one number, the last place of `ceiling`, in float64. All partial sums are
    such multiples and below `ceiling`, hence exact, in any order. Rounding once more gives what bitsandbytes' float32
    mean has, or a neighbour of it.
    """
    count = absmax.numel()
    if count == 0:
        return absmax.sum()
    wide = absmax.double()
    ceiling = 2 * count * wide.amax()
    return (((wide + ceiling) - ceiling).sum() / count).float()


def dequantize_absmax(nested: NestedAbsmax) -> Tensor:
    """absmax[i] = dynamic8[codes[i]] * nested_absmax[i // nested_blocksize] + offset, float32 [blocks]"""
    levels = nested.codebook.to(nested.codes.device)[nested.codes.int()]
    blocks = _blocks(levels, nested.nested_blocksize) * nested.nested_absmax[:, None]
    return blocks.flatten()[: nested.codes.numel()] + nested.offset


def quantize_int8(w: Tensor, name: str = "w") -> RowwiseInt8:
    """codes[n, k] = round(w[n, k] * (127 / scale[n])), scale[n] = max_k |w[n, k]|    (LLM.int8(), arXiv 2208.07339)

    w [N, K] of any floating dtype.  Ties round to even.  Raises ValueError for NaN or infinity.
    """
    w = finite(w, name)
    scale = w.abs().amax(dim=1)
    steps = (127 / scale)[:, None]  # in this order, as bitsandbytes has it; infinite for a row that is zero or nearly
    codes = torch.where(torch.isinf(steps), _scaled(w, scale[:, None]) * 127, w * steps)
    return RowwiseInt8(torch.round(codes).to(torch.int8).contiguous(), scale)


def dequantize_int8(weight: RowwiseInt8, dtype: torch.dtype = torch.float32, out: Tensor | None = None) -> Tensor:
    """W[n, k] = codes[n, k] * scale[n] / 127, the product in float32, then rounded to `dtype`; [N, K]

    Written into `out` where that is given: one pass, and the quicker way on a GPU; on a CPU the other one is.
    """
    scale = (weight.scale / 127)[:, None]
    if out is not None:
        return torch.mul(weight.codes, scale, out=out)
    return (weight.codes.float() * scale).to(dtype)


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """The code of the level nearest to each x: uint8, the shape of x.

    Levels are told apart by their float32 midpoints and a tie goes to the lower level (x > midpoint is strict), which
    are also the thresholds of bitsandbytes' kernels.
    """
    midpoints, order = boundaries(codebook)
    return order[torch.bucketize(x, midpoints, out_int32=True)]


def boundaries(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The float32 midpoints of neighbouring levels, ascending, and the code of each level in that order, uint8."""
    levels, order = codebook.sort(stable=True)
    return (levels[:-1] + levels[1:]) / 2, order.to(torch.uint8)


def finite(w: Tensor, name: str) -> Tensor:
    """w in float32.  Raises ValueError where that is NaN or infinity."""
    wide = w.float()
    if not torch.isfinite(wide).all():
        bad = (~torch.isfinite(wide)).nonzero()[0].tolist()
        raise ValueError(f"{name}: quantized weights must be finite, got {w[tuple(bad)].item()} at {bad}")
    return wide


def check_blocksize(blocksize: int) -> None:
    """Raises ValueError for a blocksize that is none of `formats.BLOCKSIZES`."""
    if blocksize not in BLOCKSIZES:
        raise ValueError(f"blocksize must be a power of two from {BLOCKSIZES[0]} to {BLOCKSIZES[-1]}, got {blocksize}")


def _blocks(flat: Tensor, blocksize: int) -> Tensor:
    """[ceil(n / blocksize), blocksize], the last block filled with zeros, which change neither maxima nor codes."""
    short = -flat.numel() % blocksize
    return (torch.nn.functional.pad(flat, (0, short)) if short else flat).view(-1, blocksize)


def _scaled(x: Tensor, absmax: Tensor) -> Tensor:
    """x / absmax in [-1, 1], by the reciprocal; 0 for an all-zero block.

    The reciprocal of a denormal overflows: such a block is divided instead.
    """
    reciprocal = 1 / absmax
    scaled = torch.where(torch.isinf(reciprocal), x / absmax, x * reciprocal)
    return torch.where(absmax == 0, torch.zeros_like(x), scaled)


def _pack(indices: Tensor, zero_code: int) -> Tensor:
    """Two codes a byte, the first in the high nibble; an odd count is completed with the code of zero."""
    pairs = torch.nn.functional.pad(indices, (0, indices.numel() % 2), value=zero_code).view(-1, 2)
    return (pairs[:, 0] << 4) | pairs[:, 1]


@cache
def _byte_to_pair(format: FourBit) -> Tensor:
    return _pairs(CODEBOOKS[format]())


def _pairs(codebook: Tensor) -> Tensor:
    """[256]: the two float32 levels of each byte, seen as one 8-byte element so that one look-up moves both."""
    byte = torch.arange(256, device=codebook.device)
    return torch.stack([codebook[byte >> 4], codebook[byte & 15]], dim=1).view(torch.float64).flatten()

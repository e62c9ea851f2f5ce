"""Quantizing in Triton: NF4, FP4 and the 8-bit code of the nested block maxima, in one read of W.

    absmax[b] = max |w| over block b
    code[i]   = nearest level to w[i] * (1 / absmax[b])                     (QLoRA, arXiv 2305.14314, equation 4)

The bytes are those of `reference.quantize_4bit`: the reciprocal is rounded as IEEE asks (not the fast one), a code
counts the float32 midpoints below the scaled weight, and a tie goes to the lower level. The nested statistics are the
same kernel once more, over absmax - offset in blocks of 256 with the 256 levels of dynamic8. Their offset,
mean(absmax), is torch's own reduction: the order of its float32 sum is part of the bytes, and differs from device to
device, so it is left to the one call that the reference makes as well.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference import weights as reference
from ..weights.codebooks import CODEBOOKS, Levels, dynamic8
from ..weights.quantized_weight import BLOCKSIZES, KERNEL_DTYPES, Blockwise4bit, FourBit, NestedAbsmax

TILE = 4096  # weights a program: a whole number of blocks of every blocksize
NOT_FINITE = tl.constexpr(0x7F800000)  # the bits of infinity; those of every NaN, without the sign, are above


@triton.jit
def nearest_code(x, midpoints_ptr, order_ptr, BITS: tl.constexpr):
    """order[number of midpoints below x], found in BITS halvings"""
    below = tl.zeros(x.shape, tl.int32)
    for bit in tl.static_range(BITS):
        half = 1 << (BITS - 1 - bit)
        below += tl.where(x > tl.load(midpoints_ptr + below + half - 1), half, 0)
    return tl.load(order_ptr + below)


@triton.jit
def quantize_kernel(
    codes_ptr,
    absmax_ptr,
    w_ptr,
    offset_ptr,
    midpoints_ptr,
    order_ptr,
    count,
    BLOCKSIZE: tl.constexpr,
    BITS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Program p quantizes weights p * TILE to (p + 1) * TILE, less `offset` where BITS is 8.

    BITS 4: two codes a byte, the first in the high nibble.
    A block that holds NaN or infinity gets an absmax that is not finite, which the launcher looks for.
    """
    BLOCKS: tl.constexpr = TILE // BLOCKSIZE
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    element = block[:, None] * BLOCKSIZE + tl.arange(0, BLOCKSIZE)[None, :]
    w = tl.load(w_ptr + element, mask=element < count, other=0.0).to(tl.float32)
    if BITS == 8:
        w = tl.where(element < count, w - tl.load(offset_ptr), 0.0)  # a short last block is filled with zeros
    # The bits of |w| are in the order of |w|, and unlike a floating maximum theirs lets no NaN go by.
    bits = tl.max(w.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=1)
    absmax = bits.to(tl.float32, bitcast=True)
    tl.store(absmax_ptr + block, absmax, mask=block * BLOCKSIZE < count)

    reciprocal = tl.div_rn(1.0, absmax)
    scaled = w * reciprocal[:, None]
    overflows = (reciprocal == float("inf")).to(tl.int32)
    if tl.max(overflows, axis=0) > 0:  # an absmax of zero, or a denormal one: such a block is divided instead
        quotient = tl.div_rn(w, tl.where(bits == 0, 1.0, absmax)[:, None])
        scaled = tl.where(overflows[:, None] > 0, quotient, scaled)

    codes = nearest_code(scaled, midpoints_ptr, order_ptr, BITS)
    if BITS == 8:
        tl.store(codes_ptr + element, codes, mask=element < count)
    else:
        first, second = tl.split(codes.reshape([TILE // 2, 2]))
        byte = tl.program_id(0).to(tl.int64) * (TILE // 2) + tl.arange(0, TILE // 2)
        tl.store(codes_ptr + byte, first << 4 | second, mask=2 * byte < count)


def quantize_4bit(
    w: Tensor, format: FourBit = "nf4", blocksize: int = 64, double_quant: bool = False, name: str = "w"
) -> Blockwise4bit:
    """W [N, K] in `format`: `reference.quantize_4bit`, byte for byte.

    w  float32, bfloat16 or float16, on the device of the result; `name` stands for it in errors
    Raises ValueError for another dtype, no weights at all, another blocksize, NaN or infinity.
    """
    if w.dtype not in KERNEL_DTYPES:
        raise ValueError(f"{name}: w must be of {', '.join(map(str, KERNEL_DTYPES))}, got {w.dtype}")
    if w.numel() == 0:
        raise ValueError(f"{name}: w must hold at least one weight, got shape {tuple(w.shape)}")
    if blocksize not in BLOCKSIZES:
        raise ValueError(f"{name}: blocksize must be one of {', '.join(map(str, BLOCKSIZES))}, got {blocksize}")
    codes = torch.empty((w.numel() + 1) // 2, dtype=torch.uint8, device=w.device)
    absmax = _launch(codes, w.contiguous(), None, CODEBOOKS[format], blocksize)
    if not torch.isfinite(absmax).all():
        reference.finite(w, name)  # raises, and names the place
    statistics = quantize_absmax(absmax) if double_quant else absmax
    return Blockwise4bit(codes, statistics, format, blocksize, tuple(w.shape))


def quantize_absmax(absmax: Tensor, nested_blocksize: int = 256) -> NestedAbsmax:
    """absmax float32 [blocks] in 8 bits: `reference.quantize_absmax`, byte for byte."""
    offset = reference.mean_absmax(absmax)
    codes = torch.empty(absmax.shape, dtype=torch.uint8, device=absmax.device)
    nested_absmax = _launch(codes, absmax, offset, dynamic8, nested_blocksize)
    return NestedAbsmax(codes, nested_absmax, offset, nested_blocksize)


def _launch(codes: Tensor, w: Tensor, offset: Tensor | None, levels: Levels, blocksize: int) -> Tensor:
    """Fills `codes`: 8 bits each where an offset is taken off, else 4.  Returns absmax."""
    midpoints, order = _boundaries(levels, w.device)
    absmax = torch.empty(triton.cdiv(w.numel(), blocksize), dtype=torch.float32, device=w.device)
    with torch.cuda.device_of(w):  # Triton launches on the current device
        quantize_kernel[(triton.cdiv(w.numel(), TILE),)](
            codes,
            absmax,
            w,
            midpoints if offset is None else offset,  # without an offset, a pointer that is not read
            midpoints,
            order,
            w.numel(),
            BLOCKSIZE=blocksize,
            BITS=4 if offset is None else 8,
            TILE=TILE,
        )
    return absmax


@cache
def _boundaries(levels: Levels, device: torch.device) -> tuple[Tensor, Tensor]:
    """The midpoints between neighbouring levels, ascending, and the code of each level, on `device`."""
    midpoints, order = reference.boundaries(levels())
    return midpoints.to(device), order.to(device)

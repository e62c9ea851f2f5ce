"""Dequantizing 4-bit weights in Triton: one launch, with nested block maxima resolved inside it.

    W.flatten()[i] = codebook[code i] * absmax[i // blocksize]              (QLoRA, arXiv 2305.14314, section 3)
    absmax[j]      = dynamic8[codes8[j]] * nested_absmax[j // 256] + offset

Both products are taken in float32 and W is rounded once, so the result is `reference.dequantize_4bit` bit for bit.
Moved per weight: half a byte of codes, the statistics, and the output.

W may be written into memory that is there already, and into rows that stand further apart than they are long: the
scratch in which training lays W beside an adapter's matrices (`training`).
"""

import math
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..weights.codebooks import CODEBOOKS, Levels, dynamic8
from ..weights.prmt_table import code_order
from ..weights.quantized_weight import KERNEL_DTYPES, Blockwise4bit, FourBit, NestedAbsmax, Repacked4bit, check_stored

TILE = 4096  # weights a program: a whole number of blocks of every blocksize


@triton.jit
def dequantize_4bit_kernel(
    out_ptr,
    codes_ptr,
    codebook_ptr,
    absmax_ptr,
    dynamic8_ptr,
    nested_absmax_ptr,
    offset_ptr,
    count,
    columns,
    row_stride,
    BLOCKSIZE: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    TILE: tl.constexpr,
    CONTIGUOUS: tl.constexpr,
    WHOLE_BLOCKS: tl.constexpr,
):
    """Program p writes weights p * TILE to (p + 1) * TILE. NESTED_BLOCKSIZE 0: absmax is float32, not nested codes.

    Weight i goes to out[i // columns * row_stride + i % columns], which is out[i] where out is CONTIGUOUS.
    WHOLE_BLOCKS: columns is a multiple of BLOCKSIZE, so that a block is within a row and one division is enough for it.
    """
    BLOCKS: tl.constexpr = TILE // BLOCKSIZE
    # 64-bit addresses: a 70B embedding alone has more than 2^28 weights, a stacked one more than 2^31.
    start = tl.program_id(0).to(tl.int64) * TILE
    block = start // BLOCKSIZE + tl.arange(0, BLOCKS)
    there = block * BLOCKSIZE < count
    if NESTED_BLOCKSIZE == 0:
        absmax = tl.load(absmax_ptr + block, mask=there, other=0.0)
    else:
        code8 = tl.load(absmax_ptr + block, mask=there, other=0).to(tl.int32)
        scale = tl.load(nested_absmax_ptr + block // NESTED_BLOCKSIZE, mask=there, other=0.0)
        absmax = tl.load(dynamic8_ptr + code8) * scale + tl.load(offset_ptr)

    byte = block[:, None] * (BLOCKSIZE // 2) + tl.arange(0, BLOCKSIZE // 2)[None, :]
    packed = tl.load(codes_ptr + byte, mask=2 * byte < count, other=0).to(tl.int32)
    high = tl.load(codebook_ptr + (packed >> 4)) * absmax[:, None]
    low = tl.load(codebook_ptr + (packed & 15)) * absmax[:, None]
    pairs = tl.interleave(high, low).to(out_ptr.dtype.element_ty)

    within = tl.arange(0, BLOCKSIZE)[None, :]
    weight = block[:, None] * BLOCKSIZE + within
    if CONTIGUOUS:
        place = weight
    else:
        # Counted from the row in which the tile starts, so that the division is of 32 bits.
        row, column = start // columns, (start % columns).to(tl.int32)
        column += tl.arange(0, BLOCKS)[:, None] * BLOCKSIZE
        if WHOLE_BLOCKS:
            place = (row + column // columns) * row_stride + column % columns + within
        else:
            place = (row + (column + within) // columns) * row_stride + (column + within) % columns
    tl.store(out_ptr + place, pairs, mask=weight < count)


@triton.jit
def store_repacked_tile(
    out_ptr,
    codes_ptr,
    levels_ptr,
    absmax_ptr,
    dynamic8_ptr,
    nested_absmax_ptr,
    offset_ptr,
    tile,
    group,
    N,
    groups,
    row_stride,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Writes the blocks of a group of a tile of the rows. NESTED_BLOCKSIZE 0: absmax is float32.

    levels_ptr: float32 [16], by repacked code. The blocks of a tile lie one behind another, so its codes and maxima are
    a stretch of memory each; a row of it is GROUP blocks of W, written as halves of blocks.
    """
    half: tl.constexpr = BLOCKSIZE // 2
    place = tl.arange(0, BLOCK_N * GROUP)
    n = tile * BLOCK_N + place // GROUP
    block = group * GROUP + place % GROUP
    there = n < N
    lies = (group.to(tl.int64) * N + tile * BLOCK_N) * GROUP + place
    if NESTED_BLOCKSIZE == 0:
        absmax = tl.load(absmax_ptr + lies, mask=there, other=0.0)
    else:
        code8 = tl.load(absmax_ptr + lies, mask=there, other=0).to(tl.int32)
        of_row = n.to(tl.int64) * groups * GROUP + block
        scale = tl.load(nested_absmax_ptr + of_row // NESTED_BLOCKSIZE, mask=there, other=0.0)
        absmax = tl.load(dynamic8_ptr + code8) * scale + tl.load(offset_ptr)

    k = tl.arange(0, half)[None, :]
    packed = tl.load(codes_ptr + (lies * half)[:, None] + k, mask=there[:, None], other=0).to(tl.int32)
    low = tl.load(levels_ptr + (packed & 15)) * absmax[:, None]
    high = tl.load(levels_ptr + (packed >> 4)) * absmax[:, None]
    out = out_ptr + (n.to(tl.int64) * row_stride + block * BLOCKSIZE)[:, None] + k
    tl.store(out, low.to(out_ptr.dtype.element_ty), mask=there[:, None])
    tl.store(out + half, high.to(out_ptr.dtype.element_ty), mask=there[:, None])


@triton.jit
def dequantize_repacked_kernel(
    out_ptr,
    codes_ptr,
    levels_ptr,
    absmax_ptr,
    dynamic8_ptr,
    nested_absmax_ptr,
    offset_ptr,
    N,
    groups,
    row_stride,
    BLOCKSIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Program (i, g) writes the blocks of group g of tile i of the rows."""
    store_repacked_tile(
        out_ptr,
        codes_ptr,
        levels_ptr,
        absmax_ptr,
        dynamic8_ptr,
        nested_absmax_ptr,
        offset_ptr,
        tl.program_id(0),
        tl.program_id(1),
        N,
        groups,
        row_stride,
        BLOCKSIZE,
        GROUP,
        NESTED_BLOCKSIZE,
        BLOCK_N,
    )


def dequantize_4bit(weight: Blockwise4bit, dtype: torch.dtype = torch.float32, out: Tensor | None = None) -> Tensor:
    """W [N, K] in `dtype`, on the device of the codes; written into `out` where that is given.

    out  [N, K] of `dtype`, neighbours in a row adjacent, rows any distance apart but not overlapping
    Raises ValueError for another dtype or `out`, and for stored tensors that do not fit their shape.
    """
    out = _place(weight, dtype, out)
    count, columns = math.prod(weight.shape), weight.shape[-1]
    if count == 0:
        return out
    codebook = _on(CODEBOOKS[weight.format], out.device) if weight.levels is None else weight.levels
    absmax, nested_blocksize = statistics(weight)
    # The multiply-add of the nested maxima is kept as two roundings (`enable_fp_fusion`): fused, it would differ from
    # the reference in the last bit.
    with torch.cuda.device_of(out):  # Triton launches on the current device
        dequantize_4bit_kernel[(triton.cdiv(count, TILE),)](
            out,
            weight.codes,
            codebook,
            *absmax,
            count,
            columns,
            out.stride(0),
            BLOCKSIZE=weight.blocksize,
            NESTED_BLOCKSIZE=nested_blocksize,
            TILE=TILE,
            CONTIGUOUS=out.is_contiguous(),
            WHOLE_BLOCKS=columns % weight.blocksize == 0,
            enable_fp_fusion=False,
        )
    return out


def dequantize_repacked(weight: Repacked4bit, dtype: torch.dtype = torch.float32, out: Tensor | None = None) -> Tensor:
    """W [N, K] in `dtype` out of the layout of the decode kernels: `dequantize_4bit` of the weight as it was before."""
    out = _place(weight, dtype, out)
    levels = levels_of_repacked(weight.format, out.device)
    absmax, nested_blocksize = statistics(weight)
    groups, n, group, _ = weight.codes.shape
    block_n = max(1, TILE // (group * weight.blocksize))
    with torch.cuda.device_of(out):
        dequantize_repacked_kernel[(triton.cdiv(n, block_n), groups)](
            out,
            weight.codes,
            levels,
            *absmax,
            n,
            groups,
            out.stride(0),
            BLOCKSIZE=weight.blocksize,
            GROUP=group,
            NESTED_BLOCKSIZE=nested_blocksize,
            BLOCK_N=block_n,
            enable_fp_fusion=False,
        )
    return out


def _place(weight: Blockwise4bit | Repacked4bit, dtype: torch.dtype, out: Tensor | None) -> Tensor:
    """Where W is written.  Raises ValueError as `dequantize_4bit` says."""
    if dtype not in KERNEL_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, KERNEL_DTYPES))}, got {dtype}")
    check_stored(weight)
    if out is None:
        return torch.empty(weight.shape, dtype=dtype, device=weight.codes.device)
    _check_out(out, weight, dtype)
    return out


def statistics(weight: Blockwise4bit | Repacked4bit) -> tuple[tuple[Tensor, ...], int]:
    """absmax, dynamic8, nested_absmax and offset as the kernels take them, and the nested blocksize, 0 without."""
    if not isinstance(weight.absmax, NestedAbsmax):
        return (weight.absmax,) * 4, 0  # the last three are not read
    nested = weight.absmax
    levels = _on(dynamic8, nested.codes.device) if nested.levels is None else nested.levels
    return (nested.codes, levels, nested.nested_absmax, nested.offset), nested.nested_blocksize


def _check_out(out: Tensor, weight: Blockwise4bit | Repacked4bit, dtype: torch.dtype) -> None:
    """Raises ValueError unless the kernel can write W there."""
    place = (tuple(out.shape), out.dtype, out.device)
    wanted = (tuple(weight.shape), dtype, weight.codes.device)
    if place != wanted:
        raise ValueError(f"out must have shape, dtype and device {wanted}, got {place}")
    rows, columns = out.shape
    if (columns > 1 and out.stride(1) != 1) or (rows > 1 and out.stride(0) < columns):
        raise ValueError(f"out must have adjacent columns and rows that do not overlap, got strides {out.stride()}")


@cache
def levels_of_repacked(format: FourBit, device: torch.device) -> Tensor:
    """The levels, float32 [16], in the order of the codes of a repacked weight."""
    return CODEBOOKS[format]()[list(code_order(format))].to(device)


@cache
def _on(levels: Levels, device: torch.device) -> Tensor:
    """A codebook on `device`, copied there once."""
    return levels().to(device)

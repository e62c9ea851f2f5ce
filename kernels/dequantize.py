"""Dequantizing 4-bit weights in Triton: one launch, with nested block maxima resolved inside it.

    W.flatten()[i] = codebook[code i] * absmax[i // blocksize]              (QLoRA, arXiv 2305.14314, section 3)
    absmax[j]      = dynamic8[codes8[j]] * nested_absmax[j // 256] + offset

Both products are taken in float32 and W is rounded once, so the result is `reference.dequantize_4bit` bit for bit.
Moved per weight: half a byte of codes, the statistics, and the output.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codebook import CODEBOOKS, dynamic8
from .formats import Blockwise4bit, NestedAbsmax

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
    BLOCKSIZE: tl.constexpr,
    NESTED_BLOCKSIZE: tl.constexpr,
    TILE: tl.constexpr,
):
    """Program p writes out[p * TILE : (p + 1) * TILE]. NESTED_BLOCKSIZE 0: absmax is float32, not nested codes."""
    # 64-bit addresses: a 70B embedding alone has more than 2^28 weights, a stacked one more than 2^31.
    byte = tl.program_id(0).to(tl.int64) * (TILE // 2) + tl.arange(0, TILE // 2)
    first = 2 * byte
    packed = tl.load(codes_ptr + byte, mask=first < count, other=0).to(tl.int32)
    block = first // BLOCKSIZE  # both weights of a byte are in one block
    if NESTED_BLOCKSIZE == 0:
        absmax = tl.load(absmax_ptr + block, mask=first < count, other=0.0)
    else:
        code8 = tl.load(absmax_ptr + block, mask=first < count, other=0).to(tl.int32)
        scale = tl.load(nested_absmax_ptr + block // NESTED_BLOCKSIZE, mask=first < count, other=0.0)
        absmax = tl.load(dynamic8_ptr + code8) * scale + tl.load(offset_ptr)
    high = tl.load(codebook_ptr + (packed >> 4)) * absmax
    low = tl.load(codebook_ptr + (packed & 15)) * absmax
    pair = tl.interleave(high, low).to(out_ptr.dtype.element_ty)
    weight = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    tl.store(out_ptr + weight, pair, mask=weight < count)


def dequantize_4bit(weight: Blockwise4bit, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [N, K] in `dtype`, on the device of the codes.

    The multiply-add of the nested maxima is kept as two roundings (`enable_fp_fusion`): fused, it would differ from the
    reference in the last bit.
    """
    count = torch.Size(weight.shape).numel()
    device = weight.codes.device
    out = torch.empty(weight.shape, dtype=dtype, device=device)
    codebook = CODEBOOKS[weight.format]().to(device)
    if isinstance(weight.absmax, NestedAbsmax):
        nested = weight.absmax
        statistics = (nested.codes, dynamic8().to(device), nested.nested_absmax, nested.offset)
        nested_blocksize = nested.nested_blocksize
    else:
        statistics = (weight.absmax, codebook, codebook, codebook)  # the last three are not read
        nested_blocksize = 0
    dequantize_4bit_kernel[(triton.cdiv(count, TILE),)](
        out,
        weight.codes,
        codebook,
        *statistics,
        count,
        BLOCKSIZE=weight.blocksize,
        NESTED_BLOCKSIZE=nested_blocksize,
        TILE=TILE,
        enable_fp_fusion=False,
    )
    return out

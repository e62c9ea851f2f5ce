"""Launches the kernels that read repacked 4-bit weights; `gemv` and `gemm` differ in kernel and tile.

M rows of x, N out_features, K in_features.
"""

from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from ..weights.codebooks import dynamic8
from ..weights.prmt_table import can_use_prmt, ordered_levels, register_table
from ..weights.quantized_weight import FourBit, NestedAbsmax, Repacked4bit
from .gemv_kernels import add_parts_kernel

GROUP_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}  # the 8-bit maxima of a group, as one number
PARTS_TILE = 256


def can_use_assembly(dtype: torch.dtype, device: torch.device) -> bool:
    """True if a kernel on this device looks levels of this dtype up by PRMT."""
    return can_use_prmt(dtype, device)


def launch(
    kernel: Any,
    rows: Tensor,
    weight: Repacked4bit,
    columns: int,
    absmax_dtype: torch.dtype,
    tiles: int,
    splits: int,
    sizes: dict[str, int | bool],
) -> Tensor:
    """Runs a kernel on rows [M, *] -> [M, columns]: `tiles` of the columns, each sum in `splits` parts, added after.

    absmax_dtype  as which the 8-bit maxima are read;  sizes: the kernel's constants of the tile, and its warps
    """
    m, device = len(rows), rows.device
    out = torch.empty(m, columns, dtype=rows.dtype, device=device)
    if out.numel() == 0:
        return out
    levels, table, levels8 = constants(weight.format, rows.dtype, device)
    if isinstance(weight.absmax, NestedAbsmax):
        nested = weight.absmax
        if nested.levels is not None:
            levels8 = nested.levels
        statistics = (nested.codes.view(absmax_dtype), nested.nested_absmax, nested.offset)
        nested_blocksize = nested.nested_blocksize
    else:
        statistics = (weight.absmax, levels8, levels8)  # the last two are not read
        nested_blocksize = 0
    parts = out if splits == 1 else torch.empty(splits, m, columns, dtype=torch.float32, device=device)
    with torch.cuda.device_of(out):  # Triton launches on the current device
        kernel[(tiles, splits, triton.cdiv(m, sizes["BLOCK_M"]))](
            parts,
            rows,
            weight.codes,
            statistics[0],
            levels,
            table,
            levels8,
            *statistics[1:],
            m,
            weight.shape[0],
            len(weight.codes),
            *rows.stride(),
            splits,
            BLOCKSIZE=weight.blocksize,
            GROUP=weight.group,
            NESTED_BLOCKSIZE=nested_blocksize,
            ASSEMBLY=can_use_prmt(rows.dtype, device),
            **sizes,
            enable_fp_fusion=True,
        )
        if splits > 1:
            grid = (triton.cdiv(out.numel(), PARTS_TILE),)
            add_parts_kernel[grid](out, parts, out.numel(), SPLITS=splits, TILE=PARTS_TILE)
    return out


@cache
def constants(format: FourBit, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """On the device: the levels by repacked code, the same as a register table, and the levels of nested maxima."""
    table = torch.zeros(10, dtype=torch.int32) if dtype == torch.float32 else register_table(format, dtype)
    return ordered_levels(format, dtype).to(device), table.to(device), dynamic8().to(device)

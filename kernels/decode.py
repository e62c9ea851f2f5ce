"""y = x W^T and dX = dY W for few rows of x, straight from repacked 4-bit weights: W is never written to memory.

    y[m, n]  = sum_b absmax[n, b] * (sum over k in block b of level[n, k] * x[m, k])
    dX[m, k] = sum_n level[n, k] * (absmax[n, b of k] * dY[m, n])

M rows of x, N out_features, K in_features, b a block of `blocksize` weights of a row. Levels are rounded to the dtype
of x, which leaves them as they are for float32, and products are summed in float32, in IEEE precision where x is
float32. Forward, the maxima multiply those sums; backward they differ along the sum, so they multiply dY, which is
rounded to its dtype again. Nested maxima are resolved in the kernel.

W is the left operand of each product, which the matrix units take from registers, and the low and the high nibbles of a
tile are two products. Where W has few tiles, several programs share the sum of one; a second kernel adds their parts in
a fixed order, so the same input gives the same bits.
"""

from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from .codebook import dynamic8
from .decode_kernels import add_parts_kernel, decode_dx_kernel, decode_linear_kernel
from .formats import KERNEL_DTYPES, FourBit, NestedAbsmax, Repacked4bit, check_stored
from .register_table import by_prmt, ordered_levels, register_table

GROUP_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}  # the 8-bit maxima of a group, as one number

PROGRAMS = 1056  # eight for each multiprocessor of an H200: fewer leave some idle, more only add parts
STAGES = 3
PARTS_TILE = 256


def decode_linear(x: Tensor, weight: Repacked4bit, splits: int | None = None) -> Tensor:
    """y = x W^T, W [N, K] read in 4 bits    (QLoRA, arXiv 2305.14314, equation 5, without the adapter)

    x       [*, K] bfloat16, float16 or float32, with any strides
    splits  programs that share a sum; left out, the shape decides
    Returns y [*, N] in the dtype of x.  Raises ValueError for another dtype, shape or device of x.
    """
    _check("x", x, weight, "in_features", weight.shape[1])
    rows, columns = x.reshape(-1, x.shape[-1]), weight.shape[0]
    sizes = tile(len(rows), x.dtype)
    tiles, steps = triton.cdiv(columns, sizes["BLOCK_N"]), len(weight.codes)
    splits = splits or _splits(len(rows), weight.shape[1], tiles, steps)
    y = _launch(decode_linear_kernel, rows, weight, columns, GROUP_WORDS[weight.group], tiles, splits, sizes)
    return y.view(*x.shape[:-1], columns)


def decode_dx(dy: Tensor, weight: Repacked4bit, splits: int | None = None) -> Tensor:
    """dX = dY W, the gradient of `decode_linear` with respect to x, from the same bytes

    dy      [*, N] bfloat16, float16 or float32, with any strides
    splits  programs that share a sum; left out, the shape decides
    Returns dX [*, K] in the dtype of dy.  Raises ValueError for another dtype, shape or device of dy.
    """
    _check("dy", dy, weight, "out_features", weight.shape[0])
    rows, columns = dy.reshape(-1, dy.shape[-1]), weight.shape[1]
    sizes = tile(len(rows), dy.dtype)
    tiles, steps = columns // weight.blocksize, triton.cdiv(weight.shape[0], sizes["BLOCK_N"])
    splits = splits or _splits(len(rows), weight.shape[0], tiles, steps)
    dx = _launch(decode_dx_kernel, rows, weight, columns, torch.uint8, tiles, splits, sizes)
    return dx.view(*dy.shape[:-1], columns)


def _check(name: str, x: Tensor, weight: Repacked4bit, features: str, last: int) -> None:
    if x.dtype not in KERNEL_DTYPES:
        raise ValueError(f"{name} must be of {', '.join(map(str, KERNEL_DTYPES))}, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] != last:
        raise ValueError(f"{name} must end in {features} {last}, got shape {tuple(x.shape)}")
    if x.device != weight.codes.device:
        raise ValueError(f"{name} must be on the device of the weight, {weight.codes.device}, got {x.device}")
    check_stored(weight)


def tile(m: int, dtype: torch.dtype) -> dict[str, int]:
    """BLOCK_M rows of x and BLOCK_N of W that a program works on at a time, and its warps.

    Two warps: four would make Hopper take its wide products, whose left operand must first be moved to other registers.
    At 64 rows of x that costs less than it saves: two warps would spill the sums. So would more than 8 rows in float32.
    """
    if dtype == torch.float32:
        return {"BLOCK_M": 8, "BLOCK_N": 32, "num_warps": 2}
    block_m = min(64, max(8, triton.next_power_of_2(m)))
    return {"BLOCK_M": block_m, "BLOCK_N": 64, "num_warps": 2 if block_m < 64 else 4}


def _splits(m: int, summed: int, tiles: int, steps: int) -> int:
    """Programs that share a sum of `summed` products, done in `steps` loop turns: enough of them to fill the GPU.

    The parts that they write and read again are 8 bytes an output and stay within half the bytes of W. A power of two,
    as each number is a kernel of its own.
    """
    most = min(PROGRAMS // tiles, steps, summed // (32 * max(m, 1)))
    return 1 << max(most, 1).bit_length() - 1


def _launch(
    kernel: Any,
    rows: Tensor,
    weight: Repacked4bit,
    columns: int,
    absmax_dtype: torch.dtype,
    tiles: int,
    splits: int,
    sizes: dict[str, int],
) -> Tensor:
    """Runs `decode_linear_kernel` or `decode_dx_kernel`, which take the same arguments: rows [M, *] -> [M, columns]."""
    m, device = len(rows), rows.device
    out = torch.empty(m, columns, dtype=rows.dtype, device=device)
    if out.numel() == 0:
        return out
    levels, table, levels8 = _constants(weight.format, rows.dtype, device)
    if isinstance(weight.absmax, NestedAbsmax):
        nested = weight.absmax
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
            STAGES=STAGES,
            ASSEMBLY=by_prmt(rows.dtype, device),
            **sizes,
            enable_fp_fusion=True,
        )
        if splits > 1:
            grid = (triton.cdiv(out.numel(), PARTS_TILE),)
            add_parts_kernel[grid](out, parts, out.numel(), SPLITS=splits, TILE=PARTS_TILE)
    return out


@cache
def _constants(format: FourBit, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """On the device: the levels by repacked code, the same as a register table, and the levels of nested maxima."""
    table = torch.zeros(10, dtype=torch.int32) if dtype == torch.float32 else register_table(format, dtype)
    return ordered_levels(format, dtype).to(device), table.to(device), dynamic8().to(device)

"""y = x W^T and dX = dY W for a middle number of rows: 4-bit codes become W in registers, 128 rows of x at a time.

    y[m, n]  = sum_k W[n, k] x[m, k]               W[n, k] = level[n, k] * absmax[n, k // blocksize]
    dX[m, k] = sum_n W[n, k] dY[m, n]

M rows of x, N out_features, K in_features. W is never written to memory, as in `decode`; but here its tile is scaled
before the product and not the sums after it, as with many rows that is less: one multiplication a weight, where
`decode` has one for each block and output. Levels are rounded to the dtype of x, and W once more; products are summed
in float32. Nested maxima are resolved in the kernel.

With fewer rows `decode` is faster, with more the vendor's GEMM is, from W in scratch: see `crossover`.
"""

import math

import torch
import triton
from torch import Tensor

from ..weights.quantized_weight import Repacked4bit, check_operand
from .gemm_kernels import fused_linear_backward_kernel, fused_linear_kernel
from .launch import launch

DTYPES = (torch.bfloat16, torch.float16)  # in float32 the matrix units have no IEEE product

STAGES, BACKWARD_STAGES = 3, 2  # of loads ahead, as registers and shared memory allow

# An H200: multiprocessors, of which a program takes one; bytes a microsecond; multiply-adds a microsecond of each.
MULTIPROCESSORS, BYTES, MULTIPLY_ADDS = 132, 4.3e6, 3.0e6


def fused_linear(x: Tensor, weight: Repacked4bit, splits: int | None = None) -> Tensor:
    """y = x W^T, W [N, K] read in 4 bits    (QLoRA, arXiv 2305.14314, equation 5, without the adapter)

    x       [*, K] bfloat16 or float16, with any strides
    splits  programs that share a sum; left out, the shape decides
    Returns y [*, N] in the dtype of x.  Raises ValueError for another dtype, shape or device of x.
    """
    check_operand("x", x, weight, "in_features", weight.shape[1], DTYPES)
    rows, (columns, inner) = x.reshape(-1, x.shape[-1]), weight.shape
    sizes = {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8, "STAGES": STAGES}
    tiles, steps = triton.cdiv(columns, sizes["BLOCK_N"]), len(weight.codes)
    splits = splits or _splits(len(rows), columns, tiles, steps, inner // steps * sizes["BLOCK_N"])
    y = launch(fused_linear_kernel, rows, weight, columns, torch.uint8, tiles, splits, sizes)
    return y.view(*x.shape[:-1], columns)


def fused_linear_backward(dy: Tensor, weight: Repacked4bit, splits: int | None = None) -> Tensor:
    """dX = dY W, the gradient of `fused_linear` with respect to x, from the same bytes

    dy      [*, N] bfloat16 or float16, with any strides
    splits  programs that share a sum; left out, the shape decides
    Returns dX [*, K] in the dtype of dy.  Raises ValueError for another dtype, shape or device of dy.
    """
    check_operand("dy", dy, weight, "out_features", weight.shape[0], DTYPES)
    rows, (inner, columns) = dy.reshape(-1, dy.shape[-1]), weight.shape
    sizes = linear_backward_tile(len(rows), inner, dy.device)
    tiles, steps = len(weight.codes), triton.cdiv(inner, sizes["BLOCK_N"])
    splits = splits or _splits(len(rows), columns, tiles, steps, columns // tiles * sizes["BLOCK_N"])
    dx = launch(fused_linear_backward_kernel, rows, weight, columns, torch.uint8, tiles, splits, sizes)
    return dx.view(*dy.shape[:-1], columns)


def linear_backward_tile(m: int, n: int, device: torch.device) -> dict[str, int]:
    """BLOCK_M rows of dY and BLOCK_N rows of W that a program works on at a time, and its warps.

    128 rows where the matrix units take W from shared memory: elsewhere its fragments and so many sums do not fit into
    the registers.
    """
    block_m = 128 if m > 64 and has_wide_units(device) else 64
    return {"BLOCK_M": block_m, "BLOCK_N": 64, "WHOLE_TILES": n % 64 == 0, "num_warps": 8, "STAGES": BACKWARD_STAGES}


def has_wide_units(device: torch.device) -> bool:
    """True of Hopper and of Blackwell in data centres, whose matrix units read both operands from shared memory."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device)[0] in (9, 10)


def _splits(m: int, columns: int, tiles: int, steps: int, weights_a_step: int) -> int:
    """Programs that share a sum: what the whole takes least time with, on an H200.

    That is its waves of programs, each as long as the multiply-adds of its steps, and the parts of the sums, which are
    written and read again in float32. A power of two, as each number is a kernel of its own.
    """
    programs, step = tiles * math.ceil(m / 128), 128 * weights_a_step / MULTIPLY_ADDS

    def microseconds(splits: int) -> float:
        waves = math.ceil(programs * splits / MULTIPROCESSORS)
        parts = 8 * splits * m * columns / BYTES if splits > 1 else 0.0
        return waves * math.ceil(steps / splits) * step + parts

    return min((splits for splits in (1, 2, 4, 8, 16) if splits <= steps), key=microseconds)

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

import torch
import triton
from torch import Tensor

from ..weights.quantized_weight import KERNEL_DTYPES, Repacked4bit, check_operand
from .gemv_kernels import decode_linear_backward_kernel, decode_linear_kernel
from .launch import GROUP_WORDS, launch

PROGRAMS = 1056  # eight for each multiprocessor of an H200: fewer leave some idle, more only add parts
STAGES = 3


def decode_linear(x: Tensor, weight: Repacked4bit, splits: int | None = None) -> Tensor:
    """y = x W^T, W [N, K] read in 4 bits    (QLoRA, arXiv 2305.14314, equation 5, without the adapter)

    x       [*, K] bfloat16, float16 or float32, with any strides
    splits  programs that share a sum; left out, the shape decides
    Returns y [*, N] in the dtype of x.  Raises ValueError for another dtype, shape or device of x.
    """
    check_operand("x", x, weight, "in_features", weight.shape[1], KERNEL_DTYPES)
    rows, columns = x.reshape(-1, x.shape[-1]), weight.shape[0]
    sizes = linear_tile(len(rows), weight.blocksize, x.dtype)
    tiles, steps = triton.cdiv(columns, sizes["BLOCK_N"]), len(weight.codes)
    splits = splits or programs_for_a_sum(len(rows), weight.shape[1], tiles, steps)
    y = launch(decode_linear_kernel, rows, weight, columns, GROUP_WORDS[weight.group], tiles, splits, sizes)
    return y.view(*x.shape[:-1], columns)


def decode_linear_backward(dy: Tensor, weight: Repacked4bit, splits: int | None = None) -> Tensor:
    """dX = dY W, the gradient of `decode_linear` with respect to x, from the same bytes

    dy      [*, N] bfloat16, float16 or float32, with any strides
    splits  programs that share a sum; left out, the shape decides
    Returns dX [*, K] in the dtype of dy.  Raises ValueError for another dtype, shape or device of dy.
    """
    check_operand("dy", dy, weight, "out_features", weight.shape[0], KERNEL_DTYPES)
    rows, columns = dy.reshape(-1, dy.shape[-1]), weight.shape[1]
    sizes = linear_backward_tile(len(rows), weight.shape[0], weight.blocksize, dy.dtype)
    tiles, steps = columns // weight.blocksize, triton.cdiv(weight.shape[0], sizes["BLOCK_N"])
    splits = splits or programs_for_a_sum(len(rows), weight.shape[0], tiles, steps)
    dx = launch(decode_linear_backward_kernel, rows, weight, columns, torch.uint8, tiles, splits, sizes)
    return dx.view(*dy.shape[:-1], columns)


def linear_tile(m: int, blocksize: int, dtype: torch.dtype) -> dict[str, int]:
    """BLOCK_M rows of x and BLOCK_N of W that a program works on at a time, and its warps.

    Two warps: four would make Hopper take its wide products, whose left operand must first be moved to other registers.
    At 64 rows of x that costs less than it saves: two warps would spill the sums. So would more than 8 rows in float32.
    """
    if dtype == torch.float32:
        return {"BLOCK_M": 8, "BLOCK_N": 2048 // blocksize, "num_warps": 2, "STAGES": STAGES}
    block_m = _rows(m, 64)
    return {"BLOCK_M": block_m, "BLOCK_N": 64, "num_warps": 2 if block_m < 64 else 4, "STAGES": STAGES}


def linear_backward_tile(m: int, n: int, blocksize: int, dtype: torch.dtype) -> dict[str, int]:
    """The same for `decode_linear_backward`, whose product is half a block high: four warps would do the same twice."""
    block_m, block_n = (8, 2048 // blocksize) if dtype == torch.float32 else (_rows(m, 4096 // blocksize), 64)
    tile = {"BLOCK_M": block_m, "BLOCK_N": block_n, "WHOLE_TILES": n % block_n == 0}
    return {**tile, "num_warps": 2, "STAGES": STAGES}


def _rows(m: int, most: int) -> int:
    """The power of two from 8 on that holds M, or `most`."""
    return min(most, max(8, 1 << (m - 1).bit_length()))


def programs_for_a_sum(m: int, summed: int, tiles: int, steps: int) -> int:
    """Programs that share a sum of `summed` products, done in `steps` loop turns: enough of them to fill the GPU.

    The parts that they write and read again are 8 bytes an output and stay within half the bytes of W. A power of two,
    as each number is a kernel of its own.
    """
    most = min(PROGRAMS // tiles, steps, summed // (32 * max(m, 1)))
    return 1 << max(most, 1).bit_length() - 1

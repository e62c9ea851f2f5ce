"""Products with int8 rows in Triton: the codes go to the matrix units as they are stored, one byte a weight.

    y[m, n]  = scale[n] / 127 * (sum over k of codes[n, k] * x[m, k])        (LLM.int8(), arXiv 2208.07339, section 2)
    dX[m, k] = sum over n of (codes[n, k] * scale[n] / 127) * dY[m, n]

Whole numbers up to 127 are exact in every dtype of x. Forward, the scale of a row multiplies its float32 sum, so W is
not rounded at all; backward it differs along the sum, and W is rounded to the dtype of dY, as `reference` does.

W is the left operand, which the matrix units take from registers: the product is y^T or dX^T. Outer is the dimension of
W that stays (N forward, K backward), inner the one that is summed over. M rows of x.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..weights.quantized_weight import KERNEL_DTYPES, RowwiseInt8, check_stored

BLOCK_M, BLOCK_OUTER, BLOCK_INNER = 32, 32, 64  # with larger ones, float32 or misaligned rows leave the registers


@triton.jit
def int8_product_kernel(
    y_ptr,
    x_ptr,
    codes_ptr,
    scale_ptr,
    rows,
    outer,
    inner,
    outer_stride,
    inner_stride,
    SCALE_OF_OUTER: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_OUTER: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """y[rows, outer] = x[rows, inner] (scale / 127 * codes)^T. SCALE_OF_OUTER: scale is [outer], otherwise [inner]."""
    o = tl.program_id(0).to(tl.int64) * BLOCK_OUTER + tl.arange(0, BLOCK_OUTER)
    m = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    sums = tl.zeros([BLOCK_OUTER, BLOCK_M], tl.float32)
    for start in range(0, inner, BLOCK_INNER):
        i = (start + tl.arange(0, BLOCK_INNER)).to(tl.int64)
        x = tl.load(x_ptr + m[None, :] * inner + i[:, None], (m < rows)[None, :] & (i < inner)[:, None], 0.0)
        place = o[:, None] * outer_stride + i[None, :] * inner_stride
        w = tl.load(codes_ptr + place, (o < outer)[:, None] & (i < inner)[None, :], 0).to(tl.float32)
        if not SCALE_OF_OUTER:
            w *= tl.div_rn(tl.load(scale_ptr + i, i < inner, 0.0), 127.0)[None, :]
        sums = tl.dot(w.to(x.dtype), x, sums, input_precision="ieee")
    if SCALE_OF_OUTER:
        sums *= tl.div_rn(tl.load(scale_ptr + o, o < outer, 0.0), 127.0)[:, None]
    y = y_ptr + m[None, :] * outer + o[:, None]
    tl.store(y, sums.to(y_ptr.dtype.element_ty), (m < rows)[None, :] & (o < outer)[:, None])


def linear(x: Tensor, weight: RowwiseInt8) -> Tensor:
    """y = x W^T;  x [*, K] in float32, bfloat16 or float16 -> [*, N]

    Raises ValueError for another dtype, x that does not end in K or is on another device, and stored tensors that do
    not fit each other.
    """
    return _product(x, weight, inner=1)


def linear_backward(dy: Tensor, weight: RowwiseInt8) -> Tensor:
    """dX = dY W;  dy [*, N] -> [*, K].  Raises ValueError as `linear` does."""
    return _product(dy, weight, inner=0)


def _product(x: Tensor, weight: RowwiseInt8, inner: int) -> Tensor:
    """x times W, summed over dimension `inner` of W [N, K]."""
    if x.dtype not in KERNEL_DTYPES:
        raise ValueError(f"x must be of {', '.join(map(str, KERNEL_DTYPES))}, got {x.dtype}")
    if x.shape[-1] != weight.shape[inner]:
        raise ValueError(f"x must end in {weight.shape[inner]} for W {weight.shape}, got shape {tuple(x.shape)}")
    if x.device != weight.codes.device:
        raise ValueError(f"x must be on {weight.codes.device}, where the weight is, got {x.device}")
    check_stored(weight)
    outer = 1 - inner
    rows, columns = math.prod(x.shape[:-1]), weight.shape[outer]
    if not (rows and columns and x.shape[-1]):
        return x.new_zeros(*x.shape[:-1], columns)
    y = torch.empty(*x.shape[:-1], columns, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        int8_product_kernel[(triton.cdiv(columns, BLOCK_OUTER), triton.cdiv(rows, BLOCK_M))](
            y,
            x.contiguous(),
            weight.codes,
            weight.scale,
            rows,
            columns,
            x.shape[-1],
            weight.codes.stride(outer),
            weight.codes.stride(inner),
            SCALE_OF_OUTER=outer == 0,
            BLOCK_M=BLOCK_M,
            BLOCK_OUTER=BLOCK_OUTER,
            BLOCK_INNER=BLOCK_INNER,
        )
    return y

"""y = x W^T for one to four rows of x, straight from repacked 4-bit weights, by a table of all pairs of levels.

    y[m, n] = sum_b absmax[n, b] * (sum over k in block b of level[n, k] * x[m, k])

M rows of x, N out_features, K in_features, b a block of `blocksize` weights of a row. The roundings are those of
`triton.gemv.decode_linear`: levels to the dtype of x, products summed in float32, which the maxima multiply.

Why CUDA C: the Triton kernel looks each level up in registers, which fills the pipe of integer instructions (2.1 of
them a weight, memory allows 1.8). Here a byte of codes is the address of two levels in shared memory, in the order in
which the matrix units take them: one load and two instructions for two weights. The table has a copy for each of the 32
banks, so that the loads of a warp never meet. Triton 3.6 has no expression for an address in shared memory.

A byte holds weights k and k + blocksize / 2, which the matrix units take for neighbours: x is put into the same order,
once a program. Of the eight columns of a product, column 2 b + m is of block b of a group and of row m of x, and x is
zero elsewhere. So one chain of products has the sums of all blocks of a group, and each lane scales those of one block.

Maxima are asked for together with the weights that they scale, and waited for behind the products; the first weights
are on their way before the table is made. A program has whole sums: nothing is added in memory.
"""

import torch
from torch import Tensor

from ..weights.quantized_weight import Repacked4bit, check_operand
from . import pairs
from .pairs import GROUP, MOST_ROWS, THREADS, TILE, shared_bytes

DTYPES = (torch.bfloat16, torch.float16)
MOST_SHARED = 113 * 1024  # bytes of a program: two have room in a multiprocessor of an H100 or H200
KERNEL = "decode_pairs_kernel"


def unsupported_reason(m: int, n: int, k: int, dtype: torch.dtype, most_shared: int = MOST_SHARED) -> str:
    """The rule that keeps the kernel from M rows of x and W [N, K], "" if none does.

    most_shared  bytes of shared memory that a program may have
    """
    if dtype not in DTYPES:
        return f"the table of pairs has levels of 16 bits, this is {str(dtype).removeprefix('torch.')}"
    if m > MOST_ROWS:
        return f"the kernel takes up to {MOST_ROWS} rows, x has {m}"
    if rule := pairs.unsupported_reason(n, k):
        return rule
    if (size := shared_bytes(m, k)) > most_shared:
        return f"x [{m}, {k}] and the table take {size} bytes of shared memory, the most is {most_shared}"
    return ""


def decode_linear(x: Tensor, weight: Repacked4bit) -> Tensor:
    """y = x W^T, W [N, K] read in 4 bits    (QLoRA, arXiv 2305.14314, equation 5, without the adapter)

    x  [*, K] bfloat16 or float16, of at most four rows, with any strides
    Returns y [*, N] in the dtype of x.  Raises ValueError for another dtype, shape or device of x.
    """
    n, k = weight.shape
    check_operand("x", x, weight, "in_features", k, DTYPES)
    rows = x.reshape(-1, k).contiguous()
    if rows.data_ptr() % 16:
        rows = rows.clone()
    if rule := unsupported_reason(len(rows), n, k, x.dtype):
        raise ValueError(f"decode_linear: {rule}")
    y = torch.empty(len(rows), n, dtype=x.dtype, device=x.device)
    if not y.numel():
        return y.view(*x.shape[:-1], n)
    table, levels8 = pairs.tables(weight.format, x.dtype, x.device)
    of = pairs.statistics(weight, levels8)
    constants = pairs.constants(len(rows), weight.blocksize, of.nested_blocksize, x.dtype == torch.bfloat16)
    shared = shared_bytes(len(rows), k)
    (programs,) = pairs.programs([n // TILE], shared, x.device)
    with torch.cuda.device_of(y):
        pairs.kernel(x.device, KERNEL, constants)(
            (programs, 1, 1),
            (THREADS, 1, 1),
            [y, rows, weight.codes, of.maxima, table, of.levels8, of.nested, of.offset, n, k // GROUP],
            shared,
        )
    return y.view(*x.shape[:-1], n)

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

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..weights.codebooks import dynamic8
from ..weights.prmt_table import bits, ordered_levels
from ..weights.quantized_weight import FourBit, NestedAbsmax, Repacked4bit, check_operand
from . import nvrtc

DTYPES = (torch.bfloat16, torch.float16)
MOST_ROWS = 4
THREADS, TILE, GROUP = 256, 16, 256  # of a program; rows of W and weights of a row that a warp takes at a time
TABLE_BYTES = 256 * 32 * 4  # a pair of levels for each byte, for each bank
MOST_LEAD = TABLE_BYTES - 1024  # bytes before the table, which lies at a multiple of its size
MOST_SHARED = 113 * 1024  # bytes of a program: two have room in a multiprocessor of an H100 or H200
PROGRAMS = 3  # at once in a multiprocessor: what the registers allow

KERNEL = "decode_pairs_kernel"
SOURCE = Path(__file__).with_suffix(".cu")


def unsupported_reason(m: int, n: int, k: int, dtype: torch.dtype, most_shared: int = MOST_SHARED) -> str:
    """The rule that keeps the kernel from M rows of x and W [N, K], "" if none does.

    most_shared  bytes of shared memory that a program may have
    """
    if dtype not in DTYPES:
        return f"the table of pairs has levels of 16 bits, this is {str(dtype).removeprefix('torch.')}"
    if m > MOST_ROWS:
        return f"the kernel takes up to {MOST_ROWS} rows, x has {m}"
    if n % TILE or k % GROUP:
        return f"N must be a multiple of {TILE} and K of {GROUP}, W is [{n}, {k}]"
    if (size := shared_bytes(m, k)) > most_shared:
        return f"x [{m}, {k}] and the table take {size} bytes of shared memory, the most is {most_shared}"
    return ""


def shared_bytes(m: int, k: int) -> int:
    """Bytes of shared memory of a program, wherever it begins: x lies before the table if it has room there."""
    rest = 4 * (64 + 256 + 2 * 8 * m * TILE) + 2 * m * k  # `Rest` of the kernel, and x
    return MOST_LEAD + TABLE_BYTES + (rest if rest > MOST_LEAD else 0)


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
    pairs, levels8 = tables(weight.format, x.dtype, x.device)
    statistics, nested_blocksize = (weight.absmax, levels8, levels8), 0  # the last two are not read
    if isinstance(weight.absmax, NestedAbsmax):
        nested, nested_blocksize = weight.absmax, weight.absmax.nested_blocksize
        levels8 = levels8 if nested.levels is None else nested.levels
        statistics = (nested.codes, nested.nested_absmax, nested.offset)
    shared = shared_bytes(len(rows), k)
    is_bfloat16 = x.dtype == torch.bfloat16
    with torch.cuda.device_of(y):
        run = kernel(x.device, constants(len(rows), weight.blocksize, nested_blocksize, is_bfloat16))
        run(
            (programs(n, shared, x.device), 1, 1),
            (THREADS, 1, 1),
            [y, rows, weight.codes, statistics[0], pairs, levels8, *statistics[1:], n, k // GROUP],
            shared,
        )
    return y.view(*x.shape[:-1], n)


def constants(rows: int, blocksize: int, nested_blocksize: int, is_bfloat16: bool) -> tuple[tuple[str, int], ...]:
    """The macros of the kernel; nested_blocksize 0: the maxima are float32."""
    given = {"ROWS": rows, "BLOCKSIZE": blocksize, "NESTED_BLOCKSIZE": nested_blocksize, "IS_BFLOAT16": is_bfloat16}
    return tuple((name, int(value)) for name, value in given.items())


@cache
def kernel(device: torch.device, constants: tuple[tuple[str, int], ...]) -> Callable[..., None]:
    """The compiled kernel on a device: called with grid, block, arguments, and bytes of shared memory."""
    from torch.cuda._utils import _cuda_load_module

    major, minor = torch.cuda.get_device_capability(device)
    code = nvrtc.to_machine_code(SOURCE.read_text(encoding="utf-8"), 10 * major + minor, dict(constants))
    loaded: Any = _cuda_load_module(code, [KERNEL])
    most = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", MOST_SHARED)
    loaded[KERNEL].set_shared_memory_config(min(MOST_SHARED, most))
    run: Callable[..., None] = loaded[KERNEL]
    return run


def programs(n: int, shared: int, device: torch.device) -> int:
    """As many as run at once, or as share the tiles of W [N, *] evenly."""
    multiprocessors, room = capacity(device)
    at_once = max(1, min(PROGRAMS, room // (shared + 1024)))
    turns = -(-(n // TILE) // (at_once * multiprocessors))
    return -(-(n // TILE) // turns)


@cache
def capacity(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a GPU, and bytes of shared memory of each, of which every program costs a kilobyte more."""
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_multiprocessor


@cache
def tables(format: FourBit, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """On the device: int32 [256], of each byte the level of its low nibble and above it the other; levels of maxima."""
    levels = bits(ordered_levels(format, dtype))
    words = [levels[byte & 15] | levels[byte >> 4] << 16 for byte in range(256)]
    return torch.tensor(words, dtype=torch.int64).to(torch.int32).to(device), dynamic8().to(device)

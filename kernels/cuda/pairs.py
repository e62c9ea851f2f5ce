"""The host's side of the kernels of the table of pairs: sources, tables, shared memory, programs.

`gemv` has the reasons; in CUDA C they share `pairs.cuh`. M rows of x, N out_features, K in_features.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..weights.codebooks import dynamic8
from ..weights.prmt_table import bits, ordered_levels
from ..weights.quantized_weight import FourBit, NestedAbsmax, Repacked4bit
from . import nvrtc

MOST_ROWS = 4
LEAST_CAPABILITY = (8, 0)  # products of 16 x 8 x 16 numbers, and bfloat16
THREADS, TILE, GROUP = 256, 16, 256  # of a program; rows of W and weights of a row that a warp takes at a time
TABLE_BYTES = 256 * 32 * 4  # a pair of levels for each byte, for each bank
MOST_LEAD = TABLE_BYTES - 1024  # bytes before the table, which lies at a multiple of its size
PROGRAMS = 3  # at once in a multiprocessor: registers for so many

FOLDER = Path(__file__).parent
FILES = {
    "decode_pairs_kernel": "gemv.cu",
    "qkv_pairs_kernel": "qkv.cu",
    "gate_up_pairs_kernel": "gate_up.cu",
    "residual_pairs_kernel": "residual.cu",
}
_INCLUDE = re.compile(r'^#include "(.*)"$', re.MULTILINE)


class Capacity(NamedTuple):
    """Multiprocessors of a GPU, bytes of shared memory of each, and of them the most that a program may have."""

    multiprocessors: int
    shared: int
    most_shared: int


class Statistics(NamedTuple):
    """The maxima of a weight, or their 8-bit codes with the maxima and offset of these and the levels of the codes

    Where the maxima are float32, nested_blocksize is 0, and the tensors that are not read are any.
    """

    maxima: Tensor
    nested: Tensor
    offset: Tensor
    levels8: Tensor
    nested_blocksize: int


def unavailable_reason(device: torch.device) -> str:
    """The reason why no kernel of ours in CUDA C runs on a device, "" if they do."""
    if device.type != "cuda" or torch.version.hip is not None:
        return f"kernels in CUDA C are for NVIDIA GPUs, x is on {device}"
    if (capability := torch.cuda.get_device_capability(device)) < LEAST_CAPABILITY:
        return f"kernels in CUDA C need compute capability 8.0, the GPU has {'.'.join(map(str, capability))}"
    return nvrtc.unavailable_reason()


def unsupported_reason(n: int, k: int) -> str:
    """The rule that keeps the table of pairs from W [N, K], "" if none does."""
    if n % TILE or k % GROUP:
        return f"N must be a multiple of {TILE} and K of {GROUP}, W is [{n}, {k}]"
    return ""


def shared_bytes(m: int, k: int, more: int = 0) -> int:
    """Bytes of shared memory of a program, wherever it begins: x lies before the table if it has room there.

    more  bytes behind x
    """
    rest = 4 * (64 + 256 + 2 * 8 * m * TILE) + 2 * m * k + more  # `Rest` of the kernels, x, and what is behind
    return MOST_LEAD + TABLE_BYTES + (rest if rest > MOST_LEAD else 0)


def programs(tiles: Sequence[int], shared: int, device: torch.device, registers_for: int = PROGRAMS) -> list[int]:
    """The programs that share the tiles of each weight of a launch: those that run at once, or that have equal shares.

    shared  bytes of a program;  registers_for: so many in a multiprocessor at once
    """
    has = capacity(device)
    at_once = max(1, min(registers_for, has.shared // (shared + 1024))) * has.multiprocessors
    turns = -(-sum(tiles) // at_once)
    while turns < max(tiles) and sum(-(-count // turns) for count in tiles) > at_once:
        turns += 1
    return [-(-count // turns) for count in tiles]


@cache
def capacity(device: torch.device) -> Capacity:
    """The capacity of a GPU, on which a program costs a kilobyte of shared memory more than it asks for."""
    properties = torch.cuda.get_device_properties(device)
    most = getattr(properties, "shared_memory_per_block_optin", 48 * 1024)  # not in torch's types
    return Capacity(properties.multi_processor_count, properties.shared_memory_per_multiprocessor, most)


def constants(rows: int, blocksize: int, nested_blocksize: int, is_bfloat16: bool) -> tuple[tuple[str, int], ...]:
    """The macros of the kernels; nested_blocksize 0: the maxima are float32."""
    given = {"ROWS": rows, "BLOCKSIZE": blocksize, "NESTED_BLOCKSIZE": nested_blocksize, "IS_BFLOAT16": is_bfloat16}
    return tuple((name, int(value)) for name, value in given.items())


@cache
def kernel(device: torch.device, name: str, constants: tuple[tuple[str, int], ...]) -> Callable[..., None]:
    """The compiled kernel on a device: called with grid, block, arguments (float as double), bytes of shared memory."""
    from torch.cuda._utils import _cuda_load_module

    major, minor = torch.cuda.get_device_capability(device)
    code = nvrtc.to_machine_code(source(name), 10 * major + minor, dict(constants))
    loaded: Any = _cuda_load_module(code, [name])
    loaded[name].set_shared_memory_config(capacity(device).most_shared)
    run: Callable[..., None] = loaded[name]
    return run


@cache
def source(name: str) -> str:
    """The CUDA C of a kernel, with what it includes."""

    def read(file: str) -> str:
        return _INCLUDE.sub(lambda line: read(line[1]), (FOLDER / file).read_text(encoding="utf-8"))

    return read(FILES[name])


@cache
def tables(format: FourBit, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """On the device: int32 [256], of each byte the level of its low nibble and above it the other; levels of maxima."""
    levels = bits(ordered_levels(format, dtype))
    words = [levels[byte & 15] | levels[byte >> 4] << 16 for byte in range(256)]
    return torch.tensor(words, dtype=torch.int64).to(torch.int32).to(device), dynamic8().to(device)


def statistics(weight: Repacked4bit, levels8: Tensor) -> Statistics:
    """The statistics of a weight as the kernels take them; levels8: of 8-bit codes, unless the weight has its own."""
    if not isinstance(weight.absmax, NestedAbsmax):
        return Statistics(weight.absmax, levels8, levels8, levels8, 0)
    nested = weight.absmax
    own = levels8 if nested.levels is None else nested.levels
    return Statistics(nested.codes, nested.nested_absmax, nested.offset, own, nested.nested_blocksize)

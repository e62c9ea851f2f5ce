"""The adapters of up to three linears that share x, in a launch each beside W, x and dY.

One launch for the matrix Z of `reference.riding_adapters`, one for [x | U] or [dY | V], one for all dA and dB: no cast,
no copy and no product with A or B is a launch of its own. A sum is taken by one program in a fixed order, so the same
input gives the same bits.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from ..reference.riding_adapters import MOST_LINEARS, Sizes, sizes_of
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import Repacked4bit
from ..weights.repack import launch_kind
from .dequantize import TILE, levels_of_repacked, statistics
from .riding_adapter_kernels import beside_kernel, block_matrix_kernel, matrix_gradients_kernel

STAGES = 3


def can_write(plan: Sequence[LinearWithAdapter]) -> bool:
    """True if `write_block_matrix` takes the weights of a plan: repacked, all of one format, blocksize and group."""
    kinds = {launch_kind(part.weight) for part in plan}
    if len(plan) > MOST_LINEARS or len(kinds) != 1 or None in kinds:
        return False
    return len({part.weight.group for part in plan if isinstance(part.weight, Repacked4bit)}) == 1


def write_block_matrix(z: Tensor, plan: Sequence[LinearWithAdapter]) -> None:
    """Z of a plan, W dequantized, into z, whose columns are adjacent; `can_write` says for which."""
    sizes, weights = sizes_of(plan), [part.weight for part in plan]
    (first, *_) = weights
    assert isinstance(first, Repacked4bit)
    unread = _first_matrix(plan)  # of one dtype with the others, as pointers between which a program chooses must be
    arguments: list[Any] = []
    for part in plan:
        assert isinstance(part.weight, Repacked4bit)
        (absmax, dynamic8, *nested), nested_blocksize = statistics(part.weight)
        lora_A, lora_B = (unread if m is None else m.to(unread.dtype).contiguous() for m in (part.lora_A, part.lora_B))
        rank = 0 if part.lora_A is None else len(part.lora_A)
        arguments += [part.weight.codes, absmax, *nested, lora_A, lora_B, part.weight.shape[0], rank, part.scaling]
    for _ in range(MOST_LINEARS - len(plan)):
        arguments += [*arguments[:6], 0, 0, 1.0]
    block_n = max(1, TILE // (first.group * first.blocksize))
    tiles = sum(triton.cdiv(n, block_n) for n in (*sizes.outputs, sizes.rank))
    with torch.cuda.device_of(z):  # Triton launches on the current device
        block_matrix_kernel[(tiles, len(first.codes))](
            z,
            levels_of_repacked(first.format, z.device),
            dynamic8,
            *arguments,
            len(first.codes),
            z.stride(0),
            sizes.rank,
            BLOCKSIZE=first.blocksize,
            GROUP=first.group,
            NESTED_BLOCKSIZE=nested_blocksize,
            BLOCK_N=block_n,
            BLOCK_R=triton.next_power_of_2(sizes.rank),
            enable_fp_fusion=False,  # W as the reference has it: two roundings
        )


def beside(wide: Sequence[Tensor], narrow: Tensor, rank_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """([X | X narrow], X narrow), as `reference.riding_adapters.beside`"""
    wide = [part if part.stride(1) == 1 else part.contiguous() for part in wide]
    (first, *_), rank = wide, narrow.shape[1]
    m, widths = len(first), [part.shape[1] for part in wide]
    left = torch.empty(m, sum(widths) + rank, dtype=first.dtype, device=first.device)
    inner = torch.empty(m, rank, dtype=first.dtype, device=first.device)
    if not m:
        return left, inner
    filled = [*wide, *[first] * (MOST_LINEARS - len(wide))]
    tile = beside_tile(m, rank, first.dtype)
    with torch.cuda.device_of(first):  # Triton launches on the current device
        beside_kernel[(triton.cdiv(m, tile["BLOCK_M"]), triton.cdiv(rank, tile["BLOCK_R"]))](
            left,
            inner,
            *filled,
            narrow,
            first if rank_mask is None else rank_mask.contiguous(),
            m,
            rank,
            *widths,
            *[0] * (MOST_LINEARS - len(wide)),
            *[part.stride(0) for part in filled],
            left.stride(0),
            *narrow.stride(),
            0 if rank_mask is None else rank_mask.shape[1],
            1 if rank_mask is None else m // len(rank_mask),
            COUNT=len(wide),
            HAS_MASK=rank_mask is not None,
            **tile,
            enable_fp_fusion=True,
        )
    return left, inner


def matrix_gradients(
    x: Tensor, dys: Sequence[Tensor], u: Tensor, v: Tensor, plan: Sequence[LinearWithAdapter]
) -> list[Tensor | None]:
    """dA_i and dB_i of each linear in turn, as `reference.riding_adapters.matrix_gradients`"""
    x, *dys = (part if part.stride(1) == 1 else part.contiguous() for part in (x, *dys))
    sizes, missing = sizes_of(plan), MOST_LINEARS - len(plan)
    unread = _first_matrix(plan)
    matrices = [matrix for part in plan for matrix in (part.lora_A, part.lora_B)]
    found = [unread if m is None else torch.empty(m.shape, dtype=unread.dtype, device=x.device) for m in matrices]
    given = found + [unread] * (2 * missing)
    tile = gradients_tile(sizes, x.dtype)
    tiles = sum(triton.cdiv(width, tile["BLOCK_C"]) for width in (sizes.inputs, *sizes.outputs))
    padded = [*dys, *[x] * missing]
    with torch.cuda.device_of(x):  # Triton launches on the current device
        matrix_gradients_kernel[(tiles, triton.cdiv(sizes.rank, tile["BLOCK_R"]))](
            x,
            *padded,
            u,
            v,
            *given[::2],
            *given[1::2],
            len(x),
            sizes.inputs,
            *sizes.outputs,
            *[0] * missing,
            *sizes.ranks,
            *[0] * missing,
            sizes.rank,
            *[part.scaling for part in plan],
            *[1.0] * missing,
            *[part.stride(0) for part in (x, *padded)],
            **tile,
            enable_fp_fusion=True,
        )
    return [None if m is None else gradient.to(m.dtype) for m, gradient in zip(matrices, found, strict=True)]


def _first_matrix(plan: Sequence[LinearWithAdapter]) -> Tensor:
    return next(part.lora_A for part in plan if part.lora_A is not None)


def beside_tile(m: int, rank: int, dtype: torch.dtype) -> dict[str, int]:
    """The constants of `beside_kernel`. 32 rows make a program for every multiprocessor of an H200 out of 4,096."""
    block_r = min(256, max(16, triton.next_power_of_2(rank)))
    block_c = min(128, 16384 // (block_r * dtype.itemsize))  # a stage of `narrow` is 16 KB at most
    return {"BLOCK_M": 32 if m >= 4096 else 16, "BLOCK_C": block_c, "BLOCK_R": block_r, "STAGES": STAGES}


def gradients_tile(sizes: Sizes, dtype: torch.dtype) -> dict[str, int]:
    """The constants of `matrix_gradients_kernel`."""
    block_r = min(128, max(16, triton.next_power_of_2(sizes.rank)))
    return {"BLOCK_M": 64 if dtype.itemsize == 2 else 32, "BLOCK_C": 64, "BLOCK_R": block_r, "STAGES": STAGES}

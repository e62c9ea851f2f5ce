"""AdamW, and the norm and the clipping of gradients, over all parameters in a launch each: see `train.optim`.

A hat of Llama 2 7B has 448 matrices: one after another they would take ten launches each. Here a program takes a chunk
of one of them, found in a table: the addresses of each tensor's storage, written to the device once a step, because
gradients lie elsewhere in every one. Sums are taken in a fixed order, so the same gradients have the same bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 4096  # numbers a program
WARPS = 8


@triton.jit
def chunk_of(table_ptr, chunks_ptr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr):
    """(row of the table, first number of this program's chunk, numbers of the tensor)"""
    chunk = tl.program_id(0)
    row_ptr = table_ptr + COLUMNS * tl.load(chunks_ptr + 2 * chunk)
    return row_ptr, tl.load(chunks_ptr + 2 * chunk + 1), tl.load(row_ptr + COLUMNS - 1)


@triton.jit
def storage(row_ptr, which: tl.constexpr, dtype: tl.constexpr):
    """The address in a column: 0 the parameter, 1 its gradient, 2 and 3 its moments, 4 and 5 their maxima"""
    return tl.load(row_ptr + which).to(tl.pointer_type(dtype))


@triton.jit
def updated(p, g, m, v, rate, kept, b1, b2, eps, root_correction2):
    """(p, m, v) behind one update; rate: over the correction of m; kept: what decay leaves of p"""
    m = m + (1 - b1) * (g - m)
    v = v * b2 + (1 - b2) * (g * g)
    p = p * kept - rate * tl.div_rn(m, tl.div_rn(tl.sqrt_rn(v), root_correction2) + eps)
    return p, m, v


@triton.jit
def adamw_kernel(
    table_ptr, chunks_ptr, rates_ptr, b1, b2, eps, root_correction2, CHUNK: tl.constexpr, COLUMNS: tl.constexpr
):
    """One update of a chunk, moments in float32.  rates [n, 2] as in `updated`"""
    row_ptr, first, count = chunk_of(table_ptr, chunks_ptr, CHUNK, COLUMNS)
    tensor = tl.load(chunks_ptr + 2 * tl.program_id(0))
    at = first + tl.arange(0, CHUNK)
    inside = at < count
    p_ptr, g_ptr = storage(row_ptr, 0, tl.float32) + at, storage(row_ptr, 1, tl.float32) + at
    m_ptr, v_ptr = storage(row_ptr, 2, tl.float32) + at, storage(row_ptr, 3, tl.float32) + at
    p, m, v = updated(
        tl.load(p_ptr, mask=inside, other=0.0),
        tl.load(g_ptr, mask=inside, other=0.0),
        tl.load(m_ptr, mask=inside, other=0.0),
        tl.load(v_ptr, mask=inside, other=0.0),
        tl.load(rates_ptr + 2 * tensor),
        tl.load(rates_ptr + 2 * tensor + 1),
        b1,
        b2,
        eps,
        root_correction2,
    )
    tl.store(p_ptr, p, mask=inside)
    tl.store(m_ptr, m, mask=inside)
    tl.store(v_ptr, v, mask=inside)


@triton.jit
def nearest_level(x, middles_ptr):
    """The middles of neighbouring levels [255] that are below x: the nearest level, ties to the lower; by halving"""
    code = tl.zeros_like(x).to(tl.int32)
    for power in tl.static_range(8):
        step = 128 >> power
        code += tl.where(tl.load(middles_ptr + code + step - 1) < x, step, 0)
    return code


@triton.jit
def store_in_8_bits(codes_ptr, absmax_ptr, value, at, inside, block, has_block, middles_ptr):
    """Codes and maxima of blocks [BLOCKS, BLOCK]: see `train.adam_state`"""
    value = tl.where(inside, value, 0.0)
    absmax = tl.max(tl.abs(value), axis=1)
    scaled = tl.div_rn(value, tl.broadcast_to(tl.where(absmax == 0, 1.0, absmax)[:, None], value.shape))
    tl.store(codes_ptr + at, nearest_level(scaled, middles_ptr).to(tl.uint8), mask=inside)
    tl.store(absmax_ptr + block, absmax, mask=has_block)


@triton.jit
def adamw_8bit_kernel(
    table_ptr,
    chunks_ptr,
    rates_ptr,
    signed_ptr,
    signed_middles_ptr,
    unsigned_ptr,
    unsigned_middles_ptr,
    b1,
    b2,
    eps,
    root_correction2,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One update of a chunk, moments in 8 bits a number and a float32 maximum a BLOCK"""
    row_ptr, first, count = chunk_of(table_ptr, chunks_ptr, CHUNK, COLUMNS)
    tensor = tl.load(chunks_ptr + 2 * tl.program_id(0))
    block = first // BLOCK + tl.arange(0, CHUNK // BLOCK)
    at = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside, has_block = at < count, block * BLOCK < count
    p_ptr, g_ptr = storage(row_ptr, 0, tl.float32) + at, storage(row_ptr, 1, tl.float32) + at
    m_ptr, v_ptr = storage(row_ptr, 2, tl.uint8), storage(row_ptr, 3, tl.uint8)
    m_absmax_ptr, v_absmax_ptr = storage(row_ptr, 4, tl.float32), storage(row_ptr, 5, tl.float32)
    m = tl.load(signed_ptr + tl.load(m_ptr + at, mask=inside, other=0).to(tl.int32))
    v = tl.load(unsigned_ptr + tl.load(v_ptr + at, mask=inside, other=0).to(tl.int32))
    p, m, v = updated(
        tl.load(p_ptr, mask=inside, other=0.0),
        tl.load(g_ptr, mask=inside, other=0.0),
        m * tl.load(m_absmax_ptr + block, mask=has_block, other=0.0)[:, None],
        v * tl.load(v_absmax_ptr + block, mask=has_block, other=0.0)[:, None],
        tl.load(rates_ptr + 2 * tensor),
        tl.load(rates_ptr + 2 * tensor + 1),
        b1,
        b2,
        eps,
        root_correction2,
    )
    tl.store(p_ptr, p, mask=inside)
    store_in_8_bits(m_ptr, m_absmax_ptr, m, at, inside, block, has_block, signed_middles_ptr)
    store_in_8_bits(v_ptr, v_absmax_ptr, v, at, inside, block, has_block, unsigned_middles_ptr)


@triton.jit
def squares_kernel(out_ptr, table_ptr, chunks_ptr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr):
    """out[chunk] = the sum of g^2 over the chunk, of the first column"""
    row_ptr, first, count = chunk_of(table_ptr, chunks_ptr, CHUNK, COLUMNS)
    at = first + tl.arange(0, CHUNK)
    g = tl.load(storage(row_ptr, 0, tl.float32) + at, mask=at < count, other=0.0)
    tl.store(out_ptr + tl.program_id(0), tl.sum(g * g))


@triton.jit
def scale_kernel(factor_ptr, table_ptr, chunks_ptr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr):
    """g = g * factor, of the first column"""
    row_ptr, first, count = chunk_of(table_ptr, chunks_ptr, CHUNK, COLUMNS)
    at = first + tl.arange(0, CHUNK)
    g_ptr = storage(row_ptr, 0, tl.float32) + at
    tl.store(g_ptr, tl.load(g_ptr, mask=at < count, other=0.0) * tl.load(factor_ptr), mask=at < count)


class Update(NamedTuple):
    """One parameter of an update: its gradient, its two moments, its learning rate, and what decay leaves of it

    A moment is its float32 storage, or codes uint8 and the maxima of their blocks.
    """

    parameter: Tensor
    gradient: Tensor
    m: tuple[Tensor, ...]
    v: tuple[Tensor, ...]
    rate: float
    kept: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them; of a moment in 8 bits the codes of both, and then the maxima of both."""
        return self.parameter, self.gradient, *(tensor for pair in zip(self.m, self.v, strict=True) for tensor in pair)


class Levels8(NamedTuple):
    """The 256 levels of m and of v, and the 255 middles between neighbours."""

    signed: Tensor
    signed_middles: Tensor
    unsigned: Tensor
    unsigned_middles: Tensor


def can_step(tensors: Sequence[Tensor]) -> bool:
    """True if these kernels read them: float32 (or codes), contiguous, on one GPU, and some at all."""
    device = tensors[0].device if tensors else None
    return bool(tensors) and all(
        t.is_cuda and t.dtype in (torch.float32, torch.uint8) and t.is_contiguous() and t.device == device
        for t in tensors
    )


def step(
    updates: Sequence[Update],
    levels: Levels8 | None,
    betas: tuple[float, float],
    eps: float,
    corrections: tuple[float, float],
    block: int,
) -> None:
    """m, v and p of every parameter, in place; corrections: 1 - b1^t and 1 - b2^t. With levels, moments in 8 bits."""
    parameters = [update.parameter for update in updates]
    table, chunks = _table([update.tensors for update in updates]), _chunks(parameters)
    numbers = [number for update in updates for number in (update.rate / corrections[0], update.kept)]
    rates = torch.tensor(numbers, dtype=torch.float32).to(parameters[0].device, non_blocking=True)
    scalars = (*betas, eps, corrections[1] ** 0.5)
    sizes = {"CHUNK": CHUNK, "COLUMNS": table.shape[1], "num_warps": WARPS, "enable_fp_fusion": False}
    with torch.cuda.device_of(parameters[0]):  # Triton launches on the current device
        if levels is None:
            adamw_kernel[(len(chunks),)](table, chunks, rates, *scalars, **sizes)
        else:
            adamw_8bit_kernel[(len(chunks),)](table, chunks, rates, *levels, *scalars, BLOCK=block, **sizes)


def norm(gradients: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all of them together, float32 []"""
    table, chunks = _table([(gradient,) for gradient in gradients]), _chunks(gradients)
    squares = torch.empty(len(chunks), dtype=torch.float32, device=gradients[0].device)
    sizes = {"CHUNK": CHUNK, "COLUMNS": table.shape[1], "num_warps": WARPS, "enable_fp_fusion": False}
    with torch.cuda.device_of(squares):
        squares_kernel[(len(chunks),)](squares, table, chunks, **sizes)
    return squares.sum().sqrt()


def scale(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """g = g factor, in place;  factor float32 []"""
    table, chunks = _table([(gradient,) for gradient in gradients]), _chunks(gradients)
    sizes = {"CHUNK": CHUNK, "COLUMNS": table.shape[1], "num_warps": WARPS, "enable_fp_fusion": False}
    with torch.cuda.device_of(factor):
        scale_kernel[(len(chunks),)](factor, table, chunks, **sizes)


def _table(rows: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """int64 [n, columns]: the addresses of each row's tensors, and the numbers of the first"""
    numbers = [[*(tensor.data_ptr() for tensor in row), row[0].numel()] for row in rows]
    return torch.tensor(numbers, dtype=torch.int64).to(rows[0][0].device, non_blocking=True)


_known: dict[tuple[torch.device, tuple[int, ...]], Tensor] = {}


def _chunks(tensors: Sequence[Tensor]) -> Tensor:
    """int32 [chunks, 2]: the tensor of each chunk, and its first number there; made once for the same sizes"""
    key = tensors[0].device, tuple(tensor.numel() for tensor in tensors)
    if key not in _known:
        places = [(i, start) for i, count in enumerate(key[1]) for start in range(0, count, CHUNK)]
        _known[key] = torch.tensor(places, dtype=torch.int32).to(key[0])
    return _known[key]

"""One token a row through all blocks of Llama in five kernels a block, from repacked 4-bit weights.

    q, k, v   = rstd (x Wq^T, x Wk^T, x Wv^T)                    x = h * weight of the norm, rstd = 1 / rms(h)
    y         = attention(turned q, turned k and v put into the cache)
    h         = h + y Wo^T                                        and x, the sums of h^2 of the next norm
    a         = silu(rstd x W1^T) rstd x W3^T
    h         = h + a W2^T                                        and x, the sums of h^2 of the next block's norm

each product with what its adapter adds, s (x A^T) B^T: a kernel that writes a tile of x also writes what that tile adds
to x A^T of the linears that read x, and the product that needs x A^T adds the tiles up. So neither a norm nor an
adapter is a kernel of its own, and no program waits for another: whichever arrives last at a tile of outputs finishes
it, adding the parts of all in a fixed order.

M rows (tokens), D model dim, F ffn hidden, H heads, G key/value heads, h head dim, S positions of the cache, r rank.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from ..reference.decode_step import CacheWindow, StepSizes
from ..weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from ..weights.quantized_weight import NestedAbsmax, Repacked4bit
from ..weights.repack import launch_kind
from . import gemv, launch
from .decode_attention import BLOCK_S, WARPS
from .decode_attention import PROGRAMS as ATTENTION_PROGRAMS
from .decode_step_attention import step_attention_kernel
from .decode_step_kernels import gate_up_kernel, qkv_kernel, residual_kernel
from .decode_step_tiles import first_norm_kernel

ROWS = 4  # tokens: the last program at a tile finishes them one after another
DTYPES = (torch.bfloat16, torch.float32)  # h * weight, without the division by rms(h), could overflow in float16
INNER_PARTS = 2048  # numbers of x A^T that a program holds at a time: 32 registers a thread


def unsupported_reason(x: Tensor, blocks: Sequence[BlockWeights], sizes: StepSizes) -> str:
    """The rule that keeps these kernels from a step of x [B, 1, D] through the blocks, "" if none does."""
    if x.dtype not in DTYPES:
        return f"x must be {' or '.join(map(str, DTYPES))}, is {x.dtype}"
    if not 0 < x.shape[0] <= ROWS:
        return f"there must be 1 to {ROWS} rows, there are {x.shape[0]}"
    parts = [part for block in blocks for part in block.linears]
    kinds = {launch_kind(part.weight) for part in parts}
    if len(kinds) != 1 or None in kinds:
        return "the linears must all be repacked 4-bit weights of one format, blocksize and kind of maxima"
    if any(part.drop is not None or part.rank_mask is not None or part.gain is not None for part in parts):
        return "an adapter must be one for all rows, without dropout, and no DoRA"
    if not all(m.is_contiguous() for part in parts for m in (part.lora_A, part.lora_B) if m is not None):
        return "the matrices of an adapter must be contiguous"
    tile = gemv.linear_tile(1, blocks[0].linears[0].weight.blocksize, x.dtype)["BLOCK_N"]  # type: ignore[union-attr]
    for part in blocks[0].linears:
        if part.weight.shape[0] % tile:
            return f"rows of a weight must be a multiple of {tile}, got {part.weight.shape[0]}"
    return "" if sizes.head_dim % 2 == 0 else f"head dim must be even, is {sizes.head_dim}"


def decode_blocks(
    x: Tensor, blocks: Sequence[BlockWeights], cache: CacheWindow, cos: Tensor, sin: Tensor, sizes: StepSizes
) -> Tensor:
    """h [B, 1, D] behind all blocks, of x [B, 1, D], both before a norm; keys and values go into the cache

    cos, sin  float32 [B, 1, 1, h/2];  what `unsupported_reason` names must not be
    """
    with torch.cuda.device_of(x):  # Triton launches on the current device
        return _run(x, blocks, cache, cos.contiguous(), sin.contiguous(), sizes)


def _run(
    x: Tensor, blocks: Sequence[BlockWeights], cache: CacheWindow, cos: Tensor, sin: Tensor, sizes: StepSizes
) -> Tensor:
    step = _Step(x, blocks, cache, sizes)
    hidden = x.contiguous().view(len(x), -1)
    step.norm_first(hidden, blocks[0])
    for layer, block in enumerate(blocks):
        following = blocks[layer + 1] if layer + 1 < len(blocks) else None
        step.qkv(block)
        step.attend(layer, block, cos, sin)
        step.add(step.attended, block.linears[3], hidden, step.inner_attended, block.ffn_norm, block.linears[4:6])
        step.gate_up(block)
        norm, readers = (None, ()) if following is None else (following.attention_norm, following.linears[:3])
        step.add(step.activation, block.linears[6], step.hidden, step.inner_activation, norm, readers)
        hidden = step.hidden
    return hidden.view(x.shape)


class _Step:
    """The memory of a step, and its launches. Every kernel finds `arrived` zero, and leaves it so."""

    def __init__(self, x: Tensor, blocks: Sequence[BlockWeights], cache: CacheWindow, sizes: StepSizes) -> None:
        self.m, self.dim, self.sizes, self.cache = x.shape[0], x.shape[-1], sizes, cache
        weights = [_repacked(part) for part in blocks[0].linears]
        wide, ffn = sum(weight.shape[0] for weight in weights[:3]), weights[4].shape[0]
        self.tile = gemv.linear_tile(self.m, weights[0].blocksize, x.dtype)
        self.block_n = self.tile["BLOCK_N"]
        self.levels, self.table, self.dynamic8 = launch.constants(weights[0].format, x.dtype, x.device)
        self.is_assembly = launch.can_use_assembly(x.dtype, x.device)
        ranks = [part.lora_A.shape[0] for block in blocks for part in block.linears if part.lora_A is not None]
        self.rank = triton.next_power_of_2(max(ranks)) if ranks else 0
        programs = self.m * sizes.heads
        splits = min(triton.cdiv(ATTENTION_PROGRAMS, programs), triton.cdiv(cache.window, BLOCK_S))
        self.attention_splits = triton.next_power_of_2(splits)
        dim_tiles, ffn_tiles = self.dim // self.block_n, ffn // self.block_n

        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=x.device)

        self.hidden, self.normed = (room(self.m, self.dim, dtype=x.dtype) for _ in range(2))
        self.projected = room(self.m, wide, dtype=x.dtype)
        self.attended = room(self.m, weights[3].shape[1], dtype=x.dtype)
        self.activation = room(self.m, ffn, dtype=x.dtype)
        self.squares = room(self.m, dim_tiles)
        outputs = ((weights[0], wide), (weights[3], self.dim), (weights[4], 2 * ffn), (weights[6], self.dim))
        self.parts = room(max(self.m * count * self.splits(weight, count) for weight, count in outputs))
        self.inner = room(dim_tiles, self.m, 3, self.rank)
        self.inner_attended = room(sizes.heads, self.m, self.rank)
        self.inner_activation = room(ffn_tiles, self.m, self.rank)
        self.sums = room(programs, self.attention_splits, sizes.head_dim)
        self.totals, self.largest = (room(programs, self.attention_splits) for _ in range(2))
        most = max(programs, *(count // self.block_n for _, count in outputs))
        self.arrived = torch.zeros(most, dtype=torch.int32, device=x.device)

    def splits(self, weight: Repacked4bit, outputs: int) -> int:
        """Programs that share a sum of a product with so many outputs."""
        return gemv.programs_for_a_sum(self.m, weight.shape[1], outputs // self.block_n, len(weight.codes))

    def norm_first(self, hidden: Tensor, block: BlockWeights) -> None:
        """The input of q, k and v of the first block."""
        first_norm_kernel[(self.dim // self.block_n, self.m)](
            self.normed,
            self.squares,
            hidden,
            block.attention_norm,
            self.m,
            self.dim,
            *self._inner_of(block.linears[:3]),
            RANK=self.rank,
            BLOCK=self.block_n,
            num_warps=2,
            enable_fp_fusion=False,
        )

    def qkv(self, block: BlockWeights) -> None:
        """q, k, v of `normed`, not yet turned."""
        q, k, v = (_repacked(part) for part in block.linears[:3])
        wide, tiles = self.projected.shape[1], self.dim // self.block_n
        splits = self.splits(q, wide)
        qkv_kernel[(wide // self.block_n, splits)](
            self.projected,
            self.parts,
            self.arrived,
            self.normed,
            self.squares,
            *(tensor for weight in (q, k, v) for tensor in self._stored(weight)),
            *(self.levels, self.table, self.dynamic8),
            *(self.m, q.shape[0], k.shape[0], self.dim, len(q.codes), self.sizes.eps),
            *self._outer_of(self.inner, block.linears[:3]),
            CHUNK=self._chunk(tiles),
            TILES=triton.next_power_of_2(tiles),
            **self._constants(q, splits),
        )

    def attend(self, layer: int, block: BlockWeights, cos: Tensor, sin: Tensor) -> None:
        """Attention of `projected`, whose key and value go into the cache."""
        sizes, (k, v) = self.sizes, (self.cache.k[layer], self.cache.v[layer])
        step_attention_kernel[(self.m * sizes.heads, self.attention_splits)](
            self.attended,
            *(self.sums, self.totals, self.largest, self.arrived, self.projected, k, v, cos, sin),
            *(self.cache.position, self.cache.padding, 1 / math.sqrt(sizes.head_dim), sizes.heads, sizes.kv_heads),
            *(k.stride(0), k.stride(1), self.inner_attended, *self._inner_one(block.linears[3])),
            RANK=self.rank,
            SPLITS=self.attention_splits,
            HEAD_DIM=sizes.head_dim,
            BLOCK_D=triton.next_power_of_2(sizes.head_dim),
            BLOCK_S=BLOCK_S,
            INTERLEAVED=sizes.interleaved,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )

    def gate_up(self, block: BlockWeights) -> None:
        """The activation of the feed-forward layer, of `normed`."""
        gate, up = (_repacked(part) for part in block.linears[4:6])
        ffn, tiles = gate.shape[0], self.dim // self.block_n
        splits = self.splits(gate, 2 * ffn)
        gate_up_kernel[(2 * ffn // self.block_n, splits)](
            self.activation,
            self.parts,
            self.arrived,
            self.normed,
            self.squares,
            *(tensor for weight in (gate, up) for tensor in self._stored(weight)),
            *(self.levels, self.table, self.dynamic8),
            *(self.m, ffn, self.dim, len(gate.codes), self.sizes.eps),
            *self._outer_of(self.inner, block.linears[4:6]),
            *(self.inner_activation, *self._inner_one(block.linears[6])),
            CHUNK=self._chunk(tiles),
            RANK_NEXT=self.rank,
            TILES=triton.next_power_of_2(tiles),
            **self._constants(gate, splits),
        )

    def add(
        self,
        x: Tensor,
        part: LinearWithAdapter,
        residual: Tensor,
        inner: Tensor,
        norm: Tensor | None,
        readers: Sequence[LinearWithAdapter],
    ) -> None:
        """hidden = residual + x W^T; with a norm, also what the linears behind it take."""
        weight = _repacked(part)
        splits = self.splits(weight, self.dim)
        residual_kernel[(self.dim // self.block_n, splits)](
            *(self.hidden, self.normed, self.squares, self.parts, self.arrived, x, residual),
            residual if norm is None else norm,
            *self._stored(weight),
            *(self.levels, self.table, self.dynamic8),
            *(self.m, self.dim, weight.shape[1], len(weight.codes)),
            *(inner, len(inner), *self._outer(part)),
            *self._inner_of(readers),
            CHUNK=self._chunk(len(inner)),
            COUNT_NEXT=len(readers),
            RANK_NEXT=self.rank,
            **self._constants(weight, splits),
        )

    def _constants(self, weight: Repacked4bit, splits: int) -> dict[str, Any]:
        nested = weight.absmax.nested_blocksize if isinstance(weight.absmax, NestedAbsmax) else 0
        return {
            **{"RANK": self.rank, "SPLITS": splits, "BLOCKSIZE": weight.blocksize, "GROUP": weight.group},
            **{"NESTED_BLOCKSIZE": nested, "ASSEMBLY": self.is_assembly, "enable_fp_fusion": False},
            **self.tile,
        }

    def _chunk(self, tiles: int) -> int:
        """Parts of x A^T that are added at a time."""
        return min(int(triton.next_power_of_2(tiles)), max(1, INNER_PARTS // max(self.rank, 1)))

    def _stored(self, weight: Repacked4bit) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes, maxima, maxima of maxima, and their offset; the last two are not read where there are none."""
        if isinstance(weight.absmax, NestedAbsmax):
            nested = weight.absmax
            codes8 = nested.codes.view(launch.GROUP_WORDS[weight.group])
            return weight.codes, codes8, nested.nested_absmax, nested.offset
        return weight.codes, weight.absmax, weight.absmax, weight.absmax

    def _inner_of(self, readers: Sequence[LinearWithAdapter]) -> tuple[Any, ...]:
        """`inner` and, of three linears, lora_A and its rank: 0 where there is none."""
        of_none = LinearWithAdapter(self.squares)
        three = (*readers, of_none, of_none, of_none)[:3]
        return (self.inner, *(given for part in three for given in self._inner_one(part)))

    def _inner_one(self, part: LinearWithAdapter) -> tuple[Any, ...]:
        return (self.squares, 0) if part.lora_A is None else (part.lora_A, part.lora_A.shape[0])

    def _outer_of(self, inner: Tensor, parts: Sequence[LinearWithAdapter]) -> tuple[Any, ...]:
        """`inner` and, of each linear, lora_B, its rank and scaling."""
        return (inner, *(given for part in parts for given in self._outer(part)))

    def _outer(self, part: LinearWithAdapter) -> tuple[Any, ...]:
        if part.lora_B is None:
            return self.squares, 0, 0.0
        return part.lora_B, part.lora_B.shape[1], part.scaling


def _repacked(part: LinearWithAdapter) -> Repacked4bit:
    assert isinstance(part.weight, Repacked4bit)
    return part.weight

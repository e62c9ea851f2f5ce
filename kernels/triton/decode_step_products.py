"""The products of a decode step by looking levels up in registers: `decode_step` has the equations.

What a kernel gives the next is a part a tile of BLOCK_N outputs. Sums that several programs share lie in memory, and
whichever program arrives last at a tile adds them, in a fixed order.

M rows (tokens), D model dim, F ffn hidden, K in_features, N out_features, r rank, RANK the power of two that holds it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from ..reference.decode_step import NormedInput
from ..weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from ..weights.quantized_weight import NestedAbsmax, Repacked4bit
from . import gemv, launch
from .decode_step_kernels import gate_up_kernel, qkv_kernel, residual_kernel

INNER_PARTS = 2048  # numbers of x A^T that a program holds at a time: 32 registers a thread


def tile_rows(blocksize: int, dtype: torch.dtype) -> int:
    """BLOCK_N, the rows of W that a program takes."""
    return int(gemv.linear_tile(1, blocksize, dtype)["BLOCK_N"])


class LookUpProducts:
    """The products of a step, and their memory; rank: RANK, 0 where no linear has an adapter.

    `arrived` counts the programs at a tile: every kernel finds it zero, and leaves it so.
    """

    def __init__(self, x: Tensor, block: BlockWeights, rank: int, counters: int) -> None:
        """counters: those that another kernel of the step wants of `arrived`"""
        self.m, self.dim, self.rank = x.shape[0], x.shape[-1], rank
        weights = [repacked(part) for part in block.linears]
        self.tile = gemv.linear_tile(self.m, weights[0].blocksize, x.dtype)
        self.norm_tile = self.block_n = self.tile["BLOCK_N"]
        self.tables = launch.constants(weights[0].format, x.dtype, x.device)
        self.is_assembly = launch.can_use_assembly(x.dtype, x.device)
        wide, ffn = sum(weight.shape[0] for weight in weights[:3]), weights[4].shape[0]
        tiles = self.dim // self.block_n

        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=x.device)

        self.hidden, self.normed = (room(self.m, self.dim, dtype=x.dtype) for _ in range(2))
        self.projected, self.activation = (room(self.m, width, dtype=x.dtype) for width in (wide, ffn))
        self.squares, self.inner = room(self.m, tiles), room(tiles, self.m, 3, rank)
        self.inner_activation = room(ffn // self.block_n, self.m, rank)
        outputs = ((weights[0], wide), (weights[3], self.dim), (weights[4], 2 * ffn), (weights[6], self.dim))
        self.parts = room(max(self.m * count * self._splits(weight, count) for weight, count in outputs))
        most = max(counters, *(count // self.block_n for _, count in outputs))
        self.arrived = torch.zeros(most, dtype=torch.int32, device=x.device)

    def qkv(self, x: NormedInput, parts: Sequence[LinearWithAdapter], eps: float) -> Tensor:
        """q, k and v [M, N], side by side, not yet turned."""
        q, k, v = (repacked(part) for part in parts)
        wide, tiles = self.projected.shape[1], self.dim // self.block_n
        splits = self._splits(q, wide)
        qkv_kernel[(wide // self.block_n, splits)](
            *(self.projected, self.parts, self.arrived, x.x, x.squares),
            *(tensor for weight in (q, k, v) for tensor in self._stored(weight)),
            *self.tables,
            *(self.m, q.shape[0], k.shape[0], self.dim, len(q.codes), eps),
            *self._outer_of(x.inner, parts),
            CHUNK=self._chunk(tiles),
            TILES=triton.next_power_of_2(tiles),
            **self._constants(q, splits),
        )
        return self.projected

    def gate_up(
        self, x: NormedInput, parts: Sequence[LinearWithAdapter], eps: float, following: LinearWithAdapter
    ) -> tuple[Tensor, Tensor]:
        """The activation [M, F] of the feed-forward layer, and parts of x A^T [tiles, M, RANK] of what follows."""
        gate, up = (repacked(part) for part in parts)
        ffn, tiles = gate.shape[0], self.dim // self.block_n
        splits = self._splits(gate, 2 * ffn)
        gate_up_kernel[(2 * ffn // self.block_n, splits)](
            *(self.activation, self.parts, self.arrived, x.x, x.squares),
            *(tensor for weight in (gate, up) for tensor in self._stored(weight)),
            *self.tables,
            *(self.m, ffn, self.dim, len(gate.codes), eps),
            *self._outer_of(x.inner, parts),
            *(self.inner_activation, *inner_one(following, x.squares)),
            CHUNK=self._chunk(tiles),
            RANK_NEXT=self.rank,
            TILES=triton.next_power_of_2(tiles),
            **self._constants(gate, splits),
        )
        return self.activation, self.inner_activation

    def add(
        self,
        x: Tensor,
        inner: Tensor,
        part: LinearWithAdapter,
        residual: Tensor,
        norm: Tensor | None,
        readers: Sequence[LinearWithAdapter],
    ) -> tuple[Tensor, NormedInput]:
        """h = residual + x W^T, and with a norm what the linears behind it take; inner: parts of x A^T [*, M, RANK]"""
        weight = repacked(part)
        splits = self._splits(weight, self.dim)
        residual_kernel[(self.dim // self.block_n, splits)](
            *(self.hidden, self.normed, self.squares, self.parts, self.arrived, x, residual),
            residual if norm is None else norm,
            *self._stored(weight),
            *self.tables,
            *(self.m, self.dim, weight.shape[1], len(weight.codes)),
            *(inner, len(inner), *self._outer(part)),
            *inner_of(self.inner, readers, self.squares),
            CHUNK=self._chunk(len(inner)),
            COUNT_NEXT=len(readers),
            RANK_NEXT=self.rank,
            **self._constants(weight, splits),
        )
        return self.hidden, NormedInput(self.normed, self.squares, self.inner)

    def _splits(self, weight: Repacked4bit, outputs: int) -> int:
        """Programs that share a sum of a product with so many outputs."""
        return gemv.programs_for_a_sum(self.m, weight.shape[1], outputs // self.block_n, len(weight.codes))

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

    def _outer_of(self, inner: Tensor, parts: Sequence[LinearWithAdapter]) -> tuple[Any, ...]:
        """`inner` and, of each linear, lora_B, its rank and scaling."""
        return (inner, *(given for part in parts for given in self._outer(part)))

    def _outer(self, part: LinearWithAdapter) -> tuple[Any, ...]:
        if part.lora_B is None:
            return self.squares, 0, 0.0
        return part.lora_B, part.lora_B.shape[1], part.scaling


def inner_of(inner: Tensor, readers: Sequence[LinearWithAdapter], none: Tensor) -> tuple[Any, ...]:
    """`inner` and, of three linears, lora_A and its rank: `none` and 0 where there is no adapter."""
    three = (*readers, *(LinearWithAdapter(none),) * 3)[:3]
    return (inner, *(given for part in three for given in inner_one(part, none)))


def inner_one(part: LinearWithAdapter, none: Tensor) -> tuple[Any, ...]:
    """lora_A and its rank; `none` and 0 where there is no adapter."""
    return (none, 0) if part.lora_A is None else (part.lora_A, part.lora_A.shape[0])


def repacked(part: LinearWithAdapter) -> Repacked4bit:
    """The weight of a linear of a step, which is repacked."""
    assert isinstance(part.weight, Repacked4bit)
    return part.weight

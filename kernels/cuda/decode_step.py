"""The products of a decode step by a table of pairs of levels: the kernels `qkv.cu`, `gate_up.cu` and `residual.cu`.

    q, k, v   = rstd (x Wq^T, x Wk^T, x Wv^T)                    x = h * weight of the norm, rstd = 1 / rms(h)
    h         = h + y W^T                                         and x, the sums of h^2 of the norm behind it
    a         = silu(rstd x W1^T) rstd x W3^T

each product with what its adapter adds, s (x A^T) B^T. The loop is that of `gemv`, for one to four rows. A program has
whole sums of its outputs, so no program waits for another, and nothing is counted. What a kernel gives the next beside
its outputs, sums of h^2 and x A^T, is one part a program, and every program of the next adds the parts up while its
first weights are on their way: the same numbers in the same order each, so the bits do not depend on timing.

M rows (tokens), D model dim, F ffn hidden, K in_features, N out_features, r rank, RANK the power of two that holds it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..reference.decode_step import NormedInput
from ..weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from ..weights.quantized_weight import Repacked4bit
from . import pairs
from .pairs import GROUP, MOST_ROWS, THREADS, TILE

QKV, GATE_UP, RESIDUAL = "qkv_pairs_kernel", "gate_up_pairs_kernel", "residual_pairs_kernel"
MOST_RANK = 32  # every program reads all parts of x A^T: at rank 64 as many bytes of the cache as there are of W
NORM_TILE = 64  # channels of a part of the first norm, which no product comes before


def unsupported_reason(x: Tensor, blocks: Sequence[BlockWeights]) -> str:
    """The rule that keeps these kernels from a step of x [M, 1, D] through the blocks, "" if none does.

    The weights are repacked 4-bit ones of one format, blocksize and kind of maxima.
    """
    if x.dtype != torch.bfloat16:
        return f"x must be bfloat16, is {x.dtype}"
    if x.shape[0] > MOST_ROWS:
        return f"there must be 1 to {MOST_ROWS} rows, there are {x.shape[0]}"
    if any(norm.dtype != x.dtype for block in blocks for norm in block[:2]):
        return "the weights of the norms must be bfloat16"
    adapters = [(part.lora_A, part.lora_B) for block in blocks for part in block.linears]
    if any(matrix is not None and matrix.dtype != torch.float32 for pair in adapters for matrix in pair):
        return "the matrices of an adapter must be float32"
    if (rank := max((len(a) for a, _ in adapters if a is not None), default=0)) > MOST_RANK:
        return f"ranks must be at most {MOST_RANK}, there is {rank}"
    for part in blocks[0].linears:
        if rule := pairs.unsupported_reason(*part.weight.shape):
            return rule
    if rule := pairs.unavailable_reason(x.device):
        return rule
    most = pairs.capacity(x.device).most_shared
    needed = max(shared_bytes(x.shape[0], part.weight.shape[1], 2, MOST_RANK) for part in blocks[0].linears)
    return "" if needed <= most else f"a program takes {needed} bytes of shared memory, the most is {most}"


def shared_bytes(m: int, k: int, linears: int, rank: int) -> int:
    """Bytes of shared memory of a program; linears: that share x in it."""
    return pairs.shared_bytes(m, k, 16 * THREADS // 2 + 16 + 4 * linears * m * rank)  # `StepRest`, and behind it


def programs_at_once(m: int) -> int:
    """That a multiprocessor has registers for (`PROGRAMS` of `step.cuh`)."""
    return pairs.PROGRAMS if m < 3 else 2


def constants(m: int, blocksize: int, nested_blocksize: int, rank: int) -> tuple[tuple[str, int], ...]:
    """The macros of the kernels."""
    return (*pairs.constants(m, blocksize, nested_blocksize, True), ("RANK", rank))


class PairProducts:
    """The products of a step, and their memory; rank: RANK, 0 where no linear has an adapter."""

    norm_tile = NORM_TILE

    def __init__(self, x: Tensor, block: BlockWeights, rank: int) -> None:
        self.m, self.dim, self.rank, self.device = x.shape[0], x.shape[-1], rank, x.device
        weights = [_repacked(part) for part in block.linears]
        self.table, self.levels8 = pairs.tables(weights[0].format, x.dtype, x.device)
        nested_blocksize = pairs.statistics(weights[0], self.levels8).nested_blocksize
        self.constants = constants(self.m, weights[0].blocksize, nested_blocksize, rank)

        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=x.device)

        wide, ffn = sum(weight.shape[0] for weight in weights[:3]), weights[4].shape[0]
        self.hidden, self.normed = (room(self.m, self.dim, dtype=x.dtype) for _ in range(2))
        self.projected, self.activation = (room(self.m, width, dtype=x.dtype) for width in (wide, ffn))
        parts = max(self._programs([self.dim // TILE], weights[place].shape[1])[0] for place in (3, 6))
        self.squares, self.inner = room(parts * self.m), room(parts, self.m, 3, rank)
        self.inner_activation = room(*self._programs([ffn // (TILE // 2)], self.dim, 2), self.m, rank)

    def qkv(self, x: NormedInput, parts: Sequence[LinearWithAdapter], eps: float) -> Tensor:
        """q, k and v [M, N], side by side, not yet turned."""
        q, k = (part.weight.shape[0] for part in parts[:2])
        of_q, of_k, _ = self._programs([q // TILE, k // TILE, k // TILE], self.dim)
        self._launch(
            QKV,
            of_q + 2 * of_k,
            self._shared(self.dim),
            [self.projected, *self._normed(x, eps), q, k, self.dim // GROUP, of_q, of_k],
            *(self._linear(part) for part in parts),
        )
        return self.projected

    def gate_up(
        self, x: NormedInput, parts: Sequence[LinearWithAdapter], eps: float, following: LinearWithAdapter
    ) -> tuple[Tensor, Tensor]:
        """The activation [M, F] of the feed-forward layer, and parts of x A^T [programs, M, RANK] of what follows."""
        ffn = parts[0].weight.shape[0]
        self._launch(
            GATE_UP,
            len(self.inner_activation),
            self._shared(self.dim, 2),
            [self.activation, *self._normed(x, eps), ffn, self.dim // GROUP],
            *(self._linear(part) for part in parts),
            [self.inner_activation, *self._reader(following)],
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
        k = x.shape[1]
        (programs,) = self._programs([self.dim // TILE], k)
        squares = self.squares[: programs * self.m].view(self.m, programs)
        none = LinearWithAdapter(squares)
        self._launch(
            RESIDUAL,
            programs,
            self._shared(k),
            [self.hidden, residual, x, inner, len(inner), self.table, self.levels8, self.dim, k // GROUP],
            self._linear(part),
            [residual if norm is None else norm, self.normed, squares, self.inner, len(readers)],
            *(self._reader(reader) for reader in (*readers, none, none, none)[:3]),
        )
        return self.hidden, NormedInput(self.normed, squares, self.inner[:programs])

    def _launch(self, name: str, programs: int, shared: int, *given: Sequence[object]) -> None:
        run = pairs.kernel(self.device, name, self.constants)
        run((programs, 1, 1), (THREADS, 1, 1), [each for some in given for each in some], shared)

    def _shared(self, k: int, linears: int = 1) -> int:
        return shared_bytes(self.m, k, linears, self.rank)

    def _programs(self, tiles: Sequence[int], k: int, linears: int = 1) -> list[int]:
        return pairs.programs(tiles, self._shared(k, linears), self.device, programs_at_once(self.m))

    def _normed(self, x: NormedInput, eps: float) -> list[object]:
        return [x.x, x.squares, x.inner, x.squares.shape[1], eps, self.table, self.levels8]

    def _linear(self, part: LinearWithAdapter) -> list[object]:
        """Codes, maxima, maxima of maxima, their offset; lora_B, its rank and scaling."""
        weight = _repacked(part)
        of = pairs.statistics(weight, self.levels8)
        b, rank, scaling = (
            (self.table, 0, 0.0) if part.lora_B is None else (part.lora_B, part.lora_B.shape[1], part.scaling)
        )
        return [weight.codes, of.maxima, of.nested, of.offset, b, rank, float(scaling)]

    def _reader(self, part: LinearWithAdapter) -> list[object]:
        """lora_A and its rank."""
        return [self.table, 0] if part.lora_A is None else [part.lora_A, len(part.lora_A)]


def _repacked(part: LinearWithAdapter) -> Repacked4bit:
    assert isinstance(part.weight, Repacked4bit)
    return part.weight

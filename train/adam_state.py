"""Storage of the two moments of Adam: in float32, in 8 bits a block, or in host memory.

    8 bit: moment[i] = level[code[i]] * absmax[i // 256]    (Dettmers et al., arXiv 2110.02861, section 2)

The levels are the dynamic 8-bit codes of `kernels.weights.codebooks`: signed for m, unsigned for v. A matrix of fewer
than 4096 numbers stays in float32, as there: little is saved, and the first moments of a small one are what is felt.

Blocks are those of the whole matrix, also where several processes have a part of it each: a maximum whose block lies
in two parts is agreed on, so that codes and maxima are those of one process, whatever the number of parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lowrank.kernels.weights.codebooks import dynamic8, dynamic8_unsigned

StateKind = Literal["fp32", "8bit", "paged", "paged-8bit"]
BLOCK = 256
SMALLEST = 4096  # numbers from which on a moment is kept in 8 bits


@dataclass(frozen=True)
class MomentShard:
    """The numbers of a matrix, row by row, that this process holds.

    numbers         of the whole matrix
    begins          the first number of every process's shard
    rank            whose shard this is
    all_reduce_max  the elementwise maximum over all processes
    """

    numbers: int
    begins: tuple[int, ...] = (0,)
    rank: int = 0
    all_reduce_max: Callable[[Tensor], Tensor] = lambda tensor: tensor

    @property
    def leading(self) -> int:
        """Numbers of its first block that lie before it."""
        return self.begins[self.rank] % BLOCK if self.begins[self.rank] < self.numbers else 0

    @property
    def has_cut_blocks(self) -> bool:
        """True if some block spans two parts. Parts are whole rows, most of which are whole blocks as well."""
        return any(begin % BLOCK for begin in self.begins)

    def of(self, whole: Tensor) -> Tensor:
        """The maxima of the blocks that it has a number of, out of those of all blocks."""
        begin, end = (*self.begins, self.numbers)[self.rank : self.rank + 2]
        return whole[begin // BLOCK : -(-end // BLOCK)] if end > begin else whole[:0]

    def whole(self, absmax: Tensor) -> Tensor:
        """The maxima of all blocks, out of each process's own."""
        found = absmax.new_zeros(-(-self.numbers // BLOCK))
        self.of(found).copy_(absmax)
        return self.all_reduce_max(found)


@cache
def levels_and_middles(signed: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """The 256 levels of m, or of v, and the 255 middles between neighbours"""
    levels = (dynamic8() if signed else dynamic8_unsigned()).to(device)
    return levels, (levels[1:] + levels[:-1]) / 2


class Moment(Protocol):
    """One moment of one parameter, zero at first."""

    def read(self) -> Tensor:
        """The moment beside its parameter, in float32 or the parameter's wider dtype, to be changed and written."""

    def write(self, value: Tensor) -> None:
        """Keeps what `read` gave, changed."""

    def in_place(self) -> tuple[Tensor, ...] | None:
        """Its storage, to be changed in place, if all of it lies beside its parameter: itself, or codes and maxima."""

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors, by name."""

    def saved(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint: sharded as the parameter is, or equal in every process. `take` restores them."""

    def take(self, saved: dict[str, Tensor]) -> None:
        """After what `saved` gave has been written over."""


class FullMoment:
    """The moment itself, in float32 or wider, on the parameter's device, or in the host's memory if it is paged."""

    def __init__(self, parameter: Tensor, paged: bool) -> None:
        self._device = parameter.device
        wide = torch.promote_types(parameter.dtype, torch.float32)
        self._value = _zeros(parameter.shape, wide, _home(parameter, paged))

    def read(self) -> Tensor:
        return self._value.to(self._device, non_blocking=True)

    def write(self, value: Tensor) -> None:
        if value is not self._value:
            self._value.copy_(value)

    def in_place(self) -> tuple[Tensor, ...] | None:
        return (self._value,) if self._value.device == self._device else None

    def tensors(self) -> dict[str, Tensor]:
        return {"value": self._value}

    saved = tensors

    def take(self, saved: dict[str, Tensor]) -> None:
        """Nothing is left to do."""


class Blockwise8bit:
    """codes uint8 as the parameter, absmax float32 of its blocks; nearest level, ties to the lower."""

    def __init__(self, parameter: Tensor, paged: bool, signed: bool, shard: MomentShard | None = None) -> None:
        self._device, self._shard = parameter.device, shard or MomentShard(parameter.numel())
        self._levels, self._middles = levels_and_middles(signed, self._device)
        home = _home(parameter, paged)
        self._codes = _zeros(parameter.shape, torch.uint8, home)
        self._codes.fill_(int((levels_and_middles(signed, torch.device("cpu"))[0] == 0).nonzero()))
        self._absmax = _zeros((-(-(self._shard.leading + parameter.numel()) // BLOCK),), torch.float32, home)

    def read(self) -> Tensor:
        codes, absmax = (kept.to(self._device, non_blocking=True) for kept in (self._codes, self._absmax))
        lead, scale = self._shard.leading, absmax.repeat_interleave(BLOCK)
        return self._levels[codes.int()] * scale[lead : lead + codes.numel()].view(codes.shape)

    def write(self, value: Tensor) -> None:
        lead, count = self._shard.leading, value.numel()
        blocks = torch.nn.functional.pad(value.flatten(), (lead, -(lead + count) % BLOCK))
        blocks = blocks.view(len(self._absmax), BLOCK)
        absmax = blocks.abs().amax(1)
        if self._shard.has_cut_blocks:
            absmax = self._shard.of(self._shard.whole(absmax))
        scaled = blocks / torch.where(absmax == 0, 1.0, absmax)[:, None]
        codes = torch.bucketize(scaled, self._middles, out_int32=True).flatten()[lead : lead + count]
        self._codes.copy_(codes.view(value.shape))
        self._absmax.copy_(absmax)

    def in_place(self) -> tuple[Tensor, ...] | None:
        is_whole = not self._shard.leading and not self._shard.has_cut_blocks
        return (self._codes, self._absmax) if is_whole and self._codes.device == self._device else None

    def tensors(self) -> dict[str, Tensor]:
        return {"codes": self._codes, "absmax": self._absmax}

    def saved(self) -> dict[str, Tensor]:
        return {"codes": self._codes, "absmax": self._shard.whole(self._absmax)}

    def take(self, saved: dict[str, Tensor]) -> None:
        self._absmax.copy_(self._shard.of(saved["absmax"]))


def new_moment(parameter: Tensor, kind: StateKind, signed: bool, shard: MomentShard | None = None) -> Moment:
    """A moment of zeros for a parameter, or for the part of it that a process has."""
    paged, shard = kind.startswith("paged"), shard or MomentShard(parameter.numel())
    if kind.endswith("8bit") and shard.numbers >= SMALLEST:
        return Blockwise8bit(parameter, paged, signed, shard)
    return FullMoment(parameter, paged)


def state_bytes(numbers: int, kind: StateKind) -> int:
    """Bytes of both moments of a matrix of so many float32 numbers."""
    if kind.endswith("8bit") and numbers >= SMALLEST:
        return 2 * (numbers + 4 * -(-numbers // BLOCK))
    return 2 * 4 * numbers


def _home(parameter: Tensor, paged: bool) -> torch.device:
    return torch.device("cpu") if paged else parameter.device


def _zeros(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Pinned where it is paged beside a GPU, so that copies run beside the computing."""
    return torch.zeros(shape, dtype=dtype, device=device, pin_memory=device.type == "cpu" and torch.cuda.is_available())

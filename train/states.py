"""How the two moments of Adam are kept: in float32, in 8 bits a block, or in host memory.

    8 bit: moment[i] = level[code[i]] * absmax[i // 256]    (Dettmers et al., arXiv 2110.02861, section 2)

The levels are the dynamic 8-bit codes of `kernels.codebook`: signed for m, unsigned for v. A matrix of fewer than 4096
numbers stays in float32, as there: little is saved, and the first moments of a small one are what is felt.
"""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lowrank.kernels.codebook import dynamic8, dynamic8_unsigned

StateKind = Literal["fp32", "8bit", "paged", "paged-8bit"]
BLOCK = 256
SMALLEST = 4096  # numbers from which on a moment is kept in 8 bits


class Moment(Protocol):
    """One moment of one parameter, zero at first."""

    def read(self) -> Tensor:
        """The moment beside its parameter, in float32 or the parameter's wider dtype, to be changed and written."""

    def write(self, value: Tensor) -> None:
        """Keeps what `read` gave, changed."""

    def tensors(self) -> dict[str, Tensor]:
        """What is kept, by name."""


class Whole:
    """The moment itself, on the parameter's device, or in the host's memory if it is paged."""

    def __init__(self, parameter: Tensor, paged: bool) -> None:
        self._device = parameter.device
        self._value = _zeros(parameter.shape, parameter.dtype, _home(parameter, paged))

    def read(self) -> Tensor:
        return self._value.to(self._device, non_blocking=True)

    def write(self, value: Tensor) -> None:
        if value is not self._value:
            self._value.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        return {"value": self._value}


class Blockwise8bit:
    """codes uint8 [n], absmax float32 [ceil(n / 256)]; nearest level, ties to the lower."""

    def __init__(self, parameter: Tensor, paged: bool, signed: bool) -> None:
        self._device, self._shape = parameter.device, parameter.shape
        self._levels = (dynamic8() if signed else dynamic8_unsigned()).to(self._device)
        self._middles = (self._levels[1:] + self._levels[:-1]) / 2
        home = _home(parameter, paged)
        self._codes = _zeros((parameter.numel(),), torch.uint8, home)
        self._codes.fill_(int((self._levels == 0).nonzero()))
        self._absmax = _zeros((-(-parameter.numel() // BLOCK),), torch.float32, home)

    def read(self) -> Tensor:
        codes, absmax = (kept.to(self._device, non_blocking=True) for kept in (self._codes, self._absmax))
        value = self._levels[codes.int()]
        return (value * absmax.repeat_interleave(BLOCK)[: len(value)]).view(self._shape)

    def write(self, value: Tensor) -> None:
        blocks = torch.nn.functional.pad(value.flatten(), (0, -value.numel() % BLOCK)).view(-1, BLOCK)
        absmax = blocks.abs().amax(1)
        scaled = blocks / torch.where(absmax == 0, 1.0, absmax)[:, None]
        codes = torch.bucketize(scaled, self._middles, out_int32=True).flatten()[: value.numel()]
        self._codes.copy_(codes)
        self._absmax.copy_(absmax)

    def tensors(self) -> dict[str, Tensor]:
        return {"codes": self._codes, "absmax": self._absmax}


def new_moment(parameter: Tensor, kind: StateKind, signed: bool) -> Moment:
    """A moment of zeros for a parameter."""
    paged = kind.startswith("paged")
    if kind.endswith("8bit") and parameter.numel() >= SMALLEST:
        return Blockwise8bit(parameter, paged, signed)
    return Whole(parameter, paged)


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

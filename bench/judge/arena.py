"""Memory that the judge shares with a submission: inputs and answer, in random bytes that nobody is to touch.

A tensor begins at a multiple of 64 bytes; at least GUARD bytes lie before, between and behind them, and the first lie
at the very end of a tensor. The memory is a sealed file without a name: its size cannot be changed by who has it.
"""

import fcntl
import mmap
import os
from typing import Any

import numpy
import torch
from torch import Tensor

from .task import Data

GUARD, ALIGN = 4096, 64
UNWRITTEN = 0x7FC05EED  # a NaN that no product makes: its bits say that a number of y was never written
NAMES = ("x", "codes", "absmax", "codebook", "blocksize", "y")


class Arena:
    """The memory of one case; `data` gives the shapes."""

    def __init__(self, data: Data) -> None:
        at, places = GUARD, []
        for part in data:
            if isinstance(part, Tensor):
                places.append(slice(at, at + part.nbytes))
                at = -(-(at + part.nbytes + GUARD) // ALIGN) * ALIGN
            else:
                places.append(slice(at, at))
        self._places, self._shape = places, tuple(data[-1].shape)
        self.descriptor = os.memfd_create("lowrank-judge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, at)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._shared = numpy.frombuffer(mmap.mmap(self.descriptor, at), dtype=numpy.uint8)
        self._expected = numpy.frombuffer(bytearray(os.urandom(at)), dtype=numpy.uint8)
        # What a worker is told: integers as they are, a tensor by its place.
        self.parts: list[Any] = [
            {"at": place.start, "dtype": str(part.dtype).removeprefix("torch."), "shape": list(part.shape)}
            if isinstance(part, Tensor)
            else part
            for part, place in zip(data, places, strict=True)
        ]

    def put(self, data: Data) -> None:
        """Writes the inputs of a call, and UNWRITTEN over all of y."""
        for part, place in zip(data, self._places, strict=True):
            if isinstance(part, Tensor):
                self._expected[place] = part.contiguous().view(torch.uint8).numpy().reshape(-1)
        self._expected[self._places[-1]].view(numpy.uint32)[:] = UNWRITTEN
        self._shared[:] = self._expected

    def take(self) -> Tensor:
        """A copy of y as it is now, float32 [M, N]."""
        copied: Tensor = torch.from_numpy(self._shared[self._places[-1]].copy())
        return copied.view(torch.float32).view(self._shape)

    def fault(self) -> tuple[str, str]:
        """(rule, what was seen) if anything but y is not as it was put; two times nothing if all is"""
        y = self._places[-1]
        for part in (slice(0, y.start), slice(y.stop, len(self._shared))):
            if not numpy.array_equal(self._shared[part], self._expected[part]):
                at = part.start + int((self._shared[part] != self._expected[part]).argmax())
                return self._told(at)
        return "", ""

    def _told(self, at: int) -> tuple[str, str]:
        for name, place in zip(NAMES, self._places, strict=True):
            if place.start <= at < place.stop:
                return "inputs-unchanged", f"byte {at - place.start} of {name} was written"
        name, before = max(
            ((name, place) for name, place in zip(NAMES, self._places, strict=True) if place.start <= at),
            key=lambda one: one[1].stop,
            default=("", slice(0, 0)),
        )
        where = f"{at - before.stop} bytes behind the end of {name}" if name else "before x"
        return "guard", f"memory was written {where}"


def unwritten(answer: Tensor) -> int:
    """The count of numbers of a copied y that were never written."""
    return int((answer.view(torch.int32) == UNWRITTEN).sum())

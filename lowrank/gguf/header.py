"""The header of a GGUF file: its values, and where each tensor is; no tensor is read    (ggml/docs/gguf.md)

    "GGUF", uint32 version, uint64 number of tensors, uint64 number of values
    values   key, uint32 type, value;  a string is uint64 length and UTF-8, an array uint32 type, uint64 length, items
    tensors  name, uint32 axes, uint64 [axes] the last axis first, uint32 type, uint64 offset
    padding, then the tensors at their offsets, each aligned

A number that says how much follows is compared with what is left of the file before anything of that size is made.
"""

import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, where no value says another
MAX_AXES = 4
RECORD_KEY = "lowrank.record"  # of an adapter that was written here: its lowrank.json

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
_LEAST_VALUE, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # bytes that one takes at least


class TensorType(NamedTuple):
    """A type of ggml's: `numbers` of a block are stored in `nbytes` bytes."""

    name: str
    numbers: int
    nbytes: int


TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor is: `start` and `nbytes` are of the file, the last axis of `shape` is the one that runs."""

    name: str
    type: int  # a key of TYPES
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """Values by key, an array of numbers as numpy's and one of strings as a list; tensors by name, inside the file."""

    path: Path
    values: dict[str, Any]
    tensors: dict[str, TensorInfo]

    @cached_property
    def architecture(self) -> str:
        """The architecture, in the words of llama.cpp: "llama"."""
        return str(self.values.get("general.architecture"))

    @property
    def kind(self) -> str:
        """ "model", "adapter", "mmproj", ...; files from before there was a kind are models."""
        return str(self.values.get("general.type", "model"))


def is_gguf(path: str | Path) -> bool:
    """True for a file that begins as GGUF does, whatever its name is."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: str | Path) -> Header:
    """The header of a file.

    Raises ValueError, one line with the file and the place in it, for what is no GGUF file, is truncated, of another
    version or byte order, and for a number that cannot be true of a file of this size.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # nothing to map: an empty file
            raise ValueError(f"{path}: not a GGUF file: it is empty") from None
        with mapped:
            return _Cursor(path, mapped).header()


class _Cursor:
    """Reads a file from the front, and nothing beyond its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at, self.size = path, data, 0, len(data)

    def header(self) -> Header:
        if self._take(len(MAGIC), "the magic number") != MAGIC:
            raise ValueError(f"{self.path}: not a GGUF file: it begins with {bytes(self.data[:4])!r}")
        version = self._number("<I", "the version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            raise ValueError(
                f"{self.path}: GGUF in big-endian byte order, which is not read here"
                if swapped in VERSIONS
                else f"{self.path}: GGUF version must be 2 or 3, got {version}"
            )
        tensors = self._count("the number of tensors", _LEAST_TENSOR)
        values = self._count("the number of values", _LEAST_VALUE)
        found: dict[str, Any] = {}
        for number in range(values):
            key = self._string(f"the key of value {number}")
            if key in found:
                raise ValueError(f"{self.path}: {key} stands there twice")
            found[key] = self._value(self._number("<I", key), key)
        infos = [self._tensor(f"tensor {number}") for number in range(tensors)]
        return Header(self.path, found, self._placed(infos, self._alignment(found)))

    def _alignment(self, values: dict[str, Any]) -> int:
        alignment = values.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"{self.path}: general.alignment must be a power of two, got {alignment!r}")
        return alignment

    def _placed(self, infos: list[TensorInfo], alignment: int) -> dict[str, TensorInfo]:
        """The tensors with `start` counted from the begin of the file; each lies inside it, at an aligned offset."""
        data, tensors = -(-self.at // alignment) * alignment, {}
        for info in infos:
            start = data + info.start
            if info.start % alignment:
                raise ValueError(
                    f"{self.path}: {info.name}: offset must be a multiple of {alignment}, got {info.start}"
                )
            if start + info.nbytes > self.size:
                raise ValueError(
                    f"{self.path}: truncated: {info.name} ends at byte {start + info.nbytes:,}, "
                    f"the file has {self.size:,}"
                )
            if info.name in tensors:
                raise ValueError(f"{self.path}: {info.name} stands there twice")
            tensors[info.name] = TensorInfo(info.name, info.type, info.shape, start, info.nbytes)
        return tensors

    def _tensor(self, what: str) -> TensorInfo:
        name = self._string(f"the name of {what}")
        axes = self._number("<I", f"{name}: its axes")
        if not 1 <= axes <= MAX_AXES:
            raise ValueError(f"{self.path}: {name} must have 1 to {MAX_AXES} axes, got {axes}")
        shape = tuple(self._number("<Q", f"{name}: its shape") for _ in range(axes))[::-1]
        number = self._number("<I", f"{name}: its type")
        if number not in TYPES:
            raise ValueError(f"{self.path}: {name} is of ggml's type {number}, which is not read here")
        type, count = TYPES[number], prod(shape)
        if not count or shape[-1] % type.numbers:
            raise ValueError(f"{self.path}: {name}: {type.name} must have rows of {type.numbers}s, got {list(shape)}")
        offset = self._number("<Q", f"{name}: its offset")
        return TensorInfo(name, number, shape, offset, count // type.numbers * type.nbytes)

    def _value(self, type: int, key: str) -> Any:
        if type == _STRING:
            return self._string(key)
        if type != _ARRAY:
            return self._numbers(type, 1, key)[0].item()
        item, count = self._number("<I", key), self._number("<Q", key)
        if item == _ARRAY:
            raise ValueError(f"{self.path}: {key} is an array of arrays, which is not read here")
        if item != _STRING:
            return self._numbers(item, count, key)
        self._check_count(count, 8, f"{key}: its length")
        return [self._string(key) for _ in range(count)]

    def _numbers(self, type: int, count: int, key: str) -> npt.NDArray[Any]:
        if type not in _SCALARS:
            raise ValueError(f"{self.path}: {key} is a value of type {type}, which GGUF does not have")
        dtype = np.dtype(_SCALARS[type])
        taken = self._take(count * dtype.itemsize, key)
        return np.frombuffer(taken, np.uint8 if type == 7 else dtype).astype(dtype.newbyteorder("="))

    def _string(self, what: str) -> str:
        taken = self._take(self._number("<Q", what), what)
        try:
            return taken.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{self.path}: {what} is not UTF-8: {taken[:16]!r}") from None

    def _count(self, what: str, least: int) -> int:
        count = self._number("<Q", what)
        self._check_count(count, least, what)
        return count

    def _check_count(self, count: int, least: int, what: str) -> None:
        left = self.size - self.at
        if count * least > left:
            raise ValueError(f"{self.path}: truncated, or no GGUF: {what} is {count:,}, with {left:,} bytes left")

    def _number(self, format: str, what: str) -> int:
        (number,) = struct.unpack(format, self._take(struct.calcsize(format), what))
        return int(number)

    def _take(self, nbytes: int, what: str) -> bytes:
        left = self.size - self.at
        if nbytes > left:
            raise ValueError(
                f"{self.path}: truncated, or no GGUF: {what} needs {nbytes:,} bytes, {left:,} are left of the file"
            )
        self.at += nbytes
        return self.data[self.at - nbytes : self.at]

"""One file of tensors, read a tensor at a time.

Tensors are views of a memory map. Pages that were read stay in memory as long as their map, so a file is mapped anew
whenever much of it has been read: pages that no tensor refers to are then freed.
"""

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .foreign_file import foreign_file_reason

PICKLED = (".pth", ".bin")  # the ends of names of torch's own files
# The name of each dtype in a header; files of ours hold tensors in this order.
SAFETENSORS_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
# Bytes that may be read through one map. To map a 7B anew takes 2 ms, and 30 ms where it is a .pth.
REMAP_BYTES = 32 << 20


@dataclass(frozen=True)
class Layout:
    """Shape, dtype and bytes of a tensor in a file, known without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Self:
        """The layout of a contiguous tensor."""
        return cls(shape, dtype, prod(shape) * dtype.itemsize)


class TensorFile:
    """The tensors of a `.pth`, `.bin` or `.safetensors` file by name.

    Raises ValueError naming the file if it is truncated or holds anything but tensors by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._view, describe = _map(path)
        self.layouts, self.metadata = describe()
        self._read = 0

    def read(self, name: str) -> Tensor:
        """A view of the file: it keeps alive all pages that were read through the same map."""
        if self._read and self._read + self.layouts[name].nbytes > REMAP_BYTES:
            self._remap()
        self._read += self.layouts[name].nbytes
        return self._view(name)

    def read_into(self, name: str, target: Tensor) -> None:
        """Copies a tensor into `target`; the pages of a large one are freed at once."""
        target.copy_(self.read(name))
        if self._read > REMAP_BYTES // 4:
            self._remap()

    def _remap(self) -> None:
        self._view, _ = _map(self.path)
        self._read = 0


def _map(path: Path) -> tuple[Callable[[str], Tensor], Callable[[], tuple[dict[str, Layout], dict[str, str]]]]:
    """A view of each tensor of a file by name, through one new memory map, and a call that tells layouts and the words
    of the file on itself: nothing is read yet."""
    if path.suffix in PICKLED:
        tensors = load_pth(path)
        return tensors.__getitem__, lambda: ({name: _layout(tensor) for name, tensor in tensors.items()}, {})
    handle = open_safetensors(path)
    return handle.get_tensor, lambda: (_header_layouts(handle), handle.metadata() or {})


def _header_layouts(handle: safe_open) -> dict[str, Layout]:
    """The layouts that a header gives; a view of a tensor, which takes ten times as long, for types without a name."""
    layouts = {}
    for name in handle.keys():  # noqa: SIM118 (it is no dictionary)
        stored = handle.get_slice(name)
        dtype = SAFETENSORS_DTYPES.get(stored.get_dtype())
        layouts[name] = Layout.of(tuple(stored.get_shape()), dtype) if dtype else _layout(handle.get_tensor(name))
    return layouts


def _layout(tensor: Tensor) -> Layout:
    return Layout.of(tuple(tensor.shape), tensor.dtype)


def load_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of one `.pth` or `.bin` file, memory-mapped. Nothing in it is executed (`weights_only`).

    Raises ValueError naming the file if it is truncated or holds anything but tensors by name.
    """
    if not zipfile.is_zipfile(path):
        reason = foreign_file_reason(path) or "its table of contents is missing (truncated, or of a torch before 1.6)"
        raise ValueError(f"{path}: not a whole {path.suffix} file: {reason}")
    try:
        values = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: must hold tensors only, and it is not unpickled otherwise: {reason}") from None
    except RuntimeError as error:
        raise ValueError(f"{path}: not a whole {path.suffix} file: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        keys = f", got a dictionary of {', '.join(map(repr, list(values)[:3]))} ..." if isinstance(values, dict) else ""
        raise ValueError(f"{path}: must hold tensors by name and nothing else{keys}")
    return values


def open_safetensors(path: Path) -> safe_open:
    """One safetensors file, memory-mapped.

    Raises ValueError naming the file if it is truncated, or its header is none or over the format's limit of 100 MB.
    """
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        reason = foreign_file_reason(path) or f"{error} (truncated?)"
        raise ValueError(f"{path}: not a whole safetensors file: {reason}") from None


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, row by row."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data

"""Files of tensors, written one tensor at a time: what is held in memory is the tensor in hand.

Both writers are used as `with Writer(path) as writer: writer.add(key, tensor)`; the file is whole when the block ends.
"""

import json
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

SAFETENSORS_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.int8: "I8",
}
HEADER_ROOM = 256  # bytes of header for a tensor: the longest key of a quantized Llama, its shape and its offsets


class SafetensorsWriter:
    """A `.safetensors` file: eight bytes of length, a header in JSON, and the tensors one behind another.

    The header comes first and is known last. Room for `most` tensors is kept for it, and what it does not fill is
    spaces, which the format allows.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._file = path.open("wb")
        self._room = HEADER_ROOM * (most + 1)
        self._header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._end = 0

    def __enter__(self) -> Self:
        self._file.seek(8 + self._room)
        return self

    def add(self, key: str, tensor: Tensor) -> None:
        """Writes one tensor behind those that are there."""
        start, self._end = self._end, self._end + tensor.numel() * tensor.element_size()
        self._header[key] = {
            "dtype": SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, self._end],
        }
        self._file.write(tensor_bytes(tensor))

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                header = json.dumps(self._header).encode()
                assert len(header) <= self._room, (len(header), self._room)
                self._file.seek(0)
                self._file.write(self._room.to_bytes(8, "little") + header.ljust(self._room))


class PthWriter:
    """A `.pth` file as `torch.save` makes it of a dictionary of tensors.

    `torch.save` wants all of them at once: each lies in a file of its own until then, and is mapped into memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        self._tensors: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def add(self, key: str, tensor: Tensor) -> None:
        """Takes in one tensor."""
        file = self._scratch / str(len(self._tensors))
        file.write_bytes(tensor_bytes(tensor))
        mapped = torch.from_file(str(file), shared=False, size=tensor.numel(), dtype=tensor.dtype)
        self._tensors[key] = mapped.view(tensor.shape)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                torch.save(self._tensors, self._path)
        finally:
            self._tensors.clear()
            shutil.rmtree(self._scratch)


TensorWriter = SafetensorsWriter | PthWriter


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, row by row."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data

"""A `.pth` file, written one tensor at a time."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from ..model.tensor_file import tensor_bytes


class PthWriter:
    """A `.pth` file as `torch.save` makes it of a dictionary of tensors: `with PthWriter(path) as writer: ...`

    `torch.save` takes all tensors at once: until then each is in a file of its own, which is mapped into memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        self._tensors: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes in tensors by key."""
        for key, tensor in tensors.items():
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

"""Safetensors files, planned from shapes alone and then written a tensor at a time.

A safetensors file begins with the offset of every tensor in it. So all shapes are known before the first tensor is
written, and no more than one is ever in memory. `PlannedWriter` writes them in any order; `StreamWriter` also survives
an interruption: a journal beside the files keeps the SHA-256 of every tensor that has been written.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from torch import Tensor

from ..atomic_io import write_text
from ..model.tensor_file import SAFETENSORS_DTYPES, Layout, tensor_bytes

JOURNAL = "journal.jsonl"
# The name of each dtype in a header. In a file the wider stand first, and of one width those that come first here.
DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
EMPTY: Mapping[str, str] = MappingProxyType({})
_DTYPE_ORDER = {dtype: position for position, dtype in enumerate(DTYPE_NAMES)}


@dataclass(frozen=True)
class PlannedFile:
    """A file that is to be written.

    header  its first bytes: the length of the JSON (8 bytes, little endian), the JSON
    places  the first byte and the number of bytes of each tensor, by key
    nbytes  of the whole file
    """

    name: str
    header: bytes
    places: dict[str, tuple[int, int]]
    nbytes: int


def plan_file(name: str, layouts: Mapping[str, Layout], metadata: Mapping[str, str] = EMPTY) -> PlannedFile:
    """The file of these tensors: the bytes that `safetensors.torch.save_file(..., metadata={"format": "pt"})` writes

    metadata  what else the header says of the file, by name
    The JSON is filled up with spaces so that the data begin at a multiple of 8 bytes. The format allows no gaps between
    tensors: they are sorted by dtype, the widest first, and by key, so that each begins at a multiple of its item size.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    offsets, end = {}, 0
    for key, layout in sorted(layouts.items(), key=lambda entry: (_DTYPE_ORDER[entry[1].dtype], entry[0])):
        offsets[key], end = end, end + layout.nbytes
        header[key] = {
            "dtype": DTYPE_NAMES[layout.dtype],
            "shape": list(layout.shape),
            "data_offsets": [offsets[key], end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    data = 8 + len(text)
    places = {key: (data + offset, layouts[key].nbytes) for key, offset in offsets.items()}
    return PlannedFile(name, len(text).to_bytes(8, "little") + text, places, data + end)


def plan_files(
    groups: Iterable[Mapping[str, Layout]], max_bytes: float, metadata: Mapping[str, str] = EMPTY
) -> tuple[PlannedFile, ...]:
    """The files for groups of tensors by key: another one wherever the next group would exceed `max_bytes` of data.

    The tensors of a group are in one file: model.safetensors, or model-00001-of-0000N.safetensors of several.
    """
    contents: list[dict[str, Layout]] = [{}]
    filled = 0
    for group in groups:
        size = sum(layout.nbytes for layout in group.values())
        if contents[-1] and filled + size > max_bytes:
            contents.append({})
            filled = 0
        contents[-1] |= group
        filled += size
    if len(contents) == 1:
        return (plan_file("model.safetensors", contents[0], metadata),)
    count = len(contents)
    names = (f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1))
    return tuple(plan_file(name, part, metadata) for name, part in zip(names, contents, strict=True))


def weight_map(files: Iterable[PlannedFile]) -> dict[str, object]:
    """The contents of `model.safetensors.index.json` for several files."""
    files = tuple(files)
    total = sum(size for file in files for _, size in file.places.values())
    return {"metadata": {"total_size": total}, "weight_map": {key: file.name for file in files for key in file.places}}


class PlannedWriter:
    """Writes the tensors of planned files in a folder, in any order: `with PlannedWriter(...) as writer: ...`

    A header is written last, so that no file can be read before it is complete.
    done  the keys whose tensors have been written
    """

    def __init__(self, folder: Path, files: Iterable[PlannedFile]) -> None:
        self._folder = folder
        self._files = tuple(files)
        self._places = {key: (folder / file.name, *place) for file in self._files for key, place in file.places.items()}
        self.done: set[str] = set()
        self._start()

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """A group of tensors, at their offsets."""
        for key, tensor in tensors.items():
            data = tensor_bytes(tensor)
            path, begin, size = self._places[key]
            assert len(data) == size, key
            with path.open("r+b", buffering=0) as file:
                file.seek(begin)
                while data:
                    data = data[file.write(data) :]
        self.done |= tensors.keys()

    def close(self) -> None:
        """Writes the headers, every tensor having been written."""
        assert self.done == self._places.keys(), self._places.keys() - self.done
        for planned in self._files:
            with (self._folder / planned.name).open("r+b") as file:
                file.write(planned.header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _start(self) -> None:
        """Every file in its full size, all of it zero."""
        for planned in self._files:
            with (self._folder / planned.name).open("wb") as file:
                file.truncate(planned.nbytes)


class StreamWriter(PlannedWriter):
    """A `PlannedWriter` whose work survives an interruption.

    identity  one line for the files and their contents: work in the folder is continued if its identity is the same,
              and deleted if not
    done      the keys whose tensors have been written, in an earlier call too, their hashes checked
    """

    def __init__(self, folder: Path, files: Iterable[PlannedFile], identity: str) -> None:
        self._identity = identity
        self._journal = folder / JOURNAL
        super().__init__(folder, files)

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """A group of tensors, at their offsets; then a line in the journal."""
        super().write(tensors)
        digests = {key: hashlib.sha256(tensor_bytes(tensor)).hexdigest() for key, tensor in tensors.items()}
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(digests) + "\n")

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to be written."""
        return sum(size for key, (_, _, size) in self._places.items() if key not in self.done)

    def close(self) -> None:
        """Writes the headers and removes the journal, every tensor having been written."""
        super().close()
        self._journal.unlink()

    def _start(self) -> None:
        if self._can_continue():
            intact = list(self._intact_lines())
            write_text(self._journal, "".join(f"{line}\n" for line in (self._identity, *intact)))
            return
        for path in self._folder.iterdir():
            path.unlink()
        super()._start()
        write_text(self._journal, f"{self._identity}\n")  # last: a journal says that the files exist

    def _can_continue(self) -> bool:
        if not self._journal.exists():
            return False
        identity = self._journal.read_text(encoding="utf-8").partition("\n")[0]
        return identity == self._identity and all((self._folder / file.name).is_file() for file in self._files)

    def _intact_lines(self) -> Iterator[str]:
        """The lines of the journal whose tensors have the hashes recorded there; these tensors are done."""
        for line in self._journal.read_text(encoding="utf-8").splitlines()[1:]:
            try:
                digests = json.loads(line)
            except json.JSONDecodeError:  # cut off in the middle of being written
                return
            if all(self._digest(key) == digest for key, digest in digests.items()):
                self.done |= digests.keys()
                yield line

    def _digest(self, key: str) -> str:
        path, begin, size = self._places[key]
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            file.seek(begin)
            while size and (data := file.read(min(size, 1 << 20))):
                digest.update(data)
                size -= len(data)
        return digest.hexdigest()

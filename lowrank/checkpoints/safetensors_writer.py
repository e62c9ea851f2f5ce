"""Safetensors files that are written a tensor at a time, in as many sittings as it takes.

A safetensors file begins with the place of every tensor in it. So all shapes are known before the first tensor is
written, no more than one is ever held, and each has a place of its own to be found again after an interruption: a
journal beside the files keeps the SHA-256 of whatever has been written.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..atomic_io import write_text
from ..model.tensor_file import Layout

JOURNAL = "journal.jsonl"
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8", torch.int8: "I8"}


@dataclass(frozen=True)
class PlannedFile:
    """A file that is to be: its header, and the first byte and the number of bytes of each tensor."""

    name: str
    header: bytes
    places: dict[str, tuple[int, int]]
    nbytes: int


def plan_files(groups: Iterable[Mapping[str, Layout]], max_bytes: float) -> tuple[PlannedFile, ...]:
    """The files for groups of tensors by key: another one wherever the next group would lead past `max_bytes`.

    The tensors of a group stand together, the widest type first, so that each begins at a multiple of its own width
    as long as every group is a multiple of four bytes.
    """
    contents: list[dict[str, Layout]] = [{}]
    filled = 0
    for group in groups:
        size = sum(layout.nbytes for layout in group.values())
        if contents[-1] and filled + size > max_bytes:
            contents.append({})
            filled = 0
        contents[-1] |= dict(sorted(group.items(), key=lambda item: -item[1].dtype.itemsize))
        filled += size
    if len(contents) == 1:
        return (_plan_file("model.safetensors", contents[0]),)
    count = len(contents)
    return tuple(_plan_file(f"model-{n:05}-of-{count:05}.safetensors", part) for n, part in enumerate(contents, 1))


def _plan_file(name: str, contents: Mapping[str, Layout]) -> PlannedFile:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets = {}
    end = 0
    for key, layout in contents.items():
        offsets[key], end = end, end + layout.nbytes
        header[key] = {"dtype": _DTYPES[layout.dtype], "shape": list(layout.shape), "data_offsets": [offsets[key], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    places = {key: (first + offset, contents[key].nbytes) for key, offset in offsets.items()}
    return PlannedFile(name, len(text).to_bytes(8, "little") + text, places, first + end)


def weight_map(files: Iterable[PlannedFile]) -> dict[str, object]:
    """What `model.safetensors.index.json` says of several files."""
    files = tuple(files)
    total = sum(size for file in files for _, size in file.places.values())
    return {"metadata": {"total_size": total}, "weight_map": {key: file.name for file in files for key in file.places}}


class StreamWriter:
    """Fills planned files in a folder that is not the final one yet.

    identity  says what is being written, in one line: work that is found in the folder is gone on with if it is the
              same, and cleared away if not
    done      the keys whose tensors are there already, their hashes checked
    """

    def __init__(self, folder: Path, files: Iterable[PlannedFile], identity: str) -> None:
        self._folder = folder
        self._files = tuple(files)
        self._places = {key: (folder / file.name, *place) for file in self._files for key, place in file.places.items()}
        self._journal = folder / JOURNAL
        self.done: set[str] = set()
        if self._goes_on(identity):
            kept = list(self._still_true())
            write_text(self._journal, "".join(f"{line}\n" for line in (identity, *kept)))
        else:
            self._start(identity)

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """A group of tensors, to their places; then a line in the journal."""
        digests = {}
        for key, tensor in tensors.items():
            data = tensor.contiguous().flatten().view(torch.uint8).numpy().data
            path, begin, size = self._places[key]
            assert len(data) == size, key
            digests[key] = hashlib.sha256(data).hexdigest()
            with path.open("r+b", buffering=0) as file:
                file.seek(begin)
                while data:
                    data = data[file.write(data) :]
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(digests) + "\n")
        self.done |= digests.keys()

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to be written."""
        return sum(size for key, (_, _, size) in self._places.items() if key not in self.done)

    def close(self) -> None:
        """Takes the journal away: every tensor is in its place."""
        assert self.done == self._places.keys()
        self._journal.unlink()

    def _goes_on(self, identity: str) -> bool:
        if not self._journal.exists() or self._journal.read_text(encoding="utf-8").partition("\n")[0] != identity:
            return False
        return all((self._folder / file.name).is_file() for file in self._files)

    def _start(self, identity: str) -> None:
        for found in self._folder.iterdir():
            found.unlink()
        for planned in self._files:
            with (self._folder / planned.name).open("wb") as file:
                file.write(planned.header)
                file.truncate(planned.nbytes)
        write_text(self._journal, f"{identity}\n")  # last: a journal says that the files are there

    def _still_true(self) -> Iterator[str]:
        """The lines of the journal whose tensors have the hash that it says; what they hold is done."""
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
        whole = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            file.seek(begin)
            while size and (data := file.read(min(size, 1 << 20))):
                whole.update(data)
                size -= len(data)
        return whole.hexdigest()

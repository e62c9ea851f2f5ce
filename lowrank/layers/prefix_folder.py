"""Keys and values of prompts in a folder, for processes to come: a file a part.

    STATE-NAME.kv.safetensors      STATE: what they depend on besides tokens (`sha256_of_state`); NAME: the tokens

Each hash is cut to 32 digits in the name of a file and whole in its header, with the SHA-256 of its tensors. A file
appears whole or not at all (`atomic_io`), and whatever is wrong with one (cut short, changed, another's) it is told in
a line, and read as if it were not there. Several processes may share a folder: the last one to write a file wins, and
both have written the same.

The files hold what the prompts say, in another form: a folder that is made here is its owner's alone.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..atomic_io import new_file
from ..model.tensor_file import TensorFile, tensor_bytes

LIMIT_BYTES = 4 << 30
END = ".kv.safetensors"
DIGITS = 32  # of a hash in a file's name
FORMAT = "lowrank-prefix-1"


class PrefixFolder:
    """Tensors by the hash of a state and the hash of a name, up to a limit in bytes: the least used are removed first.

    Two processes that write at once may go over the limit by a part, until the next is written. Files of other names
    are left alone.
    Raises ValueError for a path that is no folder, and a limit below 1 byte.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: must be a folder, for keys and values of prompts")
        if limit_bytes < 1:
            raise ValueError(f"{folder}: must have a limit of 1 byte or more, got {limit_bytes}")
        self.folder, self.limit_bytes = folder, limit_bytes
        self._states: set[str] = set()

    def find(self, state: str, name: str) -> dict[str, Tensor] | None:
        """The tensors, views of their file; None if there is none, or it is not what was written."""
        self._tell_others(state)
        path = self._path(state, name)
        try:
            if not path.is_file():
                return None
            file = TensorFile(path)
            tensors = {key: file.read(key) for key in file.layouts}
            if file.metadata != _header(state, name, tensors):
                warnings.warn(f"{path}: not as it was written: read again", stacklevel=2)
                return None
        except (OSError, SafetensorError, ValueError) as error:
            told = _line(error).removeprefix(f"{path}: ")  # some errors name their file
            warnings.warn(f"{path}: {told}: read again", stacklevel=2)
            return None
        with suppress(OSError):  # of a folder that may only be read
            os.utime(path)  # used last
        return tensors

    def keep(self, state: str, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes tensors, where the limit allows it; that it cannot is told, and no error."""
        held = {key: tensor.contiguous() for key, tensor in tensors.items()}
        size = sum(tensor.nbytes for tensor in held.values())
        if size > self.limit_bytes:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(size)
            with new_file(self._path(state, name)) as aside:
                save_file(held, aside, _header(state, name, held))
        except (OSError, SafetensorError) as error:
            warnings.warn(f"{self.folder}: a prompt is not kept: {_line(error)}", stacklevel=2)

    def _path(self, state: str, name: str) -> Path:
        return self.folder / f"{state[:DIGITS]}-{name[:DIGITS]}{END}"

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was used last, its size, and it."""
        for path in self.folder.glob(f"*-*{END}"):
            with suppress(OSError):  # another process has removed it
                about = path.lstat()
                yield about.st_mtime, about.st_size, path

    def _make_room(self, size: int) -> None:
        """Removes what was not used for longest until `size` more bytes fit."""
        files = sorted(self._files())
        total = sum(held for _, held, _ in files)
        for _, held, path in files:
            if total + size <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= held

    def _tell_others(self, state: str) -> None:
        """Says, once for a state, how much of what is there is of others, if none is of this one."""
        if state in self._states:
            return
        self._states.add(state)
        names = [path.name for _, _, path in self._files()]
        if names and not any(name.startswith(f"{state[:DIGITS]}-") for name in names):
            what = "this base, hat, type, version and processor"
            warnings.warn(f"{self.folder}: of {what} is none of {len(names)} kept prompts", stacklevel=2)


def _header(state: str, name: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The words of a file on itself."""
    total = hashlib.sha256()
    for key in sorted(tensors):
        total.update(f"{key} {tensors[key].dtype} {[*tensors[key].shape]}".encode())
        total.update(tensor_bytes(tensors[key]))
    return {"format": FORMAT, "state": state, "name": name, "sha256": total.hexdigest()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

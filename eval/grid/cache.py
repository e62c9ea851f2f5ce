"""Finished batches of a grid, on disk: an interrupted evaluation continues at the batch that it was in.

    STATE/<cell>/cell.json         identity of the cell: hashes of base, hat, template and data, and every option
    STATE/<cell>/batch-0000.json   rows of its first batch: texts and measures

<cell> is the hash of cell.json, so a changed hat, base, option or version is another cell. Each file is written aside
and renamed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowrank.adapters.folder import find_files
from lowrank.atomic_io import sha256_of, write_json
from lowrank.checkpoints.open_base import open_base

Identity = Mapping[str, Any]


class CellState:
    """The cached batches of one cell. Without a folder nothing is written, and `read` returns None."""

    def __init__(self, state: Path | None, identity: Identity) -> None:
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = None if state is None else state / self.key
        self.identity = identity

    def read(self, batch: int) -> list[dict[str, Any]] | None:
        """The rows of a batch, None if it was not finished.  Raises ValueError for a file that is not one of ours."""
        if self.folder is None or not (path := self._path(self.folder, batch)).is_file():
            return None
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise ValueError(f"{path}: is no batch of an evaluation: delete it to run it again") from None
        if not isinstance(rows, list):
            raise ValueError(f"{path}: must be a list of rows, got {type(rows).__name__}: delete it to run it again")
        return rows

    def write(self, batch: int, rows: list[dict[str, Any]]) -> None:
        """Writes a finished batch."""
        if self.folder is not None:
            if not (self.folder / "cell.json").is_file():
                write_json(self.folder / "cell.json", self.identity)
            write_json(self._path(self.folder, batch), rows)

    @staticmethod
    def _path(folder: Path, batch: int) -> Path:
        return folder / f"batch-{batch:04d}.json"


def base_sha256(folder: Path) -> str:
    """The hash of a base: of its weight files, its config and its tokenizer, by their names and bytes."""
    files = {*open_base(folder).files, *folder.glob("*.json"), *folder.glob("tokenizer.model")}  # none in a GGUF file
    listed = [[path.name, sha256_of(path)] for path in sorted(files)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def adapter_sha256(folder: Path) -> str:
    """The hash of a hat: of its matrices and its config.  Raises ValueError if a file is missing."""
    files = find_files(folder)
    return hashlib.sha256((sha256_of(files.config) + sha256_of(files.weights)).encode()).hexdigest()

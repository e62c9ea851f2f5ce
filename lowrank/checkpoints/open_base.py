"""A base by its path: "embedded", a folder of weights, or a GGUF file.

What asks for a base asks here, so that it takes every kind.
"""

from pathlib import Path
from typing import Any

from ..gguf.header import is_gguf, read_header
from ..gguf.read import GGUFCheckpoint, open_gguf
from ..gguf.tokenizer_files import NO_VOCABULARY
from ..model.checkpoint import Checkpoint, open_checkpoint
from ..model.config_json import read_json
from ..model.tokenizer import Tokenizer
from ..model.tokenizer.tokenizer import FILES, has_tokenizer
from .embedded import base_folder
from .sidecar_files import sidecars_in


def open_base(path: str | Path) -> Checkpoint:
    """Finds out what a base holds, without reading any weights.

    Raises ValueError naming the path; see `model.checkpoint.open_checkpoint` and `gguf.read.open_gguf`.
    """
    path = base_folder(path)
    if is_gguf(path):
        return open_gguf(path)
    if path.is_file():
        raise ValueError(f"{path}: is a file, and no GGUF: a base is a folder of weights, or a GGUF file")
    return open_checkpoint(path)


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a base.  Raises ValueError if there is none; see `Tokenizer`."""
    path = base_folder(path)
    if not is_gguf(path):
        return Tokenizer(path)
    tokenizer = open_gguf(path).tokenizer()
    if tokenizer is None:
        raise ValueError(f"{path}: holds no tokenizer")
    return tokenizer


def no_tokenizer_reason(path: str | Path) -> str:
    """ "" if a base has a tokenizer, else what is missing."""
    path = base_folder(path)
    if is_gguf(path):
        known = read_header(path).values.get("tokenizer.ggml.model", NO_VOCABULARY[0])
        return f"{path}: holds no tokenizer" if known in NO_VOCABULARY else ""
    return "" if has_tokenizer(path) else f"{path}: has neither {' nor '.join(FILES)}"


def own_config(base: Checkpoint) -> dict[str, Any]:
    """The config.json of a base that has one, or whose header says as much; else {}."""
    if isinstance(base, GGUFCheckpoint):
        return base.hf_config
    path = base.folder / "config.json"
    return read_json(path) if path.exists() else {}


def sidecars_of(base: Checkpoint) -> dict[str, Path | bytes]:
    """The files that go along with the weights of a base, sorted by name: where they are, or what they hold."""
    if isinstance(base, GGUFCheckpoint):
        return dict(sorted(base.sidecars().items()))
    return {name: base.folder / name for name in sidecars_in(base.folder)}

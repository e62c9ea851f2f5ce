"""The base that an adapter belongs to: a fingerprint that is the same for every precision and layout of one base."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..atomic_io import sha256_of
from ..gguf.header import RECORD_KEY, is_gguf, read_header
from ..gguf.read import GGUFCheckpoint
from ..model.checkpoint import Checkpoint
from ..model.config_json import read_json
from ..model.llama import Llama
from ..model.param_names import is_block_linear
from .sidecar_files import RECORD_FILE

CHUNK = 2**20  # numbers rounded at a time: a copy of a whole embedding would be the largest tensor in memory
HEADER_KEY = "lowrank_fingerprint"  # of a safetensors file
INSIST = "(force=True to insist)"


class Fingerprint:
    """SHA-256 over the embedding, the norms and the output head, rounded to 16 bits, in the order of their names.

    Those are what every precision of a base has in common: the linears of the blocks may be quantized, and rows of
    wq and wk are in another order in a Hugging Face folder. Llama 2 is bfloat16 in Meta's files and float16 in
    Hugging Face's, where very small numbers lose digits: numbers are rounded to both before they are hashed.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Adds one parameter, in whatever precision it is stored."""
        digest = hashlib.sha256()
        for part in tensor.detach().flatten().split(CHUNK):
            rounded = part.to(torch.bfloat16).to(torch.float16).to(torch.bfloat16)
            digest.update(rounded.view(torch.int16).cpu().numpy().data)
        self._digests[name] = digest.digest()

    def hexdigest(self, checkpoint: Checkpoint | None = None) -> str:
        """The fingerprint, 64 hexadecimal digits.

        What has changed block linears only is hashed as well, by a hash that stands for it: an adapter that `lowrank
        merge` merged into the base, and the formats of ggml's in which a GGUF file holds them (`gguf_origin`).
        A folder that records the fingerprint of what it was quantized from has that one.
        """
        if checkpoint is not None and (recorded := recorded_fingerprint(checkpoint)):
            return recorded
        total = hashlib.sha256()
        for name in sorted(self._digests):
            total.update(name.encode() + self._digests[name])
        if checkpoint is not None:
            total.update(str(read_record(checkpoint.folder).get("merged", {}).get("weights_sha256", "")).encode())
            total.update(str(gguf_origin(checkpoint).get("sha256", "")).encode())
        return total.hexdigest()


def recorded_fingerprint(checkpoint: Checkpoint) -> str:
    """The fingerprint in the header of a folder that `quantize_folder` wrote, "" in any other.

    It saves hashing whole tensors at every start, and a quantized head does not tell what it was made from.
    """
    return checkpoint.metadata.get(HEADER_KEY, "")


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """The fingerprint of a folder that is not loaded as a model."""
    if recorded := recorded_fingerprint(checkpoint):
        return recorded
    fingerprint = Fingerprint()
    for parameter in checkpoint.parameters():
        if not is_block_linear(parameter.name) and isinstance(value := parameter.read(), Tensor):
            fingerprint.add(parameter.name, value)
            del value  # not beside the next one
    return fingerprint.hexdigest(checkpoint)


def gguf_origin(checkpoint: Checkpoint) -> dict[str, Any]:
    """Name, SHA-256 and types of the GGUF file that a base is, or was made from; {} where there is none.

    A file whose every tensor holds a number each is no origin of its own: it is the folder that it was made from.
    """
    if isinstance(checkpoint, GGUFCheckpoint):
        if checkpoint.is_dense:
            return {}
        return {"file": checkpoint.folder.name, "sha256": sha256_of(checkpoint.folder), "types": checkpoint.types}
    origin: dict[str, Any] = read_record(checkpoint.folder).get("gguf", {})
    return origin


def record(model: Llama, weights_sha256: str, **more: Any) -> dict[str, Any]:
    """The lowrank.json of an adapter: this program's version, the base it was made on, and what the caller adds.

    weights_sha256  of the file of matrices
    """
    return {
        "lowrank": __version__,
        "base": {**model.source, "rope_layout": model.config.rope_layout},
        "file_rope_layout": "half",
        "weights_sha256": weights_sha256,
        **more,
    }


def read_record(folder: Path) -> dict[str, Any]:
    """The lowrank.json of a folder, or the one in a hat's GGUF file; {} if there is none.

    Raises ValueError for one that lowrank did not write.
    """
    path = folder / RECORD_FILE
    values = read_json(path) if path.exists() else _record_in_file(folder)
    for key in ("base", "merged", "gguf"):
        if not isinstance(values.get(key, {}), dict):
            raise ValueError(f"{path}: {key} must be a JSON object, got {values[key]!r}")
    if (layout := values.get("file_rope_layout", "half")) != "half":
        raise ValueError(f"{path}: file_rope_layout must be 'half', as in PEFT's files, got {layout!r}")
    return values


def _record_in_file(path: Path) -> dict[str, Any]:
    """The record that `lowrank export` has written into a hat's GGUF file; {} for any other path."""
    if not is_gguf(path):
        return {}
    written = read_header(path).values.get(RECORD_KEY, "{}")
    try:
        values = json.loads(written)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: {RECORD_KEY} must hold a JSON object")
    return values


def check_weights(recorded: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError with both hashes if a file of matrices is not the one that the record is of."""
    expected = recorded.get("weights_sha256")
    if expected is not None and expected != (actual := sha256_of(path)):
        raise ValueError(
            f"{path}: has the SHA-256 {actual[:16]}, but {RECORD_FILE} beside it is of {str(expected)[:16]}"
        )


def check_same_base(source: Mapping[str, str], recorded: Mapping[str, Any], where: str) -> None:
    """Raises ValueError with both fingerprints if the record is of another base; a base without one is accepted.

    source  of the model: see `Llama.source`
    """
    theirs, ours = recorded.get("base", {}).get("fingerprint"), source.get("fingerprint")
    if theirs and ours and theirs != ours:
        raise ValueError(f"{where}: made for the base {theirs[:16]}, this base is {ours[:16]} {INSIST}")

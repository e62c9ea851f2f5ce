"""Which base a hat belongs to: a fingerprint that is the same for every precision and layout of one base."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..atomic_io import sha256_of
from ..model.checkpoint import Checkpoint
from ..model.config import read_json
from ..model.llama import Llama
from ..model.param_names import is_block_linear
from .sidecar_files import RECORD_FILE

PART = 2**20  # numbers that are rounded at a time: a copy of a 32,000-word embedding would be felt
INSIST = "(force=True to insist)"


class Fingerprint:
    """SHA-256 over the embedding, the norms and the output head, rounded to 16 bits, in the order of their names.

    Those are what every precision of a base has in common: the linears of the blocks may be quantized, and rows of
    wq and wk stand in another order in a Hugging Face folder. Llama 2 is bfloat16 in Meta's files and float16 in
    Hugging Face's, where very small numbers lose digits: what is hashed went through both.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes in one parameter, in whatever precision it is stored."""
        digest = hashlib.sha256()
        for part in tensor.detach().flatten().split(PART):
            rounded = part.to(torch.bfloat16).to(torch.float16).to(torch.bfloat16)
            digest.update(rounded.view(torch.int16).cpu().numpy().data)
        self._digests[name] = digest.digest()

    def hexdigest(self, folder: Path | None = None) -> str:
        """The fingerprint, 64 hexadecimal digits.

        A hat that was merged into the base of a folder by `lowrank merge` has changed nothing but block linears: what
        its lowrank.json says of the hat is taken in as well.
        """
        whole = hashlib.sha256()
        for name in sorted(self._digests):
            whole.update(name.encode() + self._digests[name])
        if folder is not None:
            whole.update(str(read_record(folder).get("merged", {}).get("weights_sha256", "")).encode())
        return whole.hexdigest()


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """The fingerprint of a folder that is not loaded as a model."""
    found = Fingerprint()
    for name, value in checkpoint.tensors():
        if isinstance(value, Tensor) and not is_block_linear(name):
            found.add(name, value)
    return found.hexdigest(checkpoint.folder)


def record(model: Llama, weights_sha256: str, **more: Any) -> dict[str, Any]:
    """What is written beside a hat: this program's version, the base it was made on, and what the caller adds.

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
    """The provenance in a folder, {} if there is none.  Raises ValueError for one that is not of our making."""
    path = folder / RECORD_FILE
    found = read_json(path) if path.exists() else {}
    for key in ("base", "merged"):
        if not isinstance(found.get(key, {}), dict):
            raise ValueError(f"{path}: {key} must be a JSON object, got {found[key]!r}")
    if (layout := found.get("file_rope_layout", "half")) != "half":
        raise ValueError(f"{path}: file_rope_layout must be 'half', as in PEFT's files, got {layout!r}")
    return found


def check_weights(recorded: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError with both hashes if a file of matrices is not the one that the record is of."""
    theirs = recorded.get("weights_sha256")
    if theirs is not None and theirs != (ours := sha256_of(path)):
        raise ValueError(f"{path}: has the SHA-256 {ours[:16]}, but {RECORD_FILE} beside it is of {str(theirs)[:16]}")


def check_same_base(source: Mapping[str, str], recorded: Mapping[str, Any], where: str) -> None:
    """Raises ValueError with both fingerprints if the record is of another base; a base without one is let pass.

    source  of the model: see `Llama.source`
    """
    theirs, ours = recorded.get("base", {}).get("fingerprint"), source.get("fingerprint")
    if theirs and ours and theirs != ours:
        raise ValueError(f"{where}: made for the base {theirs[:16]}, this base is {ours[:16]} {INSIST}")

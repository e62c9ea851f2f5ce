"""Which base a hat belongs to: a fingerprint that is the same for every precision and layout of one base."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from . import __version__
from .model.llama import Llama

FILENAME = "lowrank.json"


class Fingerprint:
    """SHA-256 over the embedding, the norms and the output head, rounded to bfloat16, in the order of their names.

    Those are what every precision of a base has in common: the linears of the blocks may be quantized, and rows of
    wq and wk stand in another order in a Hugging Face folder.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes in one parameter, in whatever precision it is stored."""
        values = tensor.detach().to(torch.bfloat16).contiguous().view(torch.int16).cpu().numpy()
        self._digests[name] = hashlib.sha256(values.data).digest()

    def hexdigest(self) -> str:
        """The fingerprint, 64 hexadecimal digits."""
        whole = hashlib.sha256()
        for name in sorted(self._digests):
            whole.update(name.encode() + self._digests[name])
        return whole.hexdigest()


def record(model: Llama, **more: Any) -> dict[str, Any]:
    """What is written beside a hat: this program's version, the base it was made on, and what the caller adds."""
    return {
        "lowrank": __version__,
        "base": {**model.source, "rope_layout": model.config.rope_layout},
        "file_rope_layout": "half",
        **more,
    }


def check_same_base(model: Llama, recorded: dict[str, Any], where: str) -> None:
    """Raises ValueError with both fingerprints if the record is of another base; a base without one is let pass."""
    theirs, ours = recorded.get("base", {}).get("fingerprint"), model.source.get("fingerprint")
    if theirs and ours and theirs != ours:
        raise ValueError(f"{where}: made for the base {theirs[:16]}, this base is {ours[:16]} (force=True to insist)")

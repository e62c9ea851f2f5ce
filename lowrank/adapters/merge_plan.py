"""The formats of a merge: through which the weights of the base go first, and in which the sum is stored."""

from dataclasses import dataclass, replace
from typing import Self

import torch

from ..checkpoints.load import DEFAULT_WEIGHTS
from ..checkpoints.stored_weight import from_stored
from ..kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from ..model.checkpoint import Checkpoint, QuantizedParts
from .stored import StoredAdapter

DEQUANTIZED = "dequantized"
INTO = (*DENSE_DTYPES, DEQUANTIZED, *QUANTIZED_NAMES)


@dataclass(frozen=True)
class MergePlan:
    """The format through which the weights go first (None: as they are), and the format in which they are stored.

    keeps_dense  the base is stored quantized: linears that it left dense stay in their own type
    """

    into: str
    through: str | None
    stored: str
    unmerged: str
    keeps_dense: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint, into: str, dtype: str, through: str) -> Self:
        """The plan for options of `merge_folder`.  Raises ValueError for options that do not go together."""
        where, base_format = checkpoint.folder, stored_format(checkpoint)
        if into not in INTO:
            raise ValueError(f"into must be one of {', '.join(INTO)}, got {into!r}")
        if dtype not in DENSE_DTYPES or through not in QUANTIZED_NAMES:
            raise ValueError(f"a dequantized base is of a 4- or 8-bit format in a dense dtype, got {through}, {dtype}")
        if into == DEQUANTIZED:
            simulated = None if base_format else through
            return cls(into, simulated, dtype, f"dequant:{base_format or through}", bool(base_format))
        if base_format and into in DENSE_DTYPES:
            raise ValueError(
                f"{where}: is stored as {base_format}, and the full-precision weights are not there: into must be "
                f"{DEQUANTIZED!r} or a 4- or 8-bit format, got {into!r}"
            )
        return cls(into, None, into, base_format or into, bool(base_format))

    def as_trained(self, adapter: StoredAdapter) -> Self:
        """The plan for a hat that was trained for a merge into this format: W is the base in the format that it saw."""
        if self.keeps_dense or not is_trained_for(adapter, self.into):
            return self
        through = adapter.record["training"]["base"]["weights"] or DEFAULT_WEIGHTS
        return replace(self, through=through, unmerged=through)

    def form(self, dtype: torch.dtype | None) -> str:
        """The format in which a linear is stored that the base has in `dtype` (None: quantized)"""
        is_kept = self.keeps_dense and dtype is not None and self.stored in QUANTIZED_NAMES
        return next(name for name in DENSE_DTYPES if DENSE_DTYPES[name] == dtype) if is_kept else self.stored


def is_trained_for(adapter: StoredAdapter, into: str) -> bool:
    """True for a hat that was trained with the weights that this merge stores: `adapter.merge_aware`."""
    return bool(adapter.record.get("training", {}).get("adapter", {}).get("merge_aware") == into)


def stored_format(checkpoint: Checkpoint) -> str | None:
    """The 4- or 8-bit format in which a folder is stored, None for full precision.

    Raises ValueError for a folder of several: `load` could be told of one only.
    """
    if not checkpoint.is_quantized:
        return None
    found: dict[str, str] = {}
    for name, value in checkpoint.tensors():
        if isinstance(value, QuantizedParts):
            found.setdefault(from_stored(value.tensors, f"{checkpoint.folder}: {name}").name, name)
    if len(found) != 1:
        formats = " and ".join(f"{format} ({name})" for format, name in found.items()) or "no quantized weight"
        raise ValueError(f"{checkpoint.folder}: linears must be stored in one 4- or 8-bit format, holds {formats}")
    return next(iter(found))

"""A new hat and its distance from what was asked for, linear by linear; its files and their record.

error of a linear = |delta W - wanted| / |wanted|, Frobenius;  of all: the same over all linears as one long vector
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...atomic_io import new_folder, sha256_of, write_json
from ...checkpoints import fingerprint
from ...checkpoints.sidecar_files import RECORD_FILE
from ...text_table import table
from ..export import write_stored
from ..files import WEIGHTS_FILE
from ..stored import StoredAdapter, read_adapter

KEPT_OF_RECORDS = ("tokenizer_sha256", "template")


@dataclass(frozen=True)
class WorkedLinear:
    """One linear of the new hat: its rank, |wanted|, and |delta W - wanted|."""

    path: str
    rank: int
    wanted: float
    off: float

    @property
    def error(self) -> float:
        """off / wanted; 0 where nothing was wanted and nothing is there."""
        return self.off / self.wanted if self.wanted else (math.inf if self.off else 0.0)


@dataclass(frozen=True)
class Worked:
    """A new hat's folder (None: it was not written), its linears, and the number of its parameters."""

    folder: Path | None
    linears: tuple[WorkedLinear, ...]
    parameters: int

    @property
    def error(self) -> float:
        """Over all linears as one long vector."""
        whole = WorkedLinear("all", 0, *(math.hypot(*values) for values in self._columns()))
        return whole.error

    def _columns(self) -> tuple[list[float], list[float]]:
        return [linear.wanted for linear in self.linears], [linear.off for linear in self.linears]

    def table(self) -> str:
        """A row a linear, in plain text."""
        rows = [(one.path, one.rank, f"{one.wanted:.4g}", f"{one.error:.2e}") for one in self.linears]
        return table(rows, ("linear", "rank", "norm", "error"))

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        linears = [{**asdict(one), "error": one.error} for one in self.linears]
        return {"out": str(self.folder), "parameters": self.parameters, "error": self.error, "linears": linears}


def worked(stored: StoredAdapter, linears: Sequence[WorkedLinear], folder: Path | None) -> Worked:
    """The account of a hat."""
    count = sum(pair.lora_A.numel() + pair.lora_B.numel() for pair in stored.pairs.values())
    return Worked(folder, tuple(linears), count)


def read_adapters(adapters: Sequence[str | Path], *, force: bool = False) -> list[StoredAdapter]:
    """Hats of one base, as LoRA's matrices and nothing else.

    Raises ValueError for hats of different bases (unless `force`), a DoRA, and rows of the embedding or head.
    """
    read = [read_adapter(adapter, force=force) for adapter in adapters]
    for adapter in read:
        adapter.refuse_beyond_lora("a hat made of hats")
        if not force:
            fingerprint.check_same_base(read[0].record.get("base", {}), adapter.record, str(adapter.folder))
    return read


def save_worked(
    stored: StoredAdapter,
    out: str | Path,
    layers: int,
    made: Mapping[str, Any],
    sources: Sequence[StoredAdapter],
    base: Mapping[str, Any] | None = None,
) -> None:
    """PEFT's files of a new hat, and a lowrank.json that says how it was made.

    made     the operation and its options
    sources  the hats it was made of: the base is theirs, and so are template and tokenizer where they agree
    base     of a hat that was made of none
    """
    records = [source.record for source in sources]
    record: dict[str, Any] = {"lowrank": __version__}
    bases = [found["base"] for found in records if "base" in found]
    if bases or base:
        record["base"] = bases[0] if bases else dict(base or {})
    for key in KEPT_OF_RECORDS:
        values = [found[key] for found in records if key in found]
        if values and all(value == values[0] for value in values):
            record[key] = values[0]
    of = [{"hat": str(source.folder), "weights_sha256": sha256_of(source.weights)} for source in sources]
    with new_folder(Path(out)) as aside:
        write_stored(stored, aside, layers)
        digest = sha256_of(aside / WEIGHTS_FILE)
        record |= {"file_rope_layout": "half", "weights_sha256": digest, "made": {**made, **({"of": of} if of else {})}}
        write_json(aside / RECORD_FILE, record)

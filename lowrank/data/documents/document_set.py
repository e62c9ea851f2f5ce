"""The document set on disk: `train.jsonl`, `validation.jsonl`, `test.jsonl`, and a manifest that counts and hashes.

The files are a pure function of (n, seed, hold_out): the manifest of the same three is the same on every machine.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...atomic_io import sha256_of, write_json
from ...model.config_json import read_json
from .document import LICENSE, Entry, known, make_documents, write_jsonl
from .kinds import KINDS
from .splits import SPLITS

VALIDATION_DOCUMENTS, TEST_DOCUMENTS = 50, 200
MANIFEST = "manifest.json"
MADE_BY = "lowrank data documents"


def document_splits(n: int, *, seed: int, hold_out: str | None = None) -> dict[str, list[Entry]]:
    """split -> entries: n to train on, 50 for validation, 200 for test.

    hold_out  a kind: training and validation are then on the other kinds, and the test is on this one alone
    Raises ValueError for a negative n and an unknown kind.
    """
    if hold_out is not None:
        known("hold_out", hold_out, KINDS)
    learned = [kind for kind in KINDS if kind != hold_out]
    tested = list(KINDS) if hold_out is None else [hold_out]
    return {
        "train": make_documents(n, seed=seed, split="train", kinds=learned),
        "validation": make_documents(VALIDATION_DOCUMENTS, seed=seed, split="validation", kinds=learned),
        "test": make_documents(TEST_DOCUMENTS, seed=seed, split="test", kinds=tested),
    }


def write_document_set(
    out: Path, splits: Mapping[str, Sequence[Entry]], *, seed: int, hold_out: str | None = None
) -> dict[str, Any]:
    """Writes the entries of `document_splits` and their manifest into the folder `out`; returns the manifest.

    Raises ValueError for a file of one of these names in a folder that holds no set of ours: it is somebody's own.
    """
    if found := [f"{split}.jsonl" for split in splits if (out / f"{split}.jsonl").exists()]:
        before = read_json(out / MANIFEST) if (out / MANIFEST).is_file() else {}
        if before.get("made_by") != MADE_BY:
            raise ValueError(f"{out / found[0]}: is there already and not of `{MADE_BY}`: name another folder")
    for split, entries in splits.items():
        write_jsonl(out / f"{split}.jsonl", entries)
    manifest = {
        "made_by": MADE_BY,
        "seed": seed,
        "hold_out": hold_out,
        "licence": LICENSE,
        "output": {f"{split}.jsonl": _output(out / f"{split}.jsonl", entries) for split, entries in splits.items()},
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def _output(path: Path, entries: Sequence[Entry]) -> dict[str, Any]:
    split = SPLITS[entries[0].split]
    return {
        "entries": len(entries),
        "kinds": dict(Counter(entry.kind for entry in entries)),
        "figures": sum(fact.is_figure for entry in entries for fact in entry.facts.values()),
        "unseen_labels_notations_and_wordings": split.unseen,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }

"""The public sets that hats are tested on, out of local files: nothing is fetched, nothing is guessed.

A folder holds either what `lowrank data mixture` writes (tfns-validation.jsonl, ner-test.jsonl) or the four data sets
as they are upstream, one sub-folder each, as `lowrank.data.mixture.layouts` reads them. Questions need the second.
"""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from lowrank.data.mixture import clean
from lowrank.data.mixture.fetch import RawFile
from lowrank.data.mixture.layouts import read_files
from lowrank.data.mixture.rows import MixtureRow, read_rows
from lowrank.data.mixture.sources import FIQA_QA, NER, TFNS, DataSet


def sentiment_rows(folder: Path) -> list[MixtureRow]:
    """TFNS's validation split.  Raises ValueError naming the files that are missing."""
    return _rows(folder, TFNS, "validation", "tfns-validation.jsonl")


def ner_rows(folder: Path) -> list[MixtureRow]:
    """fingpt-ner's test split.  Raises ValueError naming the files that are missing."""
    return _rows(folder, NER, "test", "ner-test.jsonl")


def question_rows(folder: Path, trained: Collection[str]) -> list[MixtureRow]:
    """FiQA's questions, each with its longest answer, without those that were trained on.

    trained  the questions of the training files, as they stand there
    Raises ValueError naming the files that are missing, or if none is left over.
    """
    rows = _rows(folder, FIQA_QA, "train")
    for rule in (clean.without_output, clean.without_input, clean.too_long, clean.other_answers):
        dropped = rule(rows)
        rows = [row for row in rows if row.id not in dropped]
    seen = {clean.comparable(question) for question in trained}
    left = [row for row in rows if clean.comparable(row.input) not in seen]
    if not left:
        raise ValueError(f"{folder / FIQA_QA.name}: every question was trained on, none is left to ask")
    return left


def some(rows: Sequence[MixtureRow], n: int | None) -> list[MixtureRow]:
    """n of the rows, or all: those whose ids' hashes come first, so that the same n are taken every time."""
    if n is None or n >= len(rows):
        return list(rows)
    taken = {row.id for row in sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())[:n]}
    return [row for row in rows if row.id in taken]


def _rows(folder: Path, data: DataSet, split: str, built: str | None = None) -> list[MixtureRow]:
    if not folder.is_dir():
        raise ValueError(f"public sets in {folder}: no such folder")
    if built is not None and (folder / built).is_file():
        return read_rows(folder / built)
    pattern = f"{data.name}/{data.files[split]}"
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise ValueError(f"public sets in {folder}: missing {' or '.join(filter(None, (built, pattern)))}")
    return read_files([RawFile(data, split, path, path.name, None) for path in paths])
